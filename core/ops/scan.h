// Running sums and products along one dim.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Along one dim. Running sums and products of integers and bool are int64.
Tensor cumsum(const Arg& x, int64_t dim);   ///< y_i = x_0 + … + x_i
Tensor cumprod(const Arg& x, int64_t dim);  ///< y_i = x_0 … x_i; gradients are exact where there are zeros, too
/// y_i = a_i y_(i-1) + b_i with y_(-1) = 0; a and b have one shape.
Tensor linear_recurrence(const Arg& a, const Tensor& b, int64_t dim);

}  // namespace tandem
