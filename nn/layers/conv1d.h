// Conv1d: a bank of filters slid along a sequence.
#pragma once

#include "../../core/ops/conv.h"

namespace tandem::nn {

struct Conv1dOptions {
  int64_t stride = 1;
  Padding1d padding = 0;  ///< or Padding::same
  int64_t dilation = 1, groups = 1;
  bool bias = true;
  DType dtype = DType::float32;
  Device device = {};
};

/// Maps [batch, in, length] to [batch, out, length']. Weight [out, in / groups, kernel] and bias [out] start in U(-b, b),
/// b = 1 / sqrt(in / groups * kernel).
class Conv1d {
 public:
  Conv1d(int64_t in, int64_t out, int64_t kernel, Conv1dOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }

  Tensor weight;
  Tensor bias;  ///< undefined without bias
  int64_t stride;
  Padding1d padding;
  int64_t dilation, groups;
};

}  // namespace tandem::nn
