// Max pooling; average pooling is in resample.cpp. Forward also gives, for each window, where in the plane its maximum was (int32, row * width
// + column), so that the gradient is a scatter and the gradient of that a gather.
#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

/// Follows x: channels-last in, channels-last out.
Shape plane_strides(const Tensor& x, const Shape& shape) {
  const bool channels_last = !x.is_contiguous() && x.strides() == channels_last_strides(x.shape());
  return channels_last ? channels_last_strides(shape) : contiguous_strides(shape);
}

void infer_max_pool2d(Infer& op) {
  const Tensor& x = op.input(0);
  op.check<ShapeError>(x.rank() == 4, "needs [batch, channels, height, width], got ", x.shape());
  op.check_floating(0);
  const Shape &kernel = op.attributes.integers("kernel"), &stride = op.attributes.integers("stride"),
              &padding = op.attributes.integers("padding");
  Shape shape = x.shape();
  for (int i = 0; i < 2; ++i) {
    op.check<ValueError>(kernel[i] >= 1 && stride[i] >= 1 && padding[i] >= 0 && padding[i] * 2 <= kernel[i], "kernel ",
                         kernel, ", stride ", stride, ", padding ", padding,
                         ": the first two must be at least 1, padding at most half the kernel");
    const int64_t extent = x.shape()[i + 2] + 2 * padding[i];
    op.check<ShapeError>(extent >= kernel[i], "kernel ", kernel, " is larger than the padded input ", x.shape());
    shape[i + 2] = (extent - kernel[i]) / stride[i] + 1;
  }
  const Shape strides = plane_strides(x, shape);
  op.output(shape, strides, x.dtype());
  op.output(shape, strides, DType::int32);
}

void infer_max_unpool2d(Infer& op) {
  const Shape& shape = op.attributes.integers("shape");
  op.output(shape, plane_strides(op.input(1), shape), op.input(0).dtype());
}

void infer_select(Infer& op) {
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
  const Pair stride = options.stride.height == 0 ? kernel : options.stride;
  Tensor outputs[2];
  dispatch(op, {&x.tensor(), 1},
           {{"kernel", Shape(kernel)}, {"stride", Shape(stride)}, {"padding", Shape(options.padding)}}, outputs,
           x.where());
  return outputs[0];
}

}  // namespace tandem
