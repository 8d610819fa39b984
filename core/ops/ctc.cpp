// Connectionist temporal classification (A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, ICML 2006): -log of the probability of all
// paths through time that give the labels, repetitions and blanks left out. Kernels walk time, for labels between blanks
// (2 length + 1 states): alpha forward, and for the gradient beta back, d loss / d log p_tk = -P(state k at t | labels).
// The second gradient is how that changes along the incoming one: alpha, beta and the loss with their derivatives along it.
#include "core/dispatch.h"
#include "core/ops/composed.h"

namespace tandem {

namespace {

/// log-probabilities [time, batch, classes], targets [batch, labels] or [labels], two lengths [batch], from operand `first` on.
void check_sequences(const Infer& op, int first) {
  const Tensor &x = op.input(first), &targets = op.input(first + 1);
  op.check_floating(first);
  op.check<ShapeError>(x.rank() == 3 && x.shape()[2] >= 1,
                       "needs log-probabilities [time, batch, classes] with at least one class, got ", x.shape());
  const int64_t batch = x.shape()[1];
  op.check<ShapeError>(targets.rank() == 1 || (targets.rank() == 2 && targets.shape()[0] == batch),
                       "needs targets [batch, labels] or [labels], got ", targets.shape(), " for log-probabilities ",
                       x.shape());
  for (int i = 1; i <= 3; ++i)
    op.check<DTypeError>(op.input(first + i).dtype() == int64, "targets and lengths must be int64, got ",
                         op.input(first + i).dtype(), "; cast them with to(int64)");
  for (int i = 2; i <= 3; ++i)
    op.check<ShapeError>(op.input(first + i).shape() == Shape{batch}, "lengths must be [batch], got ",
                         op.input(first + i).shape(), " for log-probabilities ", x.shape());
  op.integer("blank", 0, x.shape()[2] - 1);
}

void infer_ctc(Infer& op) {
  check_sequences(op, 0);
  op.output({op.input(0).shape()[1]}, op.input(0).dtype());
}

void infer_ctc_grad(Infer& op) {
  check_sequences(op, 1);
  const Tensor &g = op.input(0), &x = op.input(1);
  op.check<ShapeError>(g.shape() == Shape{x.shape()[1]}, "the gradient is ", g.shape(), ", not [", x.shape()[1], "]");
  op.check<DTypeError>(g.dtype() == x.dtype(), "operands of different dtypes: ", g.dtype(), " and ", x.dtype());
  op.output(x.shape(), x.dtype());
}

/// Operand 5 is the gradient of ctc_loss_grad's result. The results are those of its operands 1 and 0.
void infer_ctc_second(Infer& op) {
  infer_ctc_grad(op);
  const Tensor &g = op.input(0), &x = op.input(1), &u = op.input(5);
  op.check<ShapeError>(u.shape() == x.shape(), "the gradient is ", u.shape(), ", not ", x.shape());
  op.check<DTypeError>(u.dtype() == x.dtype(), "operands of different dtypes: ", u.dtype(), " and ", x.dtype());
  op.output(g.shape(), g.dtype());
}

}  // namespace

void define_ctc(OpTable& table) {
  using enum AttributeType;
  const AttributeSchema options = {{"blank", integer, 0}, {"zero_infinity", flag, false}};
  table.add({.name = "ctc_loss",
             .kind = OpKind::opaque,
             .inputs = 4,
             .attributes = options,
             .infer = infer_ctc,
             .grad =
                 [](const OpContext& op) {
                   Tensors result(4);
                   result[0] = dispatch(find_op("ctc_loss_grad"),
                                        {op.grad_output(), op.input(0), op.input(1), op.input(2), op.input(3)},
                                        op.attributes(), Where::current());
                   return result;
                 },
             .saved = in(0) | in(1) | in(2) | in(3),
             .contiguous_inputs = true});
  table.add({.name = "ctc_loss_grad",
             .kind = OpKind::opaque,
             .inputs = 5,
             .attributes = options,
             .infer = infer_ctc_grad,
             .grad =
                 [](const OpContext& op) {
                   const Tensor inputs[] = {op.input(0), op.input(1), op.input(2),
                                            op.input(3), op.input(4), op.grad_output()};
                   const Tensors both =
                       dispatch_all(find_op("ctc_loss_second"), inputs, op.attributes(), Where::current());
                   return Tensors{both[1], both[0], Tensor(), Tensor(), Tensor()};
                 },
             .saved = in(0) | in(1) | in(2) | in(3) | in(4),
             .contiguous_inputs = true});
  table.add({.name = "ctc_loss_second",
             .kind = OpKind::opaque,
             .inputs = 6,
             .outputs = 2,
             .attributes = options,
             .infer = infer_ctc_second,
             .contiguous_inputs = true});
  table.at("ctc_loss").autocast = AutocastRule::widen;
}

Tensor ctc_loss(const Arg& log_probabilities, const Tensor& targets, const Tensor& input_lengths,
                const Tensor& target_lengths, const CtcOptions& options) {
  static const Op& op = find_op("ctc_loss");
  const Where where = log_probabilities.where();
  const CallScope scope("ctc_loss", where);
  const Tensor& x = log_probabilities.tensor();
  check_floating("ctc_loss", log_probabilities);
  const bool one = x.rank() == 2;
  const auto positions = [&](const Tensor& given, const char* what) {
    const Tensor whole = positions_of("ctc_loss", given, where, what);
    return one && whole.rank() == 0 ? reshape(whole, {1}) : whole;
  };
  const Tensor lengths = positions(target_lengths, "target_lengths");
  const Tensor wide = to(x, wide_type(x.dtype()));
  Tensor loss = dispatch(op,
                         {one ? unsqueeze(wide, 1) : wide, positions(targets, "targets"),
                          positions(input_lengths, "input_lengths"), lengths},
                         {{"blank", options.blank}, {"zero_infinity", options.zero_infinity}}, where);
  if (options.reduction == Reduction::mean) loss = loss / to(maximum(lengths, 1), loss.dtype());
  if (one) loss = squeeze(loss, 0);
  return reduced_loss("ctc_loss", loss, options.reduction, x.dtype(), where);
}

}  // namespace tandem
