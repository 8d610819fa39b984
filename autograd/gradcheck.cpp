// gradcheck and gradgradcheck: analytic gradients against central differences in float64.
#include <cmath>

#include "autograd/autograd.h"
#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

/// Float64 leaves with the values of `inputs`; integer ones as they are.
Tensors leaves(const Tensors& inputs) {
  Tensors result;
  for (const Tensor& input : inputs) {
    if (!is_floating(input.dtype())) {
      result.push_back(input);
      continue;
    }
    Tensor leaf = input.detach().to(float64).clone();
    leaf.requires_grad(true);
    result.push_back(leaf);
  }
  return result;
}

/// Fixed weights in [0.5, 1.5) that tell elements apart.
Tensor weights_like(const Tensor& x) {
  std::vector<double> values(static_cast<size_t>(x.numel()));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = 0.5 + std::fmod(0.61803398875 * static_cast<double>(i + 1), 1.0);
  return tensor(values).reshape(x.shape()).to(x.device());
}

Tensor weighted(const std::function<Tensor(const Tensors&)>& f, const Tensors& x) {
  const Tensor y = f(x);
  return sum(y * weights_like(y));
}

}  // namespace

bool gradcheck(const std::function<Tensor(const Tensors&)>& f, const Tensors& inputs, GradCheckOptions options,
               Where where) {
  where = user_line(where);
  const Tensors x = leaves(inputs);
  Tensors wanted;
  std::vector<size_t> positions;
  for (size_t i = 0; i < x.size(); ++i)
    if (is_floating(x[i].dtype())) wanted.push_back(x[i]), positions.push_back(i);
  const Tensor y = weighted(f, x);
  if (!y.requires_grad())
    throw GradCheckError("gradcheck: the result has no tape: it doesn't depend on the inputs differentiably", where);
  const Tensors analytic = grad_of(y, wanted, {.allow_unused = true}, {}, where);
  NoGrad no_grad;
  for (size_t k = 0; k < wanted.size(); ++k) {
    const std::vector<double> values = wanted[k].to_vector<double>();
    const std::vector<double> gradient =
        analytic[k].defined() ? analytic[k].to_vector<double>() : std::vector<double>(values.size(), 0.0);
    for (size_t i = 0; i < values.size(); ++i) {
      double sides[2];
      for (const int side : {0, 1}) {
        std::vector<double> moved = values;
        moved[i] += side ? options.step : -options.step;
        Tensors there = x;
        there[positions[k]] = tensor(moved).reshape(wanted[k].shape()).to(wanted[k].device());
        sides[side] = weighted(f, there).item<double>();
      }
      const double numeric = (sides[1] - sides[0]) / (2 * options.step);
      if (!(std::fabs(numeric - gradient[i]) <= options.atol + options.rtol * std::fabs(numeric)))
        throw GradCheckError(detail::str("gradcheck: input ", positions[k], " ", wanted[k].shape(), ", element ", i,
                                         ": the gradient rule gives ", gradient[i], ", central differences ", numeric),
                             where);
    }
  }
  return true;
}

bool gradgradcheck(const std::function<Tensor(const Tensors&)>& f, const Tensors& inputs, GradCheckOptions options,
                   Where where) {
  where = user_line(where);
  return gradcheck(
      [&](const Tensors& x) {
        Tensors wanted;
        for (const Tensor& each : x) {
          if (!is_floating(each.dtype())) continue;
          Tensor leaf = each;
          if (!leaf.requires_grad()) leaf.requires_grad(true);
          wanted.push_back(leaf);
        }
        const GradScope grad(true);
        Tensor total;
        // A sum over the gradients, each entry weighted: its gradient is a row of second derivatives.
        for (const Tensor& g : grad_of(weighted(f, x), wanted, {.create_graph = true, .allow_unused = true}, {}, where))
          if (g.defined()) total = total.defined() ? total + sum(g * weights_like(g)) : sum(g * weights_like(g));
        // A gradient that is constant has no tape; zero times the inputs gives it one.
        for (const Tensor& each : wanted) total = total + sum(each) * 0;
        return total;
      },
      inputs, options, where);
}

}  // namespace tandem
