// Samples of the pointwise ops. Adding an op to core/pointwise.def asks for one line here: its name, what its
// operands may be, the function in double arithmetic, and how far float32 may be off.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

const std::vector<Shape> kShapes = {{}, {1}, {17}, {33, 5}, {3, 4, 7}, {0}, {3, 0, 2}, {1031}};
const std::vector<std::pair<Shape, Shape>> kBroadcasts = {{{5, 3}, {3}},         {{4, 1}, {1, 6}},    {{}, {4}},
                                                          {{2, 3, 4}, {3, 1}},   {{33, 1}, {33, 17}}, {{0, 3}, {1, 3}},
                                                          {{2, 1, 1, 3}, {4, 3}}};

using Unary = double (*)(double);
using Binary = double (*)(double, double);

/// What the op computes in: integers become float32 for a floating op.
DType result_type(const Op& op, DType type) {
  if (op.pointwise.returns_bool) return bool_;
  return op.pointwise.domain == Domain::floating && !is_floating(type) ? float32 : type;
}
std::vector<DType> dtypes_of(const Op& op) {
  if (op.pointwise.domain == Domain::integral) return {int32, int64, int16, int8, uint8, bool_};
  if (op.pointwise.domain == Domain::whole) return {int32, int64, int16, int8, uint8};
  return op.pointwise.domain == Domain::numeric ? kNumbers : kAll;
}

std::string text(const Shape& a, const Shape& b) { return to_string(a) + " " + to_string(b); }

struct Options {
  double ulps = 4;
  Gradients gradients = Gradients::second;
  double (*scale)(double, double) = nullptr;  ///< what errors are measured against, of the operands; else the result
  bool special = true;                        ///< infinities, NaN and the like, too
};

/// The value set that breaks careless kernels. Not for finite differences.
const std::vector<double> kSpecial = {0.0, -0.0, 1,     -1,     INFINITY, -INFINITY, NAN,
                                      0.5, -2,   1e-30, -1e-30, 88,       -90,       1e30};

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
    Sample sample{.op = name,
                  .label = to_string(shape),
                  .operands = {{shape, floats}},
                  .dtypes = floating,
                  .call = call,
                  .reference = reference,
                  .ulps = options.ulps,
                  .gradients = options.gradients,
                  .large = shape.numel() > 1000};
    samples.push_back(sample);
    sample.operands = {{shape, integer}};
    sample.dtypes = whole;
    sample.gradients = Gradients::none;
    if (!whole.empty()) samples.push_back(sample);
  }
  if (options.special)
    samples.push_back({.op = name,
                       .label = "special values",
                       .operands = {{{29}, repeat(kSpecial)}},
                       .dtypes = {float32, float64, bfloat16},
                       .call = call,
                       .reference = reference,
                       .ulps = options.ulps});
}

Reference binary_reference(const Op& op, Binary f, Binary scale) {
  return [&op, f, scale](const NumberLists& in) {
    const Shape shape = broadcast_shapes(in[0].shape, in[1].shape);
    Numbers out(shape, result_type(op, promote(in[0].dtype, in[1].dtype)));
    for (int64_t i = 0; i < out.numel(); ++i) {
      const double x = in[0][broadcast_position(i, shape, in[0].shape)],
                   y = in[1][broadcast_position(i, shape, in[1].shape)];
      out[i] = f(x, y);
      if (scale) out.scale.push_back(scale(x, y));
    }
    return NumberLists{out};
  };
}

void binary(Samples& samples, const char* name, Generator x, Generator y, Generator integer_x, Generator integer_y,
            Binary f, Options options = {}) {
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
    Sample sample{.op = name,
                  .label = text(a, b),
                  .operands = {{a, x}, {b, y}},
                  .dtypes = floating,
                  .call = call,
                  .reference = reference,
                  .ulps = options.ulps,
                  .gradients = options.gradients,
                  .large = a.numel() > 1000};
    if (!floating.empty()) samples.push_back(sample);
    sample.operands = {{a, integer_x}, {b, integer_y}};
    sample.dtypes = whole;
    sample.gradients = Gradients::none;
    if (!whole.empty()) samples.push_back(sample);
  };
  for (const Shape& shape : kShapes) add(shape, shape);
  for (const auto& [a, b] : kBroadcasts) add(a, b), add(b, a);
  // Operands of two dtypes meet in the promoted one.
  for (const auto& [a, b] : {std::pair{int32, float32},
                             {uint8, int64},
                             {float16, bfloat16},
                             {float32, float64},
                             {int64, float16},
                             {int8, uint8},
                             {int16, float32}})
    if (!floating.empty() || !is_floating(b))
      samples.push_back(
          {.op = name,
           .label = detail::str(a, " and ", b),
           .operands = {{{17}, is_floating(a) ? x : integer_x, a}, {{17}, is_floating(b) ? y : integer_y, b}},
           .dtypes = {float32},
           .call = call,
           .reference = reference,
           .ulps = options.ulps});
  if (options.special)
    samples.push_back({.op = name,
                       .label = "special values",
                       .operands = {{{14, 1}, repeat(kSpecial)}, {{14}, repeat(kSpecial)}},
                       .dtypes = {float32, float64},
                       .call = call,
                       .reference = reference,
                       .ulps = options.ulps});
}

using Ternary = double (*)(double, double, double);

/// Operands of one shape, then bounds or slopes that are 0-d, then broadcast.
void ternary(Samples& samples, const char* name, std::vector<Generator> floats, std::vector<Generator> whole, Ternary f,
             Ternary scale = nullptr, bool last_has_gradient = true) {
  const Op& op = find_op(name);
  const Reference reference = [&op, f, scale](const NumberLists& in) {
    const Shape shape = broadcast_shapes(broadcast_shapes(in[0].shape, in[1].shape), in[2].shape);
    Numbers out(shape, result_type(op, in[0].dtype));
    for (int64_t i = 0; i < out.numel(); ++i) {
      const auto at = [&](size_t k) { return in[k][broadcast_position(i, shape, in[k].shape)]; };
      out[i] = f(at(0), at(1), at(2));
      if (scale) out.scale.push_back(scale(at(0), at(1), at(2)));
    }
    return NumberLists{out};
  };
  const Call call = [&op](const Tensors& in) {
    const Arg a(in[0]), b(in[1]), c(in[2]);
    const Arg* operands[] = {&a, &b, &c};
    return Tensors{dispatch_pointwise(op, operands)};
  };
  const auto add = [&](const Shape& a, const Shape& b, const Shape& c) {
    Sample sample{.op = name,
                  .label = text(a, b) + " " + to_string(c),
                  .operands = {{a, floats[0]}, {b, floats[1]}, {c, floats[2]}},
                  .dtypes = kFloats,
                  .call = call,
                  .reference = reference,
                  .gradients = Gradients::second,
                  .large = a.numel() > 1000};
    sample.operands[2].differentiable = last_has_gradient;
    samples.push_back(sample);
    if (whole.empty()) return;
    sample.operands = {{a, whole[0]}, {b, whole[1]}, {c, whole[2]}};
    sample.dtypes = op.pointwise.domain == Domain::numeric ? std::vector<DType>{int32, int64, int8, uint8}
                                                           : std::vector<DType>{int32, bool_};
    sample.gradients = Gradients::none;
    samples.push_back(sample);
  };
  for (const Shape& shape : kShapes) add(shape, shape, shape), add(shape, {}, {});
  add({33, 5}, {33, 5}, {});
  add({4, 1}, {3}, {});
  add({3}, {2, 1}, {1, 3});
  add({5, 3}, {5, 1}, {3});
}

bool is_nan(double x) { return x != x; }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double logistic(double x) { return x / (1 + std::exp(-x)); }
double softplus_of(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
/// Python's, for floats and integers.
double floor_divide_of(double a, double b) {
  if (b == 0) return a / b;
  double r = std::fmod(a, b), quotient = (a - r) / b;
  if (r != 0 && (r < 0) != (b < 0)) --quotient;
  const double whole = std::floor(quotient);
  return whole == 0 ? std::copysign(0.0, a / b) : quotient - whole > 0.5 ? whole + 1 : whole;
}
double remainder_of(double a, double b) {
  const double r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
double normal_pdf(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2 * 3.14159265358979323846); }

/// psi, and its n-th derivative, for x > 0: a thousand terms, and what the rest comes to.
double polygamma_of(double n, double x) {
  const int order = static_cast<int>(n);
  Real total = 0, a = x, factorial = 1;
  for (int k = 2; k <= order; ++k) factorial *= k;
  for (int k = 0; k < 1000; ++k, a += 1) total += std::pow(a, static_cast<Real>(-order - 1));
  if (order == 0)
    return static_cast<double>(std::log(a) - 1 / (2 * a) - 1 / (12 * a * a) + 1 / (120 * a * a * a * a) - total);
  const Real rest = std::pow(a, static_cast<Real>(-order)) / order;
  total += rest + rest * order / (2 * a) + rest * order * (order + 1) / (12 * a * a);
  return static_cast<double>(order % 2 ? factorial * total : -factorial * total);
}
/// By halving.
double erfinv_of(double y) {
  const Real a = std::fabs(static_cast<Real>(y));
  if (!(a < 1)) return a == 1 ? std::copysign(static_cast<double>(INFINITY), y) : NAN;
  Real low = 0, high = a < 0.5 ? a : 7;
  for (int i = 0; i < 100; ++i) {
    const Real middle = (low + high) / 2;
    const bool below = a < 0.5 ? std::erf(middle) < a : std::erfc(middle) > 1 - a;
    (below ? low : high) = middle;
  }
  return std::copysign(static_cast<double>(low), y);
}

void add_unary(Samples& s) {
  const Generator any = spread(-3, 3), kinked = away_from_zero(0.1, 3), positive = spread(0.2, 4);
  const Generator small = integers(-5, 6), natural = integers(1, 7);
  unary(s, "neg", any, small, [](double x) { return -x; });
  unary(s, "abs", kinked, small, [](double x) { return std::fabs(x); });
  unary(s, "sign", kinked, small, [](double x) -> double { return (x > 0) - (x < 0); });
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
  unary(s, "erfc", any, small, [](double x) { return std::erfc(x); });
  unary(s, "erfinv", spread(-0.9, 0.9), integers(-1, 2), erfinv_of, {.special = false});
  unary(s, "erfinv", repeat({0, 0.5, -0.5, 0.25, 0.99609375, -0.9921875}), integers(-1, 2), erfinv_of,
        {.gradients = Gradients::none});
  const auto of_gamma = [](double x, double) { return 1 + std::fabs(std::lgamma(x)); };
  unary(s, "lgamma", positive, natural, [](double x) { return std::lgamma(x); }, {.scale = of_gamma});
  unary(s, "lgamma", repeat({-0.5, -1.5, -2.25, -10.75}), small, [](double x) { return std::lgamma(x); },
        {.scale = of_gamma});
  unary(s, "digamma", positive, natural, [](double x) { return polygamma_of(0, x); },
        {.scale = [](double x, double) { return 1 + 1 / x; }, .special = false});
  unary(s, "relu", kinked, small, [](double x) { return is_nan(x) ? x : x > 0 ? x : 0; });
  unary(s, "reciprocal", away_from_zero(0.3, 3), natural, [](double x) { return 1 / x; });
  // Away from the steps; and at them, to see ties rounded to even.
  const Generator between = [](int64_t i) {
    return static_cast<double>(i * 7 % 11 - 5) + 0.1 + 0.8 * static_cast<double>(i * 13 % 29) / 29;
  };
  for (const auto& [name, f] : {std::pair<const char*, Unary>{"floor", [](double x) { return std::floor(x); }},
                                {"ceil", [](double x) { return std::ceil(x); }},
                                {"trunc", [](double x) { return std::trunc(x); }},
                                {"round", [](double x) { return std::nearbyint(x); }}}) {
    Options smooth;
    if (name == std::string("round")) smooth.gradients = Gradients::none;
    unary(s, name, between, small, f, smooth);
    unary(s, name, repeat({0.5, 1.5, 2.5, -0.5, -1.5, 3, -3, 8388609, 1e10, 0.49999997}), small, f,
          {.gradients = Gradients::none, .special = false});
  }
  unary(s, "expm1", any, small, [](double x) { return std::expm1(x); });
  unary(s, "log1p", spread(-0.7, 3), natural, [](double x) { return std::log1p(x); });
  unary(s, "exp2", any, small, [](double x) { return std::exp2(x); });
  unary(s, "log10", positive, natural, [](double x) { return std::log10(x); });
  unary(s, "asinh", any, small, [](double x) { return std::asinh(x); });
  unary(s, "acosh", spread(1.2, 4), natural, [](double x) { return std::acosh(x); });
  unary(s, "atanh", spread(-0.9, 0.9), integers(-1, 2), [](double x) { return std::atanh(x); });
  unary(s, "logsigmoid", any, small, [](double x) { return -softplus_of(-x); });
  unary(s, "softsign", any, small, [](double x) { return x / (1 + std::fabs(x)); });
  unary(s, "selu", kinked, small,
        [](double x) { return 1.0507009873554804934 * (x > 0 ? x : 1.6732632423543772848 * std::expm1(x)); });
  unary(s, "log2", positive, natural, [](double x) { return std::log2(x); });
  unary(s, "tan", spread(-1.3, 1.3), small, [](double x) { return std::tan(x); });
  unary(s, "asin", spread(-0.9, 0.9), integers(-1, 2), [](double x) { return std::asin(x); });
  unary(s, "acos", spread(-0.9, 0.9), integers(-1, 2), [](double x) { return std::acos(x); });
  unary(s, "atan", any, small, [](double x) { return std::atan(x); });
  unary(s, "sinh", any, small, [](double x) { return std::sinh(x); });
  unary(s, "cosh", any, small, [](double x) { return std::cosh(x); });
  unary(s, "silu", any, small, logistic);
  unary(s, "mish", any, small, [](double x) { return x * std::tanh(softplus_of(x)); });
  unary(s, "hardswish", spread(-5.03, 5.01), small, [](double x) { return x * (x < -3 ? 0 : x > 3 ? 6 : x + 3) / 6; });
  unary(s, "gelu_tanh", any, small,
        [](double x) {
          return x / (1 + std::exp(-2 * std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
        },
        {.ulps = 6, .scale = [](double x, double) { return std::fabs(x); }});
  const Options exact{.gradients = Gradients::none};
  const Generator some = repeat({0, 1, -2, 0.5, 0});
  unary(
      s, "isnan", some, small, [](double x) -> double { return is_nan(x); }, exact);
  unary(
      s, "isinf", some, small, [](double x) -> double { return std::isinf(x); }, exact);
  unary(
      s, "isfinite", some, small, [](double x) -> double { return std::isfinite(x); }, exact);
  unary(
      s, "logical_not", some, integers(0, 3), [](double x) -> double { return x == 0; }, exact);
  // 1 + erf(x) cancels in the left tail: errors are of the order of x's own ULP.
  unary(s, "gelu", any, small, [](double x) { return x * normal_cdf(x); },
        {.scale = [](double x, double) { return std::fabs(x); }});
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
  binary(s, "sigmoid_grad", x, spread(0.1, 0.9, 1), i, integers(0, 2),
         [](double g, double t) { return g * t * (1 - t); },
         {.scale = [](double g, double t) { return std::fabs(g * t) * (1 + std::fabs(t)); }});
  binary(s, "relu_grad", x, away, i, j, [](double g, double t) { return t <= 0 ? 0 : g; });
  binary(s, "gelu_grad", x, y, i, j, [](double g, double t) { return g * (normal_cdf(t) + t * normal_pdf(t)); },
         {.scale = [](double g, double t) { return std::fabs(g) * (1 + std::fabs(t)); }});
  const auto slope_scale = [](double g, double t) { return std::fabs(g) * (1 + std::fabs(t)); };
  binary(s, "gelu_tanh_grad", x, y, i, j,
         [](double g, double t) {
           const double c = 2 * std::sqrt(2 / 3.14159265358979323846), v = sigmoid(c * (t + 0.044715 * t * t * t));
           return g * (v + t * v * (1 - v) * c * (1 + 3 * 0.044715 * t * t));
         },
         {.ulps = 8, .scale = slope_scale, .special = false});
  binary(s, "silu_grad", x, y, i, j, [](double g, double t) { return g * sigmoid(t) * (1 + t * (1 - sigmoid(t))); },
         {.scale = slope_scale, .special = false});
  binary(s, "mish_grad", x, y, i, j,
         [](double g, double t) {
           const double tanh = std::tanh(softplus_of(t));
           return g * (tanh + t * (1 - tanh * tanh) * sigmoid(t));
         },
         {.scale = slope_scale, .special = false});
  binary(s, "hardswish_grad", x, spread(-5.03, 5.01, 1), i, j,
         [](double g, double t) { return t <= -3 ? 0
                                         : t < 3 ? g * (t / 3 + 0.5)
                                                 : g; }, {.scale = slope_scale});
  binary(s, "clamp_min", x, y, i, j, [](double a, double b) { return is_nan(a) || is_nan(b) ? NAN : a > b ? a : b; });
  binary(s, "clamp_max", x, y, i, j, [](double a, double b) { return is_nan(a) || is_nan(b) ? NAN : a < b ? a : b; });
  const Generator divisors = repeat({-3, 2, 5, -1, 1, 4, 7});
  binary(s, "floor_divide", x, away, i, divisors, floor_divide_of);
  binary(s, "remainder", x, away, i, divisors, remainder_of, {.special = false});
  binary(s, "fmod", x, away, i, divisors, [](double a, double b) { return std::fmod(a, b); });
  binary(s, "xlogy", x, positive, i, natural,
         [](double a, double b) { return a == 0 && !is_nan(b) ? 0 : a * std::log(b); });
  binary(s, "logaddexp", x, y, i, j,
         [](double a, double b) {
           return a == b ? a + std::log(2.0)
                         : (is_nan(a) || is_nan(b) ? NAN : std::max(a, b)) + std::log1p(std::exp(-std::fabs(a - b)));
         },
         {.scale = [](double a, double b) { return std::fabs(a) + std::fabs(b) + 1; }});
  const Generator small_bounds = spread(0.3, 0.6, 1);
  binary(s, "celu", away_from_zero(0.1, 3), spread(0.5, 2, 1), i, natural,
         [](double a, double b) { return a > 0 ? a : b * std::expm1(a / b); }, {.special = false});
  binary(s, "softshrink", away_from_zero(0.7, 3), small_bounds, i, integers(0, 1),
         [](double a, double b) { return a > b    ? a - b
                                         : a < -b ? a + b
                                                  : a * 0; }, {.special = false});
  Options bound_is_no_operand{.gradients = Gradients::none, .special = false};
  binary(
      s, "hardshrink", away_from_zero(0.7, 3), small_bounds, i, integers(0, 1),
      [](double a, double b) { return std::fabs(a) <= b ? 0 : a; }, bound_is_no_operand);
  binary(s, "atan2", away, away_from_zero(0.3, 3, 2), i, j, [](double a, double b) { return std::atan2(a, b); });
  binary(s, "hypot", away, away_from_zero(0.3, 3, 2), i, j, [](double a, double b) { return std::hypot(a, b); });
  binary(s, "leaky_relu", away_from_zero(0.1, 3), spread(0.1, 0.5, 1), i, natural,
         [](double a, double b) { return a > 0 ? a : a * b; });
  binary(s, "elu", away_from_zero(0.1, 3), spread(0.5, 2, 1), i, natural,
         [](double a, double b) { return a > 0 ? a : b * std::expm1(a); });
  binary(s, "bitwise_and", x, y, i, j,
         [](double a, double b) { return static_cast<double>(static_cast<int64_t>(a) & static_cast<int64_t>(b)); },
         {.special = false});
  binary(s, "bitwise_or", x, y, i, j,
         [](double a, double b) { return static_cast<double>(static_cast<int64_t>(a) | static_cast<int64_t>(b)); },
         {.special = false});
  binary(s, "bitwise_xor", x, y, i, j,
         [](double a, double b) { return static_cast<double>(static_cast<int64_t>(a) ^ static_cast<int64_t>(b)); },
         {.special = false});
  binary(s, "bitwise_left_shift", x, y, i, few,
         [](double a, double b) { return static_cast<double>(static_cast<int64_t>(a) * (int64_t{1} << int64_t(b))); },
         {.special = false});
  binary(s, "bitwise_right_shift", x, y, i, few,
         [](double a, double b) { return static_cast<double>(static_cast<int64_t>(a) >> static_cast<int64_t>(b)); },
         {.special = false});
  for (const auto& [a, b] : {std::pair<Shape, Shape>{{}, {17}}, {{5, 1}, {5, 7}}, {{3, 4}, {3, 4}}, {{0, 3}, {1, 3}}})
    s.push_back({.op = "polygamma",
                 .label = text(a, b),
                 .operands = {{a, integers(0, 5), {}, false}, {b, positive}},
                 .dtypes = kFloats,
                 .call = [](const Tensors& in) { return Tensors{polygamma(in[0], in[1])}; },
                 .reference = binary_reference(find_op("polygamma"), polygamma_of,
                                               [](double n, double t) { return 1 + std::fabs(polygamma_of(n, t)); }),
                 .ulps = 8,
                 .gradients = Gradients::second});
  const Generator ties = repeat({-1, 0, 2, 1}), others = repeat({-1, 1, 0, 2, 3});
  const Options exact{.gradients = Gradients::none};
  binary(
      s, "equal", ties, others, i, j, [](double a, double b) -> double { return a == b; }, exact);
  binary(
      s, "not_equal", ties, others, i, j, [](double a, double b) -> double { return a != b; }, exact);
  binary(
      s, "less", ties, others, i, j, [](double a, double b) -> double { return a < b; }, exact);
  binary(
      s, "less_equal", ties, others, i, j, [](double a, double b) -> double { return a <= b; }, exact);
  binary(
      s, "greater", ties, others, i, j, [](double a, double b) -> double { return a > b; }, exact);
  binary(
      s, "greater_equal", ties, others, i, j, [](double a, double b) -> double { return a >= b; }, exact);
  binary(
      s, "logical_and", ties, others, i, j, [](double a, double b) -> double { return a != 0 && b != 0; }, exact);
  binary(
      s, "logical_or", ties, others, i, j, [](double a, double b) -> double { return a != 0 || b != 0; }, exact);
  binary(
      s, "logical_xor", ties, others, i, j, [](double a, double b) -> double { return (a != 0) != (b != 0); }, exact);
}

void add_ternary(Samples& s) {
  const Generator x = spread(-3, 3), kinked = away_from_zero(0.1, 3, 1), i = integers(-5, 6);
  ternary(s, "clamp", {x, spread(-2, -0.5, 1), spread(0.5, 2, 2)}, {i, integers(-3, 0, 1), integers(0, 4, 2)},
          [](double a, double low, double high) { return std::min(std::max(a, low), high); });
  ternary(
      s, "lerp", {x, spread(-3, 3, 1), spread(0.1, 0.9, 2)}, {},
      [](double a, double b, double w) { return a + w * (b - a); },
      [](double a, double b, double) { return std::fabs(a) + std::fabs(b); });
  const Ternary softplus = [](double a, double beta, double threshold) {
    return a * beta > threshold ? a : softplus_of(a * beta) / beta;
  };
  ternary(s, "softplus", {x, spread(0.5, 2, 1), spread(20, 30, 2)}, {i, integers(1, 3, 1), integers(20, 30)}, softplus,
          nullptr, false);
  ternary(s, "softplus", {x, spread(0.5, 2, 1), spread(0.5, 1, 2)}, {}, softplus, nullptr, false);
  ternary(s, "leaky_relu_grad", {x, kinked, spread(0.1, 0.5, 2)}, {},
          [](double g, double t, double slope) { return t > 0 ? g : g * slope; });
  ternary(s, "elu_grad", {x, kinked, spread(0.5, 2, 2)}, {},
          [](double g, double t, double alpha) { return t > 0 ? g : g * alpha * std::exp(t); });
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
    samples.push_back({.op = "where",
                       .label = to_string(condition) + " " + text(y, z),
                       .operands = {{condition, integers(0, 2), bool_}, {y, spread(-3, 3)}, {z, spread(-3, 3, 1)}},
                       .dtypes = kAll,
                       .call = call,
                       .reference = reference,
                       .gradients = Gradients::second,
                       .large = y.numel() > 1000});
  };
  for (const Shape& shape : kShapes) add(shape, shape, shape);
  add({4, 1}, {3}, {});
  add({3}, {2, 1}, {1, 3});
  add({}, {5}, {5});
}

/// C++ numbers as operands, on either side.
void add_numbers(Samples& samples) {
  const auto add = [&](const char* op, const char* label, std::vector<DType> dtypes, Call call, Unary f,
                       std::optional<DType> result = {}) {
    samples.push_back({.op = op,
                       .label = label,
                       .operands = {{{33}, integers(1, 9)}},
                       .dtypes = std::move(dtypes),
                       .call = std::move(call),
                       .reference = [f, result](const NumberLists& in) {
                         Numbers out(in[0].shape, result.value_or(in[0].dtype));
                         for (int64_t i = 0; i < out.numel(); ++i) out[i] = f(in[0][i]);
                         return NumberLists{out};
                       }});
  };
  add(
      "add", "x + 2", kNumbers, [](const Tensors& x) { return Tensors{x[0] + 2}; }, [](double x) { return x + 2; });
  add(
      "sub", "20 - x", kNumbers, [](const Tensors& x) { return Tensors{20 - x[0]}; }, [](double x) { return 20 - x; });
  add(
      "mul", "x * 2.5", kFloats, [](const Tensors& x) { return Tensors{x[0] * 2.5}; },
      [](double x) { return x * 2.5; });
  add(
      "mul", "integer * 2.5", {int32, int64, uint8}, [](const Tensors& x) { return Tensors{x[0] * 2.5}; },
      [](double x) { return x * 2.5; }, float32);
  add(
      "div", "1 / x", kFloats, [](const Tensors& x) { return Tensors{1 / x[0]}; }, [](double x) { return 1 / x; });
  // Forms with defaults, and functions that are made of others.
  add(
      "leaky_relu", "default slope", kFloats, [](const Tensors& x) { return Tensors{leaky_relu(x[0] - 4)}; },
      [](double x) { return x > 4 ? x - 4 : (x - 4) * 0.01; });
  add(
      "elu", "default alpha", kFloats, [](const Tensors& x) { return Tensors{elu(x[0] - 4)}; },
      [](double x) { return x > 4 ? x - 4 : std::expm1(x - 4); });
  add(
      "softplus", "default", kFloats, [](const Tensors& x) { return Tensors{softplus(x[0])}; }, softplus_of);
  add(
      "softplus", "beta 5", kFloats, [](const Tensors& x) { return Tensors{softplus(x[0], 5)}; },
      [](double x) { return 5 * x > 20 ? x : softplus_of(5 * x) / 5; });
  add(
      "hardtanh", "default bounds", kFloats, [](const Tensors& x) { return Tensors{hardtanh(x[0] - 4)}; },
      [](double x) { return std::clamp(x - 4, -1.0, 1.0); });
  add(
      "hardtanh", "relu6", kNumbers, [](const Tensors& x) { return Tensors{relu6(x[0])}; },
      [](double x) { return std::min(x, 6.0); });
  add(
      "clamp", "hardsigmoid", {float32, float64}, [](const Tensors& x) { return Tensors{hardsigmoid(x[0] - 4)}; },
      [](double x) { return std::clamp(x - 1, 0.0, 6.0) / 6; });
  add(
      "clamp", "both bounds", kNumbers, [](const Tensors& x) { return Tensors{clamp(x[0], {.min = 2, .max = 5})}; },
      [](double x) { return std::clamp(x, 2.0, 5.0); });
  add(
      "clamp_min", "clamp from below", kNumbers, [](const Tensors& x) { return Tensors{clamp(x[0], {.min = 3})}; },
      [](double x) { return std::max(x, 3.0); });
  add(
      "clamp_max", "clamp from above", kNumbers, [](const Tensors& x) { return Tensors{x[0].clamp({.max = 3})}; },
      [](double x) { return std::min(x, 3.0); });
  add(
      "bitwise_xor", "not", {int32, int64}, [](const Tensors& x) { return Tensors{~x[0]}; },
      [](double x) { return -1 - x; });
  add(
      "bitwise_xor", "not of uint8", {uint8}, [](const Tensors& x) { return Tensors{~x[0]}; },
      [](double x) { return 255 - x; });
  add(
      "logical_not", "bitwise_not of bool", {float32, int32}, [](const Tensors& x) { return Tensors{~(x[0] > 4)}; },
      [](double x) -> double { return x <= 4; }, bool_);
  add(
      "bitwise_and", "of comparisons", {float32, int32},
      [](const Tensors& x) { return Tensors{to((x[0] > 2) & (x[0] < 6), x[0].dtype())}; },
      [](double x) -> double { return x > 2 && x < 6; });
  add(
      "floor_divide", "by zero", {int32, int64, uint8}, [](const Tensors& x) { return Tensors{floor_divide(x[0], 0)}; },
      [](double) { return 0.0; });
  add(
      "remainder", "by zero", {int32, int64, uint8}, [](const Tensors& x) { return Tensors{remainder(x[0], 0)}; },
      [](double) { return 0.0; });
  add(
      "where", "masked_fill", kNumbers, [](const Tensors& x) { return Tensors{masked_fill(x[0], x[0] > 4, 1)}; },
      [](double x) { return x > 4 ? 1 : x; });
  add(
      "pow", "pow(x, 3)", kNumbers, [](const Tensors& x) { return Tensors{pow(x[0] - 3, 3)}; },
      [](double x) { return (x - 3) * (x - 3) * (x - 3); });
}

}  // namespace

void add_pointwise_samples(Samples& samples) {
  add_unary(samples);
  add_binary(samples);
  add_ternary(samples);
  add_where(samples);
  add_numbers(samples);
}

}  // namespace tandem::samples
