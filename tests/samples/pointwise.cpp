// Samples of the pointwise ops. Adding an op to core/pointwise.def asks for one line here: its name, what its
// operands may be, the function in double arithmetic, and how far float32 may be off.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

const std::vector<Shape> kShapes = {{}, {1}, {17}, {33, 5}, {3, 4, 7}, {0}, {3, 0, 2}, {1031}};
const std::vector<std::pair<Shape, Shape>> kBroadcasts = {
    {{5, 3}, {3}}, {{4, 1}, {1, 6}}, {{}, {4}}, {{2, 3, 4}, {3, 1}}, {{33, 1}, {33, 17}}, {{0, 3}, {1, 3}}, {{2, 1, 1, 3}, {4, 3}}};

using Unary = double (*)(double);
using Binary = double (*)(double, double);

/// What the op computes in: integers become float32 for a floating op.
DType result_type(const Op& op, DType type) {
  if (op.pointwise.returns_bool) return bool_;
  return op.pointwise.domain == Domain::floating && !is_floating(type) ? float32 : type;
}
std::vector<DType> dtypes_of(const Op& op) { return op.pointwise.domain == Domain::numeric ? kNumbers : kAll; }

std::string text(const Shape& a, const Shape& b) { return to_string(a) + " " + to_string(b); }

struct Options {
  double ulps = 4;
  Gradients gradients = Gradients::second;
  double (*scale)(double, double) = nullptr;  ///< what errors are measured against, of the operands; else the result
  bool special = true;                        ///< infinities, NaN and the like, too
};

/// The value set that breaks careless kernels. Not for finite differences.
const std::vector<double> kSpecial = {0.0, -0.0, 1, -1, INFINITY, -INFINITY, NAN, 0.5, -2, 1e-30, -1e-30, 88, -90, 1e30};

void unary(Samples& samples, const char* name, Generator floats, Generator integer, Unary f, Options options = {}) {
  const Op& op = find_op(name);
  const Reference reference = [&op, f, scale = options.scale](const NumberLists& in) {
    Numbers out(in[0].shape, result_type(op, in[0].dtype));
    for (int64_t i = 0; i < out.numel(); ++i) out[i] = f(in[0][i]);
    if (scale)
      for (int64_t i = 0; i < out.numel(); ++i) out.scale.push_back(scale(in[0][i], 0));
    return NumberLists{out};
  };
  std::vector<DType> floating, whole;
  for (DType type : dtypes_of(op)) (is_floating(type) ? floating : whole).push_back(type);
  const Call call = [&op](const Tensors& x) {
    const Arg arg(x[0]);
    const Arg* operands[] = {&arg};
    return Tensors{dispatch_pointwise(op, operands)};
  };
  for (const Shape& shape : kShapes) {
    Sample sample{.op = name, .label = to_string(shape), .operands = {{shape, floats}}, .dtypes = floating, .call = call, .reference = reference,
                  .ulps = options.ulps, .gradients = options.gradients, .large = shape.numel() > 1000};
    samples.push_back(sample);
    sample.operands = {{shape, integer}};
    sample.dtypes = whole;
    sample.gradients = Gradients::none;
    if (!whole.empty()) samples.push_back(sample);
  }
  if (options.special) samples.push_back({.op = name, .label = "special values", .operands = {{{29}, repeat(kSpecial)}}, .dtypes = {float32, float64, bfloat16},
                     .call = call, .reference = reference, .ulps = options.ulps});
}

Reference binary_reference(const Op& op, Binary f, Binary scale) {
  return [&op, f, scale](const NumberLists& in) {
    const Shape shape = broadcast_shapes(in[0].shape, in[1].shape);
    Numbers out(shape, result_type(op, promote(in[0].dtype, in[1].dtype)));
    for (int64_t i = 0; i < out.numel(); ++i) {
      const double x = in[0][broadcast_position(i, shape, in[0].shape)], y = in[1][broadcast_position(i, shape, in[1].shape)];
      out[i] = f(x, y);
      if (scale) out.scale.push_back(scale(x, y));
    }
    return NumberLists{out};
  };
}

void binary(Samples& samples, const char* name, Generator x, Generator y, Generator integer_x, Generator integer_y, Binary f,
            Options options = {}) {
  const Op& op = find_op(name);
  const Reference reference = binary_reference(op, f, options.scale);
  const Call call = [&op](const Tensors& in) {
    const Arg a(in[0]), b(in[1]);
    const Arg* operands[] = {&a, &b};
    return Tensors{dispatch_pointwise(op, operands)};
  };
  std::vector<DType> floating, whole;
  for (DType type : dtypes_of(op)) (is_floating(type) ? floating : whole).push_back(type);
  const auto add = [&](const Shape& a, const Shape& b) {
    Sample sample{.op = name, .label = text(a, b), .operands = {{a, x}, {b, y}}, .dtypes = floating, .call = call, .reference = reference,
                  .ulps = options.ulps, .gradients = options.gradients, .large = a.numel() > 1000};
    samples.push_back(sample);
    sample.operands = {{a, integer_x}, {b, integer_y}};
    sample.dtypes = whole;
    sample.gradients = Gradients::none;
    if (!whole.empty()) samples.push_back(sample);
  };
  for (const Shape& shape : kShapes) add(shape, shape);
  for (const auto& [a, b] : kBroadcasts) add(a, b), add(b, a);
  // Operands of two dtypes meet in the promoted one.
  for (const auto& [a, b] : {std::pair{int32, float32}, {uint8, int64}, {float16, bfloat16}, {float32, float64}, {int64, float16}})
    samples.push_back({.op = name, .label = detail::str(a, " and ", b),
                       .operands = {{{17}, is_floating(a) ? x : integer_x, a}, {{17}, is_floating(b) ? y : integer_y, b}},
                       .dtypes = {float32}, .call = call, .reference = reference, .ulps = options.ulps});
  if (options.special) samples.push_back({.op = name, .label = "special values", .operands = {{{14, 1}, repeat(kSpecial)}, {{14}, repeat(kSpecial)}},
                     .dtypes = {float32, float64}, .call = call, .reference = reference, .ulps = options.ulps});
}

bool is_nan(double x) { return x != x; }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double normal_pdf(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2 * 3.14159265358979323846); }

void add_unary(Samples& s) {
  const Generator any = spread(-3, 3), kinked = away_from_zero(0.1, 3), positive = spread(0.2, 4);
  const Generator small = integers(-5, 6), natural = integers(1, 7);
  unary(s, "neg", any, small, [](double x) { return -x; });
  unary(s, "abs", kinked, small, [](double x) { return std::fabs(x); });
  unary(s, "sign", kinked, small, [](double x) { return is_nan(x) ? x : static_cast<double>((x > 0) - (x < 0)); });
  unary(s, "square", any, small, [](double x) { return x * x; });
  unary(s, "exp", any, small, [](double x) { return std::exp(x); });
  unary(s, "log", positive, natural, [](double x) { return std::log(x); });
  unary(s, "sqrt", positive, natural, [](double x) { return std::sqrt(x); });
  unary(s, "rsqrt", positive, natural, [](double x) { return 1 / std::sqrt(x); });
  unary(s, "sin", any, small, [](double x) { return std::sin(x); });
  unary(s, "cos", any, small, [](double x) { return std::cos(x); });
  unary(s, "tanh", any, small, [](double x) { return std::tanh(x); });
  unary(s, "sigmoid", any, small, sigmoid);
  unary(s, "erf", any, small, [](double x) { return std::erf(x); });
  unary(s, "relu", kinked, small, [](double x) { return is_nan(x) ? x : x > 0 ? x : 0; });
  // 1 + erf(x) cancels in the left tail: errors are of the order of x's own ULP.
  unary(s, "gelu", any, small, [](double x) { return x * normal_cdf(x); }, {.scale = [](double x, double) { return std::fabs(x); }});
}

void add_binary(Samples& s) {
  const Generator x = spread(-3, 3), y = spread(-3, 3, 1), away = away_from_zero(0.3, 3, 1), positive = spread(0.3, 3);
  const Generator i = integers(-5, 6), j = integers(-5, 6, 3), natural = integers(1, 6, 2), few = integers(0, 4, 2);
  binary(s, "add", x, y, i, j, [](double a, double b) { return a + b; });
  binary(s, "sub", x, y, i, j, [](double a, double b) { return a - b; });
  binary(s, "mul", x, y, i, j, [](double a, double b) { return a * b; });
  binary(s, "div", x, away, i, natural, [](double a, double b) { return a / b; });
  binary(s, "pow", positive, y, natural, few, [](double a, double b) { return std::pow(a, b); });
  binary(s, "maximum", x, y, i, j, [](double a, double b) { return is_nan(a) || is_nan(b) ? NAN : a > b ? a : b; });
  binary(s, "minimum", x, y, i, j, [](double a, double b) { return is_nan(a) || is_nan(b) ? NAN : a < b ? a : b; });
  binary(s, "tanh_grad", x, spread(-0.9, 0.9, 1), i, integers(0, 2), [](double g, double t) { return g * (1 - t * t); },
         {.scale = [](double g, double t) { return std::fabs(g) * (1 + t * t); }, .special = false});
  binary(s, "sigmoid_grad", x, spread(0.1, 0.9, 1), i, integers(0, 2), [](double g, double t) { return g * t * (1 - t); },
         {.scale = [](double g, double t) { return std::fabs(g * t) * (1 + std::fabs(t)); }});
  binary(s, "relu_grad", x, away, i, j, [](double g, double t) { return t > 0 ? g : 0; });
  binary(s, "gelu_grad", x, y, i, j, [](double g, double t) { return g * (normal_cdf(t) + t * normal_pdf(t)); },
         {.scale = [](double g, double t) { return std::fabs(g) * (1 + std::fabs(t)); }});
  const Generator ties = repeat({-1, 0, 2, 1}), others = repeat({-1, 1, 0, 2, 3});
  const Options exact{.gradients = Gradients::none};
  binary(s, "equal", ties, others, i, j, [](double a, double b) -> double { return a == b; }, exact);
  binary(s, "not_equal", ties, others, i, j, [](double a, double b) -> double { return a != b; }, exact);
  binary(s, "less", ties, others, i, j, [](double a, double b) -> double { return a < b; }, exact);
  binary(s, "less_equal", ties, others, i, j, [](double a, double b) -> double { return a <= b; }, exact);
  binary(s, "greater", ties, others, i, j, [](double a, double b) -> double { return a > b; }, exact);
  binary(s, "greater_equal", ties, others, i, j, [](double a, double b) -> double { return a >= b; }, exact);
}

void add_where(Samples& samples) {
  const Reference reference = [](const NumberLists& in) {
    const Shape shape = broadcast_shapes(broadcast_shapes(in[0].shape, in[1].shape), in[2].shape);
    Numbers out(shape, promote(in[1].dtype, in[2].dtype));
    for (int64_t i = 0; i < out.numel(); ++i) {
      const Numbers& from = in[in[0][broadcast_position(i, shape, in[0].shape)] != 0 ? 1 : 2];
      out[i] = from[broadcast_position(i, shape, from.shape)];
    }
    return NumberLists{out};
  };
  const Call call = [](const Tensors& x) { return Tensors{where(x[0], x[1], x[2])}; };
  const auto add = [&](const Shape& condition, const Shape& y, const Shape& z) {
    samples.push_back({.op = "where", .label = to_string(condition) + " " + text(y, z),
                       .operands = {{condition, integers(0, 2), bool_}, {y, spread(-3, 3)}, {z, spread(-3, 3, 1)}}, .dtypes = kAll, .call = call,
                       .reference = reference, .gradients = Gradients::second, .large = y.numel() > 1000});
  };
  for (const Shape& shape : kShapes) add(shape, shape, shape);
  add({4, 1}, {3}, {});
  add({3}, {2, 1}, {1, 3});
  add({}, {5}, {5});
}

/// C++ numbers as operands, on either side.
void add_numbers(Samples& samples) {
  const auto add = [&](const char* op, const char* label, std::vector<DType> dtypes, Call call, Unary f, DType result = bool_) {
    samples.push_back({.op = op, .label = label, .operands = {{{33}, integers(1, 9)}}, .dtypes = std::move(dtypes), .call = std::move(call),
                       .reference = [f, result](const NumberLists& in) {
                         Numbers out(in[0].shape, result == bool_ ? in[0].dtype : result);
                         for (int64_t i = 0; i < out.numel(); ++i) out[i] = f(in[0][i]);
                         return NumberLists{out};
                       }});
  };
  add("add", "x + 2", kNumbers, [](const Tensors& x) { return Tensors{x[0] + 2}; }, [](double x) { return x + 2; });
  add("sub", "20 - x", kNumbers, [](const Tensors& x) { return Tensors{20 - x[0]}; }, [](double x) { return 20 - x; });
  add("mul", "x * 2.5", kFloats, [](const Tensors& x) { return Tensors{x[0] * 2.5}; }, [](double x) { return x * 2.5; });
  add("mul", "integer * 2.5", {int32, int64, uint8}, [](const Tensors& x) { return Tensors{x[0] * 2.5}; }, [](double x) { return x * 2.5; }, float32);
  add("div", "1 / x", kFloats, [](const Tensors& x) { return Tensors{1 / x[0]}; }, [](double x) { return 1 / x; });
  add("pow", "pow(x, 3)", kNumbers, [](const Tensors& x) { return Tensors{pow(x[0] - 3, 3)}; },
      [](double x) { return (x - 3) * (x - 3) * (x - 3); });
}

}  // namespace

void add_pointwise_samples(Samples& samples) {
  add_unary(samples);
  add_binary(samples);
  add_where(samples);
  add_numbers(samples);
}

}  // namespace tandem::samples
