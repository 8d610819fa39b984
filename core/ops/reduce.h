// Folds over dims, statistics, and comparisons of whole tensors.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Reductions over any dims (none: all). Sums of float16 and bfloat16 accumulate in float32;
// integers and bool sum as int64.
Tensor sum(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor prod(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor mean(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor max(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor min(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor argmax(const Arg& x, int64_t dim, ReduceOptions options = {});  ///< int64; the first of equals
Tensor argmin(const Arg& x, int64_t dim, ReduceOptions options = {});  ///< int64; the first of equals
struct ValuesAndIndices {
  Tensor values, indices;
};
/// The greatest along one dim and where it is (the first of equals): `auto [values, indices] = max_with_index(x, 1)`.
/// The gradient goes to that element alone.
ValuesAndIndices max_with_index(const Arg& x, int64_t dim, ReduceOptions options = {});
ValuesAndIndices min_with_index(const Arg& x, int64_t dim, ReduceOptions options = {});
Tensor any(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});  ///< bool: is one not zero?
Tensor all(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});  ///< bool: are all not zero?
Tensor var(const Arg& x, const Dims& dims = {}, VarianceOptions options = {});
Tensor std(const Arg& x, const Dims& dims = {}, VarianceOptions options = {});  ///< gradient 0 where it is 0
Tensor logsumexp(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
/// (sum |x|^p)^(1/p). Its gradient is 0 where the norm is 0.
Tensor norm(const Arg& x, const Dims& dims = {}, NormOptions options = {});

/// <x, y> / (|x| |y|) along `dim`, each norm at least epsilon.
Tensor cosine_similarity(const Arg& x, const Arg& y, int64_t dim = 1, double epsilon = 1e-8);
struct StatisticAndMean {
  Tensor value, mean;
};
StatisticAndMean var_mean(const Arg& x, const Dims& dims = {}, VarianceOptions options = {});
StatisticAndMean std_mean(const Arg& x, const Dims& dims = {}, VarianceOptions options = {});
Tensor nansum(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});  ///< of what isn't NaN
Tensor nanmean(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor trace(const Arg& x);  ///< the sum of a matrix's diagonal
/// Covariances [n, n] of n variables in rows of observations [n, count].
Tensor cov(const Arg& x, double correction = 1);
struct NormalizeOptions {
  double p = 2;
  Dims dims = 1;
  double epsilon = 1e-12;
};
/// x / max(|x|, epsilon), with the p-norm over dims.
Tensor normalize(const Arg& x, NormalizeOptions options = {});
struct DistanceOptions {
  double p = 2;
  double epsilon = 1e-6;
  bool keepdim = false;
};
/// The p-norm of x - y + epsilon over the last dim.
Tensor pairwise_distance(const Arg& x, const Arg& y, DistanceOptions options = {});
/// The p-norms of all differences between rows of x [.., n, width] and y [.., m, width]: [.., n, m].
Tensor cdist(const Arg& x, const Arg& y, double p = 2);
Tensor count_nonzero(const Arg& x, const Dims& dims = {});  ///< int64

// Comparisons of whole tensors, for tests: read values, so not for traces.
bool allclose(const Tensor& a, const Tensor& b, CloseOptions options = {}, Where where = Where::current());

}  // namespace tandem
