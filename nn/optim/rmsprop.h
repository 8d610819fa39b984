// RmsProp: steps scaled by a running mean of squared gradients.
#pragma once

#include "optimizer.h"

namespace tandem::nn::optim {

struct RmsPropOptions {
  double lr = 1e-2;
  double alpha = 0.99;  ///< how much of the running mean is kept
  double epsilon = 1e-8;
  double momentum = 0;
  double weight_decay = 0;
  bool centered = false;  ///< divide by the deviation about the running mean of g
};

/// g = grad + weight_decay p;  v = alpha v + (1 - alpha) g²;  d = g / (sqrt(v) + epsilon), where with `centered`
/// v is less m², m = alpha m + (1 - alpha) g;  b = momentum b + d;  p = p - lr b   (Hinton 2012, lecture 6e;
/// Graves 2013, arXiv:1308.0850, for the centred form). As torch.optim.RMSprop.
class RmsProp : public GroupedOptimizer<RmsPropOptions> {
 public:
  explicit RmsProp(Tensors parameters, RmsPropOptions options = {}, Where where = Where::current())
      : RmsProp(Groups{{std::move(parameters), options}}, where) {}
  RmsProp(std::initializer_list<Group> groups, Where where = Where::current()) : RmsProp(Groups(groups), where) {}
  explicit RmsProp(Groups groups, Where where = Where::current());
  std::vector<NamedTensor> state() const override;

 protected:
  void update(Where where) override;

 private:
  Tensors squares_;
  Tensors means_;    ///< undefined unless centred
  Tensors buffers_;  ///< undefined without momentum
};

}  // namespace tandem::nn::optim
