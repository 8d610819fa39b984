// Initial values of weights.
#include "nn/init.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/ops/ops.h"

namespace tandem::nn::init {
namespace {

// Draws, then scales in place: values = draws * scale + shift.
Tensor scaled(Tensor draws, double scale, double shift, const TensorOptions& options, Where where) {
  NoGrad no_grad;
  WhereScope scope(where);
  Tensor result = draws * scale;
  if (shift != 0) result = result + shift;
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

TensorOptions without_grad(TensorOptions options) {
  options.requires_grad = false;
  return options;
}

// Host numbers as a leaf of that dtype, on that device.
Tensor from_numbers(const std::vector<double>& values, const Shape& shape, const TensorOptions& options, Where where) {
  NoGrad no_grad;
  Tensor result =
      from_host(values.data(), DType::float64, shape, {.dtype = DType::float64, .device = options.device}, where)
          .to(options.dtype, where);
  if (options.requires_grad) result.requires_grad(true, where);
  return result;
}

double normal_below(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

// Where normal_below is p: halving, as initial values are drawn seldom, is exact enough and has no tables.
double normal_quantile(double p, double low, double high) {
  for (int i = 0; i < 60 && low < high; ++i) {
    const double middle = 0.5 * (low + high);
    (normal_below(middle) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace

double gain(Nonlinearity nonlinearity, double negative_slope) {
  switch (nonlinearity) {
    case Nonlinearity::tanh: return 5.0 / 3;
    case Nonlinearity::relu: return std::sqrt(2.0);
    case Nonlinearity::leaky_relu: return std::sqrt(2.0 / (1.0 + negative_slope * negative_slope));
    case Nonlinearity::selu: return 0.75;
    default: return 1;
  }
}

Tensor constant(const Shape& shape, double value, TensorOptions options, Where where) {
  return full(shape, value, options, where);
}
Tensor zeros(const Shape& shape, TensorOptions options, Where where) { return tandem::zeros(shape, options, where); }
Tensor ones(const Shape& shape, TensorOptions options, Where where) { return tandem::ones(shape, options, where); }

Tensor eye(int64_t rows, int64_t columns, TensorOptions options, Where where) {
  if (rows < 0 || columns < 0)
    throw ValueError(tandem::detail::str("nn::init::eye: ", rows, " rows and ", columns, " columns, need 0 or more"),
                     where);
  return tandem::eye(rows, columns, options, where);
}

Fans fans(const Shape& weight, Where where) {
  if (weight.size() < 2)
    throw ShapeError(tandem::detail::str("nn::init: fan-in and fan-out need a weight of shape [out, in, …], got ",
                                         weight, ": use init::uniform or init::normal with a bound of your own"),
                     where);
  check_extents(weight, "nn::init", where);
  const int64_t kernel = Shape(std::span(weight.begin() + 2, weight.end())).numel();
  return {weight[1] * kernel, weight[0] * kernel};
}

Tensor uniform(const Shape& shape, double low, double high, TensorOptions options, Where where) {
  if (!(low <= high))
    throw ValueError(tandem::detail::str("nn::init::uniform: low ", low, " is above high ", high, ": swap them"),
                     where);
  return scaled(rand(shape, without_grad(options), where), high - low, low, options, where);
}

Tensor normal(const Shape& shape, double mean, double deviation, TensorOptions options, Where where) {
  if (!(deviation >= 0))
    throw ValueError(tandem::detail::str("nn::init::normal: the deviation is ", deviation, ", need 0 or more"), where);
  return scaled(randn(shape, without_grad(options), where), deviation, mean, options, where);
}

// A weight with an extent of 0 has no values, so any bound will do.
static double per_fan(double numerator, int64_t fan) {
  return fan > 0 ? std::sqrt(numerator / static_cast<double>(fan)) : 0.0;
}

static double kaiming_deviation(const Shape& shape, const KaimingOptions& options, Where where) {
  const Fans both = fans(shape, where);
  return gain(options.nonlinearity, options.negative_slope) * per_fan(1, options.mode == Fan::in ? both.in : both.out);
}

Tensor kaiming_uniform(const Shape& shape, KaimingOptions kaiming, TensorOptions options, Where where) {
  const double bound = std::sqrt(3.0) * kaiming_deviation(shape, kaiming, where);
  return uniform(shape, -bound, bound, options, where);
}

Tensor kaiming_normal(const Shape& shape, KaimingOptions kaiming, TensorOptions options, Where where) {
  return normal(shape, 0, kaiming_deviation(shape, kaiming, where), options, where);
}

Tensor xavier_uniform(const Shape& shape, double gain, TensorOptions options, Where where) {
  const Fans fan = fans(shape, where);
  const double bound = gain * per_fan(6, fan.in + fan.out);
  return uniform(shape, -bound, bound, options, where);
}

Tensor xavier_normal(const Shape& shape, double gain, TensorOptions options, Where where) {
  const Fans fan = fans(shape, where);
  return normal(shape, 0, gain * per_fan(2, fan.in + fan.out), options, where);
}

Tensor trunc_normal(const Shape& shape, double mean, double deviation, double low, double high, TensorOptions options,
                    Where where) {
  if (!(deviation > 0))
    throw ValueError(tandem::detail::str("nn::init::trunc_normal: the deviation is ", deviation, ", need more than 0"),
                     where);
  if (!(low < high))
    throw ValueError(tandem::detail::str("nn::init::trunc_normal: low ", low, " is not below high ", high), where);
  const double from = (low - mean) / deviation, to = (high - mean) / deviation;
  const double below = normal_below(from), above = normal_below(to);
  if (!(above > below))
    throw ValueError(tandem::detail::str("nn::init::trunc_normal: [", low, ", ", high, "] is too far from the mean ",
                                         mean, " for a deviation of ", deviation, ": nothing would be drawn there"),
                     where);
  std::vector<double> values = rand(shape, {.dtype = DType::float64}, where).to_vector<double>(where);
  for (double& value : values) {
    const double quantile = normal_quantile(below + value * (above - below), std::max(from, -40.0), std::min(to, 40.0));
    value = std::clamp(mean + deviation * quantile, low, high);
  }
  return from_numbers(values, shape, options, where);
}

// Gram and Schmidt, in double and twice over, which is as exact as Householder's way. The triangle that is left out
// has a positive diagonal, so the result is uniform (Mezzadri 2007, "How to generate random matrices from the
// classical compact groups").
Tensor orthogonal(const Shape& shape, double gain, TensorOptions options, Where where) {
  if (shape.size() < 2)
    throw ShapeError(tandem::detail::str("nn::init::orthogonal: needs a shape of at least 2 dims, got ", shape), where);
  check_extents(shape, "nn::init::orthogonal", where);
  const int64_t rows = shape[0], columns = rows > 0 ? shape.numel() / rows : 0;
  const size_t count = static_cast<size_t>(std::min(rows, columns)),
               length = static_cast<size_t>(std::max(rows, columns));
  std::vector<double> drawn =
      randn({static_cast<int64_t>(count * length)}, {.dtype = DType::float64}, where).to_vector<double>(where);
  for (size_t i = 0; i < count; ++i) {
    double* const line = drawn.data() + i * length;
    for (int pass = 0; pass < 2; ++pass)
      for (size_t j = 0; j < i; ++j) {
        const double* const other = drawn.data() + j * length;
        double along = 0;
        for (size_t k = 0; k < length; ++k) along += line[k] * other[k];
        for (size_t k = 0; k < length; ++k) line[k] -= along * other[k];
      }
    double squares = 0;
    for (size_t k = 0; k < length; ++k) squares += line[k] * line[k];
    for (size_t k = 0; k < length; ++k) line[k] /= std::sqrt(squares);
  }
  std::vector<double> values(count * length);
  for (size_t i = 0; i < count; ++i)
    for (size_t k = 0; k < length; ++k)
      values[rows <= columns ? i * length + k : k * count + i] = gain * drawn[i * length + k];
  return from_numbers(values, shape, options, where);
}

void set(Tensor parameter, const Tensor& values, Where where) {
  NoGrad no_grad;
  parameter.assign(values, where);
}

}  // namespace tandem::nn::init
