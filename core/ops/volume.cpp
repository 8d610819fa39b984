// Convolution and pooling of volumes, made of those of images: a volume [batch, channels, depth, height, width] is
// `batch depth` images. A convolution's taps along the depth are channels of one convolution of images; a pool goes over
// heights and widths first, then over depths as rows of an image. Results lie channels-last, as those of convolutions do.
#include "core/dispatch.h"
#include "core/ops/windows.h"

namespace tandem {

namespace {

constexpr int64_t kDeepest = 1 << 16;

void check_volume(const char* name, const Arg& x) {
  check<ShapeError>(x.tensor().rank() == 5, x, name, ": needs x [batch, channels, depth, height, width], got ",
                    x.tensor().shape());
  check<ShapeError>(x.tensor().shape()[1] > 0, x, name, ": x ", x.tensor().shape(), " has no channels");
  check_floating(name, x);
}

/// Depth, height and width.
Shape extents_of(const Arg& volumes) {
  const Shape& s = volumes.tensor().shape();
  return {s[2], s[3], s[4]};
}

/// [batch depth, channels, height, width]: no copy of a volume that lies channels-last.
Tensor as_images(const Tensor& x) {
  const Shape& s = x.shape();
  return reshape(movedim(x, 2, 1), {checked_mul(s[0], s[2]), s[1], s[3], s[4]});
}
Tensor as_volumes(const Tensor& images, int64_t batch, int64_t depth) {
  const Shape& s = images.shape();
  return movedim(reshape(images, {batch, depth, s[1], s[2], s[3]}), 1, 2);
}

/// A pool of images over the depths of volumes, which are given, and returned, as images: f of [batch, 1, depth, the rest].
template <class F> Tensor over_depths(const Tensor& images, int64_t batch, int64_t depth, F&& f) {
  const Shape& s = images.shape();
  const Tensor rows = reshape(movedim(images, 1, 3), {batch, 1, depth, checked_mul(checked_mul(s[1], s[2]), s[3])});
  const Tensor pooled = f(rows);
  const int64_t left = pooled.shape()[2];
  return movedim(reshape(pooled, {batch, left, s[2], s[3], s[1]}), 4, 1);
}

Triple stride_or(Triple stride, Triple kernel) {
  return stride.depth == 0 && stride.height == 0 && stride.width == 0 ? kernel : stride;
}

/// What both kinds of pools refuse, in terms of volumes.
void check_pool(const char* name, const Arg& x, Triple kernel, Triple stride, Triple padding, Triple dilation,
                bool ceil_mode) {
  check_volume(name, x);
  const Windows windows{name, kernel, stride, dilation, padding, padding};
  windows.check_numbers(x);
  for (int i = 0; i < 3; ++i) {
    check<ValueError>(windows.before[i] <= windows.kernel[i] / 2, x, name, ": padding ", windows.before,
                      " must be at most half the kernel ", windows.kernel);
    windows.count(x, extents_of(x), i, ceil_mode);
  }
}

}  // namespace

Tensor conv3d(const Arg& x, const Tensor& weight, const Tensor& bias, const Conv3dOptions& options) {
  constexpr const char* name = "conv3d";
  check<UndefinedError>(weight.defined(), x, name, ": weight is an undefined Tensor");
  return batched(x, 5, [&](const Arg& volumes) {
    const CallScope scope(name, x.where());
    const Shape &from = volumes.tensor().shape(), &w = weight.shape();
    check<ShapeError>(
        from.size() == 5 && w.size() == 5, x, name,
        ": needs x [batch, channels, depth, height, width] and weight [out, in / groups, kd, kh, kw], got ", from,
        " and ", w);
    const DType type = volumes.tensor().dtype();
    check<DTypeError>(is_floating(type) && is_floating(weight.dtype()), x, name, ": needs floating operands, got ",
                      type, " and ", weight.dtype(), "; cast them with to(float32)");
    check<ValueError>(options.groups >= 1 && w[0] % options.groups == 0, x, name, ": groups ", options.groups,
                      " don't divide ", w[0], " output channels");
    const int64_t channels = checked_mul(w[1], options.groups, name, x.where());
    check<ShapeError>(from[1] == channels, x, name, ": x ", from, " has ", from[1], " channels, weight ", w, " wants ",
                      channels);
    check<ShapeError>(!bias.defined() || bias.shape() == Shape{w[0]}, x, name, ": bias ",
                      bias.defined() ? bias.shape() : Shape{}, " for ", w[0], " output channels");
    check<ValueError>(w[2] <= kDeepest, x, name, ": kernel ", w, " is deeper than ", kDeepest);
    Windows windows{name, {w[2], w[3], w[4]}, options.stride, options.dilation, options.padding, options.padding};
    windows.check_numbers(x);
    if (options.padding.same)
      for (int i = 0; i < 3; ++i) {
        check<ValueError>(windows.stride[i] == 1, x, name, ": Padding::same needs stride 1, got ", windows.stride);
        const int64_t total = windows.dilation[i] * (windows.kernel[i] - 1);
        windows.before[i] = total / 2, windows.after[i] = total - total / 2;
      }
    const Shape extents = extents_of(volumes);
    const int64_t depth = windows.count(volumes, extents, 0);
    windows.count(volumes, extents, 1), windows.count(volumes, extents, 2);

    const Shape &before = windows.before, &after = windows.after;
    const bool even = before[1] == after[1] && before[2] == after[2];  // else more at the end
    Tensor padded = volumes.tensor();
    if (before[0] + after[0] > 0 || !even)
      padded = pad(padded, even ? std::vector<int64_t>{0, 0, 0, 0, before[0], after[0]}
                                : std::vector<int64_t>{before[2], after[2], before[1], after[1], before[0], after[0]});
    Tensor images;
    if (w[2] == 1 && windows.stride[0] == 1) {
      images = as_images(padded);
    } else {
      const Tensor deep = movedim(padded, 2, 1);
      Tensors taps;
      for (int64_t k = 0; k < w[2]; ++k) {
        const int64_t first = k * windows.dilation[0];
        taps.push_back(slice(deep, 1, first, first + (depth - 1) * windows.stride[0] + 1, windows.stride[0]));
      }
      images = reshape(stack(taps, 3), {checked_mul(from[0], depth), checked_mul(channels, w[2]), padded.shape()[3],
                                        padded.shape()[4]});
    }
    const Tensor y = conv2d(images, reshape(weight, {w[0], checked_mul(w[1], w[2]), w[3], w[4]}), bias,
                            {.stride = {options.stride.height, options.stride.width},
                             .padding = even ? Padding2d(before[1], before[2]) : Padding2d(0),
                             .dilation = {options.dilation.height, options.dilation.width},
                             .groups = options.groups});
    return as_volumes(y, from[0], depth);
  });
}

Tensor max_pool3d(const Arg& x, Triple kernel, Pool3dOptions options) {
  const Triple stride = stride_or(options.stride, kernel), padding = options.padding, dilation = options.dilation;
  return batched(x, 5, [&](const Arg& volumes) {
    const CallScope scope("max_pool3d", x.where());
    check_pool("max_pool3d", volumes, kernel, stride, padding, dilation, options.ceil_mode);
    const Shape& from = volumes.tensor().shape();
    // Depths last, so that of equals it is the first in row-major order that counts.
    const Tensor images = max_pool2d(as_images(volumes.tensor()), {kernel.height, kernel.width},
                                     {.stride = {stride.height, stride.width},
                                      .padding = {padding.height, padding.width},
                                      .dilation = {dilation.height, dilation.width},
                                      .ceil_mode = options.ceil_mode});
    return over_depths(images, from[0], from[2], [&](const Tensor& rows) {
      return max_pool2d(rows, {kernel.depth, 1},
                        {.stride = {stride.depth, 1},
                         .padding = {padding.depth, 0},
                         .dilation = {dilation.depth, 1},
                         .ceil_mode = options.ceil_mode});
    });
  });
}

Tensor avg_pool3d(const Arg& x, Triple kernel, AvgPool3dOptions options) {
  const Triple stride = stride_or(options.stride, kernel), padding = options.padding;
  return batched(x, 5, [&](const Arg& volumes) {
    const CallScope scope("avg_pool3d", x.where());
    check_pool("avg_pool3d", volumes, kernel, stride, padding, 1, options.ceil_mode);
    check<ValueError>(options.divisor_override.value_or(1) != 0, x, "avg_pool3d: divisor_override is 0");
    const Shape& from = volumes.tensor().shape();
    const DType type = volumes.tensor().dtype();
    const auto sums = options.divisor_override ? std::optional<int64_t>(1) : std::nullopt;
    const Tensor images = avg_pool2d(as_images(to(volumes, wide_type(type))), {kernel.height, kernel.width},
                                     {.stride = {stride.height, stride.width},
                                      .padding = {padding.height, padding.width},
                                      .count_include_pad = options.count_include_pad,
                                      .ceil_mode = options.ceil_mode,
                                      .divisor_override = sums});
    const Tensor y = over_depths(images, from[0], from[2], [&](const Tensor& rows) {
      return avg_pool2d(rows, {kernel.depth, 1},
                        {.stride = {stride.depth, 1},
                         .padding = {padding.depth, 0},
                         .count_include_pad = options.count_include_pad,
                         .ceil_mode = options.ceil_mode,
                         .divisor_override = options.divisor_override});
    });
    return to(y, type);
  });
}

Tensor adaptive_avg_pool3d(const Arg& x, Triple size) {
  return batched(x, 5, [&](const Arg& volumes) {
    const CallScope scope("adaptive_avg_pool3d", x.where());
    check_volume("adaptive_avg_pool3d", volumes);
    if (size.depth == 1 && size.height == 1 && size.width == 1) return mean(volumes, {2, 3, 4}, {.keepdim = true});
    const Shape& from = volumes.tensor().shape();
    check<ValueError>(size.depth >= 1 && size.height >= 1 && size.width >= 1, x, "adaptive_avg_pool3d: to ",
                      Shape(size), ": all extents must be at least 1");
    const DType type = volumes.tensor().dtype();
    const Tensor images = adaptive_avg_pool2d(as_images(to(volumes, wide_type(type))), {size.height, size.width});
    const Tensor y = over_depths(images, from[0], from[2], [&](const Tensor& rows) {
      return adaptive_avg_pool2d(rows, {size.depth, rows.shape()[3]});
    });
    return to(y, type);
  });
}

}  // namespace tandem
