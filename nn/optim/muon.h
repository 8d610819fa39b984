// Muon: momentum made orthogonal, for the weight matrices of hidden layers.
#pragma once

#include "optimizer.h"

namespace tandem::nn::optim {

struct MuonOptions {
  double lr = 0.02;
  double momentum = 0.95;
  bool nesterov = true;
  double weight_decay = 0;  ///< p is first scaled by 1 - lr weight_decay
  int steps = 5;            ///< of Newton and Schulz's iteration
  /// Parameters that aren't matrices are AdamW's, at a rate of its own. A schedule scales both alike.
  double adamw_lr = 3e-4;
  double beta1 = 0.9, beta2 = 0.95;
  double epsilon = 1e-10;
  double adamw_weight_decay = 0;
  /// False leaves matrices to AdamW as well: those of embeddings and of the output layer, which Muon isn't for.
  bool orthogonalise = true;
};

/// For parameters [rows, columns]: m = momentum m + (1 - momentum) g;  d = orthogonal(g (1 - momentum) + momentum m
/// with nesterov, else m);  p = p - lr sqrt(max(1, rows / columns)) d. orthogonal(G) is about the nearest matrix
/// whose singular values are all 1, by `steps` times X = a X + (b A + c A²) X with A = X Xᵀ, from X = G / |G|
/// (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", with its a, b, c). Other
/// parameters (biases, gains, filters) are updated as by AdamW. Give embeddings and the output layer in a group
/// with `.orthogonalise = false`.
class Muon : public GroupedOptimizer<MuonOptions> {
 public:
  explicit Muon(Tensors parameters, MuonOptions options = {}, Where where = Where::current())
      : Muon(Groups{{std::move(parameters), options}}, where) {}
  Muon(std::initializer_list<Group> groups, Where where = Where::current()) : Muon(Groups(groups), where) {}
  explicit Muon(Groups groups, Where where = Where::current());
  std::vector<NamedTensor> state() const override;

 protected:
  void update(Where where) override;

 private:
  bool is_orthogonal(size_t group, size_t i) const;

  Tensors buffers_;            ///< of matrices
  Tensors means_, variances_;  ///< of the others
  Tensor steps_;               ///< 0-d float64
};

/// About the nearest matrix to `g` [rows, columns] whose singular values are all 1; they come out between 0.7 and
/// 1.2 (same reference). Computed in float32 at least.
Tensor newton_schulz(const Tensor& g, int steps = 5, Where where = Where::current());

}  // namespace tandem::nn::optim
