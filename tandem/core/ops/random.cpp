// Random draws and dropout. `key` is int64[2] = {seed, draw}; attribute "site" is added to draw. Element i
// (row-major) depends on (seed, draw, i) alone, so every mode and device draws the same numbers.
#include "tandem/core/random.h"

#include <algorithm>
#include <numeric>

#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"

namespace tandem {

namespace {

void infer_draw(Infer& op) {
  op.output(op.attributes.integers("shape"), op.attributes.dtype("dtype")).impl()->device = parse_device(op.attributes.text("device"));
}

void infer_dropout(Infer& op) {
  op.check_floating(0);
  op.output(op.input(0));
}

Tensor draw(const char* name, const Shape& shape, TensorOptions options, Attributes attributes, Where where) {
  const Draw next = next_draw();
  attributes.set({"shape", shape});
  attributes.set({"dtype", options.dtype});
  attributes.set({"device", to_string(options.device)});
  attributes.set({"site", next.site});
  Tensor result = dispatch(find_op(name), {next.key}, attributes, where);
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

void check_floating(const char* name, DType type, Where where) {
  if (!is_floating(type)) throw DTypeError(detail::str(name, ": draws floating numbers, not ", type, "; see randint"), user_line(where));
}

}  // namespace

void define_random(OpTable& table) {
  table.add({.name = "random_uniform", .kind = OpKind::random, .infer = infer_draw, .onnx = "RandomUniform"});
  table.add({.name = "random_normal", .kind = OpKind::random, .infer = infer_draw, .onnx = "RandomNormal"});
  table.add({.name = "random_int", .kind = OpKind::random, .infer = infer_draw});
  // Linear in x: its gradient is itself, with the same key.
  table.add({.name = "dropout", .kind = OpKind::random, .inputs = 2, .infer = infer_dropout,
             .grad = [](const OpContext& op) {
               return Tensors{dispatch(find_op("dropout"), {op.grad_output(), op.input(1)}, op.attributes(), Where::current()), Tensor()};
             },
             .saved = in(1),
             .decompose = [](std::span<const Tensor> inputs, const Attributes& attributes) {
               const Tensor& x = inputs[0];
               const double p = attributes.number("p");
               const Tensor u = dispatch(find_op("random_uniform"), {inputs[1]},
                                         {{"shape", x.shape()}, {"dtype", float32}, {"device", to_string(x.device())}, {"site", attributes.integer("site")}},
                                         Where::current());
               return Tensors{where(u >= p, x * (p < 1 ? 1 / (1 - p) : 0), 0)};
             },
             .onnx = "Dropout"});
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
  if (low >= high) throw ValueError(detail::str("randint: the range [", low, ", ", high, ") is empty"), user_line(where));
  if (!is_integral(options.dtype)) throw DTypeError(detail::str("randint: draws integers, not ", options.dtype), user_line(where));
  return draw("random_int", shape, options, {{"low", low}, {"high", high}}, where);
}

Tensor randperm(int64_t n, Where where) {
  if (n < 0) throw ValueError(detail::str("randperm: negative length ", n), user_line(where));
  const std::vector<double> order = rand({n}, {.dtype = float64}, where).to_vector<double>();
  std::vector<int64_t> permutation(static_cast<size_t>(n));
  std::iota(permutation.begin(), permutation.end(), 0);
  std::stable_sort(permutation.begin(), permutation.end(),
                   [&](int64_t a, int64_t b) { return order[static_cast<size_t>(a)] < order[static_cast<size_t>(b)]; });
  return tensor(permutation, {}, where);
}

Tensor dropout(const Arg& x, double probability) {
  static const Op& op = find_op("dropout");
  if (!(probability >= 0 && probability <= 1))
    throw ValueError(detail::str("dropout: probability ", probability, " must be between 0 and 1"), user_line(x.where()));
  const Tensor& tensor = x.tensor();
  const Draw next = next_draw();
  return dispatch(op, {tensor, next.key}, {{"p", probability}, {"site", next.site}}, x.where());
}

}  // namespace tandem
