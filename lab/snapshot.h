// Snapshot: what a step changes outside itself, copied so that it can be put back.
#pragma once

#include <vector>

#include "../graph/trace/tracer.h"

namespace tandem::lab {

/// Values of the state that a step assigns to, gradients that it reads or writes, its arguments, and the random
/// generator. A trace finds them all, whoever owns them; C++ variables that the step changes are not among them.
class Snapshot {
 public:
  Snapshot();
  /// Adds what this trace touches, with the values of now; what is known already keeps its older values.
  void add(const graph::Traced& traced);
  void add(const Tensors& arguments);
  /// Puts everything back.
  void restore() const;
  /// Bytes of the state that the traces read or write.
  int64_t state_bytes() const { return state_bytes_; }

 private:
  struct Values {
    Tensor tensor, copy;
  };
  struct Gradient {
    Tensor tensor;    ///< whose
    Tensor gradient;  ///< the handle; undefined if it had none
    Tensor copy;
  };
  void add_values(const Tensor& tensor);
  void add_gradient(const Tensor& tensor);

  std::vector<Values> values_;
  std::vector<Gradient> gradients_;
  std::vector<Tensor> counted_;
  int64_t state_bytes_ = 0;
  uint64_t seed_ = 0, draws_ = 0;
};

}  // namespace tandem::lab
