// Progress: how far a loop has come, as a bar on a terminal and as plain lines elsewhere.
#pragma once

#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <string>
#include <utility>

#include "../core/tensor.h"

namespace tandem {

enum class ProgressStyle {
  automatic,  ///< a bar if the output is a terminal, else lines
  bar,
  lines,
  silent,
};
struct ProgressOptions {
  std::FILE* output = stderr;
  ProgressStyle style = ProgressStyle::automatic;
  /// Gets the metrics of each update, a line of numbers with nine digits. They are written when some are shown, with the
  /// last update at the latest. FileError if they can't be.
  std::ostream* log = nullptr;
};

/// Shows steps done, rate, time left and the latest metrics:
///
///   Progress progress(loader.size(), "epoch 0");
///   for (…) progress.update({{"loss", loss}});
///
/// A tensor's number is read only when it is shown, some ten times a second on a terminal and every few
/// seconds elsewhere, so a loop on a GPU isn't held up. NO_COLOR (no-color.org) is honoured.
class Progress {
 public:
  /// A named number to show: a C++ number, or a tensor of one element.
  struct Metric {
    Metric(std::string name, const Tensor& value) : name(std::move(name)), tensor(value) {}
    Metric(std::string name, double value) : name(std::move(name)), number(value) {}
    std::string name;
    Tensor tensor;
    double number = 0;
    double value(Where where = Where::current()) const {
      return tensor.defined() ? tensor.item<double>(where) : number;
    }
  };

  /// `total` steps; 0 or less if nobody knows.
  explicit Progress(int64_t total, std::string label = {}, ProgressOptions options = {});
  /// Shows the last state, if it was not shown yet, and ends the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `steps` more are done.
  void update(std::initializer_list<Metric> metrics = {}, int64_t steps = 1, Where where = Where::current());
  int64_t done() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem
