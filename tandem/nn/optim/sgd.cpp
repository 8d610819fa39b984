// Sgd: steepest descent, with momentum.
#include "tandem/nn/optim/sgd.h"

#include "tandem/core/ops.h"

namespace tandem::nn::optim {

using tandem::detail::str;

Sgd::Sgd(Tensors parameters, SgdOptions options, Where where)
    : Optimizer("Sgd", std::move(parameters), options.lr, where), options_(options) {
  check(options.momentum >= 0, where, "momentum is ", options.momentum, ", need 0 or more");
  check(options.weight_decay >= 0, where, "weight_decay is ", options.weight_decay, ", need 0 or more");
  check(!options.nesterov || (options.momentum > 0 && options.dampening == 0), where,
        "nesterov needs momentum above 0 and no dampening, got ", options.momentum, " and ",
        options.dampening);
  if (options.momentum > 0) buffers_ = zeros_for_each(where);
}

void Sgd::update(Where where) {
  static const Op& sgd = find_op("sgd");
  const Attributes attributes{{"momentum", options_.momentum},
                              {"dampening", options_.dampening},
                              {"weight_decay", options_.weight_decay},
                              {"nesterov", options_.nesterov}};
  for (size_t i = 0; i < parameters().size(); ++i) {
    Tensor parameter = parameters()[i];
    const Tensor gradient = parameter.grad();
    if (!gradient.defined()) continue;
    if (buffers_.empty()) {
      // Without momentum the op hands its buffer through: the gradient takes the place, and stays as it is.
      if (!interceptor()) {
        const Tensor inputs[] = {parameter, gradient, gradient, lr()};
        Tensor targets[] = {parameter, gradient};
        dispatch_in_place(sgd, inputs, attributes, targets, where);
        continue;
      }
      const Tensor g = options_.weight_decay != 0 ? gradient + options_.weight_decay * parameter : gradient;
      parameter.assign(parameter - lr() * g, where);
      continue;
    }
    const Tensor inputs[] = {parameter, gradient, buffers_[i], lr()};
    Tensor targets[] = {parameter, buffers_[i]};
    dispatch_in_place(sgd, inputs, attributes, targets, where);
  }
}

std::vector<NamedTensor> Sgd::state() const {
  std::vector<NamedTensor> result = Optimizer::state();
  for (size_t i = 0; i < buffers_.size(); ++i) result.push_back({str("momentum.", i), buffers_[i]});
  return result;
}

}  // namespace tandem::nn::optim
