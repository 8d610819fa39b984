// Dropout: zeroes elements at random while training.
#include "tandem/nn/dropout.h"

#include "tandem/core/ops.h"

namespace tandem::nn {

Dropout::Dropout(double probability, Where where) : probability(probability) {
  if (!(probability >= 0 && probability < 1))
    throw ValueError(
        tandem::detail::str("nn::Dropout: the probability is ", probability, ", need at least 0 and below 1"),
        where);
}

Tensor Dropout::operator()(const Tensor& x, Where where) const {
  return training && probability > 0 ? dropout(Arg(x, where), probability) : x;
}

}  // namespace tandem::nn
