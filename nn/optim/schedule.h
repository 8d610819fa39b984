// Schedules: how the learning rate changes from step to step. Formulas are those of torch.optim.lr_scheduler,
// computed from the count of steps, so that any step of a run can be returned to.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "optimizer.h"

namespace tandem::nn::optim {

/// Sets an optimiser's learning rates, once when it is made and again at each step(). A rate is a state
/// tensor, so this traces nothing anew; call it outside of the compiled step. Each group of parameters has
/// its own rate scaled. The optimiser must outlive the schedule.
class Schedule {
 public:
  virtual ~Schedule() = default;
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;

  /// To be called after each of the optimiser's steps (or epochs, if that is what the schedule counts).
  void step(Where where = Where::current());
  /// Steps done; setting it (on resuming a run) sets the rate as well.
  int64_t steps_done() const { return done_; }
  void set_steps_done(int64_t done, Where where = Where::current());
  /// The learning rate of a group after `done` steps.
  double lr_after(int64_t done, size_t group = 0, Where where = Where::current()) const {
    return rate(optimizer_.initial_lr(group, where), done);
  }
  Optimizer& optimizer() const { return optimizer_; }
  /// The rate after `done` steps where the optimiser's options say `base`.
  virtual double rate(double base, int64_t done) const = 0;

 protected:
  explicit Schedule(Optimizer& optimizer) : optimizer_(optimizer) {}

 private:
  Optimizer& optimizer_;
  int64_t done_ = 0;
};

struct CosineOptions {
  int64_t steps = 0;   ///< of the whole run, warm-up included
  int64_t warmup = 0;  ///< steps over which the rate rises
  double minimum = 0;  ///< the rate at the end
};

/// With n steps done, of `steps`, and w = warmup: the rate rises as lr (n + 1) / w while n < w, then falls
/// along half a cosine, minimum + (lr - minimum) (1 + cos(pi (n - w) / (steps - w))) / 2, and stays at
/// minimum (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts).
class CosineSchedule : public Schedule {
 public:
  CosineSchedule(Optimizer& optimizer, CosineOptions options, Where where = Where::current());
  double rate(double base, int64_t done) const override;

 private:
  CosineOptions options_;
};

struct StepOptions {
  int64_t every = 0;  ///< steps between two cuts
  double factor = 0.1;
};
/// lr factor^floor(n / every). As StepLR.
class StepSchedule : public Schedule {
 public:
  StepSchedule(Optimizer& optimizer, StepOptions options, Where where = Where::current());
  double rate(double base, int64_t done) const override;

 private:
  StepOptions options_;
};

struct MultiStepOptions {
  std::vector<int64_t> milestones;  ///< ascending counts of steps
  double factor = 0.1;
};
/// lr factor^(milestones reached). As MultiStepLR.
class MultiStepSchedule : public Schedule {
 public:
  MultiStepSchedule(Optimizer& optimizer, MultiStepOptions options, Where where = Where::current());
  double rate(double base, int64_t done) const override;

 private:
  MultiStepOptions options_;
};

struct ExponentialOptions {
  double factor = 0.99;
};
/// lr factor^n. As ExponentialLR.
class ExponentialSchedule : public Schedule {
 public:
  ExponentialSchedule(Optimizer& optimizer, ExponentialOptions options, Where where = Where::current());
  double rate(double base, int64_t done) const override;

 private:
  ExponentialOptions options_;
};

struct OneCycleOptions {
  enum class Curve { cosine, linear };
  int64_t steps = 0;            ///< of the whole run
  double rising = 0.3;          ///< the part of the run in which the rate rises
  double initial_divisor = 25;  ///< the run starts at lr / initial_divisor
  double final_divisor = 1e4;   ///< and ends at that divided by final_divisor
  Curve curve = Curve::cosine;
  bool three_phases = false;  ///< fall to the initial rate as long as it rose, and only then to the final one
};
/// Up to the optimiser's rate and down again over one run (Smith & Topin 2018, arXiv:1708.07120). As OneCycleLR
/// with max_lr the optimiser's rate and cycle_momentum off. After the last step the final rate stays.
class OneCycleSchedule : public Schedule {
 public:
  OneCycleSchedule(Optimizer& optimizer, OneCycleOptions options, Where where = Where::current());
  double rate(double base, int64_t done) const override;

 private:
  OneCycleOptions options_;
};

/// lr factor(n), whatever function of the steps done that is. As LambdaLR.
class LambdaSchedule : public Schedule {
 public:
  LambdaSchedule(Optimizer& optimizer, std::function<double(int64_t)> factor, Where where = Where::current());
  double rate(double base, int64_t done) const override;

 private:
  std::function<double(int64_t)> factor_;
};

struct WarmupOptions {
  int64_t steps = 0;
  double start = 1.0 / 3;  ///< the first rate, as a part of lr
};
/// While n < steps the rate rises in a line from start lr: lr (start + (1 - start) n / steps); then `after` takes
/// over, counting from 0. As SequentialLR of a LinearLR and `after`. Step this one, not `after`, which must
/// outlive it.
class WarmupSchedule : public Schedule {
 public:
  WarmupSchedule(const Schedule& after, WarmupOptions options, Where where = Where::current());
  double rate(double base, int64_t done) const override;

 private:
  const Schedule& after_;
  WarmupOptions options_;
};

struct PlateauOptions {
  enum class Better { smaller, greater };
  enum class Threshold { relative, absolute };
  Better better = Better::smaller;
  double factor = 0.1;
  int64_t patience = 10;                         ///< steps without improvement that are let pass
  double threshold = 1e-4;                       ///< an improvement must be more than this
  Threshold threshold_is = Threshold::relative;  ///< to the best so far
  int64_t cooldown = 0;                          ///< steps after a cut in which none are counted
  double minimum = 0;
  double epsilon = 1e-8;  ///< smaller changes of the rate are not made
};
/// Multiplies the rates by `factor` when a figure, such as the loss on held-out data, has not improved on its best
/// for more than `patience` steps. As ReduceLROnPlateau.
class PlateauSchedule {
 public:
  explicit PlateauSchedule(Optimizer& optimizer, PlateauOptions options = {}, Where where = Where::current());
  PlateauSchedule(const PlateauSchedule&) = delete;
  PlateauSchedule& operator=(const PlateauSchedule&) = delete;

  void step(double figure, Where where = Where::current());
  /// The same, of a tensor with one element, whose value is read.
  void step(const Tensor& figure, Where where = Where::current());
  double best() const { return state_.best; }
  double lr(size_t group = 0, Where where = Where::current()) const {
    optimizer_.initial_lr(group, where);  // throws if there is no such group
    return state_.rates[group];
  }

  /// All that a checkpoint needs.
  struct State {
    double best = 0;
    int64_t bad_steps = 0, cooldown = 0;
    std::vector<double> rates;
  };
  const State& state() const { return state_; }
  void set_state(const State& state, Where where = Where::current());

 private:
  bool is_better(double figure) const;

  Optimizer& optimizer_;
  PlateauOptions options_;
  State state_;
};

}  // namespace tandem::nn::optim
