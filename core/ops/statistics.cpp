// Reductions made of others: any, all, var, std, logsumexp, norm. Compiled, each is one kernel.
// float16 and bfloat16 are computed on as float32 and rounded once.
#include <cmath>
#include <limits>

#include "core/dispatch.h"
#include "core/ops/composed.h"
#include "core/ops/reduce_shared.h"

namespace tandem {

namespace {

bool is_half(DType type) { return type == float16 || type == bfloat16; }
Tensor wide(const Tensor& x) { return is_half(x.dtype()) ? to(x, float32) : x; }

int64_t count_of(const Shape& shape, const Shape& dims) {
  int64_t count = 1;
  for (int64_t d : dims) count *= shape[static_cast<int>(d)];
  return count;
}

/// The shape that a reduction over these (normalised) dims leaves.
Shape left_of(const Shape& shape, const Shape& dims, bool keepdim) {
  Shape left;
  for (int d = 0; d < shape.size(); ++d)
    if (!dims.contains(d)) left.push_back(shape[d]);
    else if (keepdim) left.push_back(1);
  return left;
}

/// total^exponent, whose gradient is 0 rather than infinite where the total is 0.
Tensor root(const Tensor& total, double exponent) {
  const auto power = [&](const Tensor& x) { return exponent == 0.5 ? sqrt(x) : pow(x, exponent); };
  if (!total.requires_grad()) return power(total);
  const Tensor zero = total == 0;
  return where(zero, 0, power(where(zero, 1, total)));
}

Tensor any_or_all(const char* name, const Arg& x, const Dims& dims, ReduceOptions options, bool all) {
  const CallScope scope(name, x.where());
  const Tensor& tensor = x.tensor();
  const Shape over = normalized_dims(name, x, dims);
  if (count_of(tensor.shape(), over) == 0)
    return full(left_of(tensor.shape(), over, options.keepdim), all, {.dtype = bool_, .device = tensor.device()});
  const Tensor hit = tensor.dtype() == bool_ ? tensor : tensor != 0;
  return all ? min(hit, Dims(over), options) : max(hit, Dims(over), options);
}

/// Two passes, as cancellation in E x^2 - (E x)^2 would cost digits.
Tensor variance(const char* name, const Arg& x, const Dims& dims, VarianceOptions options) {
  check_floating(name, x);
  const Shape over = normalized_dims(name, x, dims);
  const Tensor from = wide(x.tensor());
  const double count = static_cast<double>(count_of(from.shape(), over));
  const Tensor squares = square(from - mean(from, Dims(over), {.keepdim = true}));
  return sum(squares, Dims(over), {.keepdim = options.keepdim}) / std::fmax(count - options.correction, 0);
}

}  // namespace

Tensor any(const Arg& x, const Dims& dims, ReduceOptions options) { return any_or_all("any", x, dims, options, false); }
Tensor all(const Arg& x, const Dims& dims, ReduceOptions options) { return any_or_all("all", x, dims, options, true); }

Tensor var(const Arg& x, const Dims& dims, VarianceOptions options) {
  const CallScope scope("var", x.where());
  return to(variance("var", x, dims, options), x.tensor().dtype());
}
Tensor std(const Arg& x, const Dims& dims, VarianceOptions options) {
  const CallScope scope("std", x.where());
  return to(root(variance("std", x, dims, options), 0.5), x.tensor().dtype());
}

// log(sum exp(x - m)) + m with m the greatest, which is no part of the gradient: it cancels.
Tensor logsumexp(const Arg& x, const Dims& dims, ReduceOptions options) {
  const CallScope scope("logsumexp", x.where());
  const Tensor& tensor = x.tensor();
  const DType type = is_floating(tensor.dtype()) ? tensor.dtype() : float32;
  const Shape over = normalized_dims("logsumexp", x, dims);
  if (count_of(tensor.shape(), over) == 0)
    return full(left_of(tensor.shape(), over, options.keepdim), -std::numeric_limits<double>::infinity(),
                {.dtype = type, .device = tensor.device()});
  const Tensor from = is_floating(tensor.dtype()) ? wide(tensor) : to(tensor, float32);
  const Tensor greatest = max(from.detach(), Dims(over), {.keepdim = true});
  const Tensor shift = where(isfinite(greatest), greatest, 0);
  const Tensor total = log(sum(exp(from - shift), Dims(over), options));
  return to(total + reshape(shift, total.shape()), type);
}

Tensor norm(const Arg& x, const Dims& dims, NormOptions options) {
  const CallScope scope("norm", x.where());
  check_floating("norm", x);
  const Dims over(normalized_dims("norm", x, dims));
  const ReduceOptions keep{.keepdim = options.keepdim};
  const Tensor from = wide(x.tensor());
  const double p = options.p;
  if (std::isnan(p)) throw ValueError("norm: p is not a number", user_line(x.where()));
  const auto result = [&]() -> Tensor {
    if (p == 2) return root(sum(square(from), over, keep), 0.5);
    if (p == 1) return sum(abs(from), over, keep);
    if (p == 0) return sum(to(from != 0, from.dtype()), over, keep);
    if (std::isinf(p)) return p > 0 ? max(abs(from), over, keep) : min(abs(from), over, keep);
    return root(sum(pow(abs(from), p), over, keep), 1 / p);
  };
  return to(result(), x.tensor().dtype());
}

StatisticAndMean var_mean(const Arg& x, const Dims& dims, VarianceOptions options) {
  const CallScope scope("var_mean", x.where());
  return {var(x, dims, options), mean(x, dims, {.keepdim = options.keepdim})};
}
StatisticAndMean std_mean(const Arg& x, const Dims& dims, VarianceOptions options) {
  const CallScope scope("std_mean", x.where());
  return {std(x, dims, options), mean(x, dims, {.keepdim = options.keepdim})};
}

Tensor nansum(const Arg& x, const Dims& dims, ReduceOptions options) {
  const CallScope scope("nansum", x.where());
  return sum(where(isnan(x), 0, x), dims, options);
}
Tensor nanmean(const Arg& x, const Dims& dims, ReduceOptions options) {
  const CallScope scope("nanmean", x.where());
  check_floating("nanmean", x);
  return nansum(x, dims, options) / sum(~isnan(x), dims, options);
}

Tensor trace(const Arg& x) {
  const CallScope scope("trace", x.where());
  if (x.tensor().rank() != 2)
    throw ShapeError(detail::str("trace: needs a matrix, got ", x.tensor().shape()), user_line(x.where()));
  return sum(diagonal(x));
}

Tensor cov(const Arg& x, double correction) {
  const CallScope scope("cov", x.where());
  check_floating("cov", x);
  const Tensor rows = x.tensor().rank() < 2 ? reshape(x, {1, x.tensor().numel()}) : x.tensor();
  if (rows.rank() != 2)
    throw ShapeError(detail::str("cov: needs [variables, observations], got ", x.tensor().shape()),
                     user_line(x.where()));
  const Tensor centred = rows - mean(rows, 1, {.keepdim = true});
  const double count = std::fmax(static_cast<double>(rows.shape()[1]) - correction, 0);
  const Tensor result = matmul(centred, transpose(centred, 0, 1)) / count;
  return x.tensor().rank() < 2 ? reshape(result, {}) : result;
}

}  // namespace tandem
