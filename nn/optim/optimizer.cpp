// Optimizer: what all optimisers share.
#include "nn/optim/optimizer.h"

#include <cmath>
#include <unordered_map>

#include "core/ops/ops.h"

namespace tandem::nn::optim {

using tandem::detail::str;

Optimizer::Optimizer(const char* name, const std::vector<Tensors>& groups, const std::vector<double>& rates,
                     Where where)
    : name_(name) {
  for (size_t g = 0; g < groups.size(); ++g) {
    const size_t begin = parameters_.size();
    parameters_.insert(parameters_.end(), groups[g].begin(), groups[g].end());
    groups_.push_back({begin, parameters_.size(), rates[g], {}});
  }
  check_parameters(where);
  NoGrad no_grad;
  for (Group& group : groups_) {
    check(group.initial_lr >= 0 && std::isfinite(group.initial_lr), where, "the learning rate is ", group.initial_lr,
          ", need 0 or more");
    group.lr = full({}, group.initial_lr, {.device = device()}, where);
  }
}

void Optimizer::check_parameters(Where where) const {
  check(!parameters_.empty(), where,
        "there is nothing to optimise: pass nn::parameters(model) of a model with parameters");
  std::unordered_map<const TensorImpl*, size_t> seen;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& parameter = parameters_[i];
    if (!parameter.defined())
      throw UndefinedError(str("nn::optim::", name_, ": parameter ", i, " is undefined"), where);
    check(parameter.is_leaf(), where, "parameter ", i, " of shape ", parameter.shape(),
          " was computed from others, so backward() leaves it no gradient: pass leaves");
    check(is_floating(parameter.dtype()), where, "parameter ", i, " is ", name_of(parameter.dtype()),
          ": only floating tensors can be optimised");
    const auto [first, is_new] = seen.emplace(parameter.impl(), i);
    check(is_new, where, "parameter ", i, " of shape ", parameter.shape(), " is parameter ", first->second,
          " again, and would be updated twice: give each parameter once, in one group");
    if (parameter.device() != parameters_[0].device())
      throw DeviceError(
          str("nn::optim::", name_, ": parameter 0 is on ", parameters_[0].device(), ", parameter ", i, " on ",
              parameter.device(), ": move the model with nn::to(model, device), or use an optimiser for each device"),
          where);
  }
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
    throw AutogradError(str("nn::optim::", name_, ": none of the ", parameters_.size(),
                            " parameters has a gradient: call loss.backward() between zero_grad() and step(), "
                            "and make the optimiser after nn::to(model, …), which puts new tensors into it"),
                        where);
  NoGrad no_grad;
  WhereScope scope(where);
  update(where);
}

void Optimizer::set_lr(double value, Where where) {
  for (size_t group = 0; group < groups_.size(); ++group) set_group_lr(group, value, where);
}

void Optimizer::set_group_lr(size_t group, double value, Where where) {
  check_group(group, where);
  check(value >= 0 && std::isfinite(value), where, "the learning rate is ", value, ", need 0 or more");
  NoGrad no_grad;
  groups_[group].lr.assign(full({}, value, {.device = device()}, where), where);
}

void Optimizer::make_state(Tensors& to, size_t group, double value, Where where) const {
  NoGrad no_grad;
  to.resize(parameters_.size());
  for (size_t i = groups_[group].begin; i < groups_[group].end; ++i) {
    to[i] = zeros_like(parameters_[i], {}, where);
    if (value != 0) to[i].assign(full({}, value, {.dtype = to[i].dtype(), .device = device()}, where), where);
  }
}

void Optimizer::add_state(std::vector<NamedTensor>& to, const char* name, const Tensors& tensors) {
  for (size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i].defined()) to.push_back({str(name, ".", i), tensors[i]});
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> result;
  for (size_t group = 0; group < groups_.size(); ++group)
    result.push_back({group == 0 ? std::string("lr") : str("lr.", group), groups_[group].lr});
  return result;
}

Tensor detail::widened(const Tensor& x) { return size_of(x.dtype()) == 2 ? x.to(float32) : x; }

}  // namespace tandem::nn::optim
