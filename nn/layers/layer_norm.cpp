// LayerNorm: each row to mean 0 and variance 1, then scaled and shifted.
#include "nn/layers/layer_norm.h"

#include "core/ops/ops.h"

namespace tandem::nn {

LayerNorm::LayerNorm(int64_t width, LayerNormOptions options, Where where) : epsilon(options.epsilon) {
  if (width < 1) throw ValueError(tandem::detail::str("nn::LayerNorm: need a width of at least 1, got ", width), where);
  const TensorOptions tensor_options{.dtype = options.dtype, .device = options.device, .requires_grad = true};
  weight = ones({width}, tensor_options, where);
  bias = zeros({width}, tensor_options, where);
}

Tensor LayerNorm::operator()(const Tensor& x, Where where) const {
  return layer_norm(Arg(x, where), weight, bias, epsilon);
}

}  // namespace tandem::nn
