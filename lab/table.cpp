// The report as text: one row per rung, and what it means in words.
#include <cmath>
#include <cstdio>
#include <ostream>

#include "lab/format.h"

namespace tandem {

namespace lab {

std::string format(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

std::string duration(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  if (seconds == 0) return "0";
  if (seconds < 1e-6) return format("%.0f ns", seconds * 1e9);
  if (seconds < 1e-4) return format("%.2f us", seconds * 1e6);
  if (seconds < 1e-3) return format("%.1f us", seconds * 1e6);
  if (seconds < 0.1) return format("%.2f ms", seconds * 1e3);
  if (seconds < 1) return format("%.0f ms", seconds * 1e3);
  return format("%.2f s", seconds);
}

std::string mebibytes(int64_t bytes) {
  const double value = static_cast<double>(bytes) / (1 << 20);
  return format(value < 10 ? "%.3f" : "%.1f", value);
}

std::string error_text(double error) {
  if (std::isnan(error)) return "unknown";
  return error == 0 ? "0" : format("%.1e", error);
}

std::string ratio_text(const Ratio& ratio) {
  return format("%.2f", ratio.value) + " (" + format("%.2f", ratio.low) + " to " + format("%.2f", ratio.high) + ")";
}

std::string step_count(double steps) {
  if (!std::isfinite(steps)) return "never";
  std::string digits = format("%.0f", std::ceil(steps));
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string verdict(const Comparison& comparison) {
  const Rung& eager = comparison.rung("eager");
  const Rung& compiled = comparison.rung("compiled");
  const double steps = comparison.break_even_steps();
  tandem::detail::TextStream out;
  if (!std::isfinite(steps)) {
    out << "Compiling doesn't pay here: a compiled step takes " << duration(compiled.step_seconds.median)
        << ", an eager one " << duration(eager.step_seconds.median) << ".";
    return out.str();
  }
  out << "Compiling takes " << duration(compiled.cold.total()) << " once and saves "
      << duration(eager.step_seconds.median - compiled.step_seconds.median) << " a step: it pays from step "
      << step_count(steps) << " on; where the kernels are in the cache (" << duration(compiled.warm.total())
      << "), from step " << step_count(comparison.warm_break_even_steps()) << ".";
  if (compiled.to_eager.high >= 1) out << " The difference is within the noise of this measurement.";
  return out.str();
}

std::string agreement(const Comparison& comparison) {
  tandem::detail::TextStream out;
  for (const Rung& rung : comparison.rungs) {
    if (&rung == &comparison.rungs.front()) continue;
    out << (out.tellp() > 0 ? "; " : "") << rung.name;
    if (rung.first_difference < 0) out << " gives eager's results bit for bit";
    else
      out << " first differs in step " << rung.first_difference + 1 << ", by " << error_text(rung.largest_difference)
          << " of the loss at most";
  }
  out << " (over " << comparison.rungs.front().losses.size() << " steps).";
  std::string text = out.str();
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

namespace {

std::string pad(const std::string& text, size_t width, bool left) {
  const std::string space(width > text.size() ? width - text.size() : 0, ' ');
  return left ? text + space : space + text;
}

}  // namespace

}  // namespace lab

std::string Comparison::to_string() const {
  using namespace lab;
  std::vector<std::vector<std::string>> rows = {
      {"", "step", "quartiles", "ratio to eager (95%)", "kernels", "once", "cached", "peak MiB", "error vs float64"}};
  for (const Rung& each : rungs) {
    const bool eager = &each == &rungs.front();
    rows.push_back({each.name, duration(each.step_seconds.median),
                    duration(each.step_seconds.lower_quartile) + " - " + duration(each.step_seconds.upper_quartile),
                    eager ? "1" : ratio_text(each.to_eager), std::to_string(each.kernels),
                    eager ? "-" : duration(each.cold.total()), eager ? "-" : duration(each.warm.total()),
                    mebibytes(each.peak_bytes), error_text(each.error)});
  }
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());

  tandem::detail::TextStream out;
  out << name << "(";
  for (size_t i = 0; i < arguments.size(); ++i) out << (i ? ", " : "") << arguments[i];
  out << ") on " << machine << "; " << steps << " steps each, state " << mebibytes(state_bytes) << " MiB\n";
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) line += (i ? "  " : "") + pad(row[i], widths[i], i == 0);
    out << line << "\n";
  }
  out << verdict(*this) << "\n" << agreement(*this) << "\n";
  for (const Rung& each : rungs)
    if (!each.note.empty()) out << each.name << ": " << each.note << "\n";
  if (!float64_note.empty()) out << "no reference in float64: " << float64_note << "\n";
  return out.str();
}

std::ostream& operator<<(std::ostream& out, const Comparison& comparison) { return out << comparison.to_string(); }

}  // namespace tandem
