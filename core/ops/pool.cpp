// Max pooling; average pooling is in resample.cpp. Forward also gives, for each window, where in the plane its maximum was (int32, row * width
// + column), so that the gradient is a scatter and the gradient of that a gather.
#include "core/ops/pool_shared.h"

#include <algorithm>
#include <limits>

#include "core/dispatch.h"
#include "core/ops/composed.h"

namespace tandem {

Shape pooled_shape(const Infer& op, const Shape& x) {
  op.check<ShapeError>(x.size() == 4, "needs [batch, channels, height, width], got ", x);
  const Shape &kernel = op.integers("kernel", 2), &stride = op.integers("stride", 2),
              &padding = op.integers("padding", 2);
  Shape shape = x;
  for (int i = 0; i < 2; ++i) {
    op.check<ValueError>(kernel[i] >= 1 && stride[i] >= 1 && padding[i] >= 0 && padding[i] <= kernel[i] / 2, "kernel ",
                         kernel, ", stride ", stride, ", padding ", padding,
                         ": the first two must be at least 1, padding at most half the kernel");
    // Kernels count in int32 here and there.
    op.check<ValueError>(std::max(kernel[i], stride[i]) <= std::numeric_limits<int32_t>::max(), "kernel ", kernel,
                         " and stride ", stride, " must be at most 2^31 - 1");
    const int64_t extent = x[i + 2] + 2 * padding[i];
    op.check<ShapeError>(extent >= kernel[i], "kernel ", kernel, " is larger than the padded input ", x);
    shape[i + 2] = (extent - kernel[i]) / stride[i] + 1;
  }
  return shape;
}

namespace {

/// Follows x: channels-last in, channels-last out.
Shape plane_strides(const Tensor& x, const Shape& shape) {
  const bool channels_last = !x.is_contiguous() && x.strides() == channels_last_strides(x.shape());
  return channels_last ? channels_last_strides(shape) : contiguous_strides(shape);
}

/// Positions in a plane are int32.
void check_plane(const Infer& op, const Shape& x) {
  op.check<ShapeError>(checked_mul(x[2], x[3]) <= std::numeric_limits<int32_t>::max(), "planes of ", x[2], " x ", x[3],
                       " have more than 2^31 - 1 elements");
}

void infer_max_pool2d(Infer& op) {
  const Tensor& x = op.input(0);
  op.check_floating(0);
  const Shape shape = pooled_shape(op, x.shape());
  check_plane(op, x.shape());
  const Shape strides = plane_strides(x, shape);
  op.output(shape, strides, x.dtype());
  op.output(shape, strides, DType::int32);
}

/// `pooled` and the positions are as max_pool2d makes them of `shape`.
void check_positions(const Infer& op, const Shape& pooled, const Shape& shape) {
  const Tensor& positions = op.input(1);
  check_extents(shape);
  const Shape expected = pooled_shape(op, shape);
  check_plane(op, shape);
  op.check<ShapeError>(pooled == expected && positions.shape() == expected, "operands ", pooled, " and ",
                       positions.shape(), " are not what ", shape, " gives, ", expected);
  op.check<DTypeError>(positions.dtype() == int32, "positions must be int32, got ", positions.dtype());
}

void infer_max_unpool2d(Infer& op) {
  const Shape& shape = op.attributes.integers("shape");
  check_positions(op, op.input(0).shape(), shape);
  op.output(shape, plane_strides(op.input(1), shape), op.input(0).dtype());
}

void infer_select(Infer& op) {
  const Shape &shape = op.attributes.integers("shape"), &x = op.input(0).shape();
  op.check<ShapeError>(x == shape, "x is ", x, ", not ", shape);
  check_positions(op, op.input(1).shape(), shape);
  op.output(op.input(1).shape(), plane_strides(op.input(1), op.input(1).shape()), op.input(0).dtype());
}

}  // namespace

void define_resample(OpTable& table);

void define_pool(OpTable& table) {
  using enum AttributeType;
  const AttributeSchema unpool = {{"kernel", ints}, {"stride", ints}, {"padding", ints, Shape{0, 0}}, {"shape", ints}};
  define_resample(table);
  table.add({.name = "max_pool2d",
             .kind = OpKind::opaque,
             .outputs = 2,
             .attributes = {{"kernel", ints}, {"stride", ints}, {"padding", ints, Shape{0, 0}}},
             .infer = infer_max_pool2d,
             .grad =
                 [](const OpContext& op) {
                   Attributes attributes = op.attributes();
                   attributes.set({"shape", op.input_shape(0)});
                   return Tensors{dispatch(find_op("max_unpool2d"), {op.grad_output(), op.output(1)}, attributes,
                                           Where::current())};
                 },
             .saved = out(1),
             .onnx = "MaxPool"});
  table.add({.name = "max_unpool2d",
             .kind = OpKind::index,
             .inputs = 2,
             .attributes = unpool,
             .infer = infer_max_unpool2d,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{dispatch(find_op("max_pool2d_select"), {op.grad_output(), op.input(1)},
                                           op.attributes(), Where::current()),
                                  Tensor()};
                 },
             .saved = in(1)});
  table.add({.name = "max_pool2d_select",
             .kind = OpKind::index,
             .inputs = 2,
             .attributes = unpool,
             .infer = infer_select,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{dispatch(find_op("max_unpool2d"), {op.grad_output(), op.input(1)}, op.attributes(),
                                           Where::current()),
                                  Tensor()};
                 },
             .saved = in(1)});
  table.at("max_pool2d").picks = true;
  table.at("max_unpool2d").places = true;
}

namespace {

/// Along one dim: how many windows there are, and how much padding they need after the elements.
struct Windows {
  int64_t count, after;
};
Windows windows_of(const char* name, const Arg& x, int dim, int64_t kernel, int64_t stride, int64_t padding,
                   int64_t dilation, bool ceil_mode) {
  const int64_t extent = x.tensor().shape()[dim];
  constexpr int64_t kMost = 1 << 24;  // so that nothing below overflows
  if (kernel < 1 || stride < 1 || dilation < 1 || padding < 0 || padding * 2 > kernel || kernel > kMost ||
      stride > kMost || dilation > kMost || kernel * dilation > kMost)
    throw ValueError(detail::str(name, ": kernel ", kernel, ", stride ", stride, ", padding ", padding, ", dilation ",
                                 dilation, ": all but padding must be at least 1, padding at most half the kernel"),
                     user_line(x.where()));
  const int64_t reach = dilation * (kernel - 1) + 1, free = extent + 2 * padding - reach;
  if (free + (ceil_mode ? stride - 1 : 0) < 0)
    throw ShapeError(detail::str(name, ": kernel ", kernel, " (reach ", reach, ") is larger than the padded input ",
                                 x.tensor().shape()),
                     user_line(x.where()));
  int64_t count = (free + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  if (ceil_mode && (count - 1) * stride >= extent + padding) --count;  // it would begin beyond the end
  return {count, std::max<int64_t>((count - 1) * stride + reach - extent - padding, 0)};
}

ValuesAndIndices pooled(const Arg& x, Pair kernel, const Pool2dOptions& options) {
  static const Op& op = find_op("max_pool2d");
  const Pair stride = options.stride.height == 0 && options.stride.width == 0 ? kernel : options.stride;
  Tensor outputs[2];
  dispatch(op, {&x.tensor(), 1},
           {{"kernel", Shape(kernel)}, {"stride", Shape(stride)}, {"padding", Shape(options.padding)}}, outputs,
           x.where());
  return {outputs[0], outputs[1]};
}

/// By padding with what is never the greatest; and where windows have holes, as the greatest of their elements' planes.
Tensor padded_pool(const Arg& x, Pair kernel, const Pool2dOptions& options) {
  const CallScope scope("max_pool2d", x.where());
  const Pair stride = options.stride.height == 0 && options.stride.width == 0 ? kernel : options.stride;
  const Tensor& tensor = x.tensor();
  if (tensor.rank() != 4)
    throw ShapeError(detail::str("max_pool2d: needs [batch, channels, height, width], got ", tensor.shape()),
                     user_line(x.where()));
  const Windows rows = windows_of("max_pool2d", x, 2, kernel.height, stride.height, options.padding.height,
                                  options.dilation.height, options.ceil_mode),
                columns = windows_of("max_pool2d", x, 3, kernel.width, stride.width, options.padding.width,
                                     options.dilation.width, options.ceil_mode);
  const Tensor wide = pad(tensor, {options.padding.width, columns.after, options.padding.height, rows.after},
                          {.value = -std::numeric_limits<double>::infinity()});
  if (options.dilation.height == 1 && options.dilation.width == 1)
    return pooled(wide, kernel, {.stride = stride}).values;
  Tensors planes;
  for (int64_t i = 0; i < kernel.height; ++i) {
    const int64_t top = i * options.dilation.height;
    const Tensor lines = slice(wide, 2, top, top + (rows.count - 1) * stride.height + 1, stride.height);
    for (int64_t j = 0; j < kernel.width; ++j) {
      const int64_t left = j * options.dilation.width;
      planes.push_back(slice(lines, 3, left, left + (columns.count - 1) * stride.width + 1, stride.width));
    }
  }
  return max_with_index(stack(planes, -1), -1).values;
}

/// What the sums over windows along a dim of x are divided by, as far as that dim goes: how much of them counts.
Tensor counted(const Arg& x, int dim, const Windows& windows, int64_t kernel, int64_t stride, int64_t padding,
               bool count_include_pad) {
  std::vector<double> counts;
  const int64_t extent = x.tensor().shape()[dim];
  for (int64_t i = 0; i < windows.count; ++i) {
    int64_t begin = i * stride - padding, end = std::min(begin + kernel, extent + padding);
    if (!count_include_pad) begin = std::max<int64_t>(begin, 0), end = std::min(end, extent);
    counts.push_back(static_cast<double>(end - begin));
  }
  Shape shape{1, 1, 1, 1};
  shape[dim] = windows.count;
  return reshape(tensor(counts, {.dtype = x.tensor().dtype(), .device = x.tensor().device()}), shape);
}

}  // namespace

Tensor max_pool2d(const Arg& x, Pair kernel, Pool2dOptions options) {
  return batched(x, 4, [&](const Arg& images) {
    const bool plain = !options.ceil_mode && options.dilation.height == 1 && options.dilation.width == 1;
    return plain ? pooled(images, kernel, options).values : padded_pool(images, kernel, options);
  });
}

ValuesAndIndices max_pool2d_with_indices(const Arg& x, Pair kernel, Pool2dOptions options) {
  const CallScope scope("max_pool2d_with_indices", x.where());
  if (options.ceil_mode || options.dilation.height != 1 || options.dilation.width != 1)
    throw ValueError("max_pool2d_with_indices: has neither dilation nor ceil_mode; max_pool2d does",
                     user_line(x.where()));
  Tensor indices;
  const Tensor values = batched(x, 4, [&](const Arg& images) {
    const ValuesAndIndices both = pooled(images, kernel, options);
    indices = to(both.indices, int64);
    return both.values;
  });
  return {values, indices.rank() == values.rank() ? indices : squeeze(indices, 0)};
}

Tensor padded_average(const Arg& x, Pair kernel, const AvgPool2dOptions& options) {
  const CallScope scope("avg_pool2d", x.where());
  const Pair stride = options.stride.height == 0 && options.stride.width == 0 ? kernel : options.stride,
             padding = options.padding;
  if (x.tensor().rank() != 4)
    throw ShapeError(detail::str("avg_pool2d: needs [batch, channels, height, width], got ", x.tensor().shape()),
                     user_line(x.where()));
  if (options.divisor_override.value_or(1) == 0)
    throw ValueError("avg_pool2d: divisor_override is 0", user_line(x.where()));
  const Windows rows =
                    windows_of("avg_pool2d", x, 2, kernel.height, stride.height, padding.height, 1, options.ceil_mode),
                columns =
                    windows_of("avg_pool2d", x, 3, kernel.width, stride.width, padding.width, 1, options.ceil_mode);
  const Tensor wide = pad(x, {padding.width, columns.after, padding.height, rows.after});
  const Tensor total = avg_pool2d(wide, kernel, {.stride = stride}) * static_cast<double>(kernel.height * kernel.width);
  if (options.divisor_override) return total / static_cast<double>(*options.divisor_override);
  return total / (counted(x, 2, rows, kernel.height, stride.height, padding.height, options.count_include_pad) *
                  counted(x, 3, columns, kernel.width, stride.width, padding.width, options.count_include_pad));
}

}  // namespace tandem
