// Muon: momentum made orthogonal, for the weight matrices of hidden layers.
#include "nn/optim/muon.h"

#include <cmath>

#include "core/ops/ops.h"
#include "nn/optim/adam.h"

namespace tandem::nn::optim {

Muon::Muon(Groups groups, Where where) : GroupedOptimizer("Muon", groups, where) {
  const size_t count = parameters().size();
  buffers_.resize(count), means_.resize(count), variances_.resize(count);
  for (size_t group = 0; group < group_count(); ++group) {
    const MuonOptions& o = options(group);
    check(o.momentum >= 0 && o.momentum < 1, where, "momentum is ", o.momentum, ", need at least 0 and below 1");
    check(o.weight_decay >= 0 && o.adamw_weight_decay >= 0, where, "weight decay is ",
          std::min(o.weight_decay, o.adamw_weight_decay), ", need 0 or more");
    check(o.steps >= 1, where, "steps is ", o.steps, ", need at least 1");
    check(o.adamw_lr >= 0 && std::isfinite(o.adamw_lr), where, "adamw_lr is ", o.adamw_lr, ", need 0 or more");
    check(o.lr > 0 || o.adamw_lr == 0, where, "lr is 0 and adamw_lr ", o.adamw_lr,
          ", which is scaled along with lr: use AdamW");
    check(o.beta1 >= 0 && o.beta1 < 1, where, "beta1 is ", o.beta1, ", need at least 0 and below 1");
    check(o.beta2 >= 0 && o.beta2 < 1, where, "beta2 is ", o.beta2, ", need at least 0 and below 1");
    const auto [begin, end] = range(group);
    for (size_t i = begin; i < end; ++i) {
      if (is_orthogonal(group, i)) {
        buffers_[i] = zeros_like(parameters()[i], {}, where);
      } else {
        means_[i] = zeros_like(parameters()[i], {}, where);
        variances_[i] = zeros_like(parameters()[i], {}, where);
      }
    }
  }
  steps_ = zeros({}, {.dtype = float64, .device = device()}, where);
}

bool Muon::is_orthogonal(size_t group, size_t i) const {
  return options(group).orthogonalise && parameters()[i].rank() == 2;
}

void Muon::update(Where where) {
  steps_.assign(steps_ + 1, where);
  for (size_t group = 0; group < group_count(); ++group) {
    const MuonOptions& o = options(group);
    std::pair<Tensor, Tensor> corrections;
    Tensor adamw_lr;
    const Attributes attributes{{"beta1", o.beta1},
                                {"beta2", o.beta2},
                                {"epsilon", o.epsilon},
                                {"weight_decay", o.adamw_weight_decay},
                                {"decoupled", true}};
    for_each_gradient(group, [&](size_t i, Tensor parameter, const Tensor& gradient) {
      if (!is_orthogonal(group, i)) {
        if (!adamw_lr.defined()) {
          corrections = detail::adam_corrections(o.beta1, o.beta2, steps_);
          adamw_lr = o.lr > 0 ? lr(group) * (o.adamw_lr / o.lr) : lr(group);
        }
        detail::adam_update(parameter, gradient, means_[i], variances_[i], adamw_lr, corrections, attributes, where);
        return;
      }
      Tensor p = detail::widened(parameter);
      const Tensor g = detail::widened(gradient), before = detail::widened(buffers_[i]);
      const Tensor next = before + (g - before) * (1 - o.momentum);
      const Tensor direction = newton_schulz(o.nesterov ? g + (next - g) * o.momentum : next, o.steps, where);
      const double ratio = static_cast<double>(p.shape()[0]) / static_cast<double>(std::max<int64_t>(p.shape()[1], 1));
      if (o.weight_decay != 0) p = p * (1 - lr(group) * o.weight_decay);
      buffers_[i].assign(next, where);
      parameter.assign(p - direction * (lr(group) * std::sqrt(std::max(1.0, ratio))), where);
    });
  }
}

std::vector<NamedTensor> Muon::state() const {
  std::vector<NamedTensor> result = Optimizer::state();
  result.push_back({"steps", steps_});
  add_state(result, "momentum", buffers_);
  add_state(result, "mean", means_);
  add_state(result, "variance", variances_);
  return result;
}

Tensor newton_schulz(const Tensor& g, int steps, Where where) {
  if (g.rank(where) != 2)
    throw ShapeError(tandem::detail::str("nn::optim::newton_schulz: needs a matrix, got ", g.shape(),
                                         ": flatten the dims after the first"),
                     where);
  WhereScope scope(where);
  const bool is_tall = g.shape()[0] > g.shape()[1];
  Tensor x = detail::widened(is_tall ? g.transpose(0, 1) : g);
  x = x / (sqrt(sum(square(x))) + 1e-7);
  for (int step = 0; step < steps; ++step) {
    const Tensor a = matmul(x, x.transpose(0, 1));
    x = x * 3.4445 + matmul(a * -4.7750 + matmul(a, a) * 2.0315, x);
  }
  return is_tall ? x.transpose(0, 1) : x;
}

}  // namespace tandem::nn::optim
