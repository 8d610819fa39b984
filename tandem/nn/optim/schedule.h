// Schedules: how the learning rate changes from step to step.
#pragma once

#include <cstdint>

#include "tandem/nn/optim/optimizer.h"

namespace tandem::nn::optim {

/// Sets an optimiser's learning rate, once when it is made and again at each step(). The rate is a state
/// tensor, so this traces nothing anew; call it outside of the compiled step. The optimiser must outlive it.
class Schedule {
 public:
  virtual ~Schedule() = default;
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;

  /// To be called after each of the optimiser's steps.
  void step(Where where = Where::current());
  /// Steps done; setting it (on resuming a run) sets the rate as well.
  int64_t steps_done() const { return done_; }
  void set_steps_done(int64_t done, Where where = Where::current());
  /// The learning rate after `done` steps.
  virtual double lr_after(int64_t done) const = 0;

 protected:
  explicit Schedule(Optimizer& optimizer) : optimizer_(optimizer), base_(optimizer.initial_lr()) {}
  double base() const { return base_; }

 private:
  Optimizer& optimizer_;
  double base_;
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
  double lr_after(int64_t done) const override;

 private:
  CosineOptions options_;
};

}  // namespace tandem::nn::optim
