// Average pooling and interpolation: each row and each column of the result is a weighted sum of some of x's. The ops are
// linear, so the gradient of a gradient is the op itself. Results lie as x does, channels-last or in planes.
#include <algorithm>
#include <cmath>

#include "core/dispatch.h"
#include "core/ops/composed.h"
#include "core/ops/pool_shared.h"

namespace tandem {

namespace {

Shape strides_like(const Tensor& x, const Shape& shape) {
  const bool channels_last = !x.is_contiguous() && x.strides() == channels_last_strides(x.shape());
  return channels_last ? channels_last_strides(shape) : contiguous_strides(shape);
}
void check_images(const Infer& op) {
  op.check<ShapeError>(op.input(0).rank() == 4, "needs [batch, channels, height, width], got ", op.input(0).shape());
  op.check_floating(0);
}

void infer_avg_pool2d(Infer& op) {
  check_images(op);
  const Tensor& x = op.input(0);
  const Shape shape = pooled_shape(op, x.shape());
  op.output(shape, strides_like(x, shape), x.dtype());
}

constexpr const char* kModes[] = {"nearest", "bilinear", "bicubic", "area"};

/// What interpolate2d makes of x's shape, if the way there can be walked.
Shape interpolated_shape(const Infer& op, const Shape& x) {
  const Shape& size = op.integers("size", 2);
  op.check<ValueError>(size[0] >= 1 && size[1] >= 1, "to ", size, ": both extents must be at least 1");
  op.check<ShapeError>(x[2] >= 1 && x[3] >= 1, "x ", x, " has no pixels to interpolate between");
  const std::string& mode = op.attributes.text("mode");
  op.check<ValueError>(std::find(std::begin(kModes), std::end(kModes), mode) != std::end(kModes),
                       "no mode is called \"", mode, "\"");
  const Shape shape{x[0], x[1], size[0], size[1]};
  check_extents(shape);
  for (int i = 0; i < 2; ++i) {
    const double step = op.attributes.number(i == 0 ? "row_step" : "column_step");
    op.check<ValueError>(step >= 0 && step * static_cast<double>(size[i]) <= static_cast<double>(kMaxNumel),
                         "can't walk in steps of ", step);
  }
  return shape;
}

void infer_interpolate2d(Infer& op) {
  check_images(op);
  const Tensor& x = op.input(0);
  const Shape shape = interpolated_shape(op, x.shape());
  op.output(shape, strides_like(x, shape), x.dtype());
}

template <Shape (*forward)(const Infer&, const Shape&)> void infer_grad(Infer& op) {
  check_images(op);
  const Shape &shape = op.attributes.integers("shape"), &g = op.input(0).shape();
  check_extents(shape);
  op.check<ShapeError>(shape.size() == 4, "needs a shape of [batch, channels, height, width], got ", shape);
  const Shape expected = forward(op, shape);
  op.check<ShapeError>(g == expected, "the gradient ", g, " is not that of x ", shape, ", which gives ", expected);
  op.output(shape, strides_like(op.input(0), shape), op.input(0).dtype());
}

template <const char* const& name> Tensors to_grad(const OpContext& op) {
  Attributes attributes = op.attributes();
  attributes.set({"shape", op.input_shape(0)});
  return {dispatch(find_op(name), {op.grad_output()}, attributes, Where::current())};
}
template <const char* const& name> Tensors to_forward(const OpContext& op) {
  const Op& forward = find_op(name);
  return {dispatch(forward, {op.grad_output()}, select(forward.attributes, op.attributes()), Where::current())};
}
constexpr const char *kPool = "avg_pool2d", *kPoolGrad = "avg_pool2d_grad", *kInterpolate = "interpolate2d",
                     *kInterpolateGrad = "interpolate2d_grad";

Tensor call_interpolate(const Arg& x, const Shape& size, const char* mode, bool align_corners, double scale_factor) {
  static const Op& op = find_op("interpolate2d");
  const Shape& from = x.tensor().shape();
  Attributes attributes{{"size", size}, {"mode", std::string(mode)}, {"align_corners", align_corners}};
  for (int i = 0; i < 2; ++i) {
    const double in = from.size() == 4 ? static_cast<double>(from[i + 2]) : 1, out = static_cast<double>(size[i]);
    const double step = align_corners      ? (out > 1 ? (in - 1) / (out - 1) : 0)
                        : scale_factor > 0 ? 1 / scale_factor
                                           : in / out;
    attributes.set({i == 0 ? "row_step" : "column_step", step});
  }
  return dispatch(op, {x.tensor()}, attributes, x.where());
}

void check_rank(const char* name, const Arg& x, int rank, const char* dims) {
  if (x.tensor().rank() != rank)
    throw ShapeError(detail::str(name, ": needs x ", dims, ", got ", x.tensor().shape()), user_line(x.where()));
}

/// The greatest over windows of `dim` that make `count` of it, of equal lengths or overlapping by one. Of equals the first
/// has the gradient.
Tensor greatest_windows(const Tensor& x, int dim, int64_t count, Where where) {
  constexpr int64_t kMost = 1 << 16;  // each is an op
  if (count > kMost)
    throw ValueError(detail::str("adaptive_max_pool2d: can't make ", count, " windows of dim ", dim, " of ", x.shape(),
                                 ", only up to ", kMost, ", or as many as divide it"),
                     user_line(where));
  const int64_t extent = x.shape()[dim];
  Tensors parts;
  for (int64_t i = 0; i < count; ++i)
    parts.push_back(max_with_index(slice(x, dim, i * extent / count, ((i + 1) * extent + count - 1) / count), dim,
                                   {.keepdim = true})
                        .values);
  return concat(parts, dim);
}

}  // namespace

void define_resample(OpTable& table) {
  using enum AttributeType;
  const AttributeSchema window = {
      {"kernel", ints}, {"stride", ints}, {"padding", ints, Shape{0, 0}}, {"count_include_pad", flag, true}};
  const AttributeSchema steps = {{"size", ints},
                                 {"mode", text, "nearest"},
                                 {"align_corners", flag, false},
                                 {"row_step", number},
                                 {"column_step", number}};
  AttributeSchema window_grad = window, steps_grad = steps;
  window_grad.push_back({"shape", ints});
  steps_grad.push_back({"shape", ints});
  table.add({.name = kPool,
             .kind = OpKind::opaque,
             .attributes = window,
             .infer = infer_avg_pool2d,
             .grad = to_grad<kPoolGrad>,
             .onnx = "AveragePool"});
  table.add({.name = kPoolGrad,
             .kind = OpKind::opaque,
             .attributes = window_grad,
             .infer = infer_grad<pooled_shape>,
             .grad = to_forward<kPool>});
  table.add({.name = kInterpolate,
             .kind = OpKind::opaque,
             .attributes = steps,
             .infer = infer_interpolate2d,
             .grad = to_grad<kInterpolateGrad>,
             .onnx = "Resize"});
  table.add({.name = kInterpolateGrad,
             .kind = OpKind::opaque,
             .attributes = steps_grad,
             .infer = infer_grad<interpolated_shape>,
             .grad = to_forward<kInterpolate>});
}

Tensor avg_pool2d(const Arg& x, Pair kernel, AvgPool2dOptions options) {
  static const Op& op = find_op("avg_pool2d");
  const Pair stride = options.stride.height == 0 && options.stride.width == 0 ? kernel : options.stride;
  return batched(x, 4, [&](const Arg& images) {
    if (options.ceil_mode || options.divisor_override) return padded_average(images, kernel, options);
    return dispatch(op, {images.tensor()},
                    {{"kernel", Shape(kernel)},
                     {"stride", Shape(stride)},
                     {"padding", Shape(options.padding)},
                     {"count_include_pad", options.count_include_pad}},
                    x.where());
  });
}

namespace {

/// f of rows [batch, channels, length], or of one without the batch, as images of height 1.
template <class F> Tensor as_rows_of_images(const char* name, const Arg& x, F&& f) {
  const CallScope scope(name, x.where());
  return batched(x, 3, [&](const Arg& rows) {
    check_rank(name, x, x.tensor().rank() == 2 ? 2 : 3, "[batch, channels, length]");
    return squeeze(f(unsqueeze(rows, 2)), 2);
  });
}

}  // namespace

Tensor avg_pool1d(const Arg& x, int64_t kernel, AvgPool1dOptions options) {
  return as_rows_of_images("avg_pool1d", x, [&](const Tensor& images) {
    return avg_pool2d(images, {1, kernel},
                      {.stride = {1, options.stride == 0 ? kernel : options.stride},
                       .padding = {0, options.padding},
                       .count_include_pad = options.count_include_pad,
                       .ceil_mode = options.ceil_mode});
  });
}

Tensor max_pool1d(const Arg& x, int64_t kernel, Pool1dOptions options) {
  return as_rows_of_images("max_pool1d", x, [&](const Tensor& images) {
    return max_pool2d(images, {1, kernel},
                      {.stride = {1, options.stride == 0 ? kernel : options.stride},
                       .padding = {0, options.padding},
                       .dilation = {1, options.dilation},
                       .ceil_mode = options.ceil_mode});
  });
}

Tensor adaptive_avg_pool2d(const Arg& x, Pair size) {
  return batched(x, 4, [&](const Arg& images) {
    check_rank("adaptive_avg_pool2d", images, 4, "[batch, channels, height, width]");
    if (size.height == 1 && size.width == 1) return mean(images, {2, 3}, {.keepdim = true});
    const CallScope scope("adaptive_avg_pool2d", x.where());
    return call_interpolate(images, size, "area", false, 0);
  });
}
Tensor adaptive_avg_pool1d(const Arg& x, int64_t size) {
  return as_rows_of_images("adaptive_avg_pool1d", x, [&](const Tensor& images) {
    return adaptive_avg_pool2d(images, {1, size});
  });
}

Tensor adaptive_max_pool2d(const Arg& x, Pair size) {
  return batched(x, 4, [&](const Arg& images) {
    check_rank("adaptive_max_pool2d", images, 4, "[batch, channels, height, width]");
    const Shape& shape = images.tensor().shape();
    if (size.height < 1 || size.width < 1 || shape[2] < 1 || shape[3] < 1)
      throw ValueError(
          detail::str("adaptive_max_pool2d: from ", shape, " to ", Shape(size), ": all extents must be at least 1"),
          user_line(x.where()));
    const CallScope scope("adaptive_max_pool2d", x.where());
    if (shape[2] % size.height == 0 && shape[3] % size.width == 0)
      return max_pool2d(images, {shape[2] / size.height, shape[3] / size.width});
    // Columns first, so that of equals it is the first in row-major order that counts.
    return greatest_windows(greatest_windows(images.tensor(), 3, size.width, x.where()), 2, size.height, x.where());
  });
}
Tensor adaptive_max_pool1d(const Arg& x, int64_t size) {
  return as_rows_of_images("adaptive_max_pool1d", x, [&](const Tensor& images) {
    return adaptive_max_pool2d(images, {1, size});
  });
}

Tensor interpolate(const Arg& x, const InterpolateOptions& options) {
  check_rank("interpolate", x, 4, "[batch, channels, height, width]");
  const Shape& shape = x.tensor().shape();
  const bool by_size = options.size.height != 0 || options.size.width != 0, by_factor = options.scale_factor != 0;
  if (by_size == by_factor)
    throw ValueError(
        detail::str("interpolate: ",
                    by_size ? "both size and scale_factor are given" : "neither size nor scale_factor is given",
                    "; give one, as in {.scale_factor = 2}"),
        user_line(x.where()));
  if (options.align_corners && options.mode != Interpolation::bilinear && options.mode != Interpolation::bicubic)
    throw ValueError(detail::str("interpolate: align_corners means nothing to ", kModes[static_cast<int>(options.mode)],
                                 "; use bilinear or bicubic"),
                     user_line(x.where()));
  if (by_factor && !(options.scale_factor > 0 && std::isfinite(options.scale_factor)))
    throw ValueError(detail::str("interpolate: scale_factor ", options.scale_factor, " must be above 0"),
                     user_line(x.where()));
  Shape size(options.size);
  if (by_factor)
    for (int i = 0; i < 2; ++i)
      size[i] = static_cast<int64_t>(
          std::min(std::floor(static_cast<double>(shape[i + 2]) * options.scale_factor), 0x1p62));  // refused by infer
  return call_interpolate(x, size, kModes[static_cast<int>(options.mode)], options.align_corners, options.scale_factor);
}

Tensor pixel_shuffle(const Arg& x, int64_t factor) {
  check_rank("pixel_shuffle", x, 4, "[batch, channels, height, width]");
  const Shape& s = x.tensor().shape();
  if (factor < 1 || s[1] % factor != 0 || s[1] / factor % factor != 0)
    throw ValueError(detail::str("pixel_shuffle: ", s[1], " channels of x ", s, " don't split into squares of ", factor,
                                 " x ", factor),
                     user_line(x.where()));
  const CallScope scope("pixel_shuffle", x.where());
  const int64_t channels = s[1] / factor / factor;
  const Shape joined{s[0], channels, checked_mul(s[2], factor, "pixel_shuffle"),
                     checked_mul(s[3], factor, "pixel_shuffle")};
  check_extents({s[0], channels, factor, factor, s[2], s[3]}, "pixel_shuffle");
  const Tensor squares = permute(reshape(x, {s[0], channels, factor, factor, s[2], s[3]}), {0, 1, 4, 2, 5, 3});
  return reshape(squares, joined);
}

Tensor pixel_unshuffle(const Arg& x, int64_t factor) {
  check_rank("pixel_unshuffle", x, 4, "[batch, channels, height, width]");
  const Shape& s = x.tensor().shape();
  if (factor < 1 || factor > (1 << 20) || s[2] % factor != 0 || s[3] % factor != 0)
    throw ValueError(detail::str("pixel_unshuffle: x ", s, " doesn't split into squares of ", factor, " x ", factor),
                     user_line(x.where()));
  const CallScope scope("pixel_unshuffle", x.where());
  const int64_t height = s[2] / factor, width = s[3] / factor;
  const Tensor squares = permute(reshape(x, {s[0], s[1], height, factor, width, factor}), {0, 1, 3, 5, 2, 4});
  return reshape(squares, {s[0], s[1] * factor * factor, height, width});
}

Tensor channel_shuffle(const Arg& x, int64_t groups) {
  const Shape& s = x.tensor().shape();
  if (s.size() < 2 || groups < 1 || s[1] % groups != 0)
    throw ValueError(detail::str("channel_shuffle: the channels of x ", s, " don't split into ", groups, " groups"),
                     user_line(x.where()));
  const CallScope scope("channel_shuffle", x.where());
  return reshape(transpose(unflatten(x, 1, {groups, s[1] / groups}), 1, 2), s);
}

}  // namespace tandem
