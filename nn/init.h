// Initial values of weights: the distributions that PyTorch's layers start from.
#pragma once

#include "../core/tensor.h"

namespace tandem::nn::init {

/// How many inputs each output sums, and how many outputs each input reaches, for a weight of shape
/// [out, in, …]; further extents (a convolution's kernel) multiply both.
struct Fans {
  int64_t in = 0, out = 0;
};
Fans fans(const Shape& weight, Where where = Where::current());

/// What a layer's outputs go through.
enum class Nonlinearity { linear, sigmoid, tanh, relu, leaky_relu, selu };
/// The factor by which it shrinks deviations, to be made up for: 1, 1, 5/3, sqrt(2), sqrt(2 / (1 + slope²)), 3/4.
double gain(Nonlinearity nonlinearity, double negative_slope = 0.01);

enum class Fan { in, out };
struct KaimingOptions {
  double negative_slope = 0;  ///< of leaky_relu; 0 is ReLU
  Fan mode = Fan::in;         ///< keep the deviation of activations, or that of gradients
  Nonlinearity nonlinearity = Nonlinearity::leaky_relu;
};

Tensor constant(const Shape& shape, double value, TensorOptions options = {}, Where where = Where::current());
Tensor zeros(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor ones(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
/// [rows, columns] with 1 where they are equal.
Tensor eye(int64_t rows, int64_t columns, TensorOptions options = {}, Where where = Where::current());

/// U(low, high).
Tensor uniform(const Shape& shape, double low, double high, TensorOptions options = {}, Where where = Where::current());
/// N(mean, deviation²).
Tensor normal(const Shape& shape, double mean = 0, double deviation = 1, TensorOptions options = {},
              Where where = Where::current());
/// U(-b, b), b = gain sqrt(3 / fan), with the fan of that mode and the gain of that nonlinearity (He et al. 2015,
/// arXiv:1502.01852, eq. 14).
Tensor kaiming_uniform(const Shape& shape, KaimingOptions kaiming = {}, TensorOptions options = {},
                       Where where = Where::current());
/// N(0, gain² / fan), the same.
Tensor kaiming_normal(const Shape& shape, KaimingOptions kaiming = {}, TensorOptions options = {},
                      Where where = Where::current());
/// U(-b, b), b = gain sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16).
Tensor xavier_uniform(const Shape& shape, double gain = 1, TensorOptions options = {}, Where where = Where::current());
/// N(0, 2 gain² / (fan_in + fan_out)).
Tensor xavier_normal(const Shape& shape, double gain = 1, TensorOptions options = {}, Where where = Where::current());
/// N(mean, deviation²) cut off at low and high: drawn anew where it falls outside, in effect.
Tensor trunc_normal(const Shape& shape, double mean = 0, double deviation = 1, double low = -2, double high = 2,
                    TensorOptions options = {}, Where where = Where::current());
/// gain times a matrix [shape[0], the other dims as one] whose rows (or columns, if they are fewer) are of length 1
/// and at right angles, uniform among all such (Saxe et al. 2014, arXiv:1312.6120).
Tensor orthogonal(const Shape& shape, double gain = 1, TensorOptions options = {}, Where where = Where::current());

/// Overwrites a parameter in place, recording nothing: `init::set(layer.weight, init::orthogonal(layer.weight.shape()))`.
void set(Tensor parameter, const Tensor& values, Where where = Where::current());

}  // namespace tandem::nn::init
