// Conv3d: a bank of filters slid through a volume.
#include "nn/layers/conv3d.h"

#include <cmath>

#include "core/ops/ops.h"
#include "nn/init.h"

namespace tandem::nn {

Conv3d::Conv3d(int64_t in, int64_t out, Triple kernel, Conv3dOptions options, Where where)
    : stride(options.stride), padding(options.padding), dilation(options.dilation), groups(options.groups) {
  if (in < 1 || out < 1 || kernel.depth < 1 || kernel.height < 1 || kernel.width < 1)
    throw ValueError(
        tandem::detail::str("nn::Conv3d: need at least 1 input, 1 output and a kernel of 1 x 1 x 1, got ", in, ", ",
                            out, " and ", kernel.depth, " x ", kernel.height, " x ", kernel.width),
        where);
  if (groups < 1 || in % groups != 0 || out % groups != 0)
    throw ValueError(tandem::detail::str("nn::Conv3d: ", in, " inputs and ", out, " outputs don't split into ", groups,
                                         " groups: both must be multiples of it"),
                     where);
  const TensorOptions tensor_options{.dtype = options.dtype, .device = options.device, .requires_grad = true};
  const Shape shape{out, in / groups, kernel.depth, kernel.height, kernel.width};
  weight = init::kaiming_uniform(shape, {.negative_slope = std::sqrt(5.0)}, tensor_options, where);
  const double bound = 1 / std::sqrt(static_cast<double>(init::fans(shape).in));
  if (options.bias) bias = init::uniform({out}, -bound, bound, tensor_options, where);
}

Tensor Conv3d::operator()(const Tensor& x, Where where) const {
  return conv3d(Arg(x, where), weight, bias,
                {.stride = stride, .padding = padding, .dilation = dilation, .groups = groups});
}

}  // namespace tandem::nn
