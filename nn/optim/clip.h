// clip_grad_norm, clip_grad_value: bound the gradient.
#pragma once

#include "../../core/tensor.h"

namespace tandem::nn {

/// Scales the gradients of `parameters` by min(1, max_norm / (norm + 1e-6)), where norm is the length of all
/// of them as one vector, and returns that norm (0-d, as it was before). Parameters without a gradient don't
/// count. No value is read, so it can stand in a compiled step (Pascanu et al. 2013, arXiv:1211.5063).
Tensor clip_grad_norm(const Tensors& parameters, double max_norm, Where where = Where::current());

/// Brings every element of the gradients of `parameters` into [-limit, limit]; NaN stays.
void clip_grad_value(const Tensors& parameters, double limit, Where where = Where::current());

}  // namespace tandem::nn
