// ConvTranspose2d: filters that each pixel spreads over a larger image.
#include "nn/layers/conv_transpose2d.h"

#include "core/ops/ops.h"
#include "nn/layers/filters.h"

namespace tandem::nn {

ConvTranspose2d::ConvTranspose2d(int64_t in, int64_t out, Pair kernel, ConvTranspose2dOptions options, Where where)
    : stride(options.stride), padding(options.padding), output_padding(options.output_padding),
      dilation(options.dilation), groups(options.groups) {
  const Filters filters("ConvTranspose2d", in, out, kernel, options, where, true);
  weight = filters.weight, bias = filters.bias;
}

Tensor ConvTranspose2d::operator()(const Tensor& x, Where where) const {
  return conv_transpose2d(
      Arg(x, where), weight, bias,
      {.stride = stride, .padding = padding, .output_padding = output_padding, .dilation = dilation, .groups = groups});
}

}  // namespace tandem::nn
