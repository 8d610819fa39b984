// The report's pictures: SVG that takes its colours from the page (classes c0, c1, …, one for each rung).
#include "lab/svg.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "lab/format.h"

namespace tandem::lab {

namespace {

constexpr double kWidth = 640, kLabel = 84, kRight = 150;

std::string at(double value) { return format("%.1f", value); }

/// A picture with a name and a description, for those who don't see it.
std::string picture(double height, const std::string& title, const std::string& description, const std::string& body) {
  return "<svg viewBox=\"0 0 " + at(kWidth) + " " + at(height) + "\" role=\"img\" aria-label=\"" +
         escaped(title + ". " + description) + "\"><title>" + escaped(title) + "</title><desc>" + escaped(description) +
         "</desc>" + body + "</svg>\n";
}

std::string line(double x1, double y1, double x2, double y2, const char* type) {
  return "<line class=\"" + std::string(type) + "\" x1=\"" + at(x1) + "\" y1=\"" + at(y1) + "\" x2=\"" + at(x2) +
         "\" y2=\"" + at(y2) + "\"/>";
}

std::string text(double x, double y, const std::string& words, const char* type = "label",
                 const char* anchor = "start") {
  return "<text class=\"" + std::string(type) + "\" x=\"" + at(x) + "\" y=\"" + at(y) + "\" text-anchor=\"" + anchor +
         "\">" + escaped(words) + "</text>";
}

/// 1, 2 or 5 times a power of ten, so that about `count` of them make `range`.
double tick(double range, int count) {
  if (!(range > 0) || !std::isfinite(range)) return 1;
  const double rough = range / count, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1., 2., 5.})
    if (rough <= factor * power) return factor * power;
  return 10 * power;
}

struct Bar {
  double value, low, high;
  std::string caption;
};

std::string bars(const Comparison& comparison, const std::string& title, const std::vector<Bar>& values) {
  double most = 0;
  for (const Bar& bar : values) most = std::max(most, bar.high);
  const double scale = (kWidth - kLabel - kRight) / (most > 0 ? most : 1);
  std::string body, description;
  for (size_t i = 0; i < values.size(); ++i) {
    const Bar& bar = values[i];
    const double y = 8 + 34 * static_cast<double>(i);
    const std::string& name = comparison.rungs[i].name;
    body += text(kLabel - 10, y + 17, name, "label", "end");
    body += "<rect class=\"c" + std::to_string(i) + "\" x=\"" + at(kLabel) + "\" y=\"" + at(y) + "\" width=\"" +
            at(std::max(1.0, bar.value * scale)) + "\" height=\"24\"/>";
    if (bar.high > bar.low) {
      const double low = kLabel + bar.low * scale, high = kLabel + bar.high * scale;
      body += line(low, y + 12, high, y + 12, "whisker") + line(low, y + 7, low, y + 17, "whisker") +
              line(high, y + 7, high, y + 17, "whisker");
    }
    body += text(kLabel + bar.high * scale + 8, y + 17, bar.caption);
    description += (i ? ", " : "") + name + " " + bar.caption;
  }
  return picture(12 + 34 * static_cast<double>(values.size()), title, description, body);
}

struct Curve {
  std::vector<std::pair<double, double>> points;
};
struct Axis {
  double low, high;
  std::string name;
  std::function<std::string(double)> words;
};

/// Curves over labelled axes; `mark` is a point to draw attention to, with its words.
struct Mark {
  double x = 0, y = 0;
  std::string words;
};
std::string curves(const Comparison& comparison, const std::string& title, const std::string& description, Axis x,
                   Axis y, const std::vector<Curve>& drawn, const Mark& mark) {
  constexpr double height = 300, left = kLabel, right = kWidth - 16, top = 30, bottom = height - 44;
  if (!(x.high > x.low)) x.high = x.low + 1;
  if (!(y.high > y.low)) y.high = y.low + std::max(1e-9, std::abs(y.low) * 0.1);
  const auto to_x = [&](double value) { return left + (value - x.low) / (x.high - x.low) * (right - left); };
  const auto to_y = [&](double value) { return bottom - (value - y.low) / (y.high - y.low) * (bottom - top); };
  std::string body;
  const double step_x = tick(x.high - x.low, 6), step_y = tick(y.high - y.low, 5);
  for (double value = std::ceil(y.low / step_y) * step_y; value <= y.high * (1 + 1e-9); value += step_y)
    body += line(left, to_y(value), right, to_y(value), "grid") +
            text(left - 8, to_y(value) + 4, y.words(value), "tick", "end");
  for (double value = std::ceil(x.low / step_x) * step_x; value <= x.high * (1 + 1e-9); value += step_x)
    body += line(to_x(value), bottom, to_x(value), bottom + 5, "axis") +
            text(to_x(value), bottom + 19, x.words(value), "tick", "middle");
  body += line(left, bottom, right, bottom, "axis") + line(left, top, left, bottom, "axis");
  body += text(right, height - 6, x.name, "tick", "end");
  double key = left;
  for (size_t i = 0; i < drawn.size(); ++i) {
    std::string points;
    for (const auto& [px, py] : drawn[i].points)
      if (std::isfinite(py)) points += at(to_x(px)) + "," + at(to_y(py)) + " ";
    if (!points.empty()) body += "<polyline class=\"line l" + std::to_string(i) + "\" points=\"" + points + "\"/>";
    body += "<polyline class=\"line l" + std::to_string(i) + "\" points=\"" + at(key) + ",12 " + at(key + 30) +
            ",12\"/>" + text(key + 36, 16, comparison.rungs[i].name);
    key += 130;
  }
  if (!mark.words.empty()) {
    const bool at_right = to_x(mark.x) > (left + right) / 2;
    body += "<circle class=\"mark\" cx=\"" + at(to_x(mark.x)) + "\" cy=\"" + at(to_y(mark.y)) + "\" r=\"5\"/>";
    body += text(to_x(mark.x) + (at_right ? -10 : 10), to_y(mark.y) + (at_right ? -10 : 20), mark.words, "label",
                 at_right ? "end" : "start");
  }
  return picture(height, title, description, body);
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '&') result += "&amp;";
    else if (c == '<') result += "&lt;";
    else if (c == '>') result += "&gt;";
    else if (c == '"') result += "&quot;";
    else result += c;
  }
  return result;
}

std::string step_time_chart(const Comparison& comparison) {
  std::vector<Bar> values;
  for (const Rung& rung : comparison.rungs) {
    const Spread& step = rung.step_seconds;
    values.push_back({step.median, step.lower_quartile, step.upper_quartile, duration(step.median)});
  }
  return bars(comparison, "Time of a step", values);
}

std::string memory_chart(const Comparison& comparison) {
  std::vector<Bar> values;
  for (const Rung& rung : comparison.rungs) {
    const double bytes = static_cast<double>(rung.peak_bytes);
    values.push_back({bytes, bytes, bytes, mebibytes(rung.peak_bytes) + " MiB"});
  }
  return bars(comparison, "Peak memory of a step", values);
}

std::string break_even_chart(const Comparison& comparison) {
  const double eager = comparison.rungs.front().step_seconds.median, crossing = comparison.break_even_steps();
  const bool pays = std::isfinite(crossing);
  const double steps = pays ? std::max(10.0, 2 * crossing) : 10.0 * comparison.steps;
  std::vector<Curve> drawn;
  double most = 0;
  for (const Rung& rung : comparison.rungs) {
    const double once = rung.cold.total(), end = once + steps * rung.step_seconds.median;
    drawn.push_back({{{0, once}, {steps, end}}});
    most = std::max(most, end);
  }
  Mark mark;
  if (pays) mark = {crossing, crossing * eager, "compiled overtakes eager: step " + step_count(crossing)};
  return curves(comparison, "Time since the start", verdict(comparison),
                {0, steps, "steps", [](double v) { return step_count(v); }},
                {0, most, "time", [](double v) { return duration(v); }}, drawn, mark);
}

std::string loss_chart(const Comparison& comparison) {
  std::vector<Curve> drawn;
  double low = 1e300, high = -1e300;
  for (const Rung& rung : comparison.rungs) {
    Curve curve;
    for (size_t i = 0; i < rung.losses.size(); ++i) {
      curve.points.push_back({static_cast<double>(i + 1), rung.losses[i]});
      if (!std::isfinite(rung.losses[i])) continue;
      low = std::min(low, rung.losses[i]);
      high = std::max(high, rung.losses[i]);
    }
    drawn.push_back(std::move(curve));
  }
  if (low > high) return "<p>The step returns no floating result.</p>\n";
  return curves(
      comparison, "Result of each step", agreement(comparison),
      {1, static_cast<double>(comparison.rungs.front().losses.size()), "steps", [](double v) { return step_count(v); }},
      {low, high, "result", [](double v) { return format("%.4g", v); }}, drawn, {});
}

}  // namespace tandem::lab
