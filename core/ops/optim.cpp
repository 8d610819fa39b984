// Optimiser updates as ops: new values out, old ones in. nn/optim runs them in place (dispatch_in_place);
// in a graph they are broken into pointwise ops, so that all parameters' updates become one kernel.
#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

void check_update(const Infer& op, int tensors) {
  op.check_floating(0);
  for (int i = 1; i < tensors; ++i) {
    op.check<ShapeError>(op.input(i).shape() == op.input(0).shape(), "operand ", i, " ", op.input(i).shape(),
                         " doesn't match the parameter ", op.input(0).shape());
    op.check<DTypeError>(op.input(i).dtype() == op.input(0).dtype(), "operand ", i, " is ", op.input(i).dtype(),
                         ", the parameter ", op.input(0).dtype());
  }
}

void check_number(const Infer& op, int i) {
  op.check<ShapeError>(op.input(i).rank() == 0, "operand ", i, " must be a number, got ", op.input(i).shape());
}

void infer_sgd(Infer& op) {
  check_update(op, 3);
  check_number(op, 3);
  op.output(op.input(0));
  op.output(op.input(2));
}

void infer_adamw(Infer& op) {
  check_update(op, 4);
  // What is made of them is rounded in their type in every kernel and mode, whatever the parameter is.
  const DType type = op.input(4).dtype();
  for (int i = 4; i < 7; ++i) {
    check_number(op, i);
    op.check<DTypeError>((type == float32 || type == float64) && op.input(i).dtype() == type,
                         "the rate and the bias corrections must all be float32, or all float64; operand ", i, " is ",
                         op.input(i).dtype());
  }
  op.output(op.input(0));
  op.output(op.input(2));
  op.output(op.input(3));
}

/// 16-bit floats are updated in float32 and rounded once, as the kernels do.
Tensors widened(std::span<const Tensor> inputs) {
  Tensors result;
  for (const Tensor& x : inputs) result.push_back(size_of(x.dtype()) == 2 ? to(x, float32) : x);
  return result;
}
Tensors rounded(Tensors results, DType type) {
  for (Tensor& x : results) x = to(x, type);
  return results;
}

/// Sutskever et al. 2013, in PyTorch's form: buffer = momentum buffer + (1 - dampening) g; p -= lr buffer.
Tensors decompose_sgd(std::span<const Tensor> given, const Attributes& attributes) {
  const Tensors inputs = widened(given);
  const DType type = given[0].dtype();
  const Tensor &param = inputs[0], &buffer = inputs[2], &lr = inputs[3];
  const double momentum = attributes.number("momentum"), decay = attributes.number("weight_decay");
  const Tensor g = decay != 0 ? inputs[1] + param * decay : inputs[1];
  if (momentum == 0) return rounded({param - g * lr, buffer}, type);
  const double damp = 1 - attributes.number("dampening");
  const Tensor next = buffer * momentum + (damp != 1 ? g * damp : g);
  return rounded({param - (attributes.flag("nesterov") ? g + next * momentum : next) * lr, next}, type);
}

/// Loshchilov, Hutter 2019 (decoupled) or Kingma, Ba 2015 with L2 regularisation.
Tensors decompose_adamw(std::span<const Tensor> given, const Attributes& attributes) {
  const Tensors inputs = widened(given);
  const Tensor &m = inputs[2], &v = inputs[3], &lr = inputs[4];
  const double beta1 = attributes.number("beta1"), beta2 = attributes.number("beta2"),
               decay = attributes.number("weight_decay");
  Tensor param = inputs[0], g = inputs[1];
  if (decay != 0) {
    if (attributes.flag("decoupled")) param = param * (1 - lr * decay);
    else g = g + param * decay;
  }
  const Tensor m_next = m + (g - m) * (1 - beta1);
  const Tensor v_next = v * beta2 + g * g * (1 - beta2);
  const Tensor step = m_next / (sqrt(v_next) / inputs[6] + attributes.number("epsilon"));
  return rounded({param - step * (lr / inputs[5]), m_next, v_next}, given[0].dtype());
}

}  // namespace

void define_optim(OpTable& table) {
  using enum AttributeType;
  table.add({.name = "sgd",
             .kind = OpKind::opaque,
             .inputs = 4,
             .outputs = 2,
             .attributes = {{"momentum", number, 0.0},
                            {"dampening", number, 0.0},
                            {"weight_decay", number, 0.0},
                            {"nesterov", flag, false}},
             .infer = infer_sgd,
             .in_place = true,
             .decompose = decompose_sgd});
  table.add({.name = "adamw",
             .kind = OpKind::opaque,
             .inputs = 7,
             .outputs = 3,
             .attributes = {{"beta1", number, 0.9},
                            {"beta2", number, 0.999},
                            {"epsilon", number, 1e-8},
                            {"weight_decay", number, 0.01},
                            {"decoupled", flag, true}},
             .infer = infer_adamw,
             .in_place = true,
             .decompose = decompose_adamw});
}

}  // namespace tandem
