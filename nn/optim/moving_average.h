// ExponentialMovingAverage: weights averaged over the steps of training.
#pragma once

#include "../reflect.h"

namespace tandem::nn {

struct MovingAverageOptions {
  double decay = 0.999;
  /// Keep less at first: min(decay, (1 + n) / (10 + n)) in update n, counted from 0.
  bool warmup = false;
};

/// An exponential moving average of parameters: each update() makes it decay average + (1 - decay) parameter,
/// starting from the values at construction. The averages are kept in float32 at least.
///
///   nn::ExponentialMovingAverage average(nn::parameters(model));
///   … optimizer.step(); average.update(); …         // may stand in the compiled step
///   {
///     const auto averaged = average.use();           // the model has the averages
///     evaluate(model);
///   }                                                // and its own weights again
class ExponentialMovingAverage {
 public:
  explicit ExponentialMovingAverage(Tensors parameters, MovingAverageOptions options = {},
                                    Where where = Where::current());
  ExponentialMovingAverage(const ExponentialMovingAverage&) = delete;
  ExponentialMovingAverage& operator=(const ExponentialMovingAverage&) = delete;

  void update(Where where = Where::current());
  /// Puts the averages into the parameters, or, at the next call, the parameters' own values back. Not for the
  /// inside of a compiled function.
  void swap(Where where = Where::current());
  /// Swaps now, and back when what is returned goes out of scope.
  [[nodiscard]] auto use(Where where = Where::current()) { return Use(*this, where); }

  const Tensors& averages() const { return averages_; }
  /// The averages and the count of updates, for checkpoints.
  std::vector<NamedTensor> state() const;

 private:
  class Use {
   public:
    Use(ExponentialMovingAverage& average, Where where) : average_(average), where_(where) { average.swap(where); }
    ~Use() { average_.swap(where_); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    ExponentialMovingAverage& average_;
    Where where_;
  };

  Tensors parameters_, averages_;
  Tensors own_;  ///< the parameters' values while they hold the averages
  MovingAverageOptions options_;
  Tensor updates_;  ///< 0-d float64
};

}  // namespace tandem::nn
