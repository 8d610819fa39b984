// The CUDA kernels of each family, and what their files share.
#pragma once

#include "core/op.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/layout.h"

namespace tandem {

#define TANDEM_FAMILY(family) void add_cuda_##family(OpTable& table);
#include "core/families.def"
#undef TANDEM_FAMILY

namespace gpu {

/// Copies `from`, broadcast to `shape`, to `to` (any strides), converting elements where the dtypes differ.
void copy_strided(const TensorImpl& from, const Shape& shape, void* to, DType to_type, const Shape& to_strides,
                  cudaStream_t stream);

}  // namespace gpu
}  // namespace tandem
