// Softmax and its logarithm.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Rows: along one dim (the last by default).
Tensor softmax(const Arg& x, int64_t dim = -1);
Tensor log_softmax(const Arg& x, int64_t dim = -1);
struct GumbelOptions {
  double temperature = 1;
  bool hard = false;  ///< one-hot, with the gradient of the soft ones
};
/// softmax((x + noise) / temperature) with Gumbel noise: samples from the categories that differentiate (Jang et al. 2017).
Tensor gumbel_softmax(const Arg& x, GumbelOptions options = {}, int64_t dim = -1);

}  // namespace tandem
