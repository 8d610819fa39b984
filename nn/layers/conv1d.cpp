// Conv1d: a bank of filters slid along a sequence.
#include "nn/layers/conv1d.h"

#include "core/ops/ops.h"

namespace tandem::nn {

Conv1d::Conv1d(int64_t in, int64_t out, int64_t kernel, Conv1dOptions options, Where where)
    : stride(options.stride), padding(options.padding), dilation(options.dilation), groups(options.groups) {
  const Filters filters("Conv1d", in, out, {kernel}, options, where);
  weight = filters.weight, bias = filters.bias;
}

Tensor Conv1d::operator()(const Tensor& x, Where where) const {
  return conv1d(Arg(x, where), weight, bias,
                {.stride = stride, .padding = padding, .dilation = dilation, .groups = groups});
}

}  // namespace tandem::nn
