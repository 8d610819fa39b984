// Products of bfloat16 matrices by oneDNN, for gemm().
#pragma once

#include "kernels/cpu/support/gemm.h"

namespace tandem {

/// c (float32) = a b, or added to c. False, and nothing written, where our own product is the better or only choice.
bool onednn_gemm_bf16(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t c_row, bool accumulate);

}  // namespace tandem
