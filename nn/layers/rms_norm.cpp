// RmsNorm: each row divided by its root mean square, then scaled.
#include "nn/layers/rms_norm.h"

#include "core/ops/ops.h"

namespace tandem::nn {

RmsNorm::RmsNorm(int64_t width, RmsNormOptions options, Where where) : epsilon(options.epsilon) {
  if (width < 1) throw ValueError(tandem::detail::str("nn::RmsNorm: need a width of at least 1, got ", width), where);
  weight = ones({width}, {.dtype = options.dtype, .device = options.device, .requires_grad = true}, where);
}

Tensor RmsNorm::operator()(const Tensor& x, Where where) const { return rms_norm(Arg(x, where), weight, epsilon); }

}  // namespace tandem::nn
