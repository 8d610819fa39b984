// RmsProp: steps scaled by a running mean of squared gradients.
#include "nn/optim/rmsprop.h"

#include "core/ops/ops.h"

namespace tandem::nn::optim {

RmsProp::RmsProp(Groups groups, Where where) : GroupedOptimizer("RmsProp", groups, where) {
  means_.resize(parameters().size());
  buffers_.resize(parameters().size());
  for (size_t group = 0; group < group_count(); ++group) {
    const RmsPropOptions& o = options(group);
    check(o.alpha >= 0 && o.alpha < 1, where, "alpha is ", o.alpha, ", need at least 0 and below 1");
    check(o.epsilon >= 0, where, "epsilon is ", o.epsilon, ", need 0 or more");
    check(o.momentum >= 0, where, "momentum is ", o.momentum, ", need 0 or more");
    check(o.weight_decay >= 0, where, "weight_decay is ", o.weight_decay, ", need 0 or more");
    make_state(squares_, group, 0, where);
    if (o.centered) make_state(means_, group, 0, where);
    if (o.momentum > 0) make_state(buffers_, group, 0, where);
  }
}

void RmsProp::update(Where where) {
  for (size_t group = 0; group < group_count(); ++group) {
    const RmsPropOptions& o = options(group);
    for_each_gradient(group, [&](size_t i, Tensor parameter, const Tensor& gradient) {
      const Tensor p = detail::widened(parameter);
      Tensor g = detail::widened(gradient);
      if (o.weight_decay != 0) g = g + p * o.weight_decay;
      const Tensor squares = detail::widened(squares_[i]) * o.alpha + g * g * (1 - o.alpha);
      Tensor variance = squares;
      if (o.centered) {
        const Tensor mean = detail::widened(means_[i]) * o.alpha + g * (1 - o.alpha);
        variance = squares - mean * mean;
        means_[i].assign(mean, where);
      }
      Tensor step = g / (sqrt(variance) + o.epsilon);
      if (o.momentum > 0) {
        step = detail::widened(buffers_[i]) * o.momentum + step;
        buffers_[i].assign(step, where);
      }
      squares_[i].assign(squares, where);
      parameter.assign(p - step * lr(group), where);
    });
  }
}

std::vector<NamedTensor> RmsProp::state() const {
  std::vector<NamedTensor> result = Optimizer::state();
  add_state(result, "square", squares_);
  add_state(result, "mean", means_);
  add_state(result, "momentum", buffers_);
  return result;
}

}  // namespace tandem::nn::optim
