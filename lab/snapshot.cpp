// Snapshot: what a step changes outside itself, copied so that it can be put back.
#include "lab/snapshot.h"

#include <algorithm>

#include "core/dispatch.h"
#include "core/random.h"

namespace tandem::lab {

Snapshot::Snapshot() : seed_(default_generator().seed()), draws_(default_generator().draws()) {}

void Snapshot::add_values(const Tensor& tensor) {
  if (!tensor.defined()) return;
  for (const Values& known : values_)
    if (known.tensor.impl() == tensor.impl()) return;
  NoGrad guard;
  values_.push_back({tensor, tensor.detach().clone()});
}

void Snapshot::add_gradient(const Tensor& tensor) {
  if (!tensor.defined()) return;
  for (const Gradient& known : gradients_)
    if (known.tensor.impl() == tensor.impl()) return;
  NoGrad guard;
  // Not grad(): where a trace is under way it would be part of that.
  const Tensor& gradient = tensor.impl()->grad;
  gradients_.push_back({tensor, gradient, gradient.defined() ? gradient.detach().clone() : Tensor()});
}

void Snapshot::add(const graph::Traced& traced) {
  const Graph& graph = traced.graph;
  for (const StateWrite& write : graph.writes) add_values(graph.leaves[static_cast<size_t>(write.leaf)].tensor);
  for (const Leaf& leaf : graph.leaves) {
    if (leaf.kind == LeafKind::gradient && leaf.tensor.defined()) add_gradient(leaf.tensor);
    if (leaf.kind != LeafKind::state || !leaf.tensor.defined()) continue;
    const auto same = [&](const Tensor& other) { return other.shares_storage(leaf.tensor); };
    if (std::none_of(counted_.begin(), counted_.end(), same)) {
      counted_.push_back(leaf.tensor);
      state_bytes_ += leaf.tensor.numel() * size_of(leaf.tensor.dtype());
    }
  }
  for (const GradientWrite& write : graph.gradients) add_gradient(write.tensor);
  for (const graph::GradientGuard& guard : traced.guards.gradients) add_gradient(guard.tensor);
}

void Snapshot::add(const Tensors& arguments) {
  for (const Tensor& argument : arguments) {
    add_values(argument);
    add_gradient(argument);
  }
}

void Snapshot::restore() const {
  NoGrad guard;
  for (const Values& each : values_) Tensor(each.tensor).assign(each.copy);
  for (const Gradient& each : gradients_) {
    each.tensor.impl()->grad = each.gradient;
    if (each.gradient.defined()) Tensor(each.gradient).assign(each.copy);
  }
  default_generator().seed(seed_);
  default_generator().set_draws(draws_);
}

}  // namespace tandem::lab
