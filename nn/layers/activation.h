// Activations as layers, for those who look for PyTorch's names; nn::Sequential takes the functions as well.
#pragma once

#include "../../core/ops/ops.h"

namespace tandem::nn {

struct Relu {
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return relu(Arg(x, where)); }
};
struct Gelu {
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return gelu(Arg(x, where)); }
};
struct Silu {
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return silu(Arg(x, where)); }
};
/// x, or slope x where it is negative.
struct LeakyRelu {
  double slope = 0.01;
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return leaky_relu(Arg(x, where), slope); }
};
struct Tanh {
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return tanh(Arg(x, where)); }
};
struct Sigmoid {
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return sigmoid(Arg(x, where)); }
};

}  // namespace tandem::nn
