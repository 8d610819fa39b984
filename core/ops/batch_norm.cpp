// Batch normalisation (Ioffe, Szegedy 2015, arXiv:1502.03167): y = (x - mean) / sqrt(variance + epsilon) * weight + bias,
// mean and (biased) variance being those of each channel of x [batch, channels, …].
//
// batch_norm finds the statistics and applies them; batch_norm_apply takes them from elsewhere (running statistics). The
// compiler splits batch_norm into batch_norm_statistics and pointwise ops, which join the activation that follows.
#include "core/dispatch.h"
#include "core/ops/fit.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

DType statistics_type(DType type) { return type == float64 ? float64 : float32; }
Tensor widen(const Tensor& x) { return to(x, statistics_type(x.dtype())); }

/// A number for each channel, shaped to broadcast against x.
Tensor per_channel(const Tensor& numbers, const Shape& x) {
  Shape shape = Shape::filled(x.size() - 1, 1);
  shape[0] = x[1];
  return reshape(numbers, shape);
}
/// All dims but that of the channels.
Dims other_dims(const Shape& x) {
  Dims dims{0};
  for (int d = 2; d < x.size(); ++d) dims.push_back(d);
  return dims;
}
double elements_of_channel(const Shape& x) {
  return static_cast<double>(x.numel()) / static_cast<double>(std::max<int64_t>(x[1], 1));
}

void check_x(const Infer& op, const Tensor& x) {
  op.check<DTypeError>(is_floating(x.dtype()), "x must be floating, got ", x.dtype(), "; cast it with to(float32)");
  op.check<ShapeError>(x.rank() >= 2, "needs x [batch, channels, …], got ", x.shape());
}
void check_numbers(const Infer& op, int input, const Tensor& x, const char* name) {
  const Tensor& numbers = op.input(input);
  op.check<ShapeError>(numbers.shape() == Shape{x.shape()[1]}, name, " ", numbers.shape(), " for ", x.shape()[1],
                       " channels of x ", x.shape());
  op.check<DTypeError>(numbers.dtype() == x.dtype() || numbers.dtype() == statistics_type(x.dtype()), name, " is ",
                       numbers.dtype(), ", x is ", x.dtype(), "; cast one with to()");
}
/// Channels-last in, channels-last out.
void output_like(Infer& op, const Tensor& x) {
  const bool channels_last = !x.is_contiguous() && x.strides() == channels_last_strides(x.shape());
  op.output(x.shape(), channels_last ? channels_last_strides(x.shape()) : contiguous_strides(x.shape()), x.dtype());
}
void output_statistics(Infer& op, const Tensor& x) {
  op.output(Shape{x.shape()[1]}, statistics_type(x.dtype()));
  op.output(Shape{x.shape()[1]}, statistics_type(x.dtype()));
}

void infer_batch_norm(Infer& op) {
  const Tensor& x = op.input(0);
  check_x(op, x);
  check_numbers(op, 1, x, "weight");
  check_numbers(op, 2, x, "bias");
  output_like(op, x);
  output_statistics(op, x);
}
void infer_apply(Infer& op) {
  const Tensor& x = op.input(0);
  check_x(op, x);
  constexpr const char* names[] = {"", "weight", "bias", "mean", "variance"};
  for (int i = 1; i < 5; ++i) check_numbers(op, i, x, names[i]);
  output_like(op, x);
}
void infer_statistics(Infer& op) {
  check_x(op, op.input(0));
  output_statistics(op, op.input(0));
}
void infer_grad(Infer& op) {
  check_fit(op, "n c .., n c .., c:either, c:wide, c:wide");
  output_like(op, op.input(1));
  op.output(op.input(2).shape(), op.input(2).dtype());
  op.output(op.input(2).shape(), op.input(2).dtype());
}

Tensors call(const char* name, std::initializer_list<Tensor> inputs, const Attributes& attributes) {
  return dispatch_all(find_op(name), std::span<const Tensor>(inputs.begin(), inputs.size()), attributes,
                      Where::current());
}

/// In the order that the kernel computes in, so that the modes agree.
Tensor apply_pointwise(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                       const Tensor& variance, double epsilon) {
  const Tensor scale = rsqrt(widen(variance) + epsilon) * widen(weight);
  const Tensor y = (widen(x) - per_channel(widen(mean), x.shape())) * per_channel(scale, x.shape()) +
                   per_channel(widen(bias), x.shape());
  return to(y, x.dtype());
}

/// What flows in through the statistics: d mean / dx = 1 / n, d variance / dx = 2 (x - mean) / n.
Tensor statistics_grad(const Tensor& x, const Tensor& mean, const Tensor& mean_grad, const Tensor& variance_grad) {
  const double n = elements_of_channel(x.shape());
  const Tensor centred = widen(x) - per_channel(mean, x.shape());
  return to(per_channel(mean_grad / n, x.shape()) + per_channel(variance_grad * (2 / n), x.shape()) * centred,
            x.dtype());
}

Tensors batch_norm_backward(const OpContext& op) {
  Tensors result = call("batch_norm_grad", {op.grad_output(), op.input(0), op.input(1), op.output(1), op.output(2)},
                        op.attributes());
  if (op.has_grad_output(1) || op.has_grad_output(2))
    result[0] = result[0] + statistics_grad(op.input(0), op.output(1), op.grad_output(1), op.grad_output(2));
  return result;
}

/// Here the statistics are operands of their own.
Tensors apply_backward(const OpContext& op) {
  const Shape& shape = op.input_shape(0);
  const Tensor g = widen(op.grad_output()), weight = widen(op.input(1));
  const Tensor rstd = rsqrt(widen(op.input(4)) + op.attribute("epsilon")), scale = rstd * weight;
  Tensors result(5);
  if (op.needs_grad(0)) result[0] = to(g * per_channel(scale, shape), op.input_dtype(0));
  if (op.needs_grad(1) || op.needs_grad(4)) {
    const Tensor gx_sum = sum(g * (widen(op.input(0)) - per_channel(widen(op.input(3)), shape)), other_dims(shape));
    result[1] = to(gx_sum * rstd, op.input_dtype(1));
    result[4] = to(gx_sum * weight * (rstd * rstd * rstd) * -0.5, op.input_dtype(4));
  }
  if (op.needs_grad(2) || op.needs_grad(3)) {
    const Tensor g_sum = sum(g, other_dims(shape));
    result[2] = to(g_sum, op.input_dtype(2));
    result[3] = to(-g_sum * scale, op.input_dtype(3));
  }
  return result;
}

/// The gradient of batch_norm_grad, in which the statistics are functions of x. Written by differentiating dx = rstd w P(g),
/// dw = sum(g n), db = sum(g), with n = (x - mean) rstd and P(v) = v - mean(v) - n mean(v n); u, hw, hb are their gradients.
Tensors second_grad(const OpContext& op) {
  const Tensor g = op.input(0), x = op.input(1);
  const Shape& shape = x.shape();
  const Dims others = other_dims(shape);
  const auto average = [&](const Tensor& v) { return mean(v, others, {.keepdim = true}); };
  const Tensor w = per_channel(op.input(2), shape);
  const Tensor r = per_channel(rsqrt(op.input(4) + op.attribute("epsilon")), shape);
  const Tensor n = (x - per_channel(op.input(3), shape)) * r;
  const Tensor u = op.grad_output(0), hw = per_channel(op.grad_output(1), shape),
               hb = per_channel(op.grad_output(2), shape);
  const auto project = [&](const Tensor& v) { return v - average(v) - n * average(v * n); };
  const Tensor pu = project(u), pg = project(g);
  const Tensor grad_g = r * w * pu + hw * n + hb;
  const Tensor grad_w = sum(r * pu * g, others);
  const Tensor grad_n = -r * w * (u * average(g * n) + g * average(u * n)) + g * hw;
  const Tensor grad_r = sum(u * w * pg, others, {.keepdim = true});
  const Tensor grad_x = r * project(grad_n) - grad_r * square(r) * n / elements_of_channel(shape);
  return {grad_g, grad_x, grad_w, Tensor(), Tensor()};
}

/// The operand, or one number for each channel.
Tensor or_filled(const Tensor& numbers, const Tensor& x, double value, Where where) {
  return numbers.defined()
             ? numbers
             : full({x.shape()[1]}, value, {.dtype = statistics_type(x.dtype()), .device = x.device()}, where);
}

void check_ranks(const char* name, const Tensor& x, Where where) {
  if (x.rank() < 2)
    throw ShapeError(detail::str(name, ": needs x [batch, channels, …], got ", x.shape()), user_line(where));
}

/// running += (value - running) momentum.
void follow(Tensor running, const Tensor& value, double momentum, Where where) {
  running.assign(to(widen(running) * (1 - momentum) + widen(value) * momentum, running.dtype()), where);
}

}  // namespace

void define_batch_norm(OpTable& table) {
  using enum AttributeType;
  table.add({.name = "batch_norm",
             .kind = OpKind::reduce,
             .inputs = 3,
             .outputs = 3,
             .attributes = {{"epsilon", number, 1e-5}},
             .infer = infer_batch_norm,
             .grad = batch_norm_backward,
             .saved = in(0) | in(1) | out(1) | out(2),
             .decompose = [](std::span<const Tensor> i, const Attributes& attributes) {
               const Tensors s = call("batch_norm_statistics", {i[0]}, {});
               return Tensors{apply_pointwise(i[0], i[1], i[2], s[0], s[1], attributes.number("epsilon")), s[0], s[1]};
             }});
  table.add({.name = "batch_norm_apply",
             .kind = OpKind::opaque,
             .inputs = 5,
             .attributes = {{"epsilon", number, 1e-5}},
             .infer = infer_apply,
             .grad = apply_backward,
             .saved = in(0) | in(1) | in(3) | in(4),
             .decompose =
                 [](std::span<const Tensor> i, const Attributes& attributes) {
                   return Tensors{apply_pointwise(i[0], i[1], i[2], i[3], i[4], attributes.number("epsilon"))};
                 },
             .onnx = "BatchNormalization"});
  table.add({.name = "batch_norm_grad",
             .kind = OpKind::reduce,
             .inputs = 5,
             .outputs = 3,
             .attributes = {{"epsilon", number, 1e-5}},
             .infer = infer_grad,
             .grad = second_grad,
             .saved = in(0) | in(1) | in(2) | in(3) | in(4)});
  table.add({.name = "batch_norm_statistics",
             .kind = OpKind::reduce,
             .outputs = 2,
             .infer = infer_statistics,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{statistics_grad(op.input(0), op.output(0), op.grad_output(0), op.grad_output(1))};
                 },
             .saved = in(0) | out(0)});
  for (const char* name : {"batch_norm", "batch_norm_apply"}) table.at(name).autocast = AutocastRule::widen;
}

Tensor batch_norm(const Arg& x, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight,
                  const Tensor& bias, const BatchNormOptions& options) {
  const Tensor& tensor = x.tensor();
  const Where where = x.where();
  check_ranks("batch_norm", tensor, where);
  const Attributes attributes{{"epsilon", options.epsilon}};
  const Tensor scale = or_filled(weight, tensor, 1, where), shift = or_filled(bias, tensor, 0, where);
  if (!options.training) {
    if (!running_mean.defined() || !running_var.defined())
      throw UndefinedError(
          "batch_norm: without training it needs running_mean and running_var; pass them, or {.training = true}",
          user_line(where));
    static const Op& op = find_op("batch_norm_apply");
    return dispatch(op, {tensor, scale, shift, running_mean, running_var}, attributes, where);
  }
  const double n = elements_of_channel(tensor.shape());
  if (n == 1 && tensor.numel() > 0)
    throw ValueError(detail::str("batch_norm: one value per channel in x ", tensor.shape(),
                                 " has no variance to train with; use a larger batch, or nn::eval"),
                     user_line(where));
  static const Op& op = find_op("batch_norm");
  const Tensor inputs[] = {tensor, scale, shift};
  Tensor outputs[3];
  dispatch(op, inputs, attributes, outputs, where);
  if (tensor.numel() > 0) {
    const NoGrad no_grad;
    const WhereScope scope(where);
    if (running_mean.defined()) follow(running_mean, outputs[1], options.momentum, where);
    if (running_var.defined()) follow(running_var, outputs[2] * (n / (n - 1)), options.momentum, where);
  }
  return outputs[0];
}

}  // namespace tandem
