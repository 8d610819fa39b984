// GroupNorm: groups of channels of each image to mean 0 and variance 1, then scaled and shifted.
#pragma once

#include "../../core/tensor.h"

namespace tandem::nn {

struct GroupNormOptions {
  double epsilon = 1e-5;
  bool affine = true;  ///< has weight and bias
  DType dtype = DType::float32;
  Device device = {};
};

/// y = (x - mean) / sqrt(variance + epsilon) * weight + bias, mean and variance being those of `channels / groups`
/// neighbouring channels of one image of x [batch, channels, …] (Wu & He 2018, arXiv:1803.08494): what BatchNorm2d does,
/// whatever the batch. Weight starts at 1, bias at 0.
class GroupNorm {
 public:
  GroupNorm(int64_t groups, int64_t channels, GroupNormOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }

  Tensor weight, bias;  ///< [channels]; undefined unless affine
  int64_t groups, channels;
  double epsilon;
};

}  // namespace tandem::nn
