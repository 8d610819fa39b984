// Matrix products on the CPU for the ops that are made of them, by oneDNN or by our own kernel.
#pragma once

#include "core/dtype.h"

namespace tandem {

/// Which library multiplies matrices and convolves. At first oneDNN where the build has it (but for what our own
/// kernels do faster), unless the environment variable TANDEM_MATMUL says `own`.
enum class MatmulLibrary { onednn, own };
MatmulLibrary matmul_library();
/// For comparisons: no effect where the library is missing.
void set_matmul_library(MatmulLibrary library);

/// A matrix [rows, columns] in memory; strides in elements, 0 allowed.
struct Matrix {
  const void* data;
  int64_t row, column;
};

/// The type that products of `type` are computed and returned in: float32 for float16 and bfloat16, int64 for
/// integers and bool.
DType gemm_result(DType type);

/// c [m, n] = a [m, k] b [k, n], or added to c. a and b are of `type`, c of gemm_result(type) with contiguous rows
/// `c_row` elements apart. Uses all threads, unless called from a parallel region.
void gemm(DType type, int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, void* c, int64_t c_row, bool accumulate);

}  // namespace tandem
