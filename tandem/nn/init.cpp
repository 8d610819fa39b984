// Initial values of weights.
#include "tandem/nn/init.h"

#include <cmath>

#include "tandem/core/ops.h"

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

double kaiming_gain(const KaimingOptions& options) {
  return std::sqrt(2.0 / (1.0 + options.negative_slope * options.negative_slope));
}

}  // namespace

Fans fans(const Shape& weight, Where where) {
  if (weight.size() < 2)
    throw ShapeError(
        tandem::detail::str("nn::init: fan-in and fan-out need a weight of shape [out, in, …], got ", weight,
                            ": use init::uniform or init::normal with a bound of your own"),
        where);
  const int64_t kernel = Shape(std::span(weight.begin() + 2, weight.end())).numel();
  return {weight[1] * kernel, weight[0] * kernel};
}

Tensor uniform(const Shape& shape, double low, double high, TensorOptions options, Where where) {
  if (!(low <= high))
    throw ValueError(
        tandem::detail::str("nn::init::uniform: low ", low, " is above high ", high, ": swap them"), where);
  return scaled(rand(shape, without_grad(options), where), high - low, low, options, where);
}

Tensor normal(const Shape& shape, double mean, double deviation, TensorOptions options, Where where) {
  if (!(deviation >= 0))
    throw ValueError(
        tandem::detail::str("nn::init::normal: the deviation is ", deviation, ", need 0 or more"), where);
  return scaled(randn(shape, without_grad(options), where), deviation, mean, options, where);
}

// A weight with an extent of 0 has no values, so any bound will do.
static double per_fan(double numerator, int64_t fan) {
  return fan > 0 ? std::sqrt(numerator / static_cast<double>(fan)) : 0.0;
}

Tensor kaiming_uniform(const Shape& shape, KaimingOptions kaiming, TensorOptions options, Where where) {
  const double bound = kaiming_gain(kaiming) * per_fan(3, fans(shape, where).in);
  return uniform(shape, -bound, bound, options, where);
}

Tensor kaiming_normal(const Shape& shape, KaimingOptions kaiming, TensorOptions options, Where where) {
  return normal(shape, 0, kaiming_gain(kaiming) * per_fan(1, fans(shape, where).in), options, where);
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

}  // namespace tandem::nn::init
