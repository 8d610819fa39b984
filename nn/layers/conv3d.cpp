// Conv3d: a bank of filters slid through a volume.
#include "nn/layers/conv3d.h"

#include "core/ops/ops.h"

namespace tandem::nn {

Conv3d::Conv3d(int64_t in, int64_t out, Triple kernel, Conv3dOptions options, Where where)
    : stride(options.stride), padding(options.padding), dilation(options.dilation), groups(options.groups) {
  const Filters filters("Conv3d", in, out, kernel, options, where);
  weight = filters.weight, bias = filters.bias;
}

Tensor Conv3d::operator()(const Tensor& x, Where where) const {
  return conv3d(Arg(x, where), weight, bias,
                {.stride = stride, .padding = padding, .dilation = dilation, .groups = groups});
}

}  // namespace tandem::nn
