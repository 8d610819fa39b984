// Adagrad: steps scaled by all squared gradients so far.
#pragma once

#include "optimizer.h"

namespace tandem::nn::optim {

struct AdagradOptions {
  double lr = 1e-2;
  double lr_decay = 0;
  double epsilon = 1e-10;
  double weight_decay = 0;
  double initial_sum = 0;  ///< what the sums of squares start from
};

/// g = grad + weight_decay p;  s = s + g²;  p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + epsilon)
/// (Duchi et al. 2011, JMLR 12), t counting steps from 1. As torch.optim.Adagrad.
class Adagrad : public GroupedOptimizer<AdagradOptions> {
 public:
  explicit Adagrad(Tensors parameters, AdagradOptions options = {}, Where where = Where::current())
      : Adagrad(Groups{{std::move(parameters), options}}, where) {}
  Adagrad(std::initializer_list<Group> groups, Where where = Where::current()) : Adagrad(Groups(groups), where) {}
  explicit Adagrad(Groups groups, Where where = Where::current());
  std::vector<NamedTensor> state() const override;

 protected:
  void update(Where where) override;

 private:
  Tensors sums_;
  Tensor steps_;  ///< 0-d float64, t above
};

}  // namespace tandem::nn::optim
