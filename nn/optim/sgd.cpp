// Sgd: steepest descent, with momentum.
#include "nn/optim/sgd.h"

#include "core/ops/ops.h"

namespace tandem::nn::optim {

Sgd::Sgd(Groups groups, Where where) : GroupedOptimizer("Sgd", groups, where) {
  buffers_.resize(parameters().size());
  for (size_t group = 0; group < group_count(); ++group) {
    const SgdOptions& o = options(group);
    check(o.momentum >= 0, where, "momentum is ", o.momentum, ", need 0 or more");
    check(o.weight_decay >= 0, where, "weight_decay is ", o.weight_decay, ", need 0 or more");
    check(!o.nesterov || (o.momentum > 0 && o.dampening == 0), where,
          "nesterov needs momentum above 0 and no dampening, got ", o.momentum, " and ", o.dampening);
    if (o.momentum > 0) make_state(buffers_, group, 0, where);
  }
}

void Sgd::update(Where where) {
  static const Op& sgd = find_op("sgd");
  for (size_t group = 0; group < group_count(); ++group) {
    const SgdOptions& o = options(group);
    const Attributes attributes{{"momentum", o.momentum},
                                {"dampening", o.dampening},
                                {"weight_decay", o.weight_decay},
                                {"nesterov", o.nesterov}};
    for_each_gradient(group, [&](size_t i, Tensor parameter, const Tensor& gradient) {
      if (o.momentum == 0) {
        // Without momentum the op hands its buffer through: the gradient takes the place, and stays as it is.
        const Tensor inputs[] = {parameter, gradient, gradient, lr(group)};
        Tensor targets[] = {parameter, Tensor()};
        dispatch_in_place(sgd, inputs, attributes, targets, where);
        return;
      }
      const Tensor inputs[] = {parameter, gradient, buffers_[i], lr(group)};
      Tensor targets[] = {parameter, buffers_[i]};
      dispatch_in_place(sgd, inputs, attributes, targets, where);
    });
  }
}

std::vector<NamedTensor> Sgd::state() const {
  std::vector<NamedTensor> result = Optimizer::state();
  add_state(result, "momentum", buffers_);
  return result;
}

}  // namespace tandem::nn::optim
