// Resampling as numbers: which elements of a line each element of another line is a weighted sum of. Average pooling and
// interpolation differ in nothing else, are applied to rows and columns in turn, and turned round are their own gradients.
#pragma once

#include <cstdint>
#include <vector>

#include "core/attributes.h"

namespace tandem {

/// Element i of the result is the sum of weight[t] * x[source[t]] for t in [begin[i], begin[i + 1]).
struct Taps {
  std::vector<int64_t> begin{0}, source;
  std::vector<double> weight;

  int64_t size() const { return static_cast<int64_t>(begin.size()) - 1; }
  void add(int64_t from, double by) {
    source.push_back(from);
    weight.push_back(by);
  }
  void finish_element() { begin.push_back(static_cast<int64_t>(source.size())); }
  /// The gradient's taps, back to a line of `extent` elements.
  Taps transposed(int64_t extent) const;
};

/// avg_pool2d's along dim 0 (height) or 1 (width), from `in` elements to `out`.
Taps average_taps(const Attributes& attributes, int dim, int64_t in, int64_t out);
/// interpolate2d's.
Taps interpolation_taps(const Attributes& attributes, int dim, int64_t in, int64_t out);

}  // namespace tandem
