// Layer normalisation (Ba, Kiros, Hinton 2016): y = (x - mean) / sqrt(variance + epsilon) * weight + bias over
// the last dim. The op also gives the mean and the reciprocal deviation of each row, which backward reads.
// RMS normalisation (Zhang, Sennrich 2019) leaves out mean and bias. Batch and group normalisation are in files of their names.
#include <algorithm>

#include "core/dispatch.h"
#include "core/ops/composed.h"
#include "core/ops/fit.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

DType statistics_type(DType type) { return type == float64 ? float64 : float32; }
Shape rows_of(const Shape& shape) {
  Shape rows = shape;
  rows.erase(rows.size() - 1);
  return rows;
}
Tensor widen(const Tensor& x) { return to(x, statistics_type(x.dtype())); }
Tensor row_mean(const Tensor& x) { return mean(x, -1, {.keepdim = true}); }
/// Rounded as a sum and once more as a mean, as the kernels of the forward passes do.
Tensor row_sum_over_width(const Tensor& x) {
  return sum(x, -1, {.keepdim = true}) / static_cast<double>(x.shape().back());
}
Dims outer_dims(const Tensor& x) {
  Dims dims;
  for (int i = 0; i + 1 < x.rank(); ++i) dims.push_back(i);
  return dims;
}
Tensor sum_rows(const Tensor& x) { return x.rank() == 1 ? x : sum(x, outer_dims(x)); }

void infer_layer_norm(Infer& op) {
  const Tensor& x = op.input(0);
  op.check_floating(0);
  op.check<ShapeError>(x.rank() >= 1, "needs at least one dim, got ", x.shape());
  for (int i = 1; i < 3; ++i) {
    op.check<ShapeError>(op.input(i).shape() == Shape{x.shape().back()}, i == 1 ? "weight " : "bias ",
                         op.input(i).shape(), " for rows of ", x.shape().back(), " in ", x.shape());
    op.check<DTypeError>(op.input(i).dtype() == x.dtype(), i == 1 ? "weight is " : "bias is ", op.input(i).dtype(),
                         ", x is ", x.dtype());
  }
  op.output(x.shape(), x.dtype());
  op.output(rows_of(x.shape()), statistics_type(x.dtype()));
  op.output(rows_of(x.shape()), statistics_type(x.dtype()));
}

void infer_layer_norm_grad(Infer& op) {
  check_fit(op, ".. c, .. c, c, ..:wide, ..:wide");
  op.output(op.input(1).shape(), op.input(1).dtype());
  op.output(op.input(2).shape(), op.input(2).dtype());
  op.output(op.input(2).shape(), op.input(2).dtype());
}

Tensors decompose_layer_norm(std::span<const Tensor> inputs, const Attributes& attributes) {
  const Tensor x = widen(inputs[0]);
  const Tensor mean = row_sum_over_width(x);
  const Tensor centred = x - mean;
  const Tensor rstd = rsqrt(row_sum_over_width(square(centred)) + attributes.number("epsilon"));
  const Tensor y = centred * rstd * widen(inputs[1]) + widen(inputs[2]);
  return {to(y, inputs[0].dtype()), reshape(mean, rows_of(x.shape())), reshape(rstd, rows_of(x.shape()))};
}

/// With n = (x - mean) rstd and h = g w: dx = rstd (h - mean(h) - n mean(h n)), dw = sum(g n), db = sum(g).
Tensors layer_norm_backward(const Tensor& g16, const Tensor& x16, const Tensor& w16, const Tensor& mean,
                            const Tensor& rstd) {
  const Tensor g = widen(g16), x = widen(x16);
  const Tensor r = unsqueeze(rstd, -1);
  const Tensor n = (x - unsqueeze(mean, -1)) * r;
  const Tensor h = g * widen(w16);
  const Tensor dx = r * (h - row_mean(h) - n * row_mean(h * n));
  return {to(dx, x16.dtype()), to(sum_rows(g * n), w16.dtype()), to(sum_rows(g), w16.dtype())};
}

/// What flows in through the mean and rstd, which second derivatives read: d mean / dx = 1 / width and
/// d rstd / dx = -rstd^2 n / width.
void add_statistics_grad(const OpContext& op, Tensor& dx) {
  const double width = static_cast<double>(op.input_shape(0).back());
  if (op.has_grad_output(1)) dx = dx + to(unsqueeze(op.grad_output(1), -1) / width, dx.dtype());
  if (!op.has_grad_output(2)) return;
  const Tensor r = unsqueeze(op.output(2), -1);
  const Tensor n = (widen(op.input(0)) - unsqueeze(op.output(1), -1)) * r;
  dx = dx - to(unsqueeze(op.grad_output(2), -1) * square(r) * n / width, dx.dtype());
}

/// The gradient of layer_norm_grad, in which mean and rstd are functions of x. Written by differentiating
/// the formulas above; hx, hw, hb are the gradients of dx, dw, db.
Tensors layer_norm_second_grad(const OpContext& op) {
  const Tensor g = op.input(0), x = op.input(1), w = op.input(2);
  const Tensor r = unsqueeze(op.input(4), -1);
  const Tensor n = (x - unsqueeze(op.input(3), -1)) * r, h = g * w;
  const Tensor u = op.grad_output(0), hw = op.grad_output(1), hb = op.grad_output(2);
  // P(v) = v - mean(v) - n mean(v n), so dx = r P(h).
  const auto project = [&](const Tensor& v) { return v - row_mean(v) - n * row_mean(v * n); };
  const Tensor pu = project(u), ph = project(h);
  const Tensor grad_g = r * pu * w + hw * n + hb;
  const Tensor grad_w = sum_rows(r * pu * g);
  // Through n: dx depends on n by -n mean(h n), dw by g n.
  const Tensor grad_n = -r * (u * row_mean(h * n) + h * row_mean(u * n)) + g * hw;
  // Through r, and n and r through x: dn = r P(dx), dr = -r^2 n dx / width.
  const Tensor grad_r = sum(u * ph, -1, {.keepdim = true});
  const double width = static_cast<double>(x.shape().back());
  const Tensor grad_x = r * project(grad_n) - grad_r * square(r) * n / width;
  return {grad_g, grad_x, grad_w, Tensor(), Tensor()};
}

// ---- rms_norm: y = x rstd weight, rstd = 1 / sqrt(mean(x^2) + epsilon).

void infer_rms_norm(Infer& op) {
  const Tensor& x = op.input(0);
  op.check_floating(0);
  op.check<ShapeError>(x.rank() >= 1, "needs at least one dim, got ", x.shape());
  op.check<ShapeError>(op.input(1).shape() == Shape{x.shape().back()}, "weight ", op.input(1).shape(), " for rows of ",
                       x.shape().back(), " in ", x.shape());
  op.check<DTypeError>(op.input(1).dtype() == x.dtype(), "weight is ", op.input(1).dtype(), ", x is ", x.dtype());
  op.output(x.shape(), x.dtype());
  op.output(rows_of(x.shape()), statistics_type(x.dtype()));
}

void infer_rms_norm_grad(Infer& op) {
  check_fit(op, ".. c, .. c, c, ..:wide");
  op.output(op.input(1).shape(), op.input(1).dtype());
  op.output(op.input(2).shape(), op.input(2).dtype());
}

Tensors decompose_rms_norm(std::span<const Tensor> inputs, const Attributes& attributes) {
  const Tensor x = widen(inputs[0]);
  const Tensor rstd = rsqrt(row_sum_over_width(square(x)) + attributes.number("epsilon"));
  return {to(x * rstd * widen(inputs[1]), inputs[0].dtype()), reshape(rstd, rows_of(x.shape()))};
}

/// With n = x rstd and h = g w: dx = rstd (h - n mean(h n)), dw = sum(g n).
Tensors rms_norm_backward(const Tensor& g16, const Tensor& x16, const Tensor& w16, const Tensor& rstd) {
  const Tensor g = widen(g16), r = unsqueeze(rstd, -1), n = widen(x16) * r, h = g * widen(w16);
  return {to(r * (h - n * row_mean(h * n)), x16.dtype()), to(sum_rows(g * n), w16.dtype())};
}

Tensors rms_norm_grad(const OpContext& op) {
  const Tensor inputs[] = {op.grad_output(), op.input(0), op.input(1), op.output(1)};
  Tensors result = dispatch_all(find_op("rms_norm_grad"), inputs, {}, Where::current());
  if (op.has_grad_output(1)) {  // d rstd / dx = -rstd^3 x / width
    const Tensor r = unsqueeze(op.output(1), -1);
    const double width = static_cast<double>(op.input_shape(0).back());
    result[0] =
        result[0] - to(unsqueeze(op.grad_output(1), -1) * (r * r * r) * widen(op.input(0)) / width, op.input_dtype(0));
  }
  return result;
}

/// As layer_norm_second_grad, with P(v) = v - n mean(v n): u and hw are the gradients of dx and dw.
Tensors rms_norm_second_grad(const OpContext& op) {
  const Tensor g = op.input(0), x = op.input(1), w = op.input(2), r = unsqueeze(op.input(3), -1);
  const Tensor n = x * r, h = g * w, u = op.grad_output(0), hw = op.grad_output(1);
  const auto project = [&](const Tensor& v) { return v - n * row_mean(v * n); };
  const Tensor pu = project(u), ph = project(h);
  const Tensor grad_n = -r * (u * row_mean(h * n) + h * row_mean(u * n)) + g * hw;
  const Tensor grad_r = sum(u * ph, -1, {.keepdim = true});
  const double width = static_cast<double>(x.shape().back());
  return {r * pu * w + hw * n, r * project(grad_n) - grad_r * square(r) * n / width, sum_rows(r * pu * g), Tensor()};
}

uint32_t rows_of_input(std::span<const Tensor> inputs, const Attributes&) { return inputs[0].rank() > 1 ? in(0) : 0; }

}  // namespace

void define_batch_norm(OpTable& table);
void define_group_norm(OpTable& table);

void define_norm(OpTable& table) {
  using enum AttributeType;
  define_batch_norm(table);
  define_group_norm(table);
  table.add({.name = "layer_norm",
             .kind = OpKind::reduce,
             .inputs = 3,
             .outputs = 3,
             .attributes = {{"epsilon", number, 1e-5}},
             .infer = infer_layer_norm,
             .grad =
                 [](const OpContext& op) {
                   const Tensor inputs[] = {op.grad_output(), op.input(0), op.input(1), op.output(1), op.output(2)};
                   Tensors result = dispatch_all(find_op("layer_norm_grad"), inputs, {}, Where::current());
                   add_statistics_grad(op, result[0]);
                   return result;
                 },
             .saved = in(0) | in(1) | out(1) | out(2),
             .contiguous_inputs = true,
             .decompose = decompose_layer_norm,
             .onnx = "LayerNormalization",
             .rows = rows_of_input});
  table.add({.name = "layer_norm_grad",
             .kind = OpKind::reduce,
             .inputs = 5,
             .outputs = 3,
             .infer = infer_layer_norm_grad,
             .grad = layer_norm_second_grad,
             .saved = in(0) | in(1) | in(2) | in(3) | in(4),
             .contiguous_inputs = true,
             .decompose = [](std::span<const Tensor> i, const Attributes&) {
               return layer_norm_backward(i[0], i[1], i[2], i[3], i[4]);
             }});
  table.add({.name = "rms_norm",
             .kind = OpKind::reduce,
             .inputs = 2,
             .outputs = 2,
             .attributes = {{"epsilon", number, 1e-5}},
             .infer = infer_rms_norm,
             .grad = rms_norm_grad,
             .saved = in(0) | in(1) | out(1),
             .contiguous_inputs = true,
             .decompose = decompose_rms_norm,
             .onnx = "RMSNormalization",
             .rows = rows_of_input});
  table.add({.name = "rms_norm_grad",
             .kind = OpKind::reduce,
             .inputs = 4,
             .outputs = 2,
             .infer = infer_rms_norm_grad,
             .grad = rms_norm_second_grad,
             .saved = in(0) | in(1) | in(2) | in(3),
             .contiguous_inputs = true,
             .decompose = [](std::span<const Tensor> i, const Attributes&) {
               return rms_norm_backward(i[0], i[1], i[2], i[3]);
             }});
  for (const char* name : {"layer_norm", "rms_norm"}) table.at(name).autocast = AutocastRule::widen;
}

Tensor layer_norm(const Arg& x, const Tensor& weight, const Tensor& bias, double epsilon) {
  static const Op& op = find_op("layer_norm");
  const Tensor& tensor = x.tensor();
  if (tensor.rank() == 0) throw ShapeError("layer_norm: needs at least one dim, got []", user_line(x.where()));
  const TensorOptions options{.dtype = tensor.dtype(), .device = tensor.device()};
  const Tensor inputs[] = {tensor, weight.defined() ? weight : ones({tensor.shape().back()}, options, x.where()),
                           bias.defined() ? bias : zeros({tensor.shape().back()}, options, x.where())};
  Tensor outputs[3];
  dispatch(op, inputs, {{"epsilon", epsilon}}, outputs, x.where());
  return outputs[0];
}

Tensor rms_norm(const Arg& x, const Tensor& weight, double epsilon) {
  static const Op& op = find_op("rms_norm");
  const Tensor& tensor = x.tensor();
  if (tensor.rank() == 0) throw ShapeError("rms_norm: needs at least one dim, got []", user_line(x.where()));
  const TensorOptions options{.dtype = tensor.dtype(), .device = tensor.device()};
  const Tensor inputs[] = {tensor, weight.defined() ? weight : ones({tensor.shape().back()}, options, x.where())};
  Tensor outputs[2];
  dispatch(op, inputs, {{"epsilon", epsilon}}, outputs, x.where());
  return outputs[0];
}

namespace {

/// x with its last dims, which must be those of `shape`, as one.
Tensor flattened_rows(const char* name, const Arg& x, const Shape& shape) {
  const Shape& from = x.tensor().shape();
  if (shape.empty() || shape.size() > from.size() || !std::equal(shape.begin(), shape.end(), from.end() - shape.size()))
    throw ShapeError(detail::str(name, ": x ", from, " doesn't end in the normalized shape ", shape),
                     user_line(x.where()));
  return flatten(x, -shape.size());
}
Tensor flattened_weight(const char* name, const char* what, const Tensor& weight, const Shape& shape, const Arg& x) {
  if (weight.defined() && weight.shape() != shape)
    throw ShapeError(detail::str(name, ": ", what, " ", weight.shape(), " for the normalized shape ", shape),
                     user_line(x.where()));
  return weight.defined() ? flatten(weight) : weight;
}

}  // namespace

Tensor detail::layer_norm_over(const Arg& x, const Shape& shape, const Tensor& weight, const Tensor& bias,
                               double epsilon) {
  const CallScope scope("layer_norm", x.where());
  const Tensor rows = flattened_rows("layer_norm", x, shape);
  return reshape(layer_norm(rows, flattened_weight("layer_norm", "weight", weight, shape, x),
                            flattened_weight("layer_norm", "bias", bias, shape, x), epsilon),
                 x.tensor().shape());
}

Tensor detail::rms_norm_over(const Arg& x, const Shape& shape, const Tensor& weight, double epsilon) {
  const CallScope scope("rms_norm", x.where());
  const Tensor rows = flattened_rows("rms_norm", x, shape);
  return reshape(rms_norm(rows, flattened_weight("rms_norm", "weight", weight, shape, x), epsilon), x.tensor().shape());
}

Tensor local_response_norm(const Arg& x, int64_t size, LocalResponseNormOptions options) {
  const CallScope scope("local_response_norm", x.where());
  check_floating("local_response_norm", x);
  const Shape& shape = x.tensor().shape();
  constexpr int64_t kMost = 1 << 16;  // each is an op
  if (shape.size() < 2 || size < 1 || size > kMost)
    throw ValueError(
        detail::str("local_response_norm: ", size, " channels of x ", shape, ", which must be [batch, channels, ..]"),
        user_line(x.where()));
  const DType type = x.tensor().dtype();
  const Tensor wide = to(x, wide_type(type));
  std::vector<int64_t> padding(2 * static_cast<size_t>(shape.size() - 1), 0);
  padding[padding.size() - 2] = size / 2, padding[padding.size() - 1] = (size - 1) / 2;
  const Tensor squares = pad(square(wide), padding);
  Tensor total = slice(squares, 1, 0, shape[1]);
  for (int64_t i = 1; i < size; ++i) total = total + slice(squares, 1, i, i + shape[1]);
  return to(wide / pow(total * (options.alpha / static_cast<double>(size)) + options.k, options.beta), type);
}

}  // namespace tandem
