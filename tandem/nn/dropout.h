// Dropout: zeroes elements at random while training.
#pragma once

#include "tandem/core/tensor.h"
#include "tandem/nn/training_flag.h"

namespace tandem::nn {

/// While training, zeroes each element with `probability` and scales the others by 1 / (1 - probability);
/// after nn::eval(model), passes its input on (Srivastava et al. 2014).
class Dropout {
 public:
  explicit Dropout(double probability = 0.5, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V>
  void visit(V&& v) {
    v("training", training);
  }

  double probability;
  TrainingFlag training;
};

}  // namespace tandem::nn
