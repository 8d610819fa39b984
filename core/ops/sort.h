// Sorting and searching along one dim.
#pragma once

#include <optional>
#include <vector>

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
/// The same with the arguments the other way round; dtypes are promoted.
Tensor bucketize(const Arg& values, const Tensor& boundaries, SearchOptions options = {});
/// The k-th least along dim (from 1), and where it is. NaN counts as the greatest.
ValuesAndIndices kthvalue(const Arg& x, int64_t k, int64_t dim = -1, ReduceOptions options = {});
/// The middle one, the lower of two; NaN where there is one.
Tensor median(const Arg& x);
ValuesAndIndices median(const Arg& x, int64_t dim, ReduceOptions options = {});
/// The least of the most frequent elements along dim, and the last place where it is. The gradient goes to that one.
ValuesAndIndices mode(const Arg& x, int64_t dim = -1, ReduceOptions options = {});
enum class QuantileRule : uint8_t { linear, lower, higher, nearest, midpoint };
struct QuantileOptions {
  bool keepdim = false;
  QuantileRule rule = QuantileRule::linear;  ///< between two elements
};
/// What part q of the elements, all or those along dim, lie below; NaN where there is one. For several q [count], in a new
/// first dim.
Tensor quantile(const Arg& x, double q, std::optional<int64_t> dim = {}, QuantileOptions options = {});
Tensor quantile(const Arg& x, const std::vector<double>& q, std::optional<int64_t> dim = {},
                QuantileOptions options = {});
/// How many elements lie in each of `bins` equal parts of [min, max], or of the range of x where both are 0; in x's dtype.
Tensor histc(const Arg& x, int64_t bins = 100, double min = 0, double max = 0);

}  // namespace tandem
