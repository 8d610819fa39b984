// ConvTranspose2d: filters that each pixel spreads over a larger image.
#pragma once

#include "../../core/tensor.h"

namespace tandem::nn {

struct ConvTranspose2dOptions {
  Pair stride = 1, padding = 0, output_padding = 0, dilation = 1;
  int64_t groups = 1;
  bool bias = true;
  DType dtype = DType::float32;
  Device device = {};
};

/// Maps [batch, in, height, width] to [batch, out, height', width'], height' = (height - 1) stride - 2 padding +
/// dilation (kernel - 1) + output_padding + 1. Weight [in, out / groups, kernel height, kernel width] and bias [out] start
/// in U(-b, b), b = 1 / sqrt(out / groups * kernel height * kernel width), as PyTorch's do.
class ConvTranspose2d {
 public:
  ConvTranspose2d(int64_t in, int64_t out, Pair kernel, ConvTranspose2dOptions options = {},
                  Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }

  Tensor weight;
  Tensor bias;  ///< undefined without bias
  Pair stride, padding, output_padding, dilation;
  int64_t groups;
};

}  // namespace tandem::nn
