// What the CUDA kernels of the families share.
#pragma once

#include "core/op.h"
#include "core/range_check.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/range_note.cuh"

namespace tandem {

namespace gpu {

/// Copies `from`, broadcast to `shape`, to `to` (any strides), converting elements where the dtypes differ.
void copy_strided(const TensorImpl& from, const Shape& shape, void* to, DType to_type, const Shape& to_strides,
                  cudaStream_t stream);

/// KernelError where there are more of something than the op's kernel can count. Such limits are beyond the tensors of real
/// programs; docs/cuda.md lists them.
inline void check_most(const KernelContext& op, int64_t count, int64_t most, const char* of_what) {
  if (count > most)
    op.fail<KernelError>(count, " ", of_what, ", and the CUDA kernel takes at most ", most,
                         "; compute in parts, or on the CPU");
}
constexpr int64_t most_of_int = 0x7fffffff;

/// The argument by which a kernel that is about to be launched notes values of a tensor of `shape` that are out of range, as
/// check 0 of the launch. The error is in the name of the op, or another's.
td_range_note range_note(const KernelContext& op, RangeCheck range, const Shape& shape, std::string name = {});
/// The same for a launch of several checks, by their place in `checks`.
td_range_note range_note(const KernelContext& op, std::vector<ValueCheck> checks);

}  // namespace gpu
}  // namespace tandem
