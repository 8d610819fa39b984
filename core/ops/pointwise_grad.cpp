// The gradient of each pointwise op. Gradients of broadcast or promoted operands are summed and cast by
// the autograd engine, so rules here are the plain scalar derivatives.
#include <cmath>

#include "core/ops/ops.h"

namespace tandem {

namespace {

constexpr double kTwoOverSqrtPi = 1.1283791670955126, kHalfSqrtPi = 0.886226925452758;
constexpr double kInvSqrtTwoPi = 0.3989422804014327;
constexpr double kLn2 = 0.6931471805599453, kLn10 = 2.302585092994046;
constexpr double kSeluScale = 1.0507009873554805, kSeluAlpha = 1.6732632423543772;

/// Of ops that are constant between their steps.
Tensors no_slope(const OpContext& op) {
  Tensors result;
  for (int i = 0; i < op.input_count(); ++i)
    result.push_back(op.needs_grad(i) ? zeros_like(op.grad_output()) : Tensor());
  return result;
}

/// Of maximum; of minimum, with the comparisons turned round.
template <bool smaller> Tensors larger(const OpContext& op) {
  const Tensor g = op.grad_output(), x = smaller ? op.input(1) : op.input(0), y = smaller ? op.input(0) : op.input(1);
  const Tensor tie = where(x == y, g * 0.5, g);
  return {where(x < y, 0, tie), where(y < x, 0, tie)};
}

}  // namespace

void define_pointwise_gradients(OpTable& table) {
  const auto gradient = [&](const char* name, uint32_t saved, GradFn rule) {
    Op& op = table.at(name);
    op.grad = rule;
    op.saved = saved;
  };
  using Context = const OpContext&;
  gradient("neg", kSaveNothing, [](Context op) { return Tensors{-op.grad_output()}; });
  gradient("abs", in(0), [](Context op) { return Tensors{op.grad_output() * sign(op.input(0))}; });
  for (const char* steps : {"sign", "floor", "ceil", "round", "trunc", "floor_divide"})
    gradient(steps, kSaveNothing, no_slope);
  gradient("square", in(0), [](Context op) { return Tensors{op.grad_output() * (op.input(0) * 2)}; });
  gradient("reciprocal", out(0), [](Context op) { return Tensors{-op.grad_output() * square(op.output())}; });
  gradient("exp", out(0), [](Context op) { return Tensors{op.grad_output() * op.output()}; });
  gradient("log", in(0), [](Context op) { return Tensors{op.grad_output() / op.input(0)}; });
  gradient("expm1", out(0), [](Context op) { return Tensors{op.grad_output() * (op.output() + 1)}; });
  gradient("log1p", in(0), [](Context op) { return Tensors{op.grad_output() / (op.input(0) + 1)}; });
  gradient("log10", in(0), [](Context op) { return Tensors{op.grad_output() / (op.input(0) * kLn10)}; });
  gradient("exp2", out(0), [](Context op) { return Tensors{op.grad_output() * op.output() * kLn2}; });
  gradient("log2", in(0), [](Context op) { return Tensors{op.grad_output() / (op.input(0) * kLn2)}; });
  gradient("sqrt", out(0), [](Context op) { return Tensors{op.grad_output() / (op.output() * 2)}; });
  gradient("rsqrt", out(0), [](Context op) {
    const Tensor y = op.output();
    return Tensors{op.grad_output() * (y * y * y) * -0.5};
  });
  gradient("sin", in(0), [](Context op) { return Tensors{op.grad_output() * cos(op.input(0))}; });
  gradient("cos", in(0), [](Context op) { return Tensors{-(op.grad_output() * sin(op.input(0)))}; });
  gradient("tan", out(0), [](Context op) { return Tensors{op.grad_output() * (square(op.output()) + 1)}; });
  gradient("asin", in(0), [](Context op) { return Tensors{op.grad_output() * rsqrt(1 - square(op.input(0)))}; });
  gradient("acos", in(0), [](Context op) { return Tensors{-op.grad_output() * rsqrt(1 - square(op.input(0)))}; });
  gradient("atan", in(0), [](Context op) { return Tensors{op.grad_output() / (square(op.input(0)) + 1)}; });
  gradient("sinh", in(0), [](Context op) { return Tensors{op.grad_output() * cosh(op.input(0))}; });
  gradient("cosh", in(0), [](Context op) { return Tensors{op.grad_output() * sinh(op.input(0))}; });
  gradient("asinh", in(0), [](Context op) { return Tensors{op.grad_output() * rsqrt(square(op.input(0)) + 1)}; });
  gradient("acosh", in(0), [](Context op) { return Tensors{op.grad_output() * rsqrt(square(op.input(0)) - 1)}; });
  gradient("atanh", in(0), [](Context op) { return Tensors{op.grad_output() / (1 - square(op.input(0)))}; });
  gradient("tanh", out(0), [](Context op) { return Tensors{tanh_grad(op.grad_output(), op.output())}; });
  gradient("tanh_grad", in(0) | in(1), [](Context op) {  // g (1 - y^2)
    const Tensor gg = op.grad_output(), g = op.input(0), y = op.input(1);
    return Tensors{tanh_grad(gg, y), gg * g * y * -2};
  });
  gradient("sigmoid", out(0), [](Context op) { return Tensors{sigmoid_grad(op.grad_output(), op.output())}; });
  gradient("sigmoid_grad", in(0) | in(1), [](Context op) {  // g y (1 - y)
    const Tensor gg = op.grad_output(), g = op.input(0), y = op.input(1);
    return Tensors{sigmoid_grad(gg, y), gg * g * (1 - 2 * y)};
  });
  gradient("erf", in(0),
           [](Context op) { return Tensors{op.grad_output() * exp(-square(op.input(0))) * kTwoOverSqrtPi}; });
  gradient("erfc", in(0),
           [](Context op) { return Tensors{op.grad_output() * exp(-square(op.input(0))) * -kTwoOverSqrtPi}; });
  gradient("erfinv", out(0),
           [](Context op) { return Tensors{op.grad_output() * exp(square(op.output())) * kHalfSqrtPi}; });
  gradient("lgamma", in(0), [](Context op) { return Tensors{op.grad_output() * digamma(op.input(0))}; });
  gradient("digamma", in(0), [](Context op) { return Tensors{op.grad_output() * polygamma(1, op.input(0))}; });
  gradient("polygamma", in(0) | in(1), [](Context op) {
    return Tensors{Tensor(), op.needs_grad(1) ? op.grad_output() * polygamma(op.input(0) + 1, op.input(1)) : Tensor()};
  });
  gradient("relu", out(0), [](Context op) { return Tensors{relu_grad(op.grad_output(), op.output())}; });
  gradient("relu_grad", in(1), [](Context op) { return Tensors{relu_grad(op.grad_output(), op.input(1)), Tensor()}; });
  gradient("gelu", in(0), [](Context op) { return Tensors{gelu_grad(op.grad_output(), op.input(0))}; });
  gradient("gelu_grad", in(0) | in(1), [](Context op) {  // g (Phi(x) + x phi(x)); phi'(x) = -x phi(x)
    const Tensor gg = op.grad_output(), g = op.input(0), x = op.input(1);
    const Tensor xx = square(x);
    return Tensors{gelu_grad(gg, x), gg * g * (2 - xx) * exp(xx * -0.5) * kInvSqrtTwoPi};
  });
  gradient("gelu_tanh", in(0), [](Context op) { return Tensors{gelu_tanh_grad(op.grad_output(), op.input(0))}; });
  gradient("gelu_tanh_grad", in(0) | in(1), [](Context op) {
    // y = x S(v), v = 2 sqrt(2/pi) (x + a x^3): y'' = S (1 - S) (2 v' + x ((1 - 2 S) v'^2 + v''))
    constexpr double scale = 1.5957691216057308, a = 0.044715;
    const Tensor gg = op.grad_output(), g = op.input(0), x = op.input(1);
    const Tensor xx = square(x);
    const Tensor s = sigmoid((x + x * xx * a) * scale), slope = (xx * (3 * a) + 1) * scale;
    const Tensor bend = slope * 2 + x * ((1 - s * 2) * square(slope) + x * (6 * a * scale));
    return Tensors{gelu_tanh_grad(gg, x), gg * g * (s * (1 - s) * bend)};
  });
  gradient("silu", in(0), [](Context op) { return Tensors{silu_grad(op.grad_output(), op.input(0))}; });
  gradient("silu_grad", in(0) | in(1), [](Context op) {  // S (1 - S) (2 + x (1 - 2 S))
    const Tensor gg = op.grad_output(), g = op.input(0), x = op.input(1), s = sigmoid(x);
    return Tensors{silu_grad(gg, x), gg * g * (s * (1 - s) * (x * (1 - s * 2) + 2))};
  });
  gradient("mish", in(0), [](Context op) { return Tensors{mish_grad(op.grad_output(), op.input(0))}; });
  gradient("mish_grad", in(0) | in(1), [](Context op) {  // t = tanh(softplus x): (1 - t^2) S (2 + x (1 - S - 2 t S))
    const Tensor gg = op.grad_output(), g = op.input(0), x = op.input(1), s = sigmoid(x), t = tanh(softplus(x));
    return Tensors{mish_grad(gg, x), gg * g * ((1 - square(t)) * s * (x * (1 - s - t * s * 2) + 2))};
  });
  gradient("hardswish", in(0), [](Context op) { return Tensors{hardswish_grad(op.grad_output(), op.input(0))}; });
  gradient("hardswish_grad", in(0) | in(1), [](Context op) {
    const Tensor gg = op.grad_output(), g = op.input(0), x = op.input(1);
    return Tensors{hardswish_grad(gg, x), op.needs_grad(1) ? where(abs(x) < 3, gg * g * (1.0 / 3), 0) : Tensor()};
  });
  gradient("selu", out(0), [](Context op) {  // scale alpha e^x = y + scale alpha
    const Tensor g = op.grad_output(), y = op.output();
    return Tensors{where(y <= 0, g * (y + kSeluScale * kSeluAlpha), g * kSeluScale)};
  });
  gradient("logsigmoid", in(0), [](Context op) { return Tensors{op.grad_output() * sigmoid(-op.input(0))}; });
  gradient("softsign", in(0), [](Context op) { return Tensors{op.grad_output() / square(abs(op.input(0)) + 1)}; });
  // The slope of leaky_relu and the scale of elu are operands with gradients of their own (prelu).
  gradient("leaky_relu", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0);
    return Tensors{leaky_relu_grad(g, x, op.input(1)), op.needs_grad(1) ? where(x > 0, 0, g * x) : Tensor()};
  });
  gradient("leaky_relu_grad", in(0) | in(1) | in(2), [](Context op) {
    const Tensor gg = op.grad_output(), x = op.input(1);
    return Tensors{leaky_relu_grad(gg, x, op.input(2)), Tensor(),
                   op.needs_grad(2) ? where(x > 0, 0, gg * op.input(0)) : Tensor()};
  });
  gradient("elu", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0);
    return Tensors{elu_grad(g, x, op.input(1)), op.needs_grad(1) ? where(x > 0, 0, g * expm1(x)) : Tensor()};
  });
  gradient("celu", in(0) | in(1), [](Context op) {  // y = alpha (e^(x / alpha) - 1)
    const Tensor g = op.grad_output(), x = op.input(0), alpha = op.input(1), u = minimum(x / alpha, 0), slope = exp(u);
    return Tensors{where(x <= 0, g * slope, g),
                   op.needs_grad(1) ? where(x > 0, 0, g * (expm1(u) - u * slope)) : Tensor()};
  });
  gradient("softshrink", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0), inside = abs(x) <= op.input(1);
    return Tensors{where(inside, 0, g), op.needs_grad(1) ? where(inside, 0, -g * sign(x)) : Tensor()};
  });
  gradient("hardshrink", in(0) | in(1), [](Context op) {
    return Tensors{where(abs(op.input(0)) <= op.input(1), 0, op.grad_output()), Tensor()};
  });
  gradient("elu_grad", in(0) | in(1) | in(2), [](Context op) {
    const Tensor gg = op.grad_output(), g = op.input(0), x = op.input(1), alpha = op.input(2);
    return Tensors{elu_grad(gg, x, alpha), op.needs_grad(1) ? where(x <= 0, gg * g * alpha * exp(x), 0) : Tensor(),
                   op.needs_grad(2) ? where(x <= 0, gg * g * exp(x), 0) : Tensor()};
  });
  gradient("softplus", in(0) | in(1) | in(2) | out(0), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0), beta = op.input(1), scaled = x * beta;
    const Tensor linear = scaled > op.input(2), slope = g * sigmoid(scaled);
    return Tensors{where(linear, g, slope),
                   op.needs_grad(1) ? where(linear, 0, (slope * x - g * op.output()) / beta) : Tensor(), Tensor()};
  });
  // As PyTorch at the bounds: x loses its gradient at one that is a number, and shares it with one that is a tensor.
  gradient("clamp", in(0) | in(1) | in(2), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0), low = op.input(1), high = op.input(2);
    if (low.impl()->is_scalar && high.impl()->is_scalar)
      return Tensors{where((x > low) & (x < high), g, 0), Tensor(), Tensor()};
    // Where the bounds are crossed the upper one is the result; where they are equal, the one beyond which x lies.
    const Tensor apart = low < high, crossed = high < low, below = x<low, above = x> high;
    const auto share = [&](const Tensor& bound) { return where((x == bound) & apart, g * 0.5, 0); };
    return Tensors{where(below | above | crossed, 0, where(((x == low) | (x == high)) & apart, g * 0.5, g)),
                   op.needs_grad(1) ? where(below & ~crossed, g, share(low)) : Tensor(),
                   op.needs_grad(2) ? where(above | crossed, g, share(high)) : Tensor()};
  });
  // Its bounds are numbers. Unlike clamp, what is not a number lies between them.
  gradient("hardtanh", in(0) | in(1) | in(2), [](Context op) {
    const Tensor x = op.input(0);
    return Tensors{where((x <= op.input(1)) | (x >= op.input(2)), 0, op.grad_output()), Tensor(), Tensor()};
  });
  // Where operands are equal each gets half, and where one is not a number both get all of it.
  gradient("maximum", in(0) | in(1), larger<false>);
  gradient("minimum", in(0) | in(1), larger<true>);
  gradient("clamp_min", in(0) | in(1), [](Context op) {
    if (!op.input(1).impl()->is_scalar) return larger<false>(op);
    return Tensors{where(op.input(0) > op.input(1), op.grad_output(), 0), Tensor()};
  });
  gradient("clamp_max", in(0) | in(1), [](Context op) {
    if (!op.input(1).impl()->is_scalar) return larger<true>(op);
    return Tensors{where(op.input(0) < op.input(1), op.grad_output(), 0), Tensor()};
  });
  gradient("lerp", in(0) | in(1) | in(2), [](Context op) {
    const Tensor g = op.grad_output(), weight = op.input(2);
    return Tensors{g * (1 - weight), g * weight, op.needs_grad(2) ? g * (op.input(1) - op.input(0)) : Tensor()};
  });
  gradient("remainder", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output();
    return Tensors{g, op.needs_grad(1) ? -g * floor_divide(op.input(0), op.input(1)) : Tensor()};
  });
  gradient("fmod", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output();
    return Tensors{g, op.needs_grad(1) ? -g * trunc(op.input(0) / op.input(1)) : Tensor()};
  });
  gradient("atan2", in(0) | in(1), [](Context op) {  // 0 at (0, 0), where there is none
    const Tensor y = op.input(0), x = op.input(1), r = square(x) + square(y),
                 g = op.grad_output() / where(r == 0, 1, r);
    return Tensors{g * x, op.needs_grad(1) ? -g * y : Tensor()};
  });
  gradient("xlogy", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0), y = op.input(1);
    return Tensors{op.needs_grad(0) ? where((x == 0) & (y <= 0), 0, g * log(y)) : Tensor(),
                   op.needs_grad(1) ? g * x / y : Tensor()};
  });
  gradient("logaddexp", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output(), share = sigmoid(op.input(0) - op.input(1));
    return Tensors{g * share, op.needs_grad(1) ? g * (1 - share) : Tensor()};
  });
  gradient("hypot", in(0) | in(1) | out(0), [](Context op) {
    const Tensor g = op.grad_output() / op.output();
    return Tensors{g * op.input(0), op.needs_grad(1) ? g * op.input(1) : Tensor()};
  });
  gradient("add", kSaveNothing, [](Context op) { return Tensors{op.grad_output(), op.grad_output()}; });
  gradient("sub", kSaveNothing, [](Context op) {
    return Tensors{op.grad_output(), op.needs_grad(1) ? -op.grad_output() : Tensor()};
  });
  gradient("mul", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output();
    return Tensors{op.needs_grad(0) ? g * op.input(1) : Tensor(), op.needs_grad(1) ? g * op.input(0) : Tensor()};
  });
  gradient("div", in(1) | out(0), [](Context op) {
    const Tensor g = op.grad_output() / op.input(1);
    return Tensors{g, op.needs_grad(1) ? -(g * op.output()) : Tensor()};
  });
  gradient("pow", in(0) | in(1) | out(0), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0), y = op.input(1);
    if (y.impl()
            ->is_scalar) {  // a number stays one: what is made of it as a tensor would lie on the CPU, wherever x is
      const double p = y.item<double>();
      return Tensors{p == 0 ? zeros_like(g) : g * (p * pow(x, p - 1)), Tensor()};
    }
    return Tensors{op.needs_grad(0) ? where(y == 0, 0, g * y * pow(x, y - 1)) : Tensor(),
                   op.needs_grad(1) ? where(x == 0, 0, g * op.output() * log(x)) : Tensor()};
  });
  gradient("where", in(0), [](Context op) {
    const Tensor g = op.grad_output(), condition = op.input(0);
    return Tensors{Tensor(), op.needs_grad(1) ? where(condition, g, 0) : Tensor(),
                   op.needs_grad(2) ? where(condition, 0, g) : Tensor()};
  });
}

}  // namespace tandem
