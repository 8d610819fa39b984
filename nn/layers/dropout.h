// Dropout, Dropout2d: zero elements, or whole channels, at random while training.
#pragma once

#include "../../core/tensor.h"
#include "../training_flag.h"

namespace tandem::nn {

/// While training, zeroes each element with `probability` and scales the others by 1 / (1 - probability);
/// after nn::eval(model), passes its input on (Srivastava et al. 2014).
class Dropout {
 public:
  explicit Dropout(double probability = 0.5, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) { v("training", training); }

  double probability;
  TrainingFlag training;
};

/// The same for whole channels of x [batch, channels, ..]: neighbours in an image say much the same, so that zeroing one
/// of them takes little away (Tompson et al. 2015, arXiv:1411.4280).
class Dropout2d {
 public:
  explicit Dropout2d(double probability = 0.5, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;

  template <class V> void visit(V&& v) { v("training", training); }

  double probability;
  TrainingFlag training;
};

/// Passes its input on: a place for a layer that may be left out.
struct Identity {
  Tensor operator()(const Tensor& x) const { return x; }
};

}  // namespace tandem::nn
