// Conv3d: a bank of filters slid through a volume.
#pragma once

#include "filters.h"

namespace tandem::nn {

using Conv3dOptions = ConvOptions<Triple, Padding3d>;

/// Maps [batch, in, depth, height, width] to [batch, out, depth', height', width']. Weight [out, in / groups, kernel depth,
/// kernel height, kernel width] and bias [out] start in U(-b, b), b = 1 / sqrt(in / groups * elements of a kernel).
class Conv3d {
 public:
  Conv3d(int64_t in, int64_t out, Triple kernel, Conv3dOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }

  Tensor weight;
  Tensor bias;  ///< undefined without bias
  Triple stride;
  Padding3d padding;
  Triple dilation;
  int64_t groups;
};

}  // namespace tandem::nn
