// Conv2d: a bank of filters slid over an image.
#pragma once

#include "filters.h"

namespace tandem::nn {

using Conv2dOptions = ConvOptions<Pair, Padding2d>;

/// Maps [batch, in, height, width] to [batch, out, height', width']. Weight [out, in / groups, kernel height,
/// kernel width] and bias [out] start in U(-b, b), b = 1 / sqrt(in / groups * kernel height * kernel width).
class Conv2d {
 public:
  Conv2d(int64_t in, int64_t out, Pair kernel, Conv2dOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }

  Tensor weight;
  Tensor bias;  ///< undefined without bias
  Pair stride;
  Padding2d padding;
  Pair dilation;
  int64_t groups;
};

}  // namespace tandem::nn
