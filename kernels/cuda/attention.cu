// Attention has no CUDA kernel yet: dispatch says so to whoever calls it there.
#include "kernels/cuda/kernels.h"

namespace tandem {

void add_cuda_attention(OpTable&) {}

}  // namespace tandem
