// Adam and AdamW: steps scaled by running moments of the gradient.
#include "tandem/nn/optim/adam.h"

#include "tandem/core/ops.h"

namespace tandem::nn::optim {

using tandem::detail::str;

Adam::Adam(Tensors parameters, AdamOptions options, Where where)
    : Adam("Adam", Decay::added_to_gradient, std::move(parameters), options, where) {}

Adam::Adam(const char* name, Decay decay, Tensors parameters, const AdamOptions& options, Where where)
    : Optimizer(name, std::move(parameters), options.lr, where), options_(options), decay_(decay) {
  check(options.beta1 >= 0 && options.beta1 < 1, where, "beta1 is ", options.beta1,
        ", need at least 0 and below 1");
  check(options.beta2 >= 0 && options.beta2 < 1, where, "beta2 is ", options.beta2,
        ", need at least 0 and below 1");
  check(options.epsilon >= 0, where, "epsilon is ", options.epsilon, ", need 0 or more");
  check(options.weight_decay >= 0, where, "weight_decay is ", options.weight_decay, ", need 0 or more");
  means_ = zeros_for_each(where);
  variances_ = zeros_for_each(where);
  steps_ = zeros({}, {.dtype = float64, .device = device()}, where);
}

void Adam::update(Where where) {
  static const Op& adamw = find_op("adamw");
  steps_.assign(steps_ + 1, where);
  // In float64, for 1 - 0.999f is off by 1e-5.
  const Tensor correction1 = (1 - pow(options_.beta1, steps_)).to(float32, where);
  const Tensor correction2 = sqrt(1 - pow(options_.beta2, steps_)).to(float32, where);
  const Attributes attributes{{"beta1", options_.beta1},
                              {"beta2", options_.beta2},
                              {"epsilon", options_.epsilon},
                              {"weight_decay", options_.weight_decay},
                              {"decoupled", decay_ == Decay::decoupled}};
  for (size_t i = 0; i < parameters().size(); ++i) {
    const Tensor& parameter = parameters()[i];
    const Tensor gradient = parameter.grad();
    if (!gradient.defined()) continue;
    const Tensor inputs[] = {parameter, gradient, means_[i], variances_[i], lr(), correction1, correction2};
    Tensor targets[] = {parameter, means_[i], variances_[i]};
    dispatch_in_place(adamw, inputs, attributes, targets, where);
  }
}

std::vector<NamedTensor> Adam::state() const {
  std::vector<NamedTensor> result = Optimizer::state();
  result.push_back({"steps", steps_});
  for (size_t i = 0; i < means_.size(); ++i) {
    result.push_back({str("mean.", i), means_[i]});
    result.push_back({str("variance.", i), variances_[i]});
  }
  return result;
}

AdamW::AdamW(Tensors parameters, AdamWOptions options, Where where)
    : Adam("AdamW", Decay::decoupled, std::move(parameters),
           {.lr = options.lr,
            .beta1 = options.beta1,
            .beta2 = options.beta2,
            .epsilon = options.epsilon,
            .weight_decay = options.weight_decay},
           where) {}

}  // namespace tandem::nn::optim
