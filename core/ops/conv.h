// Convolutions.
#pragma once

#include <concepts>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Convolutions of [batch, channels, height, width], or of one image without the batch; results lie channels-last.
/// valid: none; same: as much as keeps the extents (stride 1), one more at the end where it is odd.
enum class Padding : uint8_t { valid, same };
/// How much, or Padding::same.
struct Padding2d : Pair {
  bool same = false;
  Padding2d() = default;
  template <std::integral I> Padding2d(I both) : Pair(both) {}
  Padding2d(int64_t height, int64_t width) : Pair(height, width) {}
  Padding2d(Pair pair) : Pair(pair) {}
  Padding2d(Padding kind) : same(kind == Padding::same) {}
};
struct Padding1d {
  int64_t length = 0;
  bool same = false;
  Padding1d() = default;
  template <std::integral I> Padding1d(I length) : length(static_cast<int64_t>(length)) {}
  Padding1d(Padding kind) : same(kind == Padding::same) {}
};
struct Conv2dOptions {
  Pair stride = 1;
  Padding2d padding = 0;
  Pair dilation = 1;
  int64_t groups = 1;
};
Tensor conv2d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const Conv2dOptions& options = {});
struct Conv1dOptions {
  int64_t stride = 1;
  Padding1d padding = 0;
  int64_t dilation = 1, groups = 1;
};
/// x [batch, in, length], weight [out, in / groups, kernel].
Tensor conv1d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const Conv1dOptions& options = {});
struct Padding3d : Triple {
  bool same = false;
  Padding3d() = default;
  template <std::integral I> Padding3d(I all) : Triple(all) {}
  Padding3d(int64_t depth, int64_t height, int64_t width) : Triple(depth, height, width) {}
  Padding3d(Triple triple) : Triple(triple) {}
  Padding3d(Padding kind) : same(kind == Padding::same) {}
};
struct Conv3dOptions {
  Triple stride = 1;
  Padding3d padding = 0;
  Triple dilation = 1;
  int64_t groups = 1;
};
/// x [batch, in, depth, height, width], or without the batch, weight [out, in / groups, kd, kh, kw]. The kernel is at most 65,536
/// deep.
Tensor conv3d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const Conv3dOptions& options = {});
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
