// Matrix products on the device: by cuBLASLt, or by kernels of our own.
#pragma once

#include <algorithm>

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

/// Calls f for parts whose batches have one dim at most, as libraries take them: once where the batch's dims could be merged, else for
/// each place in those beside the largest.
template <class F> void in_strided_batches(const MatmulProblem& problem, F f) {
  const Iteration& batch = problem.batch;
  if (batch.rank <= 1) return f(problem);
  const auto largest = int(std::max_element(batch.extent, batch.extent + batch.rank) - batch.extent);
  Iteration inner, outer;
  inner.count = outer.count = batch.count;
  for (int d = 0; d < batch.rank; ++d) {
    Iteration& to = d == largest ? inner : outer;
    to.extent[to.rank] = batch.extent[d];
    for (int k = 0; k < batch.count; ++k) to.stride[k][to.rank] = batch.stride[k][d];
    ++to.rank;
  }
  MatmulProblem part = problem;
  part.batch = inner;
  in_pieces(outer, 1, [&](const Iteration&, const int64_t* offset) {
    const auto bytes = int64_t(size_of(problem.type));
    part.c = static_cast<char*>(problem.c) + offset[0] * bytes;
    part.a.data = static_cast<const char*>(problem.a.data) + offset[1] * bytes;
    part.b.data = static_cast<const char*>(problem.b.data) + offset[2] * bytes;
    f(part);
  });
}

/// False where the library has no way to do it.
bool library_matmul(const MatmulProblem& problem);

}  // namespace tandem::gpu
