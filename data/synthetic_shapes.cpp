// SyntheticShapes: coloured shapes before an uneven background.
#include "data/synthetic_shapes.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "data/host_random.h"

namespace tandem::io {
namespace {

using tandem::detail::str;

constexpr int kSide = 32, kArea = kSide * kSide, kSamples = 3;  // kSamples x kSamples points of each pixel are asked
constexpr const char* kNames[] = {"disc",  "ring", "square",   "triangle", "diamond",
                                  "cross", "star", "crescent", "bars",     "hourglass"};
enum Kind { disc, ring, square, triangle, diamond, cross, star, crescent, bars, hourglass };

// Whether a point of the shape's own square, -1 to 1 each way, lies inside.
bool is_inside(int kind, double x, double y) {
  const double radius = std::hypot(x, y), across = std::abs(x), along = std::abs(y);
  switch (kind) {
    case disc: return radius < 0.9;
    case ring: return radius < 0.95 && radius > 0.55;
    case square: return std::max(across, along) < 0.78;
    case triangle: return y < 0.7 && across < (y + 0.9) * 0.6;
    case diamond: return across / 0.7 + along < 1;
    case cross: return std::max(across, along) < 0.9 && std::min(across, along) < 0.28;
    case star: {  // five points: the radius falls from 1 to 0.4 and back within each fifth of a turn
      const double fifth = 2 * std::numbers::pi / 5;
      const double angle = std::abs(std::remainder(std::atan2(x, -y), fifth)) / (fifth / 2);
      return radius < 1 - 0.6 * angle;
    }
    case crescent: return radius < 0.9 && std::hypot(x - 0.45, y) > 0.75;
    case bars: return along < 0.85 && across > 0.25 && across < 0.75;
    default: return along < 0.85 && across < 0.15 + 0.75 * along;  // hourglass
  }
}

struct Colour {
  double channel[3];
};
Colour any_colour(HostRandom& random) {
  Colour colour;
  for (double& channel : colour.channel) channel = random.uniform(0.05, 0.95);
  return colour;
}
double distance(const Colour& a, const Colour& b) {
  double sum = 0;
  for (int i = 0; i < 3; ++i) sum += std::abs(a.channel[i] - b.channel[i]);
  return sum;
}

void draw_shape(int kind, HostRandom& random, uint8_t* pixels) {
  const Colour background = any_colour(random);
  Colour colour = any_colour(random);
  while (distance(colour, background) < 0.6) colour = any_colour(random);  // so that it can be seen
  const double size = random.uniform(7, 13), x0 = random.uniform(size, kSide - size),
               y0 = random.uniform(size, kSide - size);
  // A square on its corner is no diamond to the drawer, but could be taken for one.
  const double most = kind == square || kind == diamond ? 0.2 : std::numbers::pi;
  const double turn = random.uniform(-most, most), cosine = std::cos(turn), sine = std::sin(turn);
  const double squeeze = random.uniform(0.85, 1);
  const double slope_x = random.uniform(-0.3, 0.3), slope_y = random.uniform(-0.3, 0.3),
               grain = random.uniform(0.01, 0.08);

  for (int row = 0; row < kSide; ++row) {
    for (int column = 0; column < kSide; ++column) {
      int inside = 0;
      for (int sample = 0; sample < kSamples * kSamples; ++sample) {
        const double dx = (column + (sample % kSamples + 0.5) / kSamples - x0) / size;
        const double dy = (row + (sample / kSamples + 0.5) / kSamples - y0) / size;
        inside += is_inside(kind, (cosine * dx + sine * dy) / squeeze, cosine * dy - sine * dx);
      }
      const double coverage = inside / double(kSamples * kSamples);
      const double light = slope_x * (column / double(kSide) - 0.5) + slope_y * (row / double(kSide) - 0.5);
      for (int channel = 0; channel < 3; ++channel) {
        const double behind = background.channel[channel] + light;
        const double value = behind + coverage * (colour.channel[channel] - behind) + grain * random.normal();
        pixels[channel * kArea + row * kSide + column] =
            static_cast<uint8_t>(std::lround(255 * std::clamp(value, 0.0, 1.0)));
      }
    }
  }
}

LabelledImages draw(SyntheticShapesOptions options, Where where) {
  constexpr int64_t kMost = 1 << 24;
  if (options.count < 0 || options.count > kMost)
    throw ValueError(str("io::SyntheticShapes: count is ", options.count, ", need 0 to ", kMost), where);
  if (options.count == 0) options.count = options.split == Split::train ? 5000 : 1000;
  const size_t count = static_cast<size_t>(options.count);
  std::vector<uint8_t> pixels(count * 3 * kArea), labels(count);
  for (size_t i = 0; i < count; ++i) {
    // A generator for each image, so that a longer set begins with the shorter one's images.
    HostRandom random(options.seed, 2 * i + (options.split == Split::test ? 1 : 0));
    labels[i] = static_cast<uint8_t>(random.below(10));
    draw_shape(labels[i], random, &pixels[i * 3 * kArea]);
  }
  return LabelledImages(std::move(pixels), std::move(labels),
                        {.channels = 3, .height = kSide, .width = kSide, .classes = 10}, options.scaling,
                        options.augmentation, where);
}

}  // namespace

SyntheticShapes::SyntheticShapes(SyntheticShapesOptions options, Where where) : LabelledImages(draw(options, where)) {}

const char* synthetic_shape(int64_t label, Where where) {
  if (label < 0 || label > 9) throw ValueError(str("io::synthetic_shape: label ", label, ", need 0 to 9"), where);
  return kNames[label];
}

}  // namespace tandem::io
