// What the CUDA kernels of the families share.
#pragma once

#include "core/op.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/layout.h"

namespace tandem {

namespace gpu {

/// Copies `from`, broadcast to `shape`, to `to` (any strides), converting elements where the dtypes differ.
void copy_strided(const TensorImpl& from, const Shape& shape, void* to, DType to_type, const Shape& to_strides,
                  cudaStream_t stream);

}  // namespace gpu
}  // namespace tandem
