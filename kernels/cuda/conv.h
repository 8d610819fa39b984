// 2-d convolution and its gradients on the device: by cuDNN, or by an implicit matrix product of our own.
#pragma once

#include "kernels/cuda/context.h"

namespace tandem::gpu {

enum class ConvPass { forward, input_grad, weight_grad };

/// x [batch, channels, height, width], w [filters, channels / groups, kernel height, kernel width] and
/// y [batch, filters, out height, out width]; of the three one is written. Any strides.
struct ConvProblem {
  ConvPass pass;
  DType type;
  Shape x_shape, x_strides, w_shape, w_strides, y_shape, y_strides;
  void *x, *w, *y;
  const void* bias;  // [filters], forward only
  int64_t bias_stride;
  int64_t stride[2], padding[2], dilation[2], groups;
  Device device;
  cudaStream_t stream;
};

void own_conv(const ConvProblem& problem);
/// False where the library has no way to do it.
bool library_conv(const ConvProblem& problem);

}  // namespace tandem::gpu
