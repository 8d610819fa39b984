// Softmax and its logarithm.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Rows: along one dim (the last by default).
Tensor softmax(const Arg& x, int64_t dim = -1);
Tensor log_softmax(const Arg& x, int64_t dim = -1);

}  // namespace tandem
