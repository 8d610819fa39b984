// What the files of the family index share.
#pragma once

#include "kernels/cuda/kernels.h"

namespace tandem::gpu {

/// Whether it is in [0, bound), and a note where not.
__device__ __forceinline__ bool in_range(int64_t index, int64_t bound, int64_t place, td_range_note note) {
  if (index >= 0 && index < bound) return true;
  td_note_range(note, 0, place, index);
  return false;
}

// scatter.cu
void scatter_kernel(KernelContext& op);
void scatter_add_kernel(KernelContext& op);
void scatter_prod_kernel(KernelContext& op);
void index_add_kernel(KernelContext& op);

}  // namespace tandem::gpu
