// Sorting and searching along one dim.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"
#include "reduce.h"

namespace tandem {

/// Sorted along dim, and where each element came from (int64). Equals keep their order; NaN counts as the greatest.
ValuesAndIndices sort(const Arg& x, int64_t dim = -1, SortOptions options = {});
Tensor argsort(const Arg& x, int64_t dim = -1, SortOptions options = {});
/// The k greatest (or least) along dim, best first; of equals the first.
ValuesAndIndices topk(const Arg& x, int64_t k, int64_t dim = -1, TopkOptions options = {});
/// Where each value would go in the ascending last dim of `sorted`: int64, of the values' shape. `sorted` is [n], or has
/// the values' shape but for the last dim. The place is before equals, or with `right` after them.
struct SearchOptions {
  bool right = false;
};
Tensor searchsorted(const Arg& sorted, const Tensor& values, SearchOptions options = {});

}  // namespace tandem
