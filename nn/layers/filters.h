// What convolution layers share: their options, and their filters as they start.
#pragma once

#include "../../core/ops/conv.h"

namespace tandem::nn {

template <class Extents, class Amount> struct ConvOptions {
  Extents stride = 1;
  Amount padding = 0;  ///< or Padding::same
  Extents dilation = 1;
  int64_t groups = 1;
  bool bias = true;
  DType dtype = DType::float32;
  Device device = {};
};

/// Of a layer.
struct Filters {
  Tensor weight;  ///< [outer, inner / groups, kernel ..]
  Tensor bias;    ///< [out], or undefined

  /// In U(-b, b), b = 1 / sqrt(inner / groups * elements of a kernel). `outer` is `out`, and `inner` `in`, but of a transposed
  /// convolution. ValueError in the name of `layer` where an extent is less than 1, or groups don't divide both.
  template <class Options>
  Filters(const char* layer, int64_t in, int64_t out, const Shape& kernel, const Options& options, Where where,
          bool transposed = false)
      : Filters(layer, in, out, kernel, options.groups, options.bias,
                {.dtype = options.dtype, .device = options.device, .requires_grad = true}, where, transposed) {}

 private:
  Filters(const char* layer, int64_t in, int64_t out, const Shape& kernel, int64_t groups, bool with_bias,
          TensorOptions options, Where where, bool transposed);
};

}  // namespace tandem::nn
