// Linear: y = x Wᵀ + b.
#pragma once

#include "../../core/tensor.h"

namespace tandem::nn {

struct LinearOptions {
  bool bias = true;
  DType dtype = DType::float32;
  Device device = {};
};

/// Maps [.., in] to [.., out]. Weight [out, in] and bias [out] start in U(-1/sqrt(in), 1/sqrt(in)).
class Linear {
 public:
  Linear(int64_t in, int64_t out, LinearOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }

  Tensor weight;
  Tensor bias;  ///< undefined without bias
};

}  // namespace tandem::nn
