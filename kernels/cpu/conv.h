// One 2-d convolution as numbers, and the ways to compute it and its two gradients.
//
// Memory, for all of them: x and its gradient [batch, height, width, channels], g and y likewise, weights
// [out, in / groups, kernel height, kernel width].
#pragma once

#include <cstdint>
#include <cstring>

#include "core/dtype.h"

namespace tandem {

enum class ConvPart : int64_t { forward, input_grad, weight_grad };

struct ConvProblem {
  int64_t batch, in, in_height, in_width;
  int64_t out, out_height, out_width;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  int64_t groups;

  bool operator==(const ConvProblem& other) const { return std::memcmp(this, &other, sizeof *this) == 0; }
};

/// What a part reads and writes: forward (x, weight, bias -> y), input_grad (g, weight -> dx),
/// weight_grad (g, x -> dweight). bias may be null.
struct ConvOperands {
  const void* a;
  const void* b;
  const void* bias;
  void* result;
};

/// By oneDNN in float32. False where the build or the library can't; nothing has been written then.
bool onednn_convolve(ConvPart part, const ConvProblem& problem, const ConvOperands& operands);

/// By our own kernel over the image itself, in float32. False where that is not for it (groups, dilation along the width,
/// the gradient of a strided convolution's input, few channels); nothing has been written then.
bool direct_convolve(ConvPart part, const ConvProblem& problem, const ConvOperands& operands);

/// As matrix products over patches (im2col), in float or double.
template <class T> void patch_convolve(ConvPart part, const ConvProblem& problem, const ConvOperands& operands);

}  // namespace tandem
