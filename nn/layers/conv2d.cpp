// Conv2d: a bank of filters slid over an image.
#include "nn/layers/conv2d.h"

#include "core/ops/ops.h"

namespace tandem::nn {

Conv2d::Conv2d(int64_t in, int64_t out, Pair kernel, Conv2dOptions options, Where where)
    : stride(options.stride), padding(options.padding), dilation(options.dilation), groups(options.groups) {
  const Filters filters("Conv2d", in, out, kernel, options, where);
  weight = filters.weight, bias = filters.bias;
}

Tensor Conv2d::operator()(const Tensor& x, Where where) const {
  return conv2d(Arg(x, where), weight, bias,
                {.stride = stride, .padding = padding, .dilation = dilation, .groups = groups});
}

}  // namespace tandem::nn
