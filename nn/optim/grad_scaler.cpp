// Loss scaling on tensors, so that a compiled step holds all of it.
#include "nn/optim/grad_scaler.h"

#include <algorithm>
#include <cmath>

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem::nn {

GradScaler::GradScaler(GradScalerOptions options, Where where) : options_(options) {
  const auto check = [&](bool good, const char* what, double value, const char* need) {
    if (!good) throw ValueError(tandem::detail::str("nn::GradScaler: ", what, " is ", value, ", need ", need), where);
  };
  check(options.initial_scale > 0 && std::isfinite(options.initial_scale), "initial_scale", options.initial_scale,
        "above 0");
  check(options.growth_factor > 1, "growth_factor", options.growth_factor, "above 1");
  check(options.backoff_factor > 0 && options.backoff_factor < 1, "backoff_factor", options.backoff_factor,
        "between 0 and 1");
  check(options.growth_interval >= 1, "growth_interval", static_cast<double>(options.growth_interval), "1 or more");
  const NoGrad no_grad;
  scale_ = full({}, options.initial_scale, {}, where);
  good_steps_ = zeros({}, {}, where);
  found_ = zeros({}, {}, where);
}

Tensor GradScaler::scale(const Tensor& loss, Where where) const {
  const WhereScope scope(where);
  return loss * scale_.to(loss.device());
}

void GradScaler::unscale(optim::Optimizer& optimizer, Where where) {
  const WhereScope scope(where);
  if (std::find(unscaled_.begin(), unscaled_.end(), &optimizer) != unscaled_.end())
    throw AutogradError("nn::GradScaler: unscale: these gradients are unscaled already; call update() once a step",
                        user_line(where));
  unscaled_.push_back(&optimizer);
  const NoGrad no_grad;
  Tensor total = zeros({});  // 0 times a number that is not finite is NaN
  for (Tensor parameter : optimizer.parameters()) {
    const Tensor gradient = parameter.grad();
    if (!gradient.defined()) continue;
    const Tensor wide = gradient.to(float32);
    total = total + (wide * 0).sum().to(total.device());
    parameter.set_grad((wide / scale_.to(wide.device())).to(gradient.dtype()));
  }
  found_.assign(maximum(found_, (total != 0).to(float32)));
}

void GradScaler::step(optim::Optimizer& optimizer, Where where) {
  const WhereScope scope(where);
  if (std::find(unscaled_.begin(), unscaled_.end(), &optimizer) == unscaled_.end()) unscale(optimizer, where);
  const NoGrad no_grad;
  if (!interceptor()) {
    if (found_.item<float>() == 0) optimizer.step(where);
    return;
  }
  // In a graph nothing is known yet: the update is made, and what it writes is what was there if a gradient overflowed.
  Tensors written = optimizer.parameters(), before;
  for (const NamedTensor& state : optimizer.state()) written.push_back(state.tensor);
  for (const Tensor& tensor : written) before.push_back(tensor.clone());
  optimizer.step(where);
  const Tensor overflow = found_ != 0;
  for (size_t i = 0; i < written.size(); ++i) written[i].assign(tandem::where(overflow, before[i], written[i]));
}

void GradScaler::update(Where where) {
  const WhereScope scope(where);
  const NoGrad no_grad;
  const Tensor overflow = found_ != 0, steps = good_steps_ + 1,
               due = steps >= static_cast<double>(options_.growth_interval);
  const Tensor grown = tandem::where(due, scale_ * options_.growth_factor, scale_);
  const Tensor next = tandem::where(overflow, scale_ * options_.backoff_factor, grown),
               count = tandem::where(overflow, 0.0, tandem::where(due, 0.0, steps));
  scale_.assign(next);
  good_steps_.assign(count);
  found_.assign(zeros({}));
  unscaled_.clear();
}

}  // namespace tandem::nn
