// Optimizer: what all optimisers share: the parameters, the learning rate, the errors.
#pragma once

#include <string>
#include <vector>

#include "tandem/core/tensor.h"
#include "tandem/nn/reflect.h"

namespace tandem::nn::optim {

/// Base of the optimisers. All that a step reads and writes is tensors made at construction, so a compiled
/// step treats them as state: changing the learning rate, or counting steps, traces nothing anew.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Forgets all gradients.
  void zero_grad(Where where = Where::current());
  /// Updates every parameter that has a gradient. AutogradError if none has.
  void step(Where where = Where::current());

  /// The learning rate: a 0-d float32 tensor on the parameters' device.
  const Tensor& lr() const { return lr_; }
  void set_lr(double value, Where where = Where::current());
  /// The learning rate that the options gave: what schedules scale.
  double initial_lr() const { return initial_lr_; }

  const Tensors& parameters() const { return parameters_; }
  /// All tensors of the optimiser's own (learning rate, moments, step count), for checkpoints.
  virtual std::vector<NamedTensor> state() const;

 protected:
  /// `name` is the class's, for errors.
  Optimizer(const char* name, Tensors parameters, double lr, Where where);
  /// Called once a step, without recording.
  virtual void update(Where where) = 0;
  /// Throws ValueError "nn::optim::Name: parts" unless `condition`.
  template <class... Parts>
  void check(bool condition, Where where, const Parts&... parts) const {
    if (!condition) fail(tandem::detail::str(parts...), where);
  }
  /// One tensor of zeros for each parameter.
  Tensors zeros_for_each(Where where) const;
  Device device() const { return lr_.device(); }

 private:
  [[noreturn]] void fail(const std::string& message, Where where) const;

  const char* name_;
  Tensors parameters_;
  double initial_lr_;
  Tensor lr_;
};

}  // namespace tandem::nn::optim
