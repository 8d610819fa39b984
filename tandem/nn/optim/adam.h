// Adam and AdamW: steps scaled by running moments of the gradient.
#pragma once

#include "tandem/nn/optim/optimizer.h"

namespace tandem::nn::optim {

struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
};
struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;
};

/// m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g²;
/// p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)   (Kingma & Ba 2015,
/// arXiv:1412.6980), where weight decay is added to g, as torch.optim.Adam does.
class Adam : public Optimizer {
 public:
  explicit Adam(Tensors parameters, AdamOptions options = {}, Where where = Where::current());
  std::vector<NamedTensor> state() const override;

 protected:
  enum class Decay { added_to_gradient, decoupled };
  Adam(const char* name, Decay decay, Tensors parameters, const AdamOptions& options, Where where);
  void update(Where where) override;

 private:
  AdamOptions options_;
  Decay decay_;
  Tensors means_, variances_;
  Tensor steps_;  ///< 0-d float64, t above
};

/// The same with weight decay apart from the gradient: p is first scaled by 1 - lr * weight_decay (Loshchilov
/// & Hutter 2019, arXiv:1711.05101), as torch.optim.AdamW does.
class AdamW : public Adam {
 public:
  explicit AdamW(Tensors parameters, AdamWOptions options = {}, Where where = Where::current());
};

}  // namespace tandem::nn::optim
