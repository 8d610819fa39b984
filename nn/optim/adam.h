// Adam and AdamW: steps scaled by running moments of the gradient.
#pragma once

#include "../../core/attributes.h"
#include "optimizer.h"

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
class Adam : public GroupedOptimizer<AdamOptions> {
 public:
  explicit Adam(Tensors parameters, AdamOptions options = {}, Where where = Where::current())
      : Adam(Groups{{std::move(parameters), options}}, where) {}
  Adam(std::initializer_list<Group> groups, Where where = Where::current()) : Adam(Groups(groups), where) {}
  explicit Adam(Groups groups, Where where = Where::current());
  std::vector<NamedTensor> state() const override;

 protected:
  enum class Decay { added_to_gradient, decoupled };
  Adam(const char* name, Decay decay, const Groups& groups, Where where);
  void update(Where where) override;

 private:
  Decay decay_;
  Tensors means_, variances_;
  Tensor steps_;  ///< 0-d float64, t above
};

/// The same with weight decay apart from the gradient: p is first scaled by 1 - lr * weight_decay (Loshchilov
/// & Hutter 2019, arXiv:1711.05101), as torch.optim.AdamW does.
class AdamW : public Adam {
 public:
  using Group = ParameterGroup<AdamWOptions>;
  using Groups = std::vector<Group>;
  explicit AdamW(Tensors parameters, AdamWOptions options = {}, Where where = Where::current())
      : AdamW(Groups{{std::move(parameters), options}}, where) {}
  AdamW(std::initializer_list<Group> groups, Where where = Where::current()) : AdamW(Groups(groups), where) {}
  explicit AdamW(const Groups& groups, Where where = Where::current());
};

namespace detail {
/// The 0-d float32 tensors 1 - beta1^t and sqrt(1 - beta2^t) that Adam's moments are divided by, computed in
/// float64: 1 - 0.999f is off by 1e-5.
std::pair<Tensor, Tensor> adam_corrections(double beta1, double beta2, const Tensor& steps);
/// One parameter's update by the op adamw, in place.
void adam_update(const Tensor& parameter, const Tensor& gradient, const Tensor& mean, const Tensor& variance,
                 const Tensor& lr, const std::pair<Tensor, Tensor>& corrections, const Attributes& attributes,
                 Where where);
}  // namespace detail

}  // namespace tandem::nn::optim
