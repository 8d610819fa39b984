// Progress: how far a loop has come, as a bar on a terminal and as plain lines elsewhere.
#include "lab/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ostream>
#include <vector>

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::string printed(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// "0:07", "12:34", "1:02:03"
std::string clock_time(double seconds) {
  const long s = std::lround(std::min(std::max(seconds, 0.0), 3.6e6));
  char text[32];
  if (s >= 3600) std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  else std::snprintf(text, sizeof text, "%ld:%02ld", s / 60, s % 60);
  return text;
}

std::string rate_text(double per_second) {
  return printed(per_second >= 100 ? "%.0f/s" : per_second >= 1 ? "%.1f/s" : "%.2g/s", per_second);
}

// Code points, good enough as columns for labels and for our own bar.
size_t columns(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string cut(const std::string& text, size_t width) {
  size_t used = 0, i = 0;
  for (; i < text.size(); ++i) {
    if ((text[i] & 0xc0) == 0x80) continue;
    if (used++ == width) break;
  }
  return text.substr(0, i);
}

bool environment_says(const char* name) {
  const char* value = std::getenv(name);
  return value && *value;
}

bool is_terminal(std::FILE* file) {
  const char* term = std::getenv("TERM");
  return isatty(fileno(file)) && !(term && std::string(term) == "dumb");
}

bool is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})
    if (const char* value = std::getenv(name); value && *value) {
      const std::string locale = value;
      return locale.find("UTF-8") != std::string::npos || locale.find("utf8") != std::string::npos;
    }
  return false;
}

size_t terminal_width(std::FILE* file) {
  winsize size{};
  if (ioctl(fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  if (const char* value = std::getenv("COLUMNS"))
    if (const long width = std::strtol(value, nullptr, 10); width > 0) return static_cast<size_t>(width);
  return 80;
}

}  // namespace

struct Progress::State {
  int64_t total;
  std::string label;
  std::FILE* output;
  ProgressStyle style;
  bool color, utf8;
  Clock::time_point begin = Clock::now(), shown_at = begin;
  int64_t done = 0, shown = -1;
  std::vector<std::pair<std::string, double>> metrics;
  std::ostream* log;
  std::vector<std::vector<Metric>> unwritten;  // of the log

  std::string facts(double elapsed) const {
    std::string text;
    for (const auto& [name, value] : metrics) text += "  " + name + printed(" %.4g", value);
    if (elapsed > 0 && done > 0) text += "  " + rate_text(static_cast<double>(done) / elapsed);
    if (done < total && done > 0) {
      text += "  " + clock_time(elapsed / static_cast<double>(done) * static_cast<double>(total - done)) + " left";
    } else {
      text += "  " + (elapsed < 10 ? printed("%.2f s", elapsed) : clock_time(elapsed));
    }
    return text;
  }

  void write_log(Where where) {
    for (const std::vector<Metric>& update : unwritten) {
      std::string line;
      for (const Metric& metric : update) line += (line.empty() ? "" : " ") + printed("%.9g", metric.value(where));
      *log << line << "\n";
    }
    unwritten.clear();
    if (!log->flush()) throw FileError("Progress: the log can't be written to", where);
  }

  std::string count() const {
    return total > 0 ? std::to_string(done) + "/" + std::to_string(total) : std::to_string(done);
  }

  // `width` eighths-fine blocks where the terminal has them.
  std::string bar(size_t width) const {
    static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const double share = std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
    const size_t eighths = static_cast<size_t>(share * static_cast<double>(width * 8)), full = eighths / 8;
    std::string filled, rest;
    for (size_t i = 0; i < full; ++i) filled += utf8 ? "█" : "#";
    if (utf8) filled += kEighths[eighths % 8];
    const size_t used = full + (utf8 && eighths % 8 ? 1 : 0);
    for (size_t i = used; i < width; ++i) rest += utf8 ? " " : ".";
    const std::string colored = color ? "\x1b[36m" + filled + "\x1b[0m" : filled;
    return utf8 ? "▕" + colored + rest + "▏" : "[" + filled + rest + "]";
  }

  void show(bool last) {
    const Clock::time_point now = Clock::now();
    const double elapsed = seconds_between(begin, now);
    const std::string head = label.empty() ? count() : label + "  " + count(), tail = facts(elapsed);
    std::string line;
    if (style == ProgressStyle::bar) {
      // One write a frame, over the old text, and only then the rest of the line is cleared: no flicker.
      const size_t width = terminal_width(output) - 1, text = columns(head) + columns(tail) + 3;
      std::string frame = head;
      if (total > 0 && text + 6 <= width) frame += " " + bar(std::min<size_t>(width - text, 30)) + tail;
      else frame = cut(head + tail, width);
      line = "\r" + frame + "\x1b[K" + (last ? "\n" : "");
    } else {
      line = head;
      if (total > 0 && done < total)
        line += printed(" (%.0f%%)", 100 * static_cast<double>(done) / static_cast<double>(total));
      line += tail + "\n";
    }
    std::fwrite(line.data(), 1, line.size(), output);
    std::fflush(output);
    shown = done;
    shown_at = now;
  }
};

Progress::Progress(int64_t total, std::string label, ProgressOptions options) : state_(std::make_unique<State>()) {
  ProgressStyle style = options.style;
  if (style == ProgressStyle::automatic)
    style = is_terminal(options.output) ? ProgressStyle::bar : ProgressStyle::lines;
  state_->total = total;
  state_->label = std::move(label);
  state_->output = options.output;
  state_->style = style;
  state_->log = options.log;
  state_->color = !environment_says("NO_COLOR");
  state_->utf8 = is_utf8();
}

Progress::~Progress() {
  if (state_->style == ProgressStyle::silent) return;
  const bool unfinished_bar =
      state_->style == ProgressStyle::bar && state_->shown >= 0 && state_->shown < state_->total;
  if (state_->shown != state_->done && state_->done > 0) state_->show(true);
  else if (unfinished_bar || (state_->style == ProgressStyle::bar && state_->shown >= 0 && state_->total <= 0))
    std::fputc('\n', state_->output);
}

int64_t Progress::done() const { return state_->done; }

void Progress::update(std::initializer_list<Metric> metrics, int64_t steps, Where where) {
  State& state = *state_;
  state.done += steps;
  if (state.log) state.unwritten.emplace_back(metrics);
  if (state.style == ProgressStyle::silent && !state.log) return;
  const bool last = state.total > 0 && state.done >= state.total;
  const double interval = state.style == ProgressStyle::bar ? 0.1 : 5;
  const Clock::time_point now = Clock::now();
  const bool first_of_bar = state.style == ProgressStyle::bar && state.shown < 0;
  if (!last && !first_of_bar && seconds_between(state.shown_at, now) < interval) return;
  if (state.log) state.write_log(where);
  state.metrics.clear();
  for (const Metric& metric : metrics) state.metrics.emplace_back(metric.name, metric.value(where));
  if (state.style == ProgressStyle::silent) state.shown_at = now;
  else state.show(last);
}

}  // namespace tandem
