// Automatic differentiation: the tape and what walks it. The rules stay with the ops.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "../core/tensor.h"

namespace tandem {

struct GradOptions {
  bool retain_graph = false;
  bool create_graph = false;  ///< make the gradients differentiable themselves (implies retain_graph)
  bool allow_unused = false;  ///< an input that the output doesn't depend on gives an undefined gradient
};

/// Gradients of `output` (one element, or weighted by `grad_output` of its shape) with respect to
/// `inputs`, leaving every grad() alone. Errors: AutogradError if output has no tape, or an input
/// took no part in it (unless allow_unused).
Tensors grad_of(const Tensor& output, const Tensors& inputs, GradOptions options = {}, const Tensor& grad_output = {},
                Where where = Where::current());

/// The same for several outputs, whose gradients add up. Only what leads from them to the inputs is walked, and freed.
Tensors grad_of(const Tensors& outputs, const Tensors& inputs, GradOptions options = {},
                const Tensors& grad_outputs = {}, Where where = Where::current());

/// The same for a fixed number of inputs: `auto [gx, gy] = grad<2>(loss, {x, y});`
template <size_t N>
std::array<Tensor, N> grad(const Tensor& output, const std::type_identity_t<Tensor> (&inputs)[N],
                           GradOptions options = {}, Where where = Where::current()) {
  const Tensors result = grad_of(output, Tensors(inputs, inputs + N), options, {}, where);
  std::array<Tensor, N> gradients;
  std::copy(result.begin(), result.end(), gradients.begin());
  return gradients;
}

struct GradCheckOptions {
  double step = 1e-6;  ///< of the central difference, in float64
  double rtol = 1e-4, atol = 1e-6;
};
/// Compares the gradients of `f` (float64 copies of `inputs`; its result is summed with fixed random
/// weights) with central differences. True, or GradCheckError naming input, element and both numbers.
bool gradcheck(const std::function<Tensor(const Tensors&)>& f, const Tensors& inputs, GradCheckOptions options = {},
               Where where = Where::current());
/// The same for the gradients of gradients.
bool gradgradcheck(const std::function<Tensor(const Tensors&)>& f, const Tensors& inputs, GradCheckOptions options = {},
                   Where where = Where::current());
/// Functions of one tensor.
template <class F>
requires std::invocable<F, const Tensor&> &&
    (!std::invocable<F, const Tensors&>)bool gradcheck(F&& f, const Tensors& inputs, GradCheckOptions options = {},
                                                       Where where = Where::current()) {
  return gradcheck([&](const Tensors& x) { return f(x[0]); }, inputs, options, where);
}
template <class F>
requires std::invocable<F, const Tensor&> &&
    (!std::invocable<F, const Tensors&>)bool gradgradcheck(F&& f, const Tensors& inputs, GradCheckOptions options = {},
                                                           Where where = Where::current()) {
  return gradgradcheck([&](const Tensors& x) { return f(x[0]); }, inputs, options, where);
}

}  // namespace tandem
