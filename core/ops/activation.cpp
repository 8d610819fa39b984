// Pointwise functions made of the ops of core/pointwise.def: activations with parameters, and helpers on numbers.
#include <cmath>
#include <limits>

#include "core/dispatch.h"
#include "core/ops/composed.h"

namespace tandem {

Tensor tanhshrink(const Arg& x) {
  const CallScope scope("tanhshrink", x.where());
  return x - tanh(x);
}

Tensor threshold(const Arg& x, const Arg& threshold, const Arg& otherwise) {
  const CallScope scope("threshold", x.where());
  return masked_fill(x, x <= threshold, otherwise);
}

Tensor glu(const Arg& x, int64_t dim) {
  const CallScope scope("glu", x.where());
  check_floating("glu", x);
  const int d = dim_of("glu", x, dim);
  const Shape& shape = x.tensor().shape();
  if (shape.empty() || shape[d] % 2 != 0)
    throw ShapeError(detail::str("glu: dim ", d, " of ", shape, " can't be halved"), user_line(x.where()));
  const int64_t half = shape[d] / 2;
  return slice(x, d, 0, half) * sigmoid(slice(x, d, half, shape[d]));
}

Tensor prelu(const Arg& x, const Tensor& weight) {
  const CallScope scope("prelu", x.where());
  const int rank = x.tensor().rank();
  const int64_t channels = rank > 1 ? x.tensor().shape()[1] : 1;
  if (weight.rank(x.where()) > 1 || (weight.numel() != 1 && weight.numel() != channels))
    throw ShapeError(detail::str("prelu: weight ", weight.shape(), " for x ", x.tensor().shape(),
                                 ": needs one number, or ", channels, ", the channels"),
                     user_line(x.where()));
  Shape shape = Shape::filled(rank, 1);
  if (rank > 1) shape[1] = weight.numel();
  return leaky_relu(x, reshape(weight, shape));
}

Tensor div(const Arg& x, const Arg& y, Rounding rounding) {
  const CallScope scope("div", x.where());
  if (rounding == Rounding::floor) return floor_divide(x, y);
  const Tensor down = floor_divide(x, y);
  if (is_floating(down.dtype())) return trunc(div(x, y));
  // Down and towards zero differ by one where there is a remainder and the signs differ.
  return down + to((down < 0) & (remainder(x, y) != 0), down.dtype());
}

Tensor isclose(const Arg& a, const Arg& b, CloseOptions options) {
  const CallScope scope("isclose", a.where());
  const Tensor x = a.tensor(), y = b.tensor();
  const DType type = promote(promote(x.dtype(), y.dtype()), float32);
  const Tensor p = to(x, wide_type(type)), q = to(y, wide_type(type));
  const Tensor near = isfinite(q) & (abs(p - q) <= abs(q) * options.rtol + options.atol);
  const Tensor same = (x == y) | near;
  return options.equal_nan ? same | (isnan(x) & isnan(y)) : same;
}

Tensor nan_to_num(const Arg& x, NanToNumOptions options) {
  const CallScope scope("nan_to_num", x.where());
  const DType type = x.tensor().dtype();
  if (!is_floating(type)) return x.tensor();
  const double greatest = type == float64   ? std::numeric_limits<double>::max()
                          : type == float16 ? 65504.0
                          : type == float32 ? static_cast<double>(std::numeric_limits<float>::max())
                                            : 0x1.fep127;
  const Tensor infinite = isinf(x);
  const Tensor finite = where(infinite & (x > 0), options.posinf.value_or(greatest),
                              where(infinite, options.neginf.value_or(-greatest), x));
  return where(isnan(x), options.nan, finite);
}

Tensor fmax(const Arg& x, const Arg& y) {
  const CallScope scope("fmax", x.where());
  return where((x >= y) | isnan(y), x, y);
}
Tensor fmin(const Arg& x, const Arg& y) {
  const CallScope scope("fmin", x.where());
  return where((x <= y) | isnan(y), x, y);
}
Tensor frac(const Arg& x) {
  const CallScope scope("frac", x.where());
  check_floating("frac", x);
  return x - trunc(x);
}
Tensor logit(const Arg& x, std::optional<double> epsilon) {
  const CallScope scope("logit", x.where());
  const Tensor p = epsilon ? clamp(x, {.min = *epsilon, .max = 1 - *epsilon}) : x.tensor();
  return log(p / (1 - p));
}
Tensor heaviside(const Arg& x, const Arg& at_zero) {
  const CallScope scope("heaviside", x.where());
  return where(x == 0, at_zero, to(x > 0, x.tensor().dtype()));
}
Tensor deg2rad(const Arg& x) { return x * 0.017453292519943295; }
Tensor rad2deg(const Arg& x) { return x * 57.29577951308232; }

Tensor isin(const Arg& x, const Tensor& elements) {
  const CallScope scope("isin", x.where());
  const DType type = promote(x.tensor().dtype(), elements.dtype(x.where()));
  return any(unsqueeze(to(x, type), -1) == flatten(to(elements, type)), -1);
}

}  // namespace tandem
