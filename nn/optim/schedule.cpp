// Schedules: how the learning rate changes from step to step.
#include "nn/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace tandem::nn::optim {

using tandem::detail::str;

namespace {

template <class... Parts> void check(bool condition, const char* schedule, Where where, const Parts&... parts) {
  if (!condition) throw ValueError(str("nn::optim::", schedule, ": ", parts...), where);
}
void check_factor(double factor, const char* schedule, Where where) {
  check(factor >= 0 && std::isfinite(factor), schedule, where, "factor is ", factor, ", need 0 or more");
}
double power(double factor, int64_t times) { return std::pow(factor, static_cast<double>(times)); }
/// From `begin` to `end` along half a cosine; `along` from 0 to 1.
double half_cosine(double begin, double end, double along) {
  return end + (begin - end) * 0.5 * (1 + std::cos(std::numbers::pi * along));
}

}  // namespace

void Schedule::step(Where where) { set_steps_done(done_ + 1, where); }

void Schedule::set_steps_done(int64_t done, Where where) {
  if (done < 0) throw ValueError(str("nn::optim::Schedule: ", done, " steps done, need 0 or more"), where);
  done_ = done;
  for (size_t group = 0; group < optimizer_.group_count(); ++group)
    optimizer_.set_group_lr(group, lr_after(done, group), where);
}

CosineSchedule::CosineSchedule(Optimizer& optimizer, CosineOptions options, Where where)
    : Schedule(optimizer), options_(options) {
  check(options.steps >= 1, "CosineSchedule", where, "steps is ", options.steps, ": set it to the length of the run");
  check(options.warmup >= 0 && options.warmup <= options.steps, "CosineSchedule", where, "warmup is ", options.warmup,
        ", need 0 to steps (", options.steps, ")");
  check(options.minimum >= 0, "CosineSchedule", where, "minimum is ", options.minimum, ", need 0 or more");
  set_steps_done(0, where);
}

double CosineSchedule::rate(double base, int64_t done) const {
  const auto [steps, warmup, minimum] = options_;
  if (done < warmup) return base * static_cast<double>(done + 1) / static_cast<double>(warmup);
  if (done >= steps) return minimum;
  return half_cosine(base, minimum, static_cast<double>(done - warmup) / static_cast<double>(steps - warmup));
}

StepSchedule::StepSchedule(Optimizer& optimizer, StepOptions options, Where where)
    : Schedule(optimizer), options_(options) {
  check(options.every >= 1, "StepSchedule", where, "every is ", options.every,
        ": set it to the steps between two cuts");
  check_factor(options.factor, "StepSchedule", where);
  set_steps_done(0, where);
}

double StepSchedule::rate(double base, int64_t done) const {
  return base * power(options_.factor, done / options_.every);
}

MultiStepSchedule::MultiStepSchedule(Optimizer& optimizer, MultiStepOptions options, Where where)
    : Schedule(optimizer), options_(std::move(options)) {
  check(std::is_sorted(options_.milestones.begin(), options_.milestones.end()), "MultiStepSchedule", where,
        "the milestones don't ascend: sort them");
  check_factor(options_.factor, "MultiStepSchedule", where);
  set_steps_done(0, where);
}

double MultiStepSchedule::rate(double base, int64_t done) const {
  const auto& all = options_.milestones;
  return base * power(options_.factor, std::upper_bound(all.begin(), all.end(), done) - all.begin());
}

ExponentialSchedule::ExponentialSchedule(Optimizer& optimizer, ExponentialOptions options, Where where)
    : Schedule(optimizer), options_(options) {
  check_factor(options.factor, "ExponentialSchedule", where);
  set_steps_done(0, where);
}

double ExponentialSchedule::rate(double base, int64_t done) const { return base * power(options_.factor, done); }

OneCycleSchedule::OneCycleSchedule(Optimizer& optimizer, OneCycleOptions options, Where where)
    : Schedule(optimizer), options_(options) {
  check(options.steps >= 1, "OneCycleSchedule", where, "steps is ", options.steps, ": set it to the length of the run");
  const double most = options.three_phases ? 0.5 : 1;
  check(options.rising >= 0 && options.rising <= most, "OneCycleSchedule", where, "rising is ", options.rising,
        ", need 0 to ", most);
  check(options.initial_divisor > 0 && options.final_divisor > 0, "OneCycleSchedule", where, "the divisors are ",
        options.initial_divisor, " and ", options.final_divisor, ", need more than 0");
  set_steps_done(0, where);
}

double OneCycleSchedule::rate(double base, int64_t done) const {
  const auto& o = options_;
  const double initial = base / o.initial_divisor, last = initial / o.final_divisor;
  const double end = static_cast<double>(o.steps) - 1, n = std::min(static_cast<double>(done), end);
  const double top = o.rising * static_cast<double>(o.steps) - 1, second = 2 * top;
  const auto between = [&](double from, double to, double begin, double finish) {
    const double along = finish > begin ? (n - begin) / (finish - begin) : 1.0;
    return o.curve == OneCycleOptions::Curve::cosine ? half_cosine(from, to, along) : from + (to - from) * along;
  };
  if (n <= top) return between(initial, base, 0, top);
  if (!o.three_phases) return between(base, last, top, end);
  return n <= second ? between(base, initial, top, second) : between(initial, last, second, end);
}

LambdaSchedule::LambdaSchedule(Optimizer& optimizer, std::function<double(int64_t)> factor, Where where)
    : Schedule(optimizer), factor_(std::move(factor)) {
  check(static_cast<bool>(factor_), "LambdaSchedule", where,
        "the function is empty: pass one from the steps done to a factor");
  set_steps_done(0, where);
}

double LambdaSchedule::rate(double base, int64_t done) const { return base * factor_(done); }

WarmupSchedule::WarmupSchedule(const Schedule& after, WarmupOptions options, Where where)
    : Schedule(after.optimizer()), after_(after), options_(options) {
  check(options.steps >= 0, "WarmupSchedule", where, "steps is ", options.steps, ", need 0 or more");
  check(options.start >= 0 && options.start <= 1, "WarmupSchedule", where, "start is ", options.start, ", need 0 to 1");
  set_steps_done(0, where);
}

double WarmupSchedule::rate(double base, int64_t done) const {
  if (done >= options_.steps) return after_.rate(base, done - options_.steps);
  return base *
         (options_.start + (1 - options_.start) * static_cast<double>(done) / static_cast<double>(options_.steps));
}

PlateauSchedule::PlateauSchedule(Optimizer& optimizer, PlateauOptions options, Where where)
    : optimizer_(optimizer), options_(options) {
  check(options.factor >= 0 && options.factor < 1, "PlateauSchedule", where, "factor is ", options.factor,
        ", need at least 0 and below 1");
  check(options.patience >= 0 && options.cooldown >= 0, "PlateauSchedule", where, "patience is ", options.patience,
        " and cooldown ", options.cooldown, ", need 0 or more");
  const double infinity = std::numeric_limits<double>::infinity();
  state_.best = options.better == PlateauOptions::Better::smaller ? infinity : -infinity;
  for (size_t group = 0; group < optimizer.group_count(); ++group) state_.rates.push_back(optimizer.initial_lr(group));
}

bool PlateauSchedule::is_better(double figure) const {
  const bool relative = options_.threshold_is == PlateauOptions::Threshold::relative;
  const double best = state_.best, by = options_.threshold;
  if (options_.better == PlateauOptions::Better::smaller) return figure < (relative ? best * (1 - by) : best - by);
  return figure > (relative ? best * (1 + by) : best + by);
}

void PlateauSchedule::step(const Tensor& figure, Where where) { step(figure.item<double>(where), where); }

void PlateauSchedule::step(double figure, Where where) {
  State next = state_;
  if (is_better(figure)) {
    next.best = figure;
    next.bad_steps = 0;
  } else {
    ++next.bad_steps;
  }
  if (next.cooldown > 0) {
    --next.cooldown;
    next.bad_steps = 0;
  }
  if (next.bad_steps > options_.patience) {
    for (double& rate : next.rates) {
      const double cut = std::max(rate * options_.factor, options_.minimum);
      if (rate - cut > options_.epsilon) rate = cut;
    }
    next.cooldown = options_.cooldown;
    next.bad_steps = 0;
  }
  set_state(next, where);
}

void PlateauSchedule::set_state(const State& state, Where where) {
  check(state.rates.size() == optimizer_.group_count(), "PlateauSchedule", where, "a state of ", state.rates.size(),
        " rates for an optimiser of ", optimizer_.group_count(), " groups");
  for (size_t group = 0; group < state.rates.size(); ++group)
    if (state.rates[group] != state_.rates[group]) optimizer_.set_group_lr(group, state.rates[group], where);
  state_ = state;
}

}  // namespace tandem::nn::optim
