// 2-d convolution and its two gradients, each the gradient of the others, so that they differentiate
// any number of times. x [batch, in, height, width], weight [out, in / groups, kh, kw]; results of
// x's shape lie channels-last, which is what the libraries are fastest with.
#include <algorithm>
#include <limits>

#include "core/dispatch.h"
#include "core/ops/composed.h"

namespace tandem {

namespace {

/// Strides, dilations and paddings beyond this are no image's, and kernels count in int32 here and there.
constexpr int64_t kMostOfWindow = std::numeric_limits<int32_t>::max();

/// The shape of y, from those of x and the weight.
Shape result_of(const Infer& op, const Shape& x, const Shape& w) {
  op.check<ShapeError>(x.size() == 4 && w.size() == 4,
                       "needs x [batch, channels, height, width] and weight [out, in, kh, kw], got ", x, " and ", w);
  const int64_t groups = op.attributes.integer("groups");
  op.check<ValueError>(groups >= 1 && w[0] % groups == 0, "groups ", groups, " don't divide ", w[0],
                       " output channels");
  const int64_t channels = checked_mul(w[1], groups);
  op.check<ShapeError>(x[1] == channels, "x ", x, " has ", x[1], " channels, weight ", w, " wants ", channels);
  const Shape &stride = op.integers("stride", 2), &padding = op.integers("padding", 2),
              &dilation = op.integers("dilation", 2);
  Shape y{x[0], w[0], 0, 0};
  for (int i = 0; i < 2; ++i) {
    op.check<ValueError>(stride[i] >= 1 && dilation[i] >= 1 && padding[i] >= 0, "stride ", stride, " and dilation ",
                         dilation, " must be at least 1, padding ", padding, " not negative");
    op.check<ValueError>(std::max({stride[i], dilation[i], padding[i]}) <= kMostOfWindow, "stride ", stride,
                         ", dilation ", dilation, " and padding ", padding, " must be at most ", kMostOfWindow);
    op.check<ShapeError>(w[i + 2] >= 1, "kernel ", w, " is empty");
    const int64_t reach = checked_add(checked_mul(dilation[i], w[i + 2] - 1), 1), extent = x[i + 2] + 2 * padding[i];
    op.check<ShapeError>(extent >= reach, "kernel ", w, " (reach ", reach, ") is larger than the padded input ", x,
                         " (", extent, ")");
    y[i + 2] = (extent - reach) / stride[i] + 1;
  }
  check_extents(y);
  return y;
}

void infer_conv2d(Infer& op) {
  const Tensor &x = op.input(0), &w = op.input(1);
  op.check_floating(0);
  op.check<DTypeError>(x.dtype() == w.dtype(), "operands of different dtypes: ", x.dtype(), " and ", w.dtype());
  const Shape shape = result_of(op, x.shape(), w.shape());
  if (op.inputs.size() > 2) {
    op.check<ShapeError>(op.input(2).shape() == Shape{w.shape()[0]}, "bias ", op.input(2).shape(), " for ",
                         w.shape()[0], " output channels");
    op.check<DTypeError>(op.input(2).dtype() == x.dtype(), "bias is ", op.input(2).dtype(), ", x is ", x.dtype());
  }
  op.output(shape, channels_last_strides(shape), x.dtype());
}

/// The gradient of y, which is operand 0, fits x and the weight.
void check_result(const Infer& op, const Shape& x, const Shape& w) {
  const Shape y = result_of(op, x, w);
  op.check<ShapeError>(op.input(0).shape() == y, "the gradient ", op.input(0).shape(), " is not that of x ", x,
                       " and weight ", w, ", which give ", y);
  op.check<DTypeError>(op.input(0).dtype() == op.input(1).dtype(),
                       "operands of different dtypes: ", op.input(0).dtype(), " and ", op.input(1).dtype());
}
void infer_input_grad(Infer& op) {
  const Shape& shape = op.attributes.integers("shape");
  check_extents(shape);
  check_result(op, shape, op.input(1).shape());
  op.output(shape, channels_last_strides(shape), op.input(0).dtype());
}
void infer_weight_grad(Infer& op) {
  const Shape& shape = op.attributes.integers("shape");
  check_extents(shape);
  check_result(op, op.input(1).shape(), shape);
  op.output(shape, op.input(0).dtype());
}

Attributes with_shape(const Attributes& attributes, const Shape& shape) {
  Attributes result = attributes;
  result.set({"shape", shape});
  return result;
}

Tensor call(const char* name, std::initializer_list<Tensor> inputs, const Attributes& attributes) {
  const Op& op = find_op(name);
  return dispatch(op, inputs, select(op.attributes, attributes), Where::current());
}

Tensors conv2d_grad(const OpContext& op) {
  const Tensor g = op.grad_output();
  Tensors result(static_cast<size_t>(op.input_count()));
  if (op.needs_grad(0))
    result[0] = call("conv2d_input_grad", {g, op.input(1)}, with_shape(op.attributes(), op.input_shape(0)));
  if (op.needs_grad(1))
    result[1] = call("conv2d_weight_grad", {g, op.input(0)}, with_shape(op.attributes(), op.input_shape(1)));
  if (op.input_count() > 2 && op.needs_grad(2)) result[2] = sum(g, {0, 2, 3});
  return result;
}

}  // namespace

void define_conv(OpTable& table) {
  using enum AttributeType;
  const AttributeSchema window = {{"stride", ints, Shape{1, 1}},
                                  {"padding", ints, Shape{0, 0}},
                                  {"dilation", ints, Shape{1, 1}},
                                  {"groups", integer, 1}};
  AttributeSchema gradient_window = window;
  gradient_window.push_back({"shape", ints});
  table.add({.name = "conv2d",
             .kind = OpKind::contract,
             .inputs = kVariadic,
             .attributes = window,
             .infer = infer_conv2d,
             .grad = conv2d_grad,
             .saved = in(0) | in(1),
             .onnx = "Conv"});
  // Linear in g and in w: the gradients are a convolution of g's gradient, and a weight gradient.
  table.add({.name = "conv2d_input_grad",
             .kind = OpKind::contract,
             .inputs = 2,
             .attributes = gradient_window,
             .infer = infer_input_grad,
             .grad =
                 [](const OpContext& op) {
                   const Tensor gg = op.grad_output();
                   return Tensors{op.needs_grad(0) ? call("conv2d", {gg, op.input(1)}, op.attributes()) : Tensor(),
                                  op.needs_grad(1) ? call("conv2d_weight_grad", {op.input(0), gg},
                                                          with_shape(op.attributes(), op.input_shape(1)))
                                                   : Tensor()};
                 },
             .saved = in(0) | in(1)});
  table.add({.name = "conv2d_weight_grad",
             .kind = OpKind::contract,
             .inputs = 2,
             .attributes = gradient_window,
             .infer = infer_weight_grad,
             .grad =
                 [](const OpContext& op) {
                   const Tensor gg = op.grad_output();
                   return Tensors{op.needs_grad(0) ? call("conv2d", {op.input(1), gg}, op.attributes()) : Tensor(),
                                  op.needs_grad(1) ? call("conv2d_input_grad", {op.input(0), gg},
                                                          with_shape(op.attributes(), op.input_shape(1)))
                                                   : Tensor()};
                 },
             .saved = in(0) | in(1)});
  table.at("conv2d").autocast = AutocastRule::lower;
}

namespace {

void check_ranks(const char* name, const Arg& x, const Tensor& weight, int rank, const char* x_dims,
                 const char* weight_dims) {
  check<UndefinedError>(weight.defined(), x, name, ": weight is an undefined Tensor");
  check<ShapeError>(x.tensor().rank() == rank && weight.rank() == rank, x, name, ": needs x ", x_dims, " and weight ",
                    weight_dims, ", got ", x.tensor().shape(), " and ", weight.shape());
}

Tensor convolved(const Arg& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options, Pair padding) {
  static const Op& op = find_op("conv2d");
  const Attributes attributes{{"stride", Shape(options.stride)},
                              {"padding", Shape(padding)},
                              {"dilation", Shape(options.dilation)},
                              {"groups", options.groups}};
  if (!bias.defined()) return dispatch(op, {x.tensor(), weight}, attributes, x.where());
  return dispatch(op, {x.tensor(), weight, bias}, attributes, x.where());
}

/// With as much padding as keeps the extents: where it is odd, the end has one more.
Tensor convolved_same(const Arg& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  check<ValueError>(options.stride.height == 1 && options.stride.width == 1, x,
                    "conv2d: Padding::same needs stride 1, got ", Shape(options.stride));
  check_ranks("conv2d", x, weight, 4, "[batch, channels, height, width]", "[out, in, kh, kw]");
  constexpr int64_t kMost = 1 << 30;  // so that nothing overflows
  check<ValueError>(options.dilation.height >= 1 && options.dilation.width >= 1 && options.dilation.height <= kMost &&
                        options.dilation.width <= kMost && weight.shape()[2] <= kMost && weight.shape()[3] <= kMost,
                    x, "conv2d: dilation ", Shape(options.dilation), " must be at least 1, and not huge");
  const auto total = [&](int dim, int64_t dilation) {
    return std::max<int64_t>(dilation * (weight.shape()[dim] - 1), 0);
  };
  const int64_t rows = total(2, options.dilation.height), columns = total(3, options.dilation.width);
  if (rows % 2 == 0 && columns % 2 == 0) return convolved(x, weight, bias, options, {rows / 2, columns / 2});
  const Tensor wide = pad(x, {columns / 2, columns - columns / 2, rows / 2, rows - rows / 2});
  return convolved({wide, x.where()}, weight, bias, options, 0);
}

}  // namespace

Tensor conv2d(const Arg& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  return batched(x, 4, [&](const Arg& images) {
    return options.padding.same ? convolved_same(images, weight, bias, options)
                                : convolved(images, weight, bias, options, options.padding);
  });
}

Tensor conv1d(const Arg& x, const Tensor& weight, const Tensor& bias, const Conv1dOptions& options) {
  return batched(x, 3, [&](const Arg& rows) {
    check_ranks("conv1d", rows, weight, 3, "[batch, channels, length]", "[out, in / groups, kernel]");
    const CallScope scope("conv1d", x.where());
    const Tensor y =
        conv2d(unsqueeze(rows, 2), unsqueeze(weight, 2), bias,
               {.stride = {1, options.stride},
                .padding = options.padding.same ? Padding2d(Padding::same) : Padding2d(0, options.padding.length),
                .dilation = {1, options.dilation},
                .groups = options.groups});
    return squeeze(y, 2);
  });
}

Tensor conv_transpose2d(const Arg& x, const Tensor& weight, const Tensor& bias, const ConvTranspose2dOptions& options) {
  if (x.tensor().rank() == 3)  // one image
    return batched(x, 4, [&](const Arg& images) { return conv_transpose2d(images, weight, bias, options); });
  constexpr const char* name = "conv_transpose2d: ";
  check_ranks("conv_transpose2d", x, weight, 4, "[batch, in, height, width]",
              "[in, out / groups, kernel height, kernel width]");
  const CallScope scope("conv_transpose2d", x.where());
  const Shape &from = x.tensor().shape(), &kernel = weight.shape();
  check<DTypeError>(is_floating(weight.dtype()) && weight.dtype() == x.tensor().dtype(), x, name,
                    "needs operands of one floating dtype, got ", x.tensor().dtype(), " and ", weight.dtype(),
                    "; cast one with to()");
  check<ValueError>(options.groups >= 1 && from[1] % options.groups == 0, x, name, "groups ", options.groups,
                    " don't divide ", from[1], " input channels");
  check<ShapeError>(kernel[0] == from[1], x, name, "x ", from, " has ", from[1], " channels, weight ", kernel,
                    " wants ", kernel[0], ": the weight's first extent is that of the input");
  const Shape stride(options.stride), padding(options.padding), dilation(options.dilation),
      extra(options.output_padding);
  const int64_t channels = checked_mul(kernel[1], options.groups, "conv_transpose2d", x.where());
  check<ShapeError>(!bias.defined() || bias.shape() == Shape{channels}, x, name, "bias ",
                    bias.defined() ? bias.shape() : Shape{}, " for ", channels, " output channels");
  Shape shape{from[0], channels, 0, 0};
  for (int i = 0; i < 2; ++i) {
    check<ValueError>(stride[i] >= 1 && dilation[i] >= 1 && padding[i] >= 0, x, name, "stride ", stride,
                      " and dilation ", dilation, " must be at least 1, padding ", padding, " not negative");
    check<ShapeError>(kernel[i + 2] >= 1, x, name, "kernel ", kernel, " is empty");
    check<ValueError>(extra[i] >= 0 && extra[i] < stride[i], x, name, "output_padding ", extra,
                      " must be at least 0 and below the stride ", stride);
    check<ValueError>(std::max({stride[i], dilation[i], padding[i]}) <= kMostOfWindow, x, name, "stride ", stride,
                      ", dilation ", dilation, " and padding ", padding, " must be at most ", kMostOfWindow);
    const auto times = [&](int64_t a, int64_t b) { return checked_mul(a, b, "conv_transpose2d", x.where()); };
    const auto plus = [&](int64_t a, int64_t b) { return checked_add(a, b, "conv_transpose2d", x.where()); };
    shape[i + 2] = plus(plus(times(from[i + 2] - 1, stride[i]), times(dilation[i], kernel[i + 2] - 1)),
                        extra[i] + 1 - 2 * padding[i]);
    check<ShapeError>(from[i + 2] >= 1 && shape[i + 2] >= 1, x, name, "nothing is left of x ", from, " with weight ",
                      kernel, ", stride ", stride, " and padding ", padding);
  }
  const Tensor y = call(
      "conv2d_input_grad", {x.tensor(), weight},
      {{"stride", stride}, {"padding", padding}, {"dilation", dilation}, {"groups", options.groups}, {"shape", shape}});
  return bias.defined() ? y + reshape(bias, {channels, 1, 1}) : y;
}

Tensor conv_transpose1d(const Arg& x, const Tensor& weight, const Tensor& bias, const ConvTranspose1dOptions& options) {
  if (x.tensor().rank() == 2)
    return batched(x, 3, [&](const Arg& rows) { return conv_transpose1d(rows, weight, bias, options); });
  check_ranks("conv_transpose1d", x, weight, 3, "[batch, in, length]", "[in, out / groups, kernel]");
  const CallScope scope("conv_transpose1d", x.where());
  const Tensor y = conv_transpose2d(unsqueeze(x, 2), unsqueeze(weight, 2), bias,
                                    {.stride = {1, options.stride},
                                     .padding = {0, options.padding},
                                     .output_padding = {0, options.output_padding},
                                     .dilation = {1, options.dilation},
                                     .groups = options.groups});
  return squeeze(y, 2);
}

}  // namespace tandem
