// Sgd: steepest descent, with momentum.
#pragma once

#include "optimizer.h"

namespace tandem::nn::optim {

struct SgdOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
};

/// g = grad + weight_decay * p;  b = momentum * b + (1 - dampening) * g;  p = p - lr * d,
/// where d = g without momentum, g + momentum * b with nesterov, else b. As torch.optim.SGD, but that b
/// starts at 0 (there, the first b is g without dampening).
class Sgd : public GroupedOptimizer<SgdOptions> {
 public:
  explicit Sgd(Tensors parameters, SgdOptions options = {}, Where where = Where::current())
      : Sgd(Groups{{std::move(parameters), options}}, where) {}
  Sgd(std::initializer_list<Group> groups, Where where = Where::current()) : Sgd(Groups(groups), where) {}
  explicit Sgd(Groups groups, Where where = Where::current());
  std::vector<NamedTensor> state() const override;

 protected:
  void update(Where where) override;

 private:
  Tensors buffers_;  ///< undefined without momentum
};

}  // namespace tandem::nn::optim
