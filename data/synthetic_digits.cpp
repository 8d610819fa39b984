// SyntheticDigits: strokes of each digit, bent, slanted, and drawn with an anti-aliased pen.
#include "data/synthetic_digits.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "data/host_random.h"

namespace tandem::io {
namespace {

constexpr int kSide = 28;

struct Point {
  double x, y;
  bool corner = false;  ///< the pen turns here at once
};
using Stroke = std::vector<Point>;
using Glyph = std::vector<Stroke>;
constexpr bool kCorner = true;

// The ways to write each digit, in a box of 1 x 1 with y downwards. Curves pass smoothly through the points.
const std::vector<Glyph>& glyphs_of(int digit) {
  static const std::vector<Glyph> glyphs[10] = {
      {
          {{{.55, .02}, {.25, .15}, {.12, .5}, {.22, .85}, {.5, .98}, {.8, .83}, {.88, .5}, {.76, .15}, {.5, .03}}},
          {{{.7, .12}, {.42, .02}, {.16, .3}, {.16, .72}, {.48, .98}, {.82, .75}, {.84, .3}, {.6, .06}, {.45, .1}}},
      },
      {
          {{{.5, .0}, {.5, .5}, {.5, 1.}}},
          {{{.58, .0}, {.5, .5}, {.44, 1.}}},
          {{{.28, .25}, {.54, .02, kCorner}, {.54, .5}, {.54, 1.}}},
          {{{.3, .22}, {.52, .02, kCorner}, {.52, .5}, {.52, .98}}, {{.22, .99}, {.5, .98}, {.8, .98}}},
      },
      {
          {{{.15, .25},
            {.32, .05},
            {.62, .03},
            {.82, .22},
            {.74, .46},
            {.44, .76},
            {.13, .97, kCorner},
            {.5, .95},
            {.9, .95}}},
          {{{.16, .2},
            {.45, .02},
            {.78, .16},
            {.74, .45},
            {.45, .75},
            {.2, .95},
            {.1, .86},
            {.26, .77},
            {.52, .88},
            {.92, .96}}},
          {{{.2, .12}, {.5, .0}, {.8, .2}, {.62, .55}, {.15, .95, kCorner}, {.45, .88}, {.85, 1.}}},
      },
      {
          {{{.15, .13},
            {.45, .0},
            {.77, .15},
            {.7, .37},
            {.4, .47, kCorner},
            {.74, .55},
            {.86, .78},
            {.52, 1.},
            {.12, .88}}},
          {{{.16, .04},
            {.5, .04},
            {.82, .04, kCorner},
            {.42, .4, kCorner},
            {.76, .47},
            {.86, .76},
            {.5, 1.},
            {.1, .88}}},
          {{{.2, .08}, {.55, .02}, {.76, .2}, {.5, .44}, {.72, .56}, {.84, .8}, {.5, .99}, {.16, .94}}},
      },
      {
          {{{.26, .0}, {.18, .35}, {.12, .6, kCorner}, {.5, .58}, {.9, .56}}, {{.72, .1}, {.7, .55}, {.66, 1.}}},
          {{{.68, .0}, {.4, .32}, {.08, .66, kCorner}, {.5, .66}, {.94, .66}}, {{.68, .0}, {.67, .5}, {.66, 1.}}},
          {{{.2, .05}, {.16, .35}, {.3, .52}, {.6, .5}, {.82, .36}}, {{.84, .0}, {.8, .5}, {.72, 1.}}},
      },
      {
          {{{.84, .03},
            {.55, .04},
            {.28, .04, kCorner},
            {.22, .44, kCorner},
            {.5, .36},
            {.82, .52},
            {.84, .78},
            {.54, 1.},
            {.12, .9}}},
          {{{.3, .06}, {.25, .25}, {.22, .45, kCorner}, {.55, .42}, {.8, .66}, {.6, .96}, {.14, .94}},
           {{.3, .05}, {.6, .05}, {.9, .02}}},
          {{{.8, .0}, {.45, .06}, {.28, .2}, {.34, .42}, {.66, .54}, {.78, .78}, {.5, 1.}, {.16, .9}}},
      },
      {
          {{{.72, .02}, {.38, .22}, {.16, .6}, {.24, .9}, {.54, 1.}, {.82, .84}, {.76, .58}, {.5, .5}, {.2, .68}}},
          {{{.5, .0}, {.28, .35}, {.18, .72}, {.38, .98}, {.7, .94}, {.8, .72}, {.58, .58}, {.3, .68}, {.26, .86}}},
      },
      {
          {{{.1, .06}, {.5, .06}, {.86, .05, kCorner}, {.6, .48}, {.42, 1.}}},
          {{{.1, .06}, {.5, .05}, {.86, .06, kCorner}, {.6, .5}, {.44, 1.}}, {{.3, .52}, {.55, .5}, {.8, .5}}},
          {{{.12, .2}, {.14, .05, kCorner}, {.5, .08}, {.84, .04, kCorner}, {.66, .45}, {.58, 1.}}},
          {{{.12, .14}, {.45, .06}, {.74, .08}, {.76, .3}, {.58, .62}, {.46, 1.}}},
      },
      {
          {{{.76, .14},
            {.46, .0},
            {.22, .2},
            {.44, .42},
            {.76, .64},
            {.8, .88},
            {.5, 1.},
            {.2, .86},
            {.3, .62},
            {.6, .42},
            {.8, .22},
            {.72, .1}}},
          {{{.5, .46},
            {.24, .34},
            {.26, .1},
            {.52, .0},
            {.78, .12},
            {.74, .36},
            {.5, .46},
            {.2, .6},
            {.16, .88},
            {.5, 1.},
            {.84, .86},
            {.8, .6},
            {.5, .46}}},
      },
      {
          {{{.78, .2}, {.5, .02}, {.22, .18}, {.26, .42}, {.56, .48}, {.8, .2, kCorner}, {.76, .6}, {.7, 1.}}},
          {{{.8, .16},
            {.48, .02},
            {.2, .24},
            {.38, .48},
            {.7, .38},
            {.82, .16, kCorner},
            {.84, .6},
            {.64, .94},
            {.26, .96}}},
          {{{.76, .3}, {.58, .04}, {.26, .12}, {.24, .4}, {.54, .46}, {.76, .26}, {.74, .6}, {.5, 1.}}},
      },
  };
  return glyphs[digit];
}

// A smooth random displacement of the plane: a few waves, each about as long as the digit.
class Warp {
 public:
  Warp(HostRandom& random, double strength) {
    for (Wave& wave : waves_) {
      wave.fx = random.uniform(-1.1, 1.1), wave.fy = random.uniform(-1.1, 1.1);
      wave.phase = random.uniform(0, 2 * std::numbers::pi);
      wave.dx = strength * random.normal(), wave.dy = strength * random.normal();
    }
  }
  Point operator()(Point p) const {
    Point moved = p;
    for (const Wave& wave : waves_) {
      const double s = std::sin(2 * std::numbers::pi * (wave.fx * p.x + wave.fy * p.y) + wave.phase);
      moved.x += wave.dx * s, moved.y += wave.dy * s;
    }
    return moved;
  }

 private:
  struct Wave {
    double fx, fy, phase, dx, dy;
  };
  Wave waves_[3];
};

// Points along a Catmull-Rom curve through the stroke's points; at corners and ends it has no tangent in
// common.
Stroke traced(const Stroke& stroke) {
  constexpr int kSteps = 6;
  Stroke result{stroke.front()};
  for (size_t i = 0; i + 1 < stroke.size(); ++i) {
    const Point &b = stroke[i], &c = stroke[i + 1];
    const Point a = i == 0 || b.corner ? b : stroke[i - 1];
    const Point d = i + 2 == stroke.size() || c.corner ? c : stroke[i + 2];
    for (int k = 1; k <= kSteps; ++k) {
      const double t = double(k) / kSteps, t2 = t * t, t3 = t2 * t;
      const auto mix = [&](double pa, double pb, double pc, double pd) {
        return 0.5 * (2 * pb + (pc - pa) * t + (2 * pa - 5 * pb + 4 * pc - pd) * t2 + (3 * pb - pa - 3 * pc + pd) * t3);
      };
      result.push_back({mix(a.x, b.x, c.x, d.x), mix(a.y, b.y, c.y, d.y)});
    }
  }
  return result;
}

// Ink of a pen that goes straight from a to b, in pixels: full within `radius`, fading over one pixel.
void draw_segment(float* ink, Point a, Point b, double radius) {
  const double reach = radius + 1;
  const auto clamp = [](double v) { return std::clamp(static_cast<int>(v), 0, kSide - 1); };
  const int left = clamp(std::floor(std::min(a.x, b.x) - reach)), right = clamp(std::ceil(std::max(a.x, b.x) + reach));
  const int top = clamp(std::floor(std::min(a.y, b.y) - reach)), bottom = clamp(std::ceil(std::max(a.y, b.y) + reach));
  const double dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy;
  for (int y = top; y <= bottom; ++y) {
    for (int x = left; x <= right; ++x) {
      const double px = x - a.x, py = y - a.y;
      const double along = length2 > 0 ? std::clamp((px * dx + py * dy) / length2, 0.0, 1.0) : 0.0;
      const double distance = std::hypot(px - along * dx, py - along * dy);
      const float coverage = static_cast<float>(std::clamp(radius + 0.5 - distance, 0.0, 1.0));
      float& pixel = ink[y * kSide + x];
      pixel = std::max(pixel, coverage);
    }
  }
}

void draw_digit(int digit, HostRandom& random, uint8_t* pixels) {
  const std::vector<Glyph>& ways = glyphs_of(digit);
  const Glyph& glyph = ways[random.below(ways.size())];

  // From the box of 1 x 1 to pixels: size, slant, turn, place.
  const double height = random.uniform(17, 20.5), width = height * random.uniform(0.55, 0.95);
  const double turn = 0.12 * random.normal(), slant = 0.12 + 0.18 * random.normal();
  const double to_x = 13.5 + 0.7 * random.normal(), to_y = 13.5 + 0.7 * random.normal();
  const Warp warp(random, 0.04);
  const double jitter = 0.02;
  const auto placed = [&](Point p) {
    const Point bent = warp(p);
    const double u = (bent.x - 0.5) * width - slant * (bent.y - 0.5) * height, v = (bent.y - 0.5) * height;
    return Point{to_x + u * std::cos(turn) - v * std::sin(turn), to_y + u * std::sin(turn) + v * std::cos(turn)};
  };

  float ink[kSide * kSide] = {};
  const double radius = random.uniform(0.55, 1.75);
  for (Stroke stroke : glyph) {
    for (Point& point : stroke) point.x += jitter * random.normal(), point.y += jitter * random.normal();
    const Stroke line = traced(stroke);
    // The pen presses harder in places.
    const double phase = random.uniform(0, 2 * std::numbers::pi), uneven = random.uniform(0, 0.25);
    Point from = placed(line[0]);
    for (size_t i = 1; i < line.size(); ++i) {
      const Point to = placed(line[i]);
      draw_segment(ink, from, to, radius * (1 + uneven * std::sin(phase + 0.25 * static_cast<double>(i))));
      from = to;
    }
  }
  const double strength = random.uniform(0.8, 1.0), grain = random.uniform(0, 0.12);
  for (int i = 0; i < kSide * kSide; ++i) {
    const double value = ink[i] > 0 ? ink[i] * strength + grain * random.normal() * ink[i] : 0.0;
    pixels[i] = static_cast<uint8_t>(std::lround(255 * std::clamp(value, 0.0, 1.0)));
  }
}

LabelledImages draw(SyntheticDigitsOptions options, Where where) {
  constexpr int64_t kMost = 1 << 24;
  if (options.count < 0 || options.count > kMost)
    throw ValueError(tandem::detail::str("io::SyntheticDigits: count is ", options.count, ", need 0 to ", kMost),
                     where);
  if (options.count == 0) options.count = options.split == Split::train ? 8000 : 2000;
  const size_t count = static_cast<size_t>(options.count);
  std::vector<uint8_t> pixels(count * kSide * kSide), labels(count);
  for (size_t i = 0; i < count; ++i) {
    // A generator for each image, so that a longer set begins with the shorter one's images.
    HostRandom random(options.seed, 2 * i + (options.split == Split::test ? 1 : 0));
    labels[i] = static_cast<uint8_t>(random.below(10));
    draw_digit(labels[i], random, &pixels[i * kSide * kSide]);
  }
  return LabelledImages(std::move(pixels), std::move(labels),
                        {.channels = 1, .height = kSide, .width = kSide, .classes = 10}, options.scaling, {}, where);
}

}  // namespace

SyntheticDigits::SyntheticDigits(SyntheticDigitsOptions options, Where where) : LabelledImages(draw(options, where)) {}

}  // namespace tandem::io
