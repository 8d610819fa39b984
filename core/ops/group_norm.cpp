// Group normalisation (Wu, He 2018, arXiv:1803.08494): y = (x - mean) / sqrt(variance + epsilon) * weight + bias, mean and
// variance being those of each group of channels of each image of x [batch, channels, …]. One group for each channel is
// instance normalisation.
#include "core/dispatch.h"
#include "core/ops/fit.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

DType statistics_type(DType type) { return type == float64 ? float64 : float32; }
Tensor widen(const Tensor& x) { return to(x, statistics_type(x.dtype())); }

void output_like(Infer& op, const Tensor& x) {
  const bool channels_last = !x.is_contiguous() && x.strides() == channels_last_strides(x.shape());
  op.output(x.shape(), channels_last ? channels_last_strides(x.shape()) : contiguous_strides(x.shape()), x.dtype());
}

void check_groups(const Infer& op, const Shape& x) {
  const int64_t groups = op.attributes.integer("groups");
  op.check<ShapeError>(x.size() >= 2, "needs x [batch, channels, …], got ", x);
  op.check<ValueError>(groups >= 1 && x[1] % groups == 0, "groups ", groups, " don't divide the ", x[1],
                       " channels of x ", x);
}

void infer_group_norm(Infer& op) {
  const Tensor& x = op.input(0);
  const int64_t groups = op.attributes.integer("groups");
  op.check_floating(0);
  check_groups(op, x.shape());
  for (int i = 1; i < 3; ++i) {
    const Tensor& numbers = op.input(i);
    const char* const name = i == 1 ? "weight " : "bias ";
    op.check<ShapeError>(numbers.shape() == Shape{x.shape()[1]}, name, numbers.shape(), " for ", x.shape()[1],
                         " channels of x ", x.shape());
    op.check<DTypeError>(numbers.dtype() == x.dtype() || numbers.dtype() == statistics_type(x.dtype()), name, "is ",
                         numbers.dtype(), ", x is ", x.dtype(), "; cast one with to()");
  }
  output_like(op, x);
  op.output(Shape{x.shape()[0], groups}, statistics_type(x.dtype()));
  op.output(Shape{x.shape()[0], groups}, statistics_type(x.dtype()));
}

void infer_group_norm_grad(Infer& op) {
  check_fit(op, "n c .., n c .., c:either, n g:wide, n g:wide");
  const Shape& x = op.input(1).shape();
  check_groups(op, x);
  const Shape statistics{x[0], op.attributes.integer("groups")};
  for (int i = 3; i < 5; ++i)
    op.check<ShapeError>(op.input(i).shape() == statistics, "operand ", i, " is ", op.input(i).shape(), ", need ",
                         statistics);
  output_like(op, op.input(1));
  op.output(op.input(2).shape(), op.input(2).dtype());
  op.output(op.input(2).shape(), op.input(2).dtype());
}

/// x's dims as [batch, groups, channels of a group, pixels], and what broadcasts against that.
struct Grouped {
  Shape shape;
  double elements;  ///< of a group
  Grouped(const Shape& x, int64_t groups) {
    int64_t pixels = 1;
    for (int d = 2; d < x.size(); ++d) pixels *= x[d];
    shape = {x[0], groups, x[1] / groups, pixels};
    elements = static_cast<double>(shape[2] * shape[3]);
  }
  Tensor images(const Tensor& x) const { return reshape(x, shape); }
  Tensor per_channel(const Tensor& numbers) const { return reshape(numbers, {1, shape[1], shape[2], 1}); }
  Tensor per_group(const Tensor& numbers) const { return reshape(numbers, {shape[0], shape[1], 1, 1}); }
};

Tensors group_norm_backward(const OpContext& op) {
  const Tensor inputs[] = {op.grad_output(), op.input(0), op.input(1), op.output(1), op.output(2)};
  Tensors result = dispatch_all(find_op("group_norm_grad"), inputs, op.attributes(), Where::current());
  if (op.has_grad_output(1) || op.has_grad_output(2)) {  // d mean / dx = 1 / n, d variance / dx = 2 (x - mean) / n
    const Grouped at(op.input_shape(0), op.integer("groups"));
    const Tensor centred = at.images(widen(op.input(0))) - at.per_group(op.output(1));
    const Tensor dx =
        at.per_group(op.grad_output(1)) / at.elements + at.per_group(op.grad_output(2)) * centred * (2 / at.elements);
    result[0] = result[0] + to(reshape(dx, op.input_shape(0)), op.input_dtype(0));
  }
  return result;
}

/// The gradient of group_norm_grad, as layer_norm's, over a group in place of a row. With h = g w: dx = rstd P(h), dw = sum(g n),
/// db = sum(g), n = (x - mean) rstd, P(v) = v - mean(v) - n mean(v n); u, hw, hb are their gradients.
Tensors second_grad(const OpContext& op) {
  const Shape& shape = op.input_shape(1);
  const Grouped at(shape, op.integer("groups"));
  const Tensor g = at.images(op.input(0)), x = at.images(op.input(1)), w = at.per_channel(op.input(2));
  const Tensor r = at.per_group(rsqrt(op.input(4) + op.attribute("epsilon"))), n = (x - at.per_group(op.input(3))) * r,
               h = g * w;
  const Tensor u = at.images(op.grad_output(0)), hw = at.per_channel(op.grad_output(1)),
               hb = at.per_channel(op.grad_output(2));
  const auto average = [](const Tensor& v) { return mean(v, {2, 3}, {.keepdim = true}); };
  const auto project = [&](const Tensor& v) { return v - average(v) - n * average(v * n); };
  const Tensor pu = project(u), ph = project(h);
  const Tensor grad_n = -r * (u * average(h * n) + h * average(u * n)) + g * hw;
  const Tensor grad_r = sum(u * ph, {2, 3}, {.keepdim = true});
  return {reshape(r * pu * w + hw * n + hb, shape),
          reshape(r * project(grad_n) - grad_r * square(r) * n / at.elements, shape),
          reshape(sum(r * pu * g, {0, 3}), {shape[1]}), Tensor(), Tensor()};
}

Tensor call_group_norm(const char* name, const Arg& x, int64_t groups, const Tensor& weight, const Tensor& bias,
                       double epsilon) {
  static const Op& op = find_op("group_norm");
  const Tensor& tensor = x.tensor();
  if (tensor.rank() < 2)
    throw ShapeError(detail::str(name, ": needs x [batch, channels, …], got ", tensor.shape()), user_line(x.where()));
  const TensorOptions options{.dtype = statistics_type(tensor.dtype()), .device = tensor.device()};
  const Shape numbers{tensor.shape()[1]};
  const Tensor inputs[] = {tensor, weight.defined() ? weight : ones(numbers, options, x.where()),
                           bias.defined() ? bias : zeros(numbers, options, x.where())};
  Tensor outputs[3];
  dispatch(op, inputs, {{"groups", groups}, {"epsilon", epsilon}}, outputs, x.where());
  return outputs[0];
}

}  // namespace

void define_group_norm(OpTable& table) {
  using enum AttributeType;
  table.add({.name = "group_norm",
             .kind = OpKind::reduce,
             .inputs = 3,
             .outputs = 3,
             .attributes = {{"groups", integer}, {"epsilon", number, 1e-5}},
             .infer = infer_group_norm,
             .grad = group_norm_backward,
             .saved = in(0) | in(1) | out(1) | out(2),
             .onnx = "GroupNormalization"});
  table.add({.name = "group_norm_grad",
             .kind = OpKind::reduce,
             .inputs = 5,
             .outputs = 3,
             .attributes = {{"groups", integer}, {"epsilon", number, 1e-5}},
             .infer = infer_group_norm_grad,
             .grad = second_grad,
             .saved = in(0) | in(1) | in(2) | in(3) | in(4)});
}

Tensor group_norm(const Arg& x, int64_t groups, const Tensor& weight, const Tensor& bias, double epsilon) {
  return call_group_norm("group_norm", x, groups, weight, bias, epsilon);
}

Tensor instance_norm(const Arg& x, const Tensor& weight, const Tensor& bias, double epsilon) {
  const Tensor& tensor = x.tensor();
  return call_group_norm("instance_norm", x, tensor.rank() >= 2 ? std::max<int64_t>(tensor.shape()[1], 1) : 1, weight,
                         bias, epsilon);
}

}  // namespace tandem
