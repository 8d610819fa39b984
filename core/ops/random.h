// Random tensors.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Random numbers (core/random.h has the generator). The same draws in every mode.
Tensor rand(const Shape& shape, TensorOptions options = {}, Where where = Where::current());   ///< [0, 1)
Tensor randn(const Shape& shape, TensorOptions options = {}, Where where = Where::current());  ///< N(0, 1)
/// Integers in [low, high), a range within the dtype's; int64 unless options say otherwise.
Tensor randint(int64_t low, int64_t high, const Shape& shape, TensorOptions options = {.dtype = DType::int64},
               Where where = Where::current());
Tensor randperm(int64_t n, Where where = Where::current());
Tensor rand_like(const Tensor& like, Where where = Where::current());
Tensor randn_like(const Tensor& like, Where where = Where::current());
/// 1 with the probability given for each element, else 0, in the probabilities' dtype. ValueError if one is not between 0 and
/// 1 (in a graph on CUDA nobody looks).
Tensor bernoulli(const Tensor& probabilities, Where where = Where::current());
Tensor bernoulli(double probability, const Shape& shape, TensorOptions options = {}, Where where = Where::current());
/// mean + deviation * N(0, 1): one draw for each element of the two broadcast, or `shape` of them. ValueError if a deviation is
/// below 0 or NaN (in a graph on CUDA nobody looks).
Tensor normal(const Tensor& mean, const Tensor& deviation, Where where = Where::current());
Tensor normal(double mean, double deviation, const Shape& shape, TensorOptions options = {},
              Where where = Where::current());
struct MultinomialOptions {
  bool replacement = false;
};
/// `count` positions of the last dim, drawn by weights that need not sum to one: [classes] or [rows, classes] gives
/// int64 [count] or [rows, count]. ValueError where a weight is negative, not finite, or too few are above zero
/// (the last is told eagerly only: a trace has no numbers to look at).
Tensor multinomial(const Tensor& weights, int64_t count, MultinomialOptions options = {},
                   Where where = Where::current());
/// Zeroes each element with that probability and scales the others by 1 / (1 - probability).
Tensor dropout(const Arg& x, double probability);
/// The same for whole channels of x [batch, channels, ..]: features that belong together are dropped together.
Tensor dropout2d(const Arg& x, double probability);

}  // namespace tandem
