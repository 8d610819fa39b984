// What max and average pooling share.
#pragma once

#include "ops.h"

namespace tandem {

/// The shape of x [batch, channels, height, width] pooled by the op's kernel, stride and padding, which are checked.
Shape pooled_shape(const Infer& op, const Shape& x);

}  // namespace tandem
