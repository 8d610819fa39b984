// Random draws and dropout. `key` is int64[2] = {seed, draw}; attribute "site" is added to draw. Element i
// (row-major) depends on (seed, draw, i) alone, so every mode and device draws the same numbers.
#include "core/random.h"

#include <limits>

#include "core/dispatch.h"
#include "core/ops/composed.h"
#include "core/range_check.h"

namespace tandem {

namespace {

void check_key(const Infer& op, int input) {
  const Tensor& key = op.input(input);
  op.check<ShapeError>(key.shape() == Shape{2} && key.dtype() == int64, "the key must be int64[2], got ", key.dtype(),
                       key.shape());
}

void infer_draw(Infer& op) {
  check_key(op, 0);
  op.output(op.attributes.integers("shape"), op.attributes.dtype("dtype")).impl()->device =
      parse_device(op.attributes.text("device"), op.where);
}

void infer_random_int(Infer& op) {
  op.integer("high", checked_add(op.attributes.integer("low"), 1));
  infer_draw(op);
}

void infer_dropout(Infer& op) {
  op.check_floating(0);
  check_key(op, 1);
  const double p = op.attributes.number("p");
  op.check<ValueError>(p >= 0 && p <= 1, "probability ", p, " must be between 0 and 1");
  op.output(op.input(0));
}

void infer_turn_key(Infer& op) {
  check_key(op, 0);
  op.check<DTypeError>(op.input(1).dtype() == int64, "the turn must be int64, got ", op.input(1).dtype());
  op.check<ShapeError>(op.input(1).numel() == 1, "the turn must be one number, got ", op.input(1).shape());
  TensorImpl& key = *op.output(Shape{2}, int64).impl();
  key.device = op.input(0).device();
  key.is_scalar =
      key.device.is_cpu();  // of the host, as keys are, beside operands of any device; else where its key lies
}

Tensor draw(const char* name, const Shape& shape, TensorOptions options, Attributes attributes, Where where) {
  const Draw next = next_draw();
  attributes.set({"shape", shape});
  attributes.set({"dtype", options.dtype});
  attributes.set({"device", to_string(options.device)});
  attributes.set({"site", next.site});
  Tensor result = dispatch(find_op(name), {next.key_on(options.device)}, attributes, where);
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

void infer_bounded(Infer& op) {
  op.check_floating(0);
  op.output(op.input(0));
}

/// For generated kernels, which check what they read: the copy reads it all, and costs nothing where it is fused with its
/// readers. So all is checked, once, whoever reads it: no kernel, one that reads a part, or a program's result.
Tensors decompose_bounded(std::span<const Tensor> inputs, const Attributes& attributes) {
  const RangeCheck check{.what = attributes.text("message"),
                         .interval = Interval{attributes.number("low"), attributes.number("high")}};
  return {clone(range_checked(attributes.text("op").c_str(), inputs[0], check))};
}

void check_floating(const char* name, DType type, Where where) {
  if (!is_floating(type))
    throw DTypeError(detail::str(name, ": draws floating numbers, not ", type, "; see randint"), user_line(where));
}

}  // namespace

void define_random(OpTable& table) {
  using enum AttributeType;
  const AttributeSchema drawn = {
      {"shape", ints}, {"dtype", dtype, DType::float32}, {"device", text, "cpu"}, {"site", integer, 0}};
  table.add({.name = "random_uniform",
             .kind = OpKind::random,
             .attributes = drawn,
             .infer = infer_draw,
             .onnx = "RandomUniform",
             .sequence = Sequence::uniform});
  table.add({.name = "random_normal",
             .kind = OpKind::random,
             .attributes = drawn,
             .infer = infer_draw,
             .onnx = "RandomNormal"});
  table.add({.name = "random_int",
             .kind = OpKind::random,
             .attributes = {{"low", integer},
                            {"high", integer},
                            {"shape", ints},
                            {"dtype", dtype, DType::float32},
                            {"device", text, "cpu"},
                            {"site", integer, 0}},
             .infer = infer_random_int});
  table.add({.name = "turn_key",
             .kind = OpKind::random,
             .inputs = 2,
             .attributes = {{"site", integer, 0}},
             .infer = infer_turn_key});
  table.add({.name = "bounded",
             .kind = OpKind::opaque,
             .attributes = {{"low", number}, {"high", number}, {"op", text}, {"message", text}},
             .infer = infer_bounded,
             .grad = [](const OpContext& op) { return Tensors{op.grad_output()}; },
             .in_place = true,
             .decompose = decompose_bounded});
  // Linear in x: its gradient is itself, with the same key.
  table.add({.name = "dropout",
             .kind = OpKind::random,
             .inputs = 2,
             .attributes = {{"p", number}, {"site", integer, 0}},
             .infer = infer_dropout,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{
                       dispatch(find_op("dropout"), {op.grad_output(), op.input(1)}, op.attributes(), Where::current()),
                       Tensor()};
                 },
             .saved = in(1),
             .decompose =
                 [](std::span<const Tensor> inputs, const Attributes& attributes) {
                   const Tensor& x = inputs[0];
                   const double p = attributes.number("p");
                   const Tensor u = dispatch(find_op("random_uniform"), {inputs[1]},
                                             {{"shape", x.shape()},
                                              {"dtype", float32},
                                              {"device", to_string(x.device())},
                                              {"site", attributes.integer("site")}},
                                             Where::current());
                   return Tensors{where(u >= p, x * (p < 1 ? 1 / (1 - p) : 0), 0)};
                 },
             .onnx = "Dropout"});
}

Tensor bounded(const char* name, const Tensor& x, double low, double high, const char* message, Where where) {
  return dispatch(find_op("bounded"), {x},
                  {{"low", low}, {"high", high}, {"op", std::string(name)}, {"message", std::string(message)}}, where);
}

Tensor rand(const Shape& shape, TensorOptions options, Where where) {
  check_floating("rand", options.dtype, where);
  return draw("random_uniform", shape, options, {}, where);
}

Tensor randn(const Shape& shape, TensorOptions options, Where where) {
  check_floating("randn", options.dtype, where);
  return draw("random_normal", shape, options, {}, where);
}

Tensor randint(int64_t low, int64_t high, const Shape& shape, TensorOptions options, Where where) {
  if (low >= high)
    throw ValueError(detail::str("randint: the range [", low, ", ", high, ") is empty"), user_line(where));
  if (!is_integral(options.dtype))
    throw DTypeError(detail::str("randint: draws integers, not ", options.dtype), user_line(where));
  const int bits = 8 * static_cast<int>(size_of(options.dtype)) - (options.dtype == uint8 ? 0 : 1);  // without a sign
  if (bits < 63 && (low < (options.dtype == uint8 ? 0 : -(int64_t{1} << bits)) || high > int64_t{1} << bits))
    throw ValueError(detail::str("randint: the range [", low, ", ", high, ") is not within ", options.dtype, "'s"),
                     user_line(where));
  return draw("random_int", shape, options, {{"low", low}, {"high", high}}, where);
}

Tensor randperm(int64_t n, Where where) {
  if (n < 0) throw ValueError(detail::str("randperm: negative length ", n), user_line(where));
  check_extents({n}, "randperm", where);
  return argsort({rand({n}, {.dtype = float64}, where), where});
}

Tensor rand_like(const Tensor& like, Where where) {
  return rand(like.shape(where), {.dtype = like.dtype(), .device = like.device()}, where);
}
Tensor randn_like(const Tensor& like, Where where) {
  return randn(like.shape(where), {.dtype = like.dtype(), .device = like.device()}, where);
}

Tensor bernoulli(const Tensor& probabilities, Where where) {
  const CallScope scope("bernoulli", where);
  const DType type = probabilities.dtype();
  if (!is_floating(type))
    throw DTypeError(detail::str("bernoulli: probabilities must be floating, got ", type), user_line(where));
  const Tensor p = bounded("bernoulli", probabilities.detach(), 0, 1, "a probability is not between 0 and 1", where);
  const Tensor u =
      rand(probabilities.shape(), {.dtype = type == float64 ? float64 : float32, .device = probabilities.device()});
  return to(u < p, type);
}
Tensor bernoulli(double probability, const Shape& shape, TensorOptions options, Where where) {
  const CallScope scope("bernoulli", where);
  if (!(probability >= 0 && probability <= 1))
    throw ValueError(detail::str("bernoulli: probability ", probability, " must be between 0 and 1"), user_line(where));
  Tensor result = to(rand(shape, {.device = options.device}) < probability, options.dtype);
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

Tensor normal(const Tensor& mean, const Tensor& deviation, Where where) {
  const CallScope scope("normal", where);
  const DType type = promote(mean.dtype(), deviation.dtype());
  check_floating("normal", type, where);
  const Tensor checked = bounded("normal", to(deviation, type), 0, std::numeric_limits<double>::infinity(),
                                 "a deviation is negative or not a number", where);
  Shape shape = mean.rank() >= deviation.rank() ? mean.shape() : deviation.shape();
  const Shape& other = mean.rank() >= deviation.rank() ? deviation.shape() : mean.shape();
  for (int d = 0; d < other.size(); ++d) {  // the product below tells where they don't fit
    int64_t& extent = shape[d + shape.size() - other.size()];
    if (extent == 1) extent = other[d];
  }
  return mean + checked * randn(shape, {.dtype = type, .device = mean.device()});
}
Tensor normal(double mean, double deviation, const Shape& shape, TensorOptions options, Where where) {
  const CallScope scope("normal", where);
  if (!(deviation >= 0))
    throw ValueError(detail::str("normal: the deviation ", deviation, " must be at least 0"), user_line(where));
  check_floating("normal", options.dtype, where);
  Tensor result = randn(shape, {.dtype = options.dtype, .device = options.device}) * deviation + mean;
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

Tensor multinomial(const Tensor& weights, int64_t count, MultinomialOptions options, Where where) {
  const CallScope scope("multinomial", where);
  if (weights.rank() < 1 || weights.rank() > 2)
    throw ShapeError(detail::str("multinomial: weights must be [classes] or [rows, classes], got ", weights.shape()),
                     user_line(where));
  if (!is_floating(weights.dtype()))
    throw DTypeError(detail::str("multinomial: weights must be floating, got ", weights.dtype()), user_line(where));
  const int64_t classes = weights.shape().back();
  if (count < 0 || (count > classes && (!options.replacement || classes == 0)))
    throw ValueError(detail::str("multinomial: can't draw ", count, " of ", classes, " classes",
                                 count < 0 || classes == 0 ? "" : "; with .replacement = true it can"),
                     user_line(where));
  Tensor wide = bounded("multinomial", to(weights.detach(), float64), 0, std::numeric_limits<double>::max(),
                        "a weight is negative or not finite", where);
  if (const int64_t fewest = options.replacement ? 1 : count; count > 0) {
    const Tensor positive = sum(to(wide > 0, float64), -1, {.keepdim = true});
    const std::string few =
        detail::str("a row has fewer than ", fewest, " weights above zero, too few to draw ", count);
    const double most = std::numeric_limits<double>::max();
    const Tensor enough = bounded("multinomial", positive, static_cast<double>(fewest), most, few.c_str(), where);
    wide = tandem::where(enough > 0, wide, 0);  // so that a graph checks, too
  }
  const TensorOptions doubles{.dtype = float64, .device = wide.device()};
  if (!options.replacement) {
    // The races of exponential clocks: class i rings after e / w_i, and the first to ring are drawn.
    const Tensor e = -log1p(-rand(wide.shape(), doubles));
    return topk(tandem::where(wide > 0, wide / e, -1), count).indices;
  }
  // The inverse of the cumulative weights; a draw stays below their total, so that no class of weight 0 is met.
  Shape shape = wide.shape();
  shape[shape.size() - 1] = count;
  check_extents(shape, "multinomial", where);
  const Tensor cumulative = cumsum(maximum(wide, 0), -1), total = slice(cumulative, -1, classes - 1, classes);
  const Tensor draws = minimum(rand(shape, doubles) * total, total * (1 - 0x1p-52));
  return searchsorted(cumulative, draws, {.right = true});
}

Tensor dropout(const Arg& x, double probability) {
  static const Op& op = find_op("dropout");
  if (!(probability >= 0 && probability <= 1))
    throw ValueError(detail::str("dropout: probability ", probability, " must be between 0 and 1"),
                     user_line(x.where()));
  const Tensor& tensor = x.tensor();
  const Draw next = next_draw();
  return dispatch(op, {tensor, next.key_on(tensor.device())}, {{"p", probability}, {"site", next.site}}, x.where());
}

Tensor dropout2d(const Arg& x, double probability) {
  const CallScope scope("dropout2d", x.where());
  const Shape& from = x.tensor().shape();
  if (from.size() < 2)
    throw ShapeError(detail::str("dropout2d: needs x [batch, channels, ..], got ", from), user_line(x.where()));
  Shape channels = Shape::filled(from.size(), 1);
  channels[0] = from[0], channels[1] = from[1];
  return x * dropout(ones(channels, {.dtype = x.tensor().dtype(), .device = x.tensor().device()}), probability);
}

}  // namespace tandem
