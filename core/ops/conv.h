// Convolutions.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Convolution and pooling on [batch, channels, height, width]; results lie channels-last.
struct Conv2dOptions {
  Pair stride = 1, padding = 0, dilation = 1;
  int64_t groups = 1;
};
Tensor conv2d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const Conv2dOptions& options = {});
struct Conv1dOptions {
  int64_t stride = 1, padding = 0, dilation = 1, groups = 1;
};
/// x [batch, in, length], weight [out, in / groups, kernel].
Tensor conv1d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const Conv1dOptions& options = {});
struct ConvTranspose2dOptions {
  Pair stride = 1, padding = 0, output_padding = 0, dilation = 1;
  int64_t groups = 1;
};
/// What conv2d's gradient does to its output's: each pixel of x [batch, in, height, width] spreads weight [in, out / groups,
/// kernel height, kernel width]. The result has (height - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1 rows.
Tensor conv_transpose2d(const Arg& x, const Tensor& weight, const Tensor& bias = {},
                        const ConvTranspose2dOptions& options = {});
struct ConvTranspose1dOptions {
  int64_t stride = 1, padding = 0, output_padding = 0, dilation = 1, groups = 1;
};
/// x [batch, in, length], weight [in, out / groups, kernel].
Tensor conv_transpose1d(const Arg& x, const Tensor& weight, const Tensor& bias = {},
                        const ConvTranspose1dOptions& options = {});

}  // namespace tandem
