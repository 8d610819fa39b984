// Lion: steps of one size, in the direction of the sign of a running mean.
#include "nn/optim/lion.h"

#include "core/ops/ops.h"

namespace tandem::nn::optim {

Lion::Lion(Groups groups, Where where) : GroupedOptimizer("Lion", groups, where) {
  for (size_t group = 0; group < group_count(); ++group) {
    const LionOptions& o = options(group);
    check(o.beta1 >= 0 && o.beta1 < 1, where, "beta1 is ", o.beta1, ", need at least 0 and below 1");
    check(o.beta2 >= 0 && o.beta2 < 1, where, "beta2 is ", o.beta2, ", need at least 0 and below 1");
    check(o.weight_decay >= 0, where, "weight_decay is ", o.weight_decay, ", need 0 or more");
    make_state(means_, group, 0, where);
  }
}

void Lion::update(Where where) {
  for (size_t group = 0; group < group_count(); ++group) {
    const LionOptions& o = options(group);
    for_each_gradient(group, [&](size_t i, Tensor parameter, const Tensor& gradient) {
      Tensor p = detail::widened(parameter);
      const Tensor g = detail::widened(gradient), mean = detail::widened(means_[i]);
      if (o.weight_decay != 0) p = p * (1 - lr(group) * o.weight_decay);
      const Tensor change = g - mean;  // of both means: what they share keeps them in one loop of a fused kernel
      const Tensor direction = sign(mean + change * (1 - o.beta1));
      means_[i].assign(mean + change * (1 - o.beta2), where);
      parameter.assign(p - direction * lr(group), where);
    });
  }
}

std::vector<NamedTensor> Lion::state() const {
  std::vector<NamedTensor> result = Optimizer::state();
  add_state(result, "mean", means_);
  return result;
}

}  // namespace tandem::nn::optim
