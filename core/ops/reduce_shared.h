// What the reductions and the ops made of them share.
#pragma once

#include "ops.h"

namespace tandem {

/// `dims` in [0, rank), ascending; all of them where none is named. DimensionError in the name of that op.
Shape normalized_dims(const char* name, const Arg& x, const Dims& dims);

/// For each element the product of the others along dim, without division; of any order of gradient (scan.cpp).
Tensor products_of_others(const Tensor& x, int64_t dim);

}  // namespace tandem
