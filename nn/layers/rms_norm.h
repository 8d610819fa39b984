// RmsNorm: each row divided by its root mean square, then scaled.
#pragma once

#include "../../core/tensor.h"

namespace tandem::nn {

struct RmsNormOptions {
  double epsilon = 1e-6;
  DType dtype = DType::float32;
  Device device = {};
};

/// y = x / sqrt(mean(x²) + epsilon) * weight over the last dim, [.., width] to [.., width] (Zhang & Sennrich 2019,
/// arXiv:1910.07467). Weight starts at 1.
class RmsNorm {
 public:
  explicit RmsNorm(int64_t width, RmsNormOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) { v("weight", weight); }

  Tensor weight;
  double epsilon;
};

}  // namespace tandem::nn
