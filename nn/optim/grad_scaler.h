// GradScaler: keeps float16 gradients within the range of the type.
#pragma once

#include <vector>

#include "optimizer.h"

namespace tandem::nn {

struct GradScalerOptions {
  double initial_scale = 65536;
  double growth_factor = 2;        ///< of the scale, after growth_interval steps without an overflow
  double backoff_factor = 0.5;     ///< of the scale, after an overflow
  int64_t growth_interval = 2000;  ///< steps
};

/// Dynamic loss scaling (Micikevicius et al. 2018, arXiv:1710.03740): the loss is multiplied by a factor, so that small
/// gradients don't vanish in float16, and gradients are divided by it before the update. If one of them overflowed, the step
/// is left out, and the factor shrinks. Needed for Autocast to float16; bfloat16 has float32's range and needs none.
///
///   scaler.scale(loss).backward();
///   scaler.step(optimizer);   // instead of optimizer.step()
///   scaler.update();
///
/// Works eagerly, where an overflow skips the step on the host, and in compiled functions, where the update is computed and
/// then chosen or not; both leave parameters and the optimiser's state exactly as they were.
class GradScaler {
 public:
  /// ValueError unless initial_scale > 0, growth_factor > 1, 0 < backoff_factor < 1 and growth_interval >= 1.
  explicit GradScaler(GradScalerOptions options = {}, Where where = Where::current());

  /// The loss times the scale.
  Tensor scale(const Tensor& loss, Where where = Where::current()) const;
  /// Divides the gradients of the optimiser's parameters by the scale, and looks for overflow. step() does it unless it was
  /// done already: call it first to clip gradients, say.
  void unscale(optim::Optimizer& optimizer, Where where = Where::current());
  /// optimizer.step(), unless a gradient is infinite or NaN.
  void step(optim::Optimizer& optimizer, Where where = Where::current());
  /// Adapts the scale, once all optimisers have stepped.
  void update(Where where = Where::current());

  /// The scale now, and whether a gradient overflowed since the last update() (1 or 0): 0-d float32 tensors.
  const Tensor& current_scale() const { return scale_; }
  const Tensor& found_overflow() const { return found_; }
  /// Scale and count of good steps, to be saved with a model.
  std::vector<NamedTensor> state() const { return {{"scale", scale_}, {"good_steps", good_steps_}}; }

 private:
  GradScalerOptions options_;
  Tensor scale_, good_steps_;
  Tensor found_;  ///< since the last update
  std::vector<const optim::Optimizer*> unscaled_;
};

}  // namespace tandem::nn
