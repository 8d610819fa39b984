// Reductions as samples see them: which positions of the operand fold into each of the result.
#pragma once

#include "samples/samples.h"

namespace tandem::samples {

struct Reduced {
  Shape shape;
  Dims dims;  ///< none: all
};

/// Positions of the operand that fold into each position of the result.
struct Folds {
  Shape shape;
  std::vector<std::vector<int64_t>> members;
  Folds(const Shape& from, const Dims& dims, bool keepdim) {
    bool folded[kMaxRank] = {};
    for (int d = 0; d < from.size(); ++d) folded[d] = dims.empty();
    for (int64_t d : dims)
      if (!from.empty()) folded[d < 0 ? d + from.size() : d] = true;
    Shape kept = from;  // with extents of 1, to find the place of a position
    for (int d = 0; d < from.size(); ++d) {
      if (folded[d]) kept[d] = 1;
      if (!folded[d] || keepdim) shape.push_back(kept[d]);
    }
    members.resize(static_cast<size_t>(shape.numel()));
    for (int64_t i = 0; i < from.numel(); ++i)
      members[static_cast<size_t>(broadcast_position(i, from, kept))].push_back(i);
  }
};

/// Samples of any, var, norm, … (statistics.cpp).
void add_statistics_samples(Samples& samples);

}  // namespace tandem::samples
