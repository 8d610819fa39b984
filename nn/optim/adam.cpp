// Adam and AdamW: steps scaled by running moments of the gradient.
#include "nn/optim/adam.h"

#include "core/ops/ops.h"

namespace tandem::nn::optim {

Adam::Adam(Groups groups, Where where) : Adam("Adam", Decay::added_to_gradient, groups, where) {}

Adam::Adam(const char* name, Decay decay, const Groups& groups, Where where)
    : GroupedOptimizer(name, groups, where), decay_(decay) {
  for (size_t group = 0; group < group_count(); ++group) {
    const AdamOptions& o = options(group);
    check(o.beta1 >= 0 && o.beta1 < 1, where, "beta1 is ", o.beta1, ", need at least 0 and below 1");
    check(o.beta2 >= 0 && o.beta2 < 1, where, "beta2 is ", o.beta2, ", need at least 0 and below 1");
    check(o.epsilon >= 0, where, "epsilon is ", o.epsilon, ", need 0 or more");
    check(o.weight_decay >= 0, where, "weight_decay is ", o.weight_decay, ", need 0 or more");
    make_state(means_, group, 0, where);
    make_state(variances_, group, 0, where);
  }
  steps_ = zeros({}, {.dtype = float64, .device = device()}, where);
}

void Adam::update(Where where) {
  steps_.assign(steps_ + 1, where);
  std::pair<Tensor, Tensor> corrections;
  for (size_t group = 0; group < group_count(); ++group) {
    const AdamOptions& o = options(group);
    if (group == 0 || o.beta1 != options(group - 1).beta1 || o.beta2 != options(group - 1).beta2)
      corrections = detail::adam_corrections(o.beta1, o.beta2, steps_);
    const Attributes attributes{{"beta1", o.beta1},
                                {"beta2", o.beta2},
                                {"epsilon", o.epsilon},
                                {"weight_decay", o.weight_decay},
                                {"decoupled", decay_ == Decay::decoupled}};
    for_each_gradient(group, [&](size_t i, const Tensor& parameter, const Tensor& gradient) {
      detail::adam_update(parameter, gradient, means_[i], variances_[i], lr(group), corrections, attributes, where);
    });
  }
}

std::vector<NamedTensor> Adam::state() const {
  std::vector<NamedTensor> result = Optimizer::state();
  result.push_back({"steps", steps_});
  add_state(result, "mean", means_);
  add_state(result, "variance", variances_);
  return result;
}

namespace {

Adam::Groups as_adam(const AdamW::Groups& groups) {
  Adam::Groups result;
  for (const AdamW::Group& group : groups) {
    const AdamWOptions& o = group.options;
    result.push_back({group.parameters, {o.lr, o.beta1, o.beta2, o.epsilon, o.weight_decay}});
  }
  return result;
}

}  // namespace

AdamW::AdamW(const Groups& groups, Where where) : Adam("AdamW", Decay::decoupled, as_adam(groups), where) {}

std::pair<Tensor, Tensor> detail::adam_corrections(double beta1, double beta2, const Tensor& steps) {
  return {(1 - pow(beta1, steps)).to(float32), sqrt(1 - pow(beta2, steps)).to(float32)};
}

void detail::adam_update(const Tensor& parameter, const Tensor& gradient, const Tensor& mean, const Tensor& variance,
                         const Tensor& lr, const std::pair<Tensor, Tensor>& corrections, const Attributes& attributes,
                         Where where) {
  static const Op& adamw = find_op("adamw");
  const Tensor inputs[] = {parameter, gradient, mean, variance, lr, corrections.first, corrections.second};
  Tensor targets[] = {parameter, mean, variance};
  dispatch_in_place(adamw, inputs, attributes, targets, where);
}

}  // namespace tandem::nn::optim
