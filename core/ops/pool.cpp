// Max pooling; average pooling is in resample.cpp. Forward also gives, for each window, where in the plane its maximum was (int32, row * width
// + column), so that the gradient is a scatter and the gradient of that a gather.
#include "core/ops/pool_shared.h"

#include <limits>

#include "core/dispatch.h"

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
}

Tensor max_pool2d(const Arg& x, Pair kernel, Pool2dOptions options) {
  static const Op& op = find_op("max_pool2d");
  const Pair stride = options.stride.height == 0 && options.stride.width == 0 ? kernel : options.stride;
  Tensor outputs[2];
  dispatch(op, {&x.tensor(), 1},
           {{"kernel", Shape(kernel)}, {"stride", Shape(stride)}, {"padding", Shape(options.padding)}}, outputs,
           x.where());
  return outputs[0];
}

}  // namespace tandem
