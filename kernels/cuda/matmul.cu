// matmul and linear: our own kernels (tensor cores for 16-bit floats, tiles on the ordinary cores for all else),
// and the choice between them and cuBLASLt (matmul_cublaslt.cpp).
#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/tensor_core.cuh"

namespace tandem {
namespace gpu {
namespace {

// --- tiles on the ordinary cores ---------------------------------------------------------------------------------

template <class T, class Acc> struct MatrixOperand {
  const T* data;
  int64_t line_stride, k_stride;
  unsigned lines;
  bool along_k;
  Layout<1> batch;
  __device__ __forceinline__ void select(unsigned which) {
    int64_t offset[1];
    batch.offsets(which, offset);
    data += offset[0];
  }
  __device__ __forceinline__ Acc load(unsigned line, unsigned k) const {
    return line < lines ? static_cast<Acc>(widen(data[line * line_stride + k * k_stride])) : Acc(0);
  }
};

// One product's result, plus a bias for each column where there is one.
template <class T, class Acc> struct ResultRows {
  T* c;
  const T* bias;
  int64_t c_row;
  __device__ __forceinline__ void store(unsigned row, unsigned column, Acc value) const {
    if (bias) value += static_cast<Acc>(widen(bias[column]));
    c[row * c_row + column] = convert<T>(value);
  }
  __device__ __forceinline__ void store_pair(unsigned row, unsigned column, Acc first, Acc second) const {
    if (bias) {
      first += static_cast<Acc>(widen(bias[column]));
      second += static_cast<Acc>(widen(bias[column + 1]));
    }
    store_pack(c + row * c_row + column, Pack<T, 2>{{convert<T>(first), convert<T>(second)}});
  }
};

template <class T, class Acc> struct MatrixResult : ResultRows<T, Acc> {
  Layout<1> batch;
  __device__ __forceinline__ void select(unsigned which) {
    int64_t offset[1];
    batch.offsets(which, offset);
    this->c += offset[0];
  }
};

// The layout of one operand of a batch.
Layout<1> batch_of(const MatmulProblem& p, int operand) {
  Iteration one = p.batch;
  std::copy(p.batch.stride[operand], p.batch.stride[operand] + kMaxRank, one.stride[0]);
  return Layout<1>(one);
}

template <class T> struct AccumulatorOf {
  using type = std::conditional_t<std::is_integral_v<T>, int64_t, Compute<T>>;
};

template <class T, class Acc> MatrixResult<T, Acc> result_of(const MatmulProblem& p) {
  return {{static_cast<T*>(p.c), static_cast<const T*>(p.bias), p.c_row}, batch_of(p, 0)};
}

template <class Tile, class T> void launch_tiles(const MatmulProblem& p) {
  using Acc = typename AccumulatorOf<T>::type;
  const MatrixOperand<T, Acc> a{
      static_cast<const T*>(p.a.data), p.a.row, p.a.column, unsigned(p.m), p.a.column == 1, batch_of(p, 1)};
  const MatrixOperand<T, Acc> b{
      static_cast<const T*>(p.b.data), p.b.column, p.b.row, unsigned(p.n), p.b.row == 1, batch_of(p, 2)};
  if (p.k <= items_at_once())
    return launch_multiply<Tile, Acc>(a, b, result_of<T, Acc>(p), p.batch.numel(), p.m, p.n, p.k, p.device, p.stream);
  std::vector<Terms<MatrixOperand<T, Acc>, MatrixOperand<T, Acc>>> terms;
  for (int64_t first = 0; first < p.k; first += items_at_once()) {
    terms.push_back({a, b, std::min(items_at_once(), p.k - first)});
    terms.back().a.data += first * a.k_stride;
    terms.back().b.data += first * b.k_stride;
  }
  launch_multiply<Tile, Acc, MatrixOperand<T, Acc>, MatrixOperand<T, Acc>>(terms, result_of<T, Acc>(p), p.batch.numel(),
                                                                           p.m, p.n, p.device, p.stream);
}

// --- tensor cores ---------------------------------------------------------------------------------------------------
// 128 x 128 results a block, 8 warps of 64 x 32, k in steps of 32. Copies to shared memory run `stages` - 1 steps ahead.
// Rows of a slice are 16 bytes longer than they need be: eight of them start in different banks.

constexpr int core_tile = 128, core_depth = 32, core_threads = 256, core_stages = 3;
constexpr int pitch_along_k = core_depth + 8, pitch_across = core_tile + 8;
constexpr int slice_size = core_tile * pitch_along_k;  // in elements; the other layout needs less
static_assert(core_depth * pitch_across <= slice_size);

// A slice of an operand whose 128 lines (rows of A, columns of B) lie along k or across it.
template <class T, bool along_k> struct CoreSlice {
  static constexpr int pitch = along_k ? pitch_along_k : pitch_across;

  static __device__ __forceinline__ void fetch(T* slice, const T* data, int64_t stride, int64_t first_line,
                                               int64_t lines, int64_t first_k, int64_t k) {
    constexpr int per_row = (along_k ? core_depth : core_tile) / 8, chunks = core_tile * core_depth / 8;
#pragma unroll
    for (int i = 0; i < chunks / core_threads; ++i) {
      const int chunk = i * core_threads + int(threadIdx.x), row = chunk / per_row, column = chunk % per_row * 8;
      const int64_t outer = (along_k ? first_line : first_k) + row, inner = (along_k ? first_k : first_line) + column;
      const int64_t outer_end = along_k ? lines : k, inner_end = along_k ? k : lines;
      const int64_t left = outer < outer_end ? inner_end - inner : 0;
      const int bytes = left <= 0 ? 0 : left >= 8 ? 16 : int(left) * 2;
      copy_async_16(slice + row * pitch + column, bytes > 0 ? data + outer * stride + inner : data, bytes);
    }
  }
  // Where lane's row of the 8x8 matrix lies that covers `line` and `k` (of the slice).
  static __device__ __forceinline__ const T* row(const T* slice, int line, int k) {
    return along_k ? slice + line * pitch + k : slice + k * pitch + line;
  }
};

template <class T, bool a_along_k, bool b_along_k>
__global__ void __launch_bounds__(core_threads)
    matmul_tensor_cores(const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* c, const T* bias, int64_t c_row,
                        Layout<3> batch, unsigned m, unsigned n, int64_t k, bool pairs) {
  using SliceA = CoreSlice<T, a_along_k>;
  using SliceB = CoreSlice<T, b_along_k>;
  TANDEM_DYNAMIC_SHARED(T, shared);
  int64_t offset[3];
  batch.offsets(blockIdx.z, offset);
  const ResultRows<T, float> result{c + offset[0], bias, c_row};
  a += offset[1];
  b += offset[2];
  const int64_t first_row = int64_t(blockIdx.x) * core_tile, first_column = int64_t(blockIdx.y) * core_tile;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
  const int matrix = lane / 8, matrix_row = lane % 8;

  const auto fetch = [&](int64_t step) {
    T* slice = shared + step % core_stages * (2 * slice_size);
    if (step * core_depth < k) {
      SliceA::fetch(slice, a, a_stride, first_row, m, step * core_depth, k);
      SliceB::fetch(slice + slice_size, b, b_stride, first_column, n, step * core_depth, k);
    }
    copy_async_commit();  // also where there was nothing to fetch: groups are counted
  };

  float sum[4][4][4] = {};
#pragma unroll
  for (int stage = 0; stage < core_stages - 1; ++stage) fetch(stage);
  for (int64_t step = 0; step * core_depth < k; ++step) {
    copy_async_wait<core_stages - 2>();
    __syncthreads();  // this step's slices are there, and nobody reads those of the step before any more
    fetch(step + core_stages - 1);
    const T* slice_a = shared + step % core_stages * (2 * slice_size);
    const T* slice_b = slice_a + slice_size;
#pragma unroll
    for (int at = 0; at < core_depth; at += 16) {
      unsigned left[4][4], right[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // matrices in the order (rows, k): (low, low) (high, low) (low, high) (high, high)
        const int line = warp_row + i * 16 + matrix % 2 * 8, k_low = at + matrix / 2 * 8;
        load_matrices<!a_along_k>(
            left[i], SliceA::row(slice_a, line + (a_along_k ? matrix_row : 0), k_low + (a_along_k ? 0 : matrix_row)));
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {  // (columns, k): (low, low) (low, high) (high, low) (high, high)
        const int line = warp_column + j * 16 + matrix / 2 * 8, k_low = at + matrix % 2 * 8;
        load_matrices<!b_along_k>(
            right[j], SliceB::row(slice_b, line + (b_along_k ? matrix_row : 0), k_low + (b_along_k ? 0 : matrix_row)));
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          multiply_16x8x16<T>(sum[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const unsigned row = unsigned(first_row) + unsigned(warp_row + i * 16 + lane / 4 + half * 8);
        const unsigned column = unsigned(first_column) + unsigned(warp_column + j * 8 + lane % 4 * 2);
        if (row >= m || column >= n) continue;
        const float first = sum[i][j][half * 2], second = sum[i][j][half * 2 + 1];
        if (pairs) {
          result.store_pair(row, column, first, second);
        } else {
          result.store(row, column, first);
          if (column + 1 < n) result.store(row, column + 1, second);
        }
      }
    }
  }
}

template <class T> bool fits_tensor_cores(const MatmulProblem& p) {
  if constexpr (!is_half<T>) return false;
  const auto packed = [](const Matrix& x) {
    return is_aligned(x.data) && ((x.column == 1 && x.row % 8 == 0) || (x.row == 1 && x.column % 8 == 0));
  };
  bool fits = packed(p.a) && packed(p.b);
  for (int d = 0; d < p.batch.rank; ++d) fits = fits && p.batch.stride[1][d] % 8 == 0 && p.batch.stride[2][d] % 8 == 0;
  return fits && ceil_divide(p.n, int64_t(core_tile)) <= most_across;
}

template <class T, bool a_along_k, bool b_along_k> void launch_tensor_cores(const MatmulProblem& p) {
  constexpr int bytes = core_stages * 2 * slice_size * int(sizeof(T));
  constexpr auto* kernel = matmul_tensor_cores<T, a_along_k, b_along_k>;
  allow_shared(kernel, bytes);
  const dim3 grid(unsigned(ceil_divide(p.m, int64_t(core_tile))), unsigned(ceil_divide(p.n, int64_t(core_tile))),
                  unsigned(p.batch.numel()));
  bool pairs = p.n % 2 == 0 && p.c_row % 2 == 0 && is_aligned(p.c, 4);  // results can be written two at a time
  for (int d = 0; d < p.batch.rank; ++d) pairs = pairs && p.batch.stride[0][d] % 2 == 0;
  TANDEM_LAUNCH(kernel, grid, core_threads, bytes, p.stream, static_cast<const T*>(p.a.data),
                a_along_k ? p.a.row : p.a.column, static_cast<const T*>(p.b.data), b_along_k ? p.b.column : p.b.row,
                static_cast<T*>(p.c), static_cast<const T*>(p.bias), p.c_row, Layout<3>(p.batch), unsigned(p.m),
                unsigned(p.n), p.k, pairs);
}

template <class T> void dispatch_tensor_cores(const MatmulProblem& p) {
  if constexpr (is_half<T>) {
    const bool a_along_k = p.a.column == 1 && p.a.row % 8 == 0, b_along_k = p.b.row == 1 && p.b.column % 8 == 0;
    if (a_along_k) return b_along_k ? launch_tensor_cores<T, true, true>(p) : launch_tensor_cores<T, true, false>(p);
    return b_along_k ? launch_tensor_cores<T, false, true>(p) : launch_tensor_cores<T, false, false>(p);
  }
}

template <class T> void choose(const MatmulProblem& p, MatmulKernel kernel) {
  const bool cores = fits_tensor_cores<T>(p);
  if (kernel == MatmulKernel::automatic) {
    const int64_t tiles = ceil_divide(p.m, int64_t(128)) * ceil_divide(p.n, int64_t(128)) * p.batch.numel();
    if (cores && p.m > 16 && p.n > 16) kernel = MatmulKernel::tensor_cores;
    else if (std::is_same_v<T, float> && tiles >= multiprocessors()) kernel = MatmulKernel::tile_128;
    else if (std::is_integral_v<T> || p.m <= 32 || p.n <= 32) kernel = MatmulKernel::tile_32;
    else kernel = MatmulKernel::tile_64;
  }
  if (kernel == MatmulKernel::tensor_cores) {
    TANDEM_ASSERT(cores, "operands don't fit the tensor cores");
    return dispatch_tensor_cores<T>(p);
  }
  if constexpr (std::is_same_v<T, float>) {
    if (kernel == MatmulKernel::tile_128) return launch_tiles<Tile128, T>(p);
  }
  if constexpr (!std::is_integral_v<T>) {
    if (kernel == MatmulKernel::tile_64) return launch_tiles<Tile64, T>(p);
  }
  launch_tiles<Tile32, T>(p);
}

// --- the ops ----------------------------------------------------------------------------------------------------------

void run(MatmulProblem& p, KernelContext& op) {
  if (p.m * p.n * p.batch.numel() == 0) return;
  // A batch that shares b is one taller matrix.
  if (p.batch.rank == 1 && p.batch.stride[2][0] == 0 && p.batch.stride[1][0] == p.m * p.a.row &&
      p.batch.stride[0][0] == p.m * p.c_row) {
    p.m *= p.batch.extent[0];
    p.batch.rank = 0;
  }
  p.device = op.out().device;
  p.stream = stream_of(op);
  if (library() == Library::vendor && p.k > 0 && library_matmul(p)) return;
  own_matmul(p);
}

void matmul_kernel(KernelContext& op) {
  const TensorImpl &a = op.in(0), &b = op.in(1), &c = op.out();
  const int ra = a.shape.size(), rb = b.shape.size(), rc = c.shape.size();
  MatmulProblem p{};
  p.type = c.dtype;
  p.m = c.shape[rc - 2], p.n = c.shape[rc - 1], p.k = a.shape[ra - 1];
  p.a = {a.data, a.strides[ra - 2], a.strides[ra - 1]};
  p.b = {b.data, b.strides[rb - 2], b.strides[rb - 1]};
  p.c = c.data;
  p.c_row = c.strides[rc - 2];
  const auto outer = [](const Shape& s) {
    Shape result = s;
    result.resize(s.size() - 2);
    return result;
  };
  const Shape shape = outer(c.shape), c_strides = outer(c.strides), a_shape = outer(a.shape),
              a_strides = outer(a.strides), b_shape = outer(b.shape), b_strides = outer(b.strides);
  p.batch = Iteration(shape, {{&shape, &c_strides}, {&a_shape, &a_strides}, {&b_shape, &b_strides}});
  run(p, op);
}

void linear_kernel(KernelContext& op) {
  const TensorImpl &x = op.in(0), &w = op.in(1), &c = op.out();
  const int rank = x.shape.size();
  MatmulProblem p{};
  p.type = c.dtype;
  p.n = w.shape[0], p.k = w.shape[1], p.c_row = p.n;
  p.b = {w.data, w.strides[1], w.strides[0]};
  p.c = c.data;
  p.bias = op.inputs.size() > 2 ? op.in(2).data : nullptr;
  Shape bias_copy;
  const Workspace workspace(p.bias && !op.in(2).contiguous ? size_t(p.n * size_of(c.dtype)) : 0, c.device);
  if (void* copy = workspace.as<void>()) {
    copy_strided(op.in(2), op.in(2).shape, copy, c.dtype, contiguous_strides(op.in(2).shape), stream_of(op));
    p.bias = copy;
  }
  p.m = rank >= 2 ? x.shape[rank - 2] : 1;
  p.a = {x.data, rank >= 2 ? x.strides[rank - 2] : p.k, x.strides[rank - 1]};
  Shape shape, strides, c_strides;
  for (int d = 0; d + 2 < rank; ++d) {
    shape.push_back(x.shape[d]);
    strides.push_back(x.strides[d]);
    c_strides.push_back(c.strides[d]);
  }
  const Shape none{};
  p.batch = Iteration(shape, {{&shape, &c_strides}, {&shape, &strides}, {&none, &none}});
  run(p, op);
}

}  // namespace

void own_matmul(const MatmulProblem& problem, MatmulKernel kernel) {
  visit_any(problem.type, [&]<class T>() {
    // In as many launches as a grid's depth, and 32 bits for rows and columns, ask for. Parts begin where packs do.
    const int64_t most_rows = std::max(items_at_once() / 8 * 8, int64_t(8)),
                  most_columns = std::min(most_rows, most_across * core_tile), rows = problem.m, columns = problem.n;
    const auto products = [&](const Iteration& piece, const int64_t* offset) {
      MatmulProblem part = problem;
      part.batch = piece;
      for (int64_t row = 0; row < rows; row += most_rows) {
        for (int64_t column = 0; column < columns; column += most_columns) {
          part.m = std::min(most_rows, rows - row), part.n = std::min(most_columns, columns - column);
          part.c = static_cast<T*>(problem.c) + offset[0] + row * problem.c_row + column;
          part.a.data = static_cast<const T*>(problem.a.data) + offset[1] + row * problem.a.row;
          part.b.data = static_cast<const T*>(problem.b.data) + offset[2] + column * problem.b.column;
          if (problem.bias) part.bias = static_cast<const T*>(problem.bias) + column;
          choose<T>(part, kernel);
        }
      }
    };
    in_pieces(problem.batch, 32768, products);
  });
}

SplitK split_k(int64_t tiles, int64_t k, int depth) {
  SplitK result{1, unsigned(k)};
  const int64_t wanted = 2 * multiprocessors() / std::max(tiles, int64_t(1));
  const int64_t splits = std::min({wanted, k / 256, int64_t(64)});
  if (splits <= 1) return result;
  result.chunk = unsigned(ceil_divide(ceil_divide(k, splits), int64_t(depth)) * depth);
  result.splits = unsigned(ceil_divide(k, int64_t(result.chunk)));
  return result;
}

}  // namespace gpu

void add_cuda_matmul(Kernels kernels) {
  kernels["matmul"] = gpu::matmul_kernel;
  kernels["linear"] = gpu::linear_kernel;
}

}  // namespace tandem
