// ConvTranspose2d: filters that each pixel spreads over a larger image.
#include "nn/layers/conv_transpose2d.h"

#include <cmath>

#include "core/ops/ops.h"
#include "nn/init.h"

namespace tandem::nn {

ConvTranspose2d::ConvTranspose2d(int64_t in, int64_t out, Pair kernel, ConvTranspose2dOptions options, Where where)
    : stride(options.stride), padding(options.padding), output_padding(options.output_padding),
      dilation(options.dilation), groups(options.groups) {
  if (in < 1 || out < 1 || kernel.height < 1 || kernel.width < 1)
    throw ValueError(
        tandem::detail::str("nn::ConvTranspose2d: need at least 1 input, 1 output and a kernel of 1 x 1, got ", in,
                            ", ", out, " and ", kernel.height, " x ", kernel.width),
        where);
  if (groups < 1 || in % groups != 0 || out % groups != 0)
    throw ValueError(tandem::detail::str("nn::ConvTranspose2d: ", in, " inputs and ", out, " outputs don't split into ",
                                         groups, " groups: both must be multiples of it"),
                     where);
  const TensorOptions tensor_options{.dtype = options.dtype, .device = options.device, .requires_grad = true};
  const Shape shape{in, out / groups, kernel.height, kernel.width};
  weight = init::kaiming_uniform(shape, {.negative_slope = std::sqrt(5.0)}, tensor_options, where);
  const double bound = 1 / std::sqrt(static_cast<double>(init::fans(shape).in));
  if (options.bias) bias = init::uniform({out}, -bound, bound, tensor_options, where);
}

Tensor ConvTranspose2d::operator()(const Tensor& x, Where where) const {
  return conv_transpose2d(
      Arg(x, where), weight, bias,
      {.stride = stride, .padding = padding, .output_padding = output_padding, .dilation = dilation, .groups = groups});
}

}  // namespace tandem::nn
