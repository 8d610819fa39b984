// TrainingFlag: whether a layer trains or predicts, as something that a compiled function can watch.
#pragma once

#include <memory>

namespace tandem::nn {

/// A flag that `nn::train(model)` sets and `nn::eval(model)` clears. Reading it while a function is being
/// traced makes the trace depend on it, so a compiled function has one specialisation for each value.
/// Copies share the flag, as copies of a Tensor share their values.
class TrainingFlag {
 public:
  explicit TrainingFlag(bool value = true);

  operator bool() const;
  void set(bool value) { *value_ = value; }

 private:
  // Traces remember the address, and may outlive the model: it comes from a pool that is never given back.
  std::shared_ptr<bool> value_;
};

}  // namespace tandem::nn
