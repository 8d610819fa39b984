// ExponentialMovingAverage: weights averaged over the steps of training.
#include "nn/optim/moving_average.h"

#include "core/ops/ops.h"

namespace tandem::nn {

using tandem::detail::str;

ExponentialMovingAverage::ExponentialMovingAverage(Tensors parameters, MovingAverageOptions options, Where where)
    : parameters_(std::move(parameters)), options_(options) {
  if (!(options.decay >= 0 && options.decay <= 1))
    throw ValueError(str("nn::ExponentialMovingAverage: the decay is ", options.decay, ", need 0 to 1"), where);
  if (parameters_.empty())
    throw ValueError("nn::ExponentialMovingAverage: there is nothing to average: pass nn::parameters(model)", where);
  NoGrad no_grad;
  for (const Tensor& parameter : parameters_) {
    if (!parameter.defined())
      throw UndefinedError("nn::ExponentialMovingAverage: a parameter is undefined: pass nn::parameters(model)", where);
    if (!is_floating(parameter.dtype()))
      throw DTypeError(str("nn::ExponentialMovingAverage: a parameter is ", parameter.dtype(),
                           ": only floating tensors have an average"),
                       where);
    averages_.push_back(size_of(parameter.dtype()) == 2 ? parameter.to(float32, where)
                                                        : parameter.detach(where).clone(where));
  }
  updates_ = zeros({}, {.dtype = float64, .device = parameters_[0].device()}, where);
}

void ExponentialMovingAverage::update(Where where) {
  if (!own_.empty())
    throw ValueError("nn::ExponentialMovingAverage: the parameters hold the averages now: swap() back before update()",
                     where);
  NoGrad no_grad;
  WhereScope scope(where);
  Tensor kept;
  if (options_.warmup) kept = minimum((updates_ + 1) / (updates_ + 10), options_.decay).to(float32);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor change = parameters_[i] - averages_[i];
    averages_[i].assign(averages_[i] + (kept.defined() ? change * (1 - kept) : change * (1 - options_.decay)), where);
  }
  updates_.assign(updates_ + 1, where);
}

void ExponentialMovingAverage::swap(Where where) {
  NoGrad no_grad;
  WhereScope scope(where);
  const bool are_averages = !own_.empty();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!are_averages) own_.push_back(parameters_[i].clone());
    parameters_[i].assign(are_averages ? own_[i] : averages_[i], where);
  }
  if (are_averages) own_.clear();
}

std::vector<NamedTensor> ExponentialMovingAverage::state() const {
  std::vector<NamedTensor> result{{"updates", updates_}};
  for (size_t i = 0; i < averages_.size(); ++i) result.push_back({str("average.", i), averages_[i]});
  return result;
}

}  // namespace tandem::nn
