// Optimizer: what all optimisers share.
#include "tandem/nn/optim/optimizer.h"

#include <cmath>

#include "tandem/core/ops.h"

namespace tandem::nn::optim {

using tandem::detail::str;

Optimizer::Optimizer(const char* name, Tensors parameters, double lr, Where where)
    : name_(name), parameters_(std::move(parameters)), initial_lr_(lr) {
  check(!parameters_.empty(), where,
        "there is nothing to optimise: pass nn::parameters(model) of a model with parameters");
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& parameter = parameters_[i];
    if (!parameter.defined())
      throw UndefinedError(str("nn::optim::", name_, ": parameter ", i, " is undefined"), where);
    check(parameter.is_leaf(), where, "parameter ", i, " of shape ", parameter.shape(),
          " was computed from others, so backward() leaves it no gradient: pass leaves");
    check(is_floating(parameter.dtype()), where, "parameter ", i, " is ", name_of(parameter.dtype()),
          ": only floating tensors can be optimised");
    if (parameter.device() != parameters_[0].device())
      throw DeviceError(
          str("nn::optim::", name_, ": parameter 0 is on ", parameters_[0].device(), ", parameter ", i,
              " on ", parameter.device(),
              ": move the model with nn::to(model, device), or use an optimiser for each device"),
          where);
  }
  check(lr >= 0 && std::isfinite(lr), where, "the learning rate is ", lr, ", need 0 or more");
  NoGrad no_grad;
  lr_ = full({}, lr, {.device = parameters_[0].device()}, where);
}

void Optimizer::fail(const std::string& message, Where where) const {
  throw ValueError(str("nn::optim::", name_, ": ", message), where);
}

void Optimizer::zero_grad(Where where) {
  for (Tensor& parameter : parameters_) parameter.set_grad({}, where);
}

void Optimizer::step(Where where) {
  bool has_gradient = false;
  for (const Tensor& parameter : parameters_) has_gradient = has_gradient || parameter.grad().defined();
  if (!has_gradient)
    throw AutogradError(
        str("nn::optim::", name_, ": none of the ", parameters_.size(),
            " parameters has a gradient: call loss.backward() between zero_grad() and step(), "
            "and make the optimiser after nn::to(model, …), which puts new tensors into it"),
        where);
  NoGrad no_grad;
  WhereScope scope(where);
  update(where);
}

void Optimizer::set_lr(double value, Where where) {
  check(value >= 0 && std::isfinite(value), where, "the learning rate is ", value, ", need 0 or more");
  NoGrad no_grad;
  lr_.assign(full({}, value, {.device = device()}, where), where);
}

Tensors Optimizer::zeros_for_each(Where where) const {
  NoGrad no_grad;
  Tensors result;
  result.reserve(parameters_.size());
  for (const Tensor& parameter : parameters_) result.push_back(zeros_like(parameter, where));
  return result;
}

std::vector<NamedTensor> Optimizer::state() const { return {{"lr", lr_}}; }

}  // namespace tandem::nn::optim
