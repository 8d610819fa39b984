// Cross-entropy of logits [batch, classes] against class labels [batch]:
//   loss = mean_n (log sum_c exp(x_nc) - x_n,label), d loss / d x = (softmax(x) - one_hot(label)) / batch.
#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"

namespace tandem {

namespace {

DType wide(DType type) { return type == float64 ? float64 : float32; }

void infer_cross_entropy(Infer& op) {
  const Tensor &x = op.input(0), &labels = op.input(1);
  op.check_floating(0);
  op.check<ShapeError>(x.rank() == 2 && labels.rank() == 1 && x.shape()[0] == labels.shape()[0],
                       "needs logits [batch, classes] and labels [batch], got ", x.shape(), " and ", labels.shape());
  op.check<DTypeError>(labels.dtype() == int64, "labels must be int64, got ", labels.dtype(), "; cast them with to(int64)");
  op.output(Shape{}, x.dtype());
  op.output(labels.shape(), wide(x.dtype()));
}

void infer_cross_entropy_grad(Infer& op) { op.output(op.input(1).shape(), op.input(1).dtype()); }

/// [batch, classes], true at each row's label.
Tensor at_label(const Tensor& labels, int64_t classes) {
  return arange(0, classes, 1, {.dtype = int64, .device = labels.device()}) == unsqueeze(labels, 1);
}

Tensors decompose(std::span<const Tensor> inputs, const Attributes&) {
  const Tensor x = to(inputs[0], wide(inputs[0].dtype()));
  const int64_t batch = x.shape()[0], classes = x.shape()[1];
  const Tensor shift = max(x, 1, {.keepdim = true});
  const Tensor log_sum_exp = log(sum(exp(x - shift), 1, {.keepdim = true})) + shift;
  const Tensor picked = sum(where(at_label(inputs[1], classes), x, 0), 1, {.keepdim = true});
  const Tensor loss = sum(log_sum_exp - picked) / static_cast<double>(batch);
  return {to(loss, inputs[0].dtype()), reshape(log_sum_exp, {batch})};
}

Tensors decompose_grad(std::span<const Tensor> inputs, const Attributes&) {
  const DType type = inputs[1].dtype();
  const Tensor x = to(inputs[1], wide(type)), g = to(inputs[0], wide(type));
  const Tensor p = exp(x - unsqueeze(inputs[3], 1));
  const Tensor hit = where(at_label(inputs[2], x.shape()[1]), p - 1, p);
  return {to(hit * (g / static_cast<double>(x.shape()[0])), type)};
}

/// Gradient of the gradient: with p = softmax and u the incoming [batch, classes],
/// d/dg = sum(u (p - onehot)) / batch, d/dx = g / batch * p (u - sum_c(u p)).
Tensors second_grad(const OpContext& op) {
  const Tensor u = op.grad_output(), g = op.input(0), x = op.input(1), labels = op.input(2);
  const double batch = static_cast<double>(x.shape()[0]);
  const Tensor p = softmax(x, 1);
  const Tensor hit = where(at_label(labels, x.shape()[1]), p - 1, p);
  return {sum(u * hit) / batch, p * (u - sum(u * p, 1, {.keepdim = true})) * (g / batch), Tensor(), Tensor()};
}

}  // namespace

void define_loss(OpTable& table) {
  table.add({.name = "cross_entropy", .kind = OpKind::reduce, .inputs = 2, .outputs = 2, .infer = infer_cross_entropy,
             .grad = [](const OpContext& op) {
               return Tensors{dispatch(find_op("cross_entropy_grad"), {op.grad_output(), op.input(0), op.input(1), op.output(1)}, {}, Where::current()),
                              Tensor()};
             },
             .saved = in(0) | in(1) | out(1), .contiguous_inputs = true, .decompose = decompose, .onnx = "SoftmaxCrossEntropyLoss"});
  table.add({.name = "cross_entropy_grad", .kind = OpKind::reduce, .inputs = 4, .infer = infer_cross_entropy_grad, .grad = second_grad,
             .saved = in(0) | in(1) | in(2), .contiguous_inputs = true, .decompose = decompose_grad});
  table.at("cross_entropy").autocast = AutocastRule::widen;
}

Tensor cross_entropy(const Arg& logits, const Tensor& labels) {
  static const Op& op = find_op("cross_entropy");
  const Tensor inputs[] = {logits.tensor(), labels};
  Tensor outputs[2];
  dispatch(op, inputs, {}, outputs, logits.where());
  return outputs[0];
}

}  // namespace tandem
