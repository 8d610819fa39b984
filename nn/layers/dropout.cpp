// Dropout, Dropout2d: zero elements, or whole channels, at random while training.
#include "nn/layers/dropout.h"

#include "core/ops/ops.h"

namespace tandem::nn {

static double checked(double probability, const char* layer, Where where) {
  if (!(probability >= 0 && probability < 1))
    throw ValueError(
        tandem::detail::str("nn::", layer, ": the probability is ", probability, ", need at least 0 and below 1"),
        where);
  return probability;
}

Dropout::Dropout(double probability, Where where) : probability(checked(probability, "Dropout", where)) {}

Tensor Dropout::operator()(const Tensor& x, Where where) const {
  return training && probability > 0 ? dropout(Arg(x, where), probability) : x;
}

Dropout2d::Dropout2d(double probability, Where where) : probability(checked(probability, "Dropout2d", where)) {}

Tensor Dropout2d::operator()(const Tensor& x, Where where) const {
  if (x.rank(where) < 3)
    throw ShapeError(tandem::detail::str("nn::Dropout2d: x is ", x.shape(),
                                         ", need [batch, channels, height, width]; for vectors use nn::Dropout"),
                     where);
  if (!training || probability == 0) return x;
  WhereScope scope(where);
  Shape channels = Shape::filled(x.rank(), 1);
  channels[0] = x.shape()[0], channels[1] = x.shape()[1];
  return x * dropout(ones(channels, {.dtype = x.dtype(), .device = x.device()}), probability);
}

}  // namespace tandem::nn
