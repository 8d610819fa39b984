// LayerNorm: each row to mean 0 and variance 1, then scaled and shifted.
#pragma once

#include "../../core/tensor.h"

namespace tandem::nn {

struct LayerNormOptions {
  double epsilon = 1e-5;
  DType dtype = DType::float32;
  Device device = {};
};

/// y = (x - mean) / sqrt(variance + epsilon) * weight + bias over the last dim, [.., width] to [.., width]
/// (Ba et al. 2016, arXiv:1607.06450). Weight starts at 1, bias at 0.
class LayerNorm {
 public:
  explicit LayerNorm(int64_t width, LayerNormOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }

  Tensor weight, bias;
  double epsilon;
};

}  // namespace tandem::nn
