// Running sums, products and extremes along one dim.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"
#include "reduce.h"

namespace tandem {

// Along one dim. Running sums and products of integers and bool are int64.
Tensor cumsum(const Arg& x, int64_t dim);   ///< y_i = x_0 + … + x_i
Tensor cumprod(const Arg& x, int64_t dim);  ///< y_i = x_0 … x_i; gradients are exact where there are zeros, too
/// The greatest (least) so far, and where it is: of equals the last, int64. A NaN stays. The gradient goes to that element.
ValuesAndIndices cummax(const Arg& x, int64_t dim);
ValuesAndIndices cummin(const Arg& x, int64_t dim);
/// y_i = a_i y_(i-1) + b_i with y_(-1) = 0; a and b have one shape.
Tensor linear_recurrence(const Arg& a, const Tensor& b, int64_t dim);

}  // namespace tandem
