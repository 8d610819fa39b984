// Conv2d: a bank of filters slid over an image.
#pragma once

#include "../../core/ops/conv.h"

namespace tandem::nn {

struct Conv2dOptions {
  Pair stride = 1;
  Padding2d padding = 0;  ///< or Padding::same
  Pair dilation = 1;
  int64_t groups = 1;
  bool bias = true;
  DType dtype = DType::float32;
  Device device = {};
};

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
