// layer_norm, rms_norm and their gradients. Forward keeps the row in registers for mean, variance (two passes over the
// registers: no cancellation) and the result. Backward does dx by rows the same way; dw and db are column
// sums, in two stages without atomics, so that they are the same bits at every run. rms_norm is what is left of layer_norm
// where rows aren't centred: the mean is 0 and there is no bias.
#include "core/scalar/math.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/rows.cuh"

namespace tandem {
namespace gpu {
namespace {

// A row is read once, in packs, and written once.
template <bool centred, class S>
__global__ void __launch_bounds__(S::threads)
    norm_rows(typename S::Element* out, typename S::Wide* means, typename S::Wide* rstds, const typename S::Element* in,
              const typename S::Element* weight, const typename S::Element* bias, double epsilon, unsigned rows,
              unsigned columns) {
  using Wide = typename S::Wide;
  TANDEM_SHARED(Wide, scratch, [S::threads / 32]);
  const unsigned row = this_row<S>();
  const bool live = row < rows;
  RowTile<S> x;
  x.load(in + int64_t(row) * columns, columns, live, Wide(0));
  Wide mean = 0;
  if constexpr (centred) {
    mean = reduce_row<S::lanes>(x.sum([&](int i) { return x.at[i]; }), Add(), Wide(0), scratch) / Wide(columns);
  }
  const Wide squares = reduce_row<S::lanes>(x.sum([&](int i) {
    const Wide off = x.column(i) < columns ? x.at[i] - mean : Wide(0);
    return off * off;
  }),
                                            Add(), Wide(0), scratch);
  const Wide rstd = td_rsqrt(squares / Wide(columns) + static_cast<Wide>(epsilon));
  x.store(out + int64_t(row) * columns, columns, live, [&](int i) {
    const unsigned column = x.column(i);
    const Wide scaled = (x.at[i] - mean) * rstd * widen(weight[column]);
    return centred ? scaled + widen(bias[column]) : scaled;
  });
  if (live && threadIdx.x % S::lanes == 0) {
    if constexpr (centred) means[row] = mean;
    rstds[row] = rstd;
  }
}

// A block reads a row that doesn't fit into its registers two or three times, from the second on from the L2 cache.
template <bool centred, class T>
__global__ void __launch_bounds__(256) norm_long_rows(T* out, Compute<T>* means, Compute<T>* rstds, const T* in,
                                                      const T* weight, const T* bias, double epsilon, int64_t columns) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Wide, scratch, [8]);
  const T* x = in + blockIdx.x * columns;
  Wide mean = 0, squares = 0;
  if constexpr (centred) {
    for (int64_t i = threadIdx.x; i < columns; i += 256) mean += widen(x[i]);
    mean = reduce_block(mean, Add(), Wide(0), scratch) / Wide(columns);
  }
  for (int64_t i = threadIdx.x; i < columns; i += 256) squares += (widen(x[i]) - mean) * (widen(x[i]) - mean);
  squares = reduce_block(squares, Add(), Wide(0), scratch);
  const Wide rstd = td_rsqrt(squares / Wide(columns) + static_cast<Wide>(epsilon));
  for (int64_t i = threadIdx.x; i < columns; i += 256) {
    const Wide scaled = (widen(x[i]) - mean) * rstd * widen(weight[i]);
    out[blockIdx.x * columns + i] = convert<T>(centred ? scaled + widen(bias[i]) : scaled);
  }
  if (threadIdx.x == 0) {
    if constexpr (centred) means[blockIdx.x] = mean;
    rstds[blockIdx.x] = rstd;
  }
}

// With n = (x - mean) rstd and h = g w: dx = rstd (h - mean(h) - n mean(h n)), without mean(h) where rows aren't centred.
template <bool centred, class S>
__global__ void __launch_bounds__(S::threads)
    norm_grad_rows(typename S::Element* out, const typename S::Element* grad, const typename S::Element* in,
                   const typename S::Element* weight, const typename S::Wide* means, const typename S::Wide* rstds,
                   unsigned rows, unsigned columns) {
  using Wide = typename S::Wide;
  TANDEM_SHARED(Wide, scratch, [S::threads / 32]);
  const unsigned row = this_row<S>();
  const bool live = row < rows;
  const int64_t at = int64_t(row) * columns;
  const Wide mean = live && centred ? means[row] : Wide(0), rstd = live ? rstds[row] : Wide(0);
  RowTile<S> h, n;
  h.load(grad + at, columns, live, Wide(0));
  n.load(in + at, columns, live, Wide(0));
#pragma unroll
  for (int i = 0; i < S::items; ++i) {
    const unsigned column = h.column(i);
    h.at[i] = column < columns ? h.at[i] * widen(weight[column]) : Wide(0);
    n.at[i] = (n.at[i] - mean) * rstd;
  }
  Wide mean_h = 0;
  if constexpr (centred) {
    mean_h = reduce_row<S::lanes>(h.sum([&](int i) { return h.at[i]; }), Add(), Wide(0), scratch) / Wide(columns);
  }
  const Wide mean_hn =
      reduce_row<S::lanes>(h.sum([&](int i) { return h.at[i] * n.at[i]; }), Add(), Wide(0), scratch) / Wide(columns);
  h.store(out + at, columns, live, [&](int i) { return rstd * (h.at[i] - mean_h - n.at[i] * mean_hn); });
}

template <bool centred, class T>
__global__ void __launch_bounds__(256)
    norm_grad_long_rows(T* out, const T* grad, const T* in, const T* weight, const Compute<T>* means,
                        const Compute<T>* rstds, int64_t columns) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Wide, scratch, [8]);
  const int64_t at = blockIdx.x * columns;
  const Wide mean = centred ? means[blockIdx.x] : Wide(0), rstd = rstds[blockIdx.x];
  Wide sum_h = 0, sum_hn = 0;
  for (int64_t i = threadIdx.x; i < columns; i += 256) {
    const Wide h = widen(grad[at + i]) * widen(weight[i]);
    sum_h += h;
    sum_hn += h * ((widen(in[at + i]) - mean) * rstd);
  }
  const Wide mean_h = centred ? reduce_block(sum_h, Add(), Wide(0), scratch) / Wide(columns) : Wide(0);
  const Wide mean_hn = reduce_block(sum_hn, Add(), Wide(0), scratch) / Wide(columns);
  for (int64_t i = threadIdx.x; i < columns; i += 256) {
    const Wide h = widen(grad[at + i]) * widen(weight[i]), n = (widen(in[at + i]) - mean) * rstd;
    out[at + i] = convert<T>(rstd * (h - mean_h - n * mean_hn));
  }
}

// dw = sum over rows of g n, db = sum over rows of g. First stage: a block sums a chunk of rows for a tile of columns, each
// thread N neighbours of them, so that a warp reads whole lines.
constexpr int tile_wide = 32, tile_high = 8;

template <bool centred, class T, int N>
__global__ void __launch_bounds__(tile_wide* tile_high)
    norm_grad_columns(Compute<T>* partial_w, Compute<T>* partial_b, const T* grad, const T* in, const Compute<T>* means,
                      const Compute<T>* rstds, int64_t rows, int64_t columns, int64_t chunk) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Wide, scratch, [centred ? 2 : 1][tile_high][N][tile_wide]);
  const unsigned x = threadIdx.x % tile_wide, y = threadIdx.x / tile_wide;
  const int64_t column = (int64_t(blockIdx.x) * tile_wide + x) * N;
  const int64_t begin = blockIdx.y * chunk, end = begin + chunk < rows ? begin + chunk : rows;
  Wide w[N], b[N];
#pragma unroll
  for (int k = 0; k < N; ++k) w[k] = b[k] = 0;
  if (column < columns) {  // columns are a multiple of N
#pragma unroll 2
    for (int64_t row = begin + y; row < end; row += tile_high) {
      const auto g = load_pack<N>(grad + row * columns + column), v = load_pack<N>(in + row * columns + column);
      const Wide mean = centred ? means[row] : Wide(0), rstd = rstds[row];
#pragma unroll
      for (int k = 0; k < N; ++k) {
        w[k] += widen(g.at[k]) * ((widen(v.at[k]) - mean) * rstd);
        b[k] += widen(g.at[k]);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < N; ++k) {
    scratch[0][y][k][x] = w[k];
    if constexpr (centred) scratch[1][y][k][x] = b[k];
  }
  __syncthreads();
  // The tile's rows of threads are as many as a pack has places, or more: each adds one place of all of them.
  if (column >= columns) return;
  for (unsigned k = y; k < N; k += tile_high) {
    Wide w_sum = 0, b_sum = 0;
    for (int high = 0; high < tile_high; ++high) {
      w_sum += scratch[0][high][k][x];
      if constexpr (centred) b_sum += scratch[1][high][k][x];
    }
    partial_w[blockIdx.y * columns + column + k] = w_sum;
    if constexpr (centred) partial_b[blockIdx.y * columns + column + k] = b_sum;
  }
}

// Second stage: a block adds up all chunks of 32 columns, a warp every eighth of them.
template <bool centred, class T>
__global__ void __launch_bounds__(tile_wide* tile_high)
    norm_grad_fold(T* grad_w, T* grad_b, const Compute<T>* partial_w, const Compute<T>* partial_b, int64_t columns,
                   int splits) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Wide, scratch, [2][tile_high][tile_wide]);
  const unsigned x = threadIdx.x % tile_wide, y = threadIdx.x / tile_wide;
  const int64_t column = int64_t(blockIdx.x) * tile_wide + x;
  Wide w = 0, b = 0;
  if (column < columns) {
    for (int k = int(y); k < splits; k += tile_high) {
      w += partial_w[k * columns + column];
      if constexpr (centred) b += partial_b[k * columns + column];
    }
  }
  scratch[0][y][x] = w;
  scratch[1][y][x] = b;
  __syncthreads();
  if (y != 0 || column >= columns) return;
  for (int k = 1; k < tile_high; ++k) {
    w += scratch[0][k][x];
    b += scratch[1][k][x];
  }
  grad_w[column] = convert<T>(w);
  if constexpr (centred) grad_b[column] = convert<T>(b);
}

template <bool centred> void norm_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() {
    using Wide = Compute<T>;
    const int64_t columns = op.in(0).shape.back(), count = op.in(0).shape.numel();
    const int64_t rows = op.out(1).shape.numel();
    if (count == 0) return;
    const double epsilon = op.attributes.number("epsilon");
    const T *x = data<T>(op.in(0)), *weight = data<T>(op.in(1)), *bias = centred ? data<T>(op.in(2)) : nullptr;
    T* y = data<T>(op.out(0));
    Wide *mean = centred ? data<Wide>(op.out(1)) : nullptr, *rstd = data<Wide>(op.out(centred ? 2 : 1));
    in_rows(rows, 1, [&](int64_t first, int64_t part) {
      const int64_t at = first * columns;
      Wide *const means = centred ? mean + first : nullptr, *const rstds = rstd + first;
      const bool fits = visit_row_shape<T>(columns, is_aligned(x) && is_aligned(y), [&]<class S>() {
        TANDEM_LAUNCH((norm_rows<centred, S>), row_blocks<S>(part), S::threads, 0, stream_of(op), y + at, means, rstds,
                      x + at, weight, bias, epsilon, unsigned(part), unsigned(columns));
      });
      if (!fits) {
        TANDEM_LAUNCH((norm_long_rows<centred, T>), unsigned(part), 256, 0, stream_of(op), y + at, means, rstds, x + at,
                      weight, bias, epsilon, columns);
      }
    });
  });
}

template <bool centred, class T, int N>
void launch_columns(KernelContext& op, const T* g, const T* x, const Compute<T>* mean, const Compute<T>* rstd,
                    int64_t rows, int64_t columns) {
  using Wide = Compute<T>;
  const cudaStream_t stream = stream_of(op);
  const int64_t across = ceil_divide(columns, int64_t(tile_wide) * N);
  int64_t splits = ceil_divide(8 * multiprocessors(), across);
  splits = std::clamp(std::min(splits, rows / (4 * tile_high)), int64_t(1), int64_t(256));
  const int64_t chunk = ceil_divide(std::max(rows, int64_t(1)), splits);
  const Workspace workspace(size_t(2 * splits * columns) * sizeof(Wide), op.out().device);
  Wide* partial = workspace.template as<Wide>();
  TANDEM_LAUNCH((norm_grad_columns<centred, T, N>), dim3(unsigned(across), unsigned(splits)), tile_wide * tile_high, 0,
                stream, partial, partial + splits * columns, g, x, mean, rstd, rows, columns, chunk);
  TANDEM_LAUNCH((norm_grad_fold<centred, T>), unsigned(ceil_divide(columns, int64_t(tile_wide))), tile_wide * tile_high,
                0, stream, data<T>(op.out(1)), centred ? data<T>(op.out(2)) : nullptr, partial,
                partial + splits * columns, columns, int(splits));
}

template <bool centred> void norm_grad_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() {
    using Wide = Compute<T>;
    const cudaStream_t stream = stream_of(op);
    const int64_t columns = op.in(1).shape.back(), rows = op.in(3).shape.numel();
    if (columns == 0) return;
    const T *g = data<T>(op.in(0)), *x = data<T>(op.in(1)), *weight = data<T>(op.in(2));
    const Wide *mean = centred ? data<Wide>(op.in(3)) : nullptr, *rstd = data<Wide>(op.in(centred ? 4 : 3));
    T* dx = data<T>(op.out(0));
    in_rows(rows, 1, [&](int64_t first, int64_t part) {
      const int64_t at = first * columns;
      const Wide *const means = centred ? mean + first : nullptr, *const rstds = rstd + first;
      const bool fits = visit_row_shape<T>(columns, is_aligned(g) && is_aligned(x) && is_aligned(dx), [&]<class S>() {
        TANDEM_LAUNCH((norm_grad_rows<centred, S>), row_blocks<S>(part), S::threads, 0, stream, dx + at, g + at, x + at,
                      weight, means, rstds, unsigned(part), unsigned(columns));
      });
      if (!fits) {
        TANDEM_LAUNCH((norm_grad_long_rows<centred, T>), unsigned(part), 256, 0, stream, dx + at, g + at, x + at,
                      weight, means, rstds, columns);
      }
    });
    constexpr int N = pack_size<T>;
    if (columns % N == 0 && is_aligned(g) && is_aligned(x))
      launch_columns<centred, T, N>(op, g, x, mean, rstd, rows, columns);
    else launch_columns<centred, T, 1>(op, g, x, mean, rstd, rows, columns);
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_batch_norm(Kernels kernels);
void add_cuda_group_norm(Kernels kernels);

void add_cuda_norm(Kernels kernels) {
  add_cuda_batch_norm(kernels);
  add_cuda_group_norm(kernels);
  kernels["layer_norm"] = gpu::norm_kernel<true>;
  kernels["layer_norm_grad"] = gpu::norm_grad_kernel<true>;
  kernels["rms_norm"] = gpu::norm_kernel<false>;
  kernels["rms_norm_grad"] = gpu::norm_grad_kernel<false>;
}

}  // namespace tandem
