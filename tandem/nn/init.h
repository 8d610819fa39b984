// Initial values of weights: the distributions that PyTorch's layers start from.
#pragma once

#include "tandem/core/tensor.h"

namespace tandem::nn::init {

/// How many inputs each output sums, and how many outputs each input reaches, for a weight of shape
/// [out, in, …]; further extents (a convolution's kernel) multiply both.
struct Fans {
  int64_t in = 0, out = 0;
};
Fans fans(const Shape& weight, Where where = Where::current());

struct KaimingOptions {
  double negative_slope = 0;  ///< of the leaky ReLU that follows; 0 is ReLU
};

/// U(low, high).
Tensor uniform(const Shape& shape, double low, double high, TensorOptions options = {},
               Where where = Where::current());
/// N(mean, deviation²).
Tensor normal(const Shape& shape, double mean = 0, double deviation = 1, TensorOptions options = {},
              Where where = Where::current());
/// U(-b, b), b = gain sqrt(3 / fan_in), gain = sqrt(2 / (1 + slope²)) (He et al. 2015, arXiv:1502.01852, eq.
/// 14).
Tensor kaiming_uniform(const Shape& shape, KaimingOptions kaiming = {}, TensorOptions options = {},
                       Where where = Where::current());
/// N(0, gain² / fan_in), the same gain.
Tensor kaiming_normal(const Shape& shape, KaimingOptions kaiming = {}, TensorOptions options = {},
                      Where where = Where::current());
/// U(-b, b), b = gain sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16).
Tensor xavier_uniform(const Shape& shape, double gain = 1, TensorOptions options = {},
                      Where where = Where::current());
/// N(0, 2 gain² / (fan_in + fan_out)).
Tensor xavier_normal(const Shape& shape, double gain = 1, TensorOptions options = {},
                     Where where = Where::current());

}  // namespace tandem::nn::init
