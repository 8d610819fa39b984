// Optimiser updates. The operations and their order are those that core/ops/optim.cpp breaks the ops into, so
// that a compiled step computes the same bits.
#include "kernels/cpu/vector/prelude.h"

TANDEM_BEGIN_VECTOR

template <class T> void sgd(int64_t n, const SgdArguments<T>& a) {
  const T *grad = a.grad, *param = a.param, *buffer = a.buffer;
  T *new_param = a.new_param, *new_buffer = a.new_buffer;
  const T lr = a.lr, momentum = a.momentum, damp = a.damp, decay = a.weight_decay;
  if (momentum == (T)0) {
    if (decay == (T)0) {
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) new_param[i] = param[i] - grad[i] * lr;
    } else {
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) new_param[i] = param[i] - (grad[i] + param[i] * decay) * lr;
    }
    if (new_buffer != buffer) memcpy(new_buffer, buffer, (size_t)n * sizeof(T));
    return;
  }
  const bool nesterov = a.nesterov;
  if (decay == (T)0 && damp == (T)1 && !nesterov) {
    TANDEM_SIMD
    for (int64_t i = 0; i < n; ++i) {
      const T next = buffer[i] * momentum + grad[i];
      new_param[i] = param[i] - next * lr;
      new_buffer[i] = next;
    }
    return;
  }
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) {
    const T g = decay != (T)0 ? grad[i] + param[i] * decay : grad[i];
    const T next = buffer[i] * momentum + g * damp;
    new_param[i] = param[i] - (nesterov ? g + next * momentum : next) * lr;
    new_buffer[i] = next;
  }
}

template <class T> void adamw(int64_t n, const AdamArguments<T>& a) {
  const T *param = a.param, *grad = a.grad, *m = a.m, *v = a.v;
  T *new_param = a.new_param, *new_m = a.new_m, *new_v = a.new_v;
  const T shrink = a.shrink, decay = a.added_decay, first = a.one_minus_beta1, beta2 = a.beta2,
          second = a.one_minus_beta2, step_size = a.step_size, correction = a.correction2, epsilon = a.epsilon;
  const bool shrinks = a.shrinks, adds = decay != (T)0;
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) {
    const T p = shrinks ? param[i] * shrink : param[i];
    const T g = adds ? grad[i] + param[i] * decay : grad[i];
    const T next_m = m[i] + (g - m[i]) * first;
    const T next_v = v[i] * beta2 + g * g * second;
    new_param[i] = p - next_m / (td_sqrt(next_v) / correction + epsilon) * step_size;
    new_m[i] = next_m;
    new_v[i] = next_v;
  }
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
extern const OptimLoops optim_loops;
const OptimLoops optim_loops = {sgd<float>, sgd<double>, adamw<float>, adamw<double>};
}  // namespace tandem::TANDEM_ISA
