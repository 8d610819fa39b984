// Schedules: how the learning rate changes from step to step.
#include "tandem/nn/optim/schedule.h"

#include <cmath>
#include <numbers>

namespace tandem::nn::optim {

using tandem::detail::str;

void Schedule::step(Where where) { set_steps_done(done_ + 1, where); }

void Schedule::set_steps_done(int64_t done, Where where) {
  if (done < 0) throw ValueError(str("nn::optim::Schedule: ", done, " steps done, need 0 or more"), where);
  done_ = done;
  optimizer_.set_lr(lr_after(done), where);
}

CosineSchedule::CosineSchedule(Optimizer& optimizer, CosineOptions options, Where where)
    : Schedule(optimizer), options_(options) {
  if (options.steps < 1)
    throw ValueError(
        str("nn::optim::CosineSchedule: steps is ", options.steps, ": set it to the length of the run"),
        where);
  if (options.warmup < 0 || options.warmup > options.steps)
    throw ValueError(str("nn::optim::CosineSchedule: warmup is ", options.warmup, ", need 0 to steps (",
                         options.steps, ")"),
                     where);
  if (!(options.minimum >= 0))
    throw ValueError(str("nn::optim::CosineSchedule: minimum is ", options.minimum, ", need 0 or more"),
                     where);
  set_steps_done(0, where);
}

double CosineSchedule::lr_after(int64_t done) const {
  const auto [steps, warmup, minimum] = options_;
  if (done < warmup) return base() * static_cast<double>(done + 1) / static_cast<double>(warmup);
  if (done >= steps) return minimum;
  const double along = static_cast<double>(done - warmup) / static_cast<double>(steps - warmup);
  return minimum + (base() - minimum) * 0.5 * (1 + std::cos(std::numbers::pi * along));
}

}  // namespace tandem::nn::optim
