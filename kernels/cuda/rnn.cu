// Recurrent layers have no CUDA kernels yet; compiled graphs break the cells into pointwise ops, which need none.
#include "kernels/cuda/kernels.h"

namespace tandem {

void add_cuda_rnn(OpTable&) {}

}  // namespace tandem
