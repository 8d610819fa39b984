// Adagrad: steps scaled by all squared gradients so far.
#include "nn/optim/adagrad.h"

#include "core/ops/ops.h"

namespace tandem::nn::optim {

Adagrad::Adagrad(Groups groups, Where where) : GroupedOptimizer("Adagrad", groups, where) {
  for (size_t group = 0; group < group_count(); ++group) {
    const AdagradOptions& o = options(group);
    check(o.lr_decay >= 0, where, "lr_decay is ", o.lr_decay, ", need 0 or more");
    check(o.epsilon >= 0, where, "epsilon is ", o.epsilon, ", need 0 or more");
    check(o.weight_decay >= 0, where, "weight_decay is ", o.weight_decay, ", need 0 or more");
    check(o.initial_sum >= 0, where, "initial_sum is ", o.initial_sum, ", need 0 or more");
    make_state(sums_, group, o.initial_sum, where);
  }
  steps_ = zeros({}, {.dtype = float64, .device = device()}, where);
}

void Adagrad::update(Where where) {
  const Tensor steps_before = steps_ + 0.0;
  steps_.assign(steps_ + 1, where);
  for (size_t group = 0; group < group_count(); ++group) {
    const AdagradOptions& o = options(group);
    const Tensor rate = o.lr_decay != 0 ? (lr(group) / (1 + steps_before * o.lr_decay)).to(float32) : lr(group);
    for_each_gradient(group, [&](size_t i, Tensor parameter, const Tensor& gradient) {
      const Tensor p = detail::widened(parameter);
      Tensor g = detail::widened(gradient);
      if (o.weight_decay != 0) g = g + p * o.weight_decay;
      const Tensor sum = detail::widened(sums_[i]) + g * g;
      sums_[i].assign(sum, where);
      parameter.assign(p - g / (sqrt(sum) + o.epsilon) * rate, where);
    });
  }
}

std::vector<NamedTensor> Adagrad::state() const {
  std::vector<NamedTensor> result = Optimizer::state();
  result.push_back({"steps", steps_});
  add_state(result, "sum", sums_);
  return result;
}

}  // namespace tandem::nn::optim
