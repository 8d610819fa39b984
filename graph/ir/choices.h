// Choices of passes that depend on bytes. A graph in another size is given those of the first, so that it stays the same graph
// (graph/trace/sizes.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace tandem::graph {

/// What was chosen, in the order in which it was asked. Passes over graphs that differ in numbers alone ask the same.
class Choices {
 public:
  /// From here on, answers are those that were given up to here.
  void repeat() {
    repeats_ = repeats_ || !answers_.empty() || order_;
    next_ = 0;
  }
  bool choose(bool now) { return number(now) != 0; }
  int64_t number(int64_t now) {
    if (repeats_ && next_ < answers_.size()) return answers_[next_++];
    if (!repeats_) answers_.push_back(now);
    return now;
  }
  /// The order of steps that was chosen, to be repeated.
  const std::vector<int>* order() const { return repeats_ && order_ ? &*order_ : nullptr; }
  void chose(const std::vector<int>& order) {
    if (!order_) order_ = order;
  }

 private:
  std::vector<int64_t> answers_;
  std::optional<std::vector<int>> order_;
  size_t next_ = 0;
  bool repeats_ = false;
};

}  // namespace tandem::graph
