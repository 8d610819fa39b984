// clip_grad_norm, clip_grad_value: bound the gradient.
#include "nn/optim/clip.h"

#include "core/ops/ops.h"

namespace tandem::nn {

Tensor clip_grad_norm(const Tensors& parameters, double max_norm, Where where) {
  if (!(max_norm >= 0))
    throw ValueError(tandem::detail::str("nn::clip_grad_norm: the largest norm is ", max_norm, ", need 0 or more"),
                     where);
  NoGrad no_grad;
  WhereScope scope(where);
  Tensors clipped, gradients;
  Tensor sum_of_squares;
  for (const Tensor& parameter : parameters) {
    if (!parameter.defined())
      throw UndefinedError("nn::clip_grad_norm: a parameter is undefined: pass nn::parameters(model)", where);
    const Tensor gradient = parameter.grad();
    if (!gradient.defined()) continue;
    clipped.push_back(parameter);
    gradients.push_back(gradient);
    const Tensor squares = sum(square(gradient));
    sum_of_squares = sum_of_squares.defined() ? sum_of_squares + squares : squares;
  }
  if (gradients.empty()) return zeros({}, {}, where);
  const Tensor norm = sqrt(sum_of_squares);
  const Tensor scale = minimum(max_norm / (norm + 1e-6), 1.0);
  // New tensors, not scaled in place: two leaves may share one gradient (that of a + b, say).
  for (size_t i = 0; i < clipped.size(); ++i) clipped[i].set_grad(gradients[i] * scale, where);
  return norm;
}

void clip_grad_value(const Tensors& parameters, double limit, Where where) {
  if (!(limit >= 0))
    throw ValueError(tandem::detail::str("nn::clip_grad_value: the limit is ", limit, ", need 0 or more"), where);
  NoGrad no_grad;
  WhereScope scope(where);
  for (Tensor parameter : parameters) {
    if (!parameter.defined())
      throw UndefinedError("nn::clip_grad_value: a parameter is undefined: pass nn::parameters(model)", where);
    const Tensor gradient = parameter.grad();
    if (gradient.defined()) parameter.set_grad(maximum(minimum(gradient, limit), -limit), where);
  }
}

}  // namespace tandem::nn
