// Matrix products on the CPU for the ops that are made of them, by oneDNN or by our own kernel.
#include "kernels/cpu/support/gemm.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <string_view>

#ifdef TANDEM_WITH_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

#include "core/error.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/gemm_bf16.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

MatmulLibrary& chosen_library() {
  static MatmulLibrary library = [] {
#ifdef TANDEM_WITH_ONEDNN
    const char* wanted = std::getenv("TANDEM_MATMUL");
    return wanted && std::string_view(wanted) == "own" ? MatmulLibrary::own : MatmulLibrary::onednn;
#else
    return MatmulLibrary::own;
#endif
  }();
  return library;
}

#ifdef TANDEM_WITH_ONEDNN
/// How BLAS sees a matrix: rows `stride` apart, or columns (transposed). False if neither lies together.
struct BlasLayout {
  char flag = 0;
  int64_t stride = 0;
  BlasLayout(const Matrix& x, int64_t rows, int64_t columns) {
    if ((x.column == 1 || columns == 1) && (x.row >= columns || rows == 1))
      flag = 'N', stride = rows == 1 ? columns : x.row;
    else if ((x.row == 1 || rows == 1) && (x.column >= rows || columns == 1))
      flag = 'T', stride = columns == 1 ? rows : x.column;
  }
};

/// Below this depth ours takes 0.75 to 1.05 of oneDNN's time (median 0.96 of 20 shapes with AVX-512, 0.95 with AVX2), above it
/// up to 1.1. By k alone: layouts and blocks of rows change no sums below it (but where is_product_of_rows takes another kernel).
constexpr int64_t kOwnDepth = 1024;

/// Below about this many multiply-adds a second thread costs more than it gains.
constexpr int64_t kSerialProduct = 80 * 80 * 80;

bool onednn_gemm(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, float* c, int64_t c_row,
                 bool accumulate) {
  const BlasLayout left(a, m, k), right(b, k, n);
  if (!left.flag || !right.flag) return false;
  const bool serial = m * n * k <= kSerialProduct && num_threads() > 1 && !omp_in_parallel();
  if (serial) omp_set_num_threads(1);
  const dnnl_status_t status =
      dnnl_sgemm(left.flag, right.flag, m, n, k, 1.0f, static_cast<const float*>(a.data), left.stride,
                 static_cast<const float*>(b.data), right.stride, accumulate ? 1.0f : 0.0f, c, c_row);
  if (serial) omp_set_num_threads(num_threads());
  return status == dnnl_success;
}
#endif

/// A product of contiguous rows that oneDNN would first pack, though few rows of a use what is packed: ours takes 0.5
/// to 0.95 of its time then (117 against 151 µs for [64, 784] x [256, 784] transposed on two cores). With more rows,
/// or shorter ones, packing pays.
bool is_product_of_rows(DType type, int64_t m, int64_t k, const Matrix& a, const Matrix& b) {
  return type == DType::float32 && a.column == 1 && b.row == 1 && m >= 4 && m <= 256 && k >= 192;
}

/// Memory to pack operands in, kept by each thread. Not from the tensors' allocator: with a memory limit set that
/// throws, and an exception in a parallel region ends the program.
void* packing_memory(int64_t bytes) {
  struct Buffer {
    void* data = nullptr;
    int64_t bytes = 0;
    ~Buffer() { std::free(data); }
  };
  thread_local Buffer buffer;
  if (buffer.bytes < bytes) {
    std::free(buffer.data);
    buffer.bytes = 0;
    buffer.data = std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64));
    if (!buffer.data) throw std::bad_alloc();
    buffer.bytes = bytes;
  }
  return buffer.data;
}

void own_gemm(DType type, int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, void* c, int64_t c_row,
              bool accumulate) {
  const int64_t result_size = size_of(gemm_result(type)), size = size_of(type);
  const bool of_rows = is_product_of_rows(type, m, k, a, b);
  // Each thread computes a rectangle of c on its own: of rows, since two that write to the same ones disturb each other (130
  // against 212 GF/s for [512, 128] x [128, 512]), unless those are few.
  const bool by_rows = m >= 48 * num_threads() || m >= n;
  const int64_t tile = of_rows || by_rows ? 4 : 32, length = by_rows ? m : n;
  const int64_t work_per_tile = tile * (by_rows ? n : m) * k;
  parallel_for((length + tile - 1) / tile, std::max<int64_t>(1, 300000 / std::max<int64_t>(work_per_tile, 1)),
               [&](int64_t first, int64_t last) {
                 const int64_t begin = first * tile, end = std::min(length, last * tile);
                 GemmArguments g{m,     n,        k, a.data, a.row,      a.column, b.data,
                                 b.row, b.column, c, c_row,  accumulate, nullptr};
                 if (by_rows) {
                   g.m = end - begin;
                   g.a = static_cast<const char*>(a.data) + begin * a.row * size;
                   g.c = static_cast<char*>(c) + begin * c_row * result_size;
                 } else {
                   g.n = end - begin;
                   g.b = static_cast<const char*>(b.data) + begin * b.column * size;
                   g.c = static_cast<char*>(c) + begin * result_size;
                 }
                 if (of_rows) {
                   loops().gemm_rows(g);
                   return;
                 }
                 g.scratch = packing_memory(kGemmScratch * result_size);
                 loops().gemm(static_cast<int>(type), g);
               });
}

}  // namespace

MatmulLibrary matmul_library() { return chosen_library(); }

void set_matmul_library(MatmulLibrary library) {
#ifdef TANDEM_WITH_ONEDNN
  chosen_library() = library;
#else
  (void)library;
#endif
}

DType gemm_result(DType type) {
  if (type == DType::float64) return type;
  return is_floating(type) ? DType::float32 : DType::int64;
}

void gemm(DType type, int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, void* c, int64_t c_row, bool accumulate) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (accumulate) return;
    const DType result = gemm_result(type);
    for (int64_t i = 0; i < m; ++i) fill_elements(static_cast<char*>(c) + i * c_row * size_of(result), n, result, 0);
    return;
  }
#ifdef TANDEM_WITH_ONEDNN
  if (type == DType::float32 && chosen_library() == MatmulLibrary::onednn && k >= kOwnDepth &&
      !is_product_of_rows(type, m, k, a, b) && onednn_gemm(m, n, k, a, b, static_cast<float*>(c), c_row, accumulate))
    return;
  if (type == DType::bfloat16 && chosen_library() == MatmulLibrary::onednn &&
      onednn_gemm_bf16(m, n, k, a, b, static_cast<float*>(c), c_row, accumulate))
    return;
#endif
  own_gemm(type, m, n, k, a, b, c, c_row, accumulate);
}

}  // namespace tandem
