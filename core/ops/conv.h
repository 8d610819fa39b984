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
template <class Extents> struct PaddingOf : Extents {
  bool same = false;
  PaddingOf() = default;
  using Extents::Extents;
  PaddingOf(Extents extents) : Extents(extents) {}
  PaddingOf(Padding kind) : same(kind == Padding::same) {}
};
using Padding2d = PaddingOf<Pair>;
using Padding3d = PaddingOf<Triple>;
struct Padding1d {
  int64_t length = 0;
  bool same = false;
  Padding1d() = default;
  template <std::integral I> Padding1d(I length) : length(static_cast<int64_t>(length)) {}
  Padding1d(Padding kind) : same(kind == Padding::same) {}
};
template <class Extents, class Amount> struct ConvOptions {
  Extents stride = 1;
  Amount padding = 0;
  Extents dilation = 1;
  int64_t groups = 1;
};
using Conv1dOptions = ConvOptions<int64_t, Padding1d>;
using Conv2dOptions = ConvOptions<Pair, Padding2d>;
using Conv3dOptions = ConvOptions<Triple, Padding3d>;
Tensor conv2d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const Conv2dOptions& options = {});
/// x [batch, in, length], weight [out, in / groups, kernel].
Tensor conv1d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const Conv1dOptions& options = {});
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
