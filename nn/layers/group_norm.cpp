// GroupNorm: groups of channels of each image to mean 0 and variance 1, then scaled and shifted.
#include "nn/layers/group_norm.h"

#include "core/ops/ops.h"

namespace tandem::nn {

GroupNorm::GroupNorm(int64_t groups, int64_t channels, GroupNormOptions options, Where where)
    : groups(groups), channels(channels), epsilon(options.epsilon) {
  if (groups < 1 || channels < 1 || channels % groups != 0)
    throw ValueError(tandem::detail::str("nn::GroupNorm: ", channels, " channels don't split into ", groups,
                                         " groups: the first must be a multiple of the second"),
                     where);
  if (!options.affine) return;
  const TensorOptions tensor_options{.dtype = options.dtype, .device = options.device, .requires_grad = true};
  weight = ones({channels}, tensor_options, where);
  bias = zeros({channels}, tensor_options, where);
}

Tensor GroupNorm::operator()(const Tensor& x, Where where) const {
  const Tensor& tensor = Arg(x, where).tensor();
  if (tensor.rank() >= 2 && tensor.shape()[1] != channels)
    throw ShapeError(tandem::detail::str("nn::GroupNorm: made for ", channels, " channels, x is ", x.shape()), where);
  return group_norm(Arg(x, where), groups, weight, bias, epsilon);
}

}  // namespace tandem::nn
