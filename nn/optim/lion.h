// Lion: steps of one size, in the direction of the sign of a running mean.
#pragma once

#include "optimizer.h"

namespace tandem::nn::optim {

struct LionOptions {
  double lr = 1e-4;
  double beta1 = 0.9, beta2 = 0.99;
  double weight_decay = 0;
};

/// p = p (1 - lr weight_decay) - lr sign(beta1 m + (1 - beta1) g);  then m = beta2 m + (1 - beta2) g
/// (Chen et al. 2023, arXiv:2302.06675, algorithm 2). Its rates are some 3 to 10 times smaller than Adam's,
/// its weight decay as much larger.
class Lion : public GroupedOptimizer<LionOptions> {
 public:
  explicit Lion(Tensors parameters, LionOptions options = {}, Where where = Where::current())
      : Lion(Groups{{std::move(parameters), options}}, where) {}
  Lion(std::initializer_list<Group> groups, Where where = Where::current()) : Lion(Groups(groups), where) {}
  explicit Lion(Groups groups, Where where = Where::current());
  std::vector<NamedTensor> state() const override;

 protected:
  void update(Where where) override;

 private:
  Tensors means_;
};

}  // namespace tandem::nn::optim
