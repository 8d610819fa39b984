// Losses. One is an op: cross-entropy of logits [batch, classes] against class labels [batch],
//   loss = mean_n (log sum_c exp(x_nc) - x_n,label), d loss / d x = (softmax(x) - one_hot(label)) / batch,
// where rows whose label is the attribute ignore_index, if it has one, count for nothing. The others, and cross-entropy with
// weights, smoothed labels or probabilities, are written with public functions; 16-bit operands are computed in float32.
#include <limits>

#include "core/dispatch.h"
#include "core/ops/composed.h"
#include "core/ops/fit.h"
#include "core/range_check.h"

namespace tandem {

namespace {

DType wide(DType type) { return type == float64 ? float64 : float32; }

void infer_cross_entropy(Infer& op) {
  const Tensor &x = op.input(0), &labels = op.input(1);
  op.check_floating(0);
  op.check<ShapeError>(x.rank() == 2 && labels.rank() == 1 && x.shape()[0] == labels.shape()[0],
                       "needs logits [batch, classes] and labels [batch], got ", x.shape(), " and ", labels.shape());
  op.check<DTypeError>(labels.dtype() == int64, "labels must be int64, got ", labels.dtype(),
                       "; cast them with to(int64)");
  op.output(Shape{}, x.dtype());
  op.output(labels.shape(), wide(x.dtype()));
}

void infer_cross_entropy_grad(Infer& op) {
  check_fit(op, ", b c, b:int64, b:wide");
  op.output(op.input(1).shape(), op.input(1).dtype());
}

/// [batch, classes], true at each row's label.
Tensor at_label(const Tensor& labels, int64_t classes) {
  return arange(0, classes, 1, {.dtype = int64, .device = labels.device()}) == unsqueeze(labels, 1);
}

/// Which rows count; undefined: all.
Tensor counted(const Tensor& labels, const Attributes& attributes) {
  return attributes.find("ignore_index") ? labels != attributes.integer("ignore_index") : Tensor();
}
/// x over the number of rows that count.
Tensor over_count(const Tensor& x, const Tensor& rows, const Tensor& valid) {
  return valid.defined() ? x / sum(to(valid, wide(x.dtype()))) : x / static_cast<double>(rows.shape()[0]);
}

/// As the kernels check them.
Tensor checked(const Tensor& labels, int64_t classes, const Attributes& attributes) {
  RangeCheck check{.what = "label", .bound = classes, .classes = true};
  if (attributes.find("ignore_index")) check.ignored = attributes.integer("ignore_index");
  return range_checked("cross_entropy", labels, check);
}

Tensors decompose(std::span<const Tensor> inputs, const Attributes& attributes) {
  const Tensor x = to(inputs[0], wide(inputs[0].dtype()));
  const int64_t batch = x.shape()[0], classes = x.shape()[1];
  const Tensor shift = max(x, 1, {.keepdim = true});
  const Tensor log_sum_exp = log(sum(exp(x - shift), 1, {.keepdim = true})) + shift;
  const Tensor picked =
      sum(where(at_label(checked(inputs[1], classes, attributes), classes), x, 0), 1, {.keepdim = true});
  const Tensor valid = counted(inputs[1], attributes);
  const Tensor loss = log_sum_exp - picked;
  const Tensor total = sum(valid.defined() ? where(unsqueeze(valid, 1), loss, 0) : loss);
  return {to(over_count(total, x, valid), inputs[0].dtype()), reshape(log_sum_exp, {batch})};
}

Tensors decompose_grad(std::span<const Tensor> inputs, const Attributes& attributes) {
  const DType type = inputs[1].dtype();
  const Tensor x = to(inputs[1], wide(type)), g = to(inputs[0], wide(type));
  const Tensor p = exp(x - unsqueeze(inputs[3], 1));
  const Tensor valid = counted(inputs[2], attributes);
  const Tensor hit =
      where(at_label(checked(inputs[2], x.shape()[1], attributes), x.shape()[1]), p - 1, p) * over_count(g, x, valid);
  return {to(valid.defined() ? where(unsqueeze(valid, 1), hit, 0) : hit, type)};
}

/// Gradient of the gradient: with p = softmax and u the incoming [batch, classes],
/// d/dg = sum(u (p - onehot)) / batch, d/dx = g / batch * p (u - sum_c(u p)).
Tensors second_grad(const OpContext& op) {
  const Tensor g = op.input(0), x = op.input(1), labels = op.input(2);
  const Tensor valid = counted(labels, op.attributes());
  const Tensor u = valid.defined() ? where(unsqueeze(valid, 1), op.grad_output(), 0) : op.grad_output();
  const Tensor p = softmax(x, 1);
  const Tensor hit = where(at_label(labels, x.shape()[1]), p - 1, p);
  return {over_count(sum(u * hit), x, valid), p * (u - sum(u * p, 1, {.keepdim = true})) * over_count(g, x, valid),
          Tensor(), Tensor()};
}

}  // namespace

void define_ctc(OpTable& table);  // ctc.cpp

void define_loss(OpTable& table) {
  using enum AttributeType;
  define_ctc(table);
  table.add({.name = "cross_entropy",
             .kind = OpKind::reduce,
             .inputs = 2,
             .outputs = 2,
             .attributes = {optional_attribute("ignore_index", integer)},
             .infer = infer_cross_entropy,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{dispatch(find_op("cross_entropy_grad"),
                                           {op.grad_output(), op.input(0), op.input(1), op.output(1)}, op.attributes(),
                                           Where::current()),
                                  Tensor()};
                 },
             .saved = in(0) | in(1) | out(1),
             .contiguous_inputs = true,
             .decompose = decompose,
             .onnx = "SoftmaxCrossEntropyLoss"});
  table.add({.name = "cross_entropy_grad",
             .kind = OpKind::reduce,
             .inputs = 4,
             .attributes = {optional_attribute("ignore_index", integer)},
             .infer = infer_cross_entropy_grad,
             .grad = second_grad,
             .saved = in(0) | in(1) | in(2),
             .contiguous_inputs = true,
             .decompose = decompose_grad});
  table.at("cross_entropy").autocast = AutocastRule::widen;
}

namespace {

/// The mean over rows [batch, classes], in one kernel.
Tensor fused_cross_entropy(const Arg& logits, const Tensor& labels, std::optional<int64_t> ignore_index) {
  static const Op& op = find_op("cross_entropy");
  const Tensor inputs[] = {logits.tensor(), labels};
  Tensor outputs[2];
  dispatch(op, inputs, ignore_index ? Attributes{{"ignore_index", *ignore_index}} : Attributes(), outputs,
           logits.where());
  return outputs[0];
}

Tensor reduced(const char* name, const Tensor& loss, Reduction reduction, DType type, const Arg& x) {
  return reduced_loss(name, loss, reduction, type, x.where());
}

/// Scores as [rows, classes], and labels as [rows].
struct Rows {
  Tensor scores, labels;
  Rows(const char* name, const char* what, const Arg& x, const Tensor& given) : scores(x.tensor()), labels(given) {
    const Shape& shape = scores.shape();
    Shape expected = shape;
    if (shape.size() > 0) expected.erase(shape.size() > 1 ? 1 : 0);
    if (shape.size() == 0 || labels.shape() != expected)
      throw ShapeError(detail::str(name, ": needs ", what, " [batch, classes, d1..] and labels [batch, d1..], got ",
                                   shape, " and ", labels.shape()),
                       user_line(x.where()));
    if (labels.dtype() != int64)
      throw DTypeError(detail::str(name, ": labels must be int64, got ", labels.dtype(), "; cast them with to(int64)"),
                       user_line(x.where()));
    if (shape.size() == 2) return;
    const int64_t classes = shape[shape.size() > 1 ? 1 : 0];
    scores = reshape(shape.size() > 1 ? movedim(scores, 1, -1) : scores, {labels.numel(), classes});
    labels = reshape(labels, {labels.numel()});
  }
};

Tensor checked_weight(const char* name, const Tensor& weight, int64_t classes, DType type, const Arg& x) {
  if (!weight.defined()) return weight;
  if (weight.shape() != Shape{classes})
    throw ShapeError(detail::str(name, ": weight ", weight.shape(), " for ", classes, " classes"),
                     user_line(x.where()));
  return to(weight, type);
}

/// What -log p of the labels comes to, of log p [rows, classes]; `shape` is that of the labels as the user has them.
Tensor label_loss(const char* name, const Tensor& log_p, const Tensor& labels, const CrossEntropyOptions& options,
                  const Shape& shape, DType type, const Arg& x) {
  const int64_t classes = log_p.shape()[1];
  const Tensor weight = checked_weight(name, options.weight, classes, log_p.dtype(), x);
  const Tensor valid = options.ignore_index ? labels != *options.ignore_index : Tensor();
  const Tensor safe = valid.defined() ? where(valid, labels, 0) : labels;
  Tensor loss = -squeeze(gather(log_p, 1, unsqueeze(safe, 1)), 1);
  Tensor row_weight = weight.defined() ? index_select(weight, 0, safe) : Tensor();
  if (weight.defined()) loss = loss * row_weight;
  if (options.label_smoothing > 0) {
    const Tensor of_all = -sum(weight.defined() ? log_p * weight : log_p, 1);
    loss = loss * (1 - options.label_smoothing) + of_all * (options.label_smoothing / static_cast<double>(classes));
  }
  if (valid.defined()) {
    loss = where(valid, loss, 0);
    row_weight = weight.defined() ? where(valid, row_weight, 0) : to(valid, loss.dtype());
  }
  if (options.reduction == Reduction::mean && row_weight.defined()) return to(sum(loss) / sum(row_weight), type);
  return reduced(name, options.reduction == Reduction::none ? reshape(loss, shape) : loss, options.reduction, type, x);
}

/// Labels that are probabilities: dim 1 (0 without a batch) has the classes.
Tensor probability_loss(const Arg& logits, const Tensor& target, const CrossEntropyOptions& options) {
  const Tensor& x = logits.tensor();
  if (options.ignore_index)
    throw ValueError(
        "cross_entropy: ignore_index is for labels that are class ids; give rows of probabilities weight 0 instead",
        user_line(logits.where()));
  const DType type = wide(x.dtype());
  const int dim = x.rank() > 1 ? 1 : 0;
  const int64_t classes = x.shape()[dim];
  Tensor p = to(target, type);
  if (options.label_smoothing > 0)
    p = p * (1 - options.label_smoothing) + options.label_smoothing / static_cast<double>(classes);
  Tensor terms = p * log_softmax(to(x, type), dim);
  if (const Tensor weight = checked_weight("cross_entropy", options.weight, classes, type, logits); weight.defined()) {
    Shape shape = Shape::filled(x.rank() - dim, 1);
    shape[0] = classes;
    terms = terms * reshape(weight, shape);
  }
  return reduced("cross_entropy", -sum(terms, dim), options.reduction, x.dtype(), logits);
}

/// x and the target of an elementwise loss, in the type that it is computed in, and the type of the result.
struct Operands {
  Tensor x, target;
  DType type;
};
Operands operands_of(const char* name, const Arg& x, const Arg& target) {
  const Tensor &a = x.tensor(), &b = target.tensor();
  if (target.is_tensor() && a.shape() != b.shape())
    throw ShapeError(detail::str(name, ": x ", a.shape(), " and target ", b.shape(),
                                 " must have one shape; reshape or expand one where they are meant to broadcast"),
                     user_line(x.where()));
  const DType type = target.is_tensor() ? promote(a.dtype(), b.dtype()) : a.dtype();
  if (!is_floating(type))
    throw DTypeError(detail::str(name, ": needs floating operands, got ", a.dtype(), "; cast them with to(float32)"),
                     user_line(x.where()));
  return {to(a, wide(type)), to(b, wide(type)), type};
}

}  // namespace

Tensor cross_entropy(const Arg& logits, const Tensor& labels) { return cross_entropy(logits, labels, {}); }

Tensor cross_entropy(const Arg& logits, const Tensor& labels, const CrossEntropyOptions& options) {
  const Tensor& x = logits.tensor();
  const bool mean_of_rows =
      !options.weight.defined() && options.label_smoothing == 0 && options.reduction == Reduction::mean;
  if (!labels.defined() || (mean_of_rows && x.rank() == 2 && labels.rank() == 1))
    return fused_cross_entropy(logits, labels, options.ignore_index);
  const CallScope scope("cross_entropy", logits.where());
  if (!(options.label_smoothing >= 0 && options.label_smoothing <= 1))
    throw ValueError(
        detail::str("cross_entropy: label_smoothing ", options.label_smoothing, " must be between 0 and 1"),
        user_line(logits.where()));
  if (is_floating(labels.dtype()) && labels.shape() == x.shape()) return probability_loss(logits, labels, options);
  const Rows rows("cross_entropy", "logits", logits, labels);
  if (mean_of_rows) return fused_cross_entropy(rows.scores, rows.labels, options.ignore_index);
  if (!is_floating(x.dtype()))
    throw DTypeError(
        detail::str("cross_entropy: logits must be floating, got ", x.dtype(), "; cast them with to(float32)"),
        user_line(logits.where()));
  return label_loss("cross_entropy", log_softmax(to(rows.scores, wide(x.dtype())), 1), rows.labels, options,
                    labels.shape(), x.dtype(), logits);
}

Tensor nll_loss(const Arg& log_probabilities, const Tensor& labels, const NllOptions& options) {
  const CallScope scope("nll_loss", log_probabilities.where());
  const Tensor& x = log_probabilities.tensor();
  const Rows rows("nll_loss", "log-probabilities", log_probabilities, labels);
  return label_loss("nll_loss", to(rows.scores, wide(x.dtype())), rows.labels,
                    {.weight = options.weight, .ignore_index = options.ignore_index, .reduction = options.reduction},
                    labels.shape(), x.dtype(), log_probabilities);
}

Tensor mse_loss(const Arg& x, const Arg& target, LossOptions options) {
  const CallScope scope("mse_loss", x.where());
  const auto [a, b, type] = operands_of("mse_loss", x, target);
  return reduced("mse_loss", square(a - b), options.reduction, type, x);
}

Tensor l1_loss(const Arg& x, const Arg& target, LossOptions options) {
  const CallScope scope("l1_loss", x.where());
  const auto [a, b, type] = operands_of("l1_loss", x, target);
  return reduced("l1_loss", abs(a - b), options.reduction, type, x);
}

Tensor huber_loss(const Arg& x, const Arg& target, HuberOptions options) {
  const CallScope scope("huber_loss", x.where());
  const auto [a, b, type] = operands_of("huber_loss", x, target);
  if (!(options.delta > 0))
    throw ValueError(detail::str("huber_loss: delta ", options.delta, " must be positive"), user_line(x.where()));
  const Tensor d = abs(a - b);
  return reduced("huber_loss",
                 tandem::where(d < options.delta, square(d) * 0.5, (d - 0.5 * options.delta) * options.delta),
                 options.reduction, type, x);
}

Tensor smooth_l1_loss(const Arg& x, const Arg& target, SmoothL1Options options) {
  const CallScope scope("smooth_l1_loss", x.where());
  const auto [a, b, type] = operands_of("smooth_l1_loss", x, target);
  if (!(options.beta >= 0))
    throw ValueError(detail::str("smooth_l1_loss: beta ", options.beta, " must not be negative"), user_line(x.where()));
  const Tensor d = abs(a - b);
  if (options.beta == 0) return reduced("smooth_l1_loss", d, options.reduction, type, x);
  return reduced("smooth_l1_loss",
                 tandem::where(d < options.beta, square(d) * (0.5 / options.beta), d - 0.5 * options.beta),
                 options.reduction, type, x);
}

Tensor binary_cross_entropy(const Arg& p, const Arg& target, const BinaryCrossEntropyOptions& options) {
  const CallScope scope("binary_cross_entropy", p.where());
  const Operands operands = operands_of("binary_cross_entropy", p, target);
  const Tensor& y = operands.target;
  const Tensor a =
      bounded("binary_cross_entropy", operands.x, 0, 1,
              "a probability is not between 0 and 1; binary_cross_entropy_with_logits takes any number", p.where());
  // Of zero: -100, and no gradient, where log's own would be infinite.
  const auto bounded_log = [](const Tensor& x) {
    const Tensor positive = x > 0;
    return maximum(tandem::where(positive, log(tandem::where(positive, x, 1)), -100), -100);
  };
  Tensor loss = -(y * bounded_log(a) + (1 - y) * bounded_log(1 - a));
  if (options.weight.defined()) loss = loss * options.weight;
  return reduced("binary_cross_entropy", loss, options.reduction, operands.type, p);
}

Tensor binary_cross_entropy_with_logits(const Arg& logits, const Arg& target, const BceWithLogitsOptions& options) {
  const CallScope scope("binary_cross_entropy_with_logits", logits.where());
  const auto [x, y, type] = operands_of("binary_cross_entropy_with_logits", logits, target);
  // With s = log(1 + exp(-|x|)): -log sigmoid(x) = s + max(-x, 0) and -log(1 - sigmoid(x)) = s + max(x, 0).
  const Tensor s = log1p(exp(-abs(x)));
  Tensor loss;
  if (!options.pos_weight.defined()) {
    loss = s + (maximum(x, 0) - x * y);
  } else {
    const Tensor positive = y * options.pos_weight;
    loss = s * (positive + (1 - y)) + positive * maximum(-x, 0) + (1 - y) * maximum(x, 0);
  }
  if (options.weight.defined()) loss = loss * options.weight;
  return reduced("binary_cross_entropy_with_logits", loss, options.reduction, type, logits);
}

Tensor kl_div(const Arg& x, const Arg& target, KlDivOptions options) {
  const CallScope scope("kl_div", x.where());
  const auto [a, t, type] = operands_of("kl_div", x, target);
  Tensor loss;
  if (options.log_target) {
    loss = exp(t) * (t - a);
  } else {
    const Tensor positive = t > 0, some = tandem::where(positive, t, 1);
    loss = tandem::where(positive, some * (log(some) - a), 0);
  }
  if (options.reduction != Reduction::batchmean) return reduced("kl_div", loss, options.reduction, type, x);
  if (loss.rank() == 0) throw ShapeError("kl_div: batchmean needs a batch, got []", user_line(x.where()));
  return to(sum(loss) / static_cast<double>(loss.shape()[0]), type);
}

Tensor cosine_similarity(const Arg& x, const Arg& y, int64_t dim, double epsilon) {
  const CallScope scope("cosine_similarity", x.where());
  const DType type = promote(x.tensor().dtype(), y.tensor().dtype());
  Tensor a = to(x, wide(type)), b = to(y, wide(type));
  if (a.shape() != b.shape()) {  // each norm is of what is compared
    const Shape shape = broadcast_shape("cosine_similarity", {a, b}, x.where());
    a = expand(a, shape), b = expand(b, shape);
  }
  // The bound stands below the root, whose slope at 0 is infinite.
  const auto norm = [&](const Tensor& v) { return sqrt(maximum(sum(square(v), dim), epsilon * epsilon)); };
  return to(sum(a * b, dim) / (norm(a) * norm(b)), type);
}

}  // namespace tandem
