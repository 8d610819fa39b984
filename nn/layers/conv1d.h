// Conv1d: a bank of filters slid along a sequence.
#pragma once

#include "filters.h"

namespace tandem::nn {

using Conv1dOptions = ConvOptions<int64_t, Padding1d>;

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
