// Matrix products on the device: by cuBLASLt, or by kernels of our own.
#pragma once

#include "kernels/cuda/context.h"
#include "kernels/cuda/layout.h"

namespace tandem::gpu {

/// Who multiplies matrices and convolves. At first the vendor's libraries where the build has them, unless the
/// environment variable TANDEM_MATMUL says `own`.
enum class Library { vendor, own };
Library library();
/// For comparisons: no effect where the library is missing.
void set_library(Library which);

/// A matrix in memory; strides in elements.
struct Matrix {
  const void* data;
  int64_t row, column;
};

/// c [m, n] = a [m, k] b [k, n] (+ bias [n]) for each place of `batch`, whose operands are c, a, b. c's rows are
/// contiguous, c_row elements apart.
struct MatmulProblem {
  DType type;
  int64_t m, n, k;
  Matrix a, b;
  void* c;
  int64_t c_row;
  const void* bias;
  Iteration batch;
  Device device;
  cudaStream_t stream;
};

/// Which of our kernels: for tests; `automatic` chooses by size.
enum class MatmulKernel { automatic, tile_32, tile_64, tile_128, tensor_cores };
void own_matmul(const MatmulProblem& problem, MatmulKernel kernel = MatmulKernel::automatic);

/// False where the library has no way to do it.
bool library_matmul(const MatmulProblem& problem);

}  // namespace tandem::gpu
