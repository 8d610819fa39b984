// softmax, log_softmax and their gradients, along contiguous rows: one read and one write of each row. Rows
// too long for registers are read twice, the maximum and the sum being carried together (Milakov and
// Gimelshein 2018, "Online normalizer calculation for softmax").
#include "core/scalar/math.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/rows.cuh"

namespace tandem {
namespace gpu {
namespace {

template <class S, bool logarithm>
__global__ void __launch_bounds__(S::threads)
    softmax_rows(typename S::Element* out, const typename S::Element* in, unsigned rows, unsigned columns) {
  using Wide = typename S::Wide;
  TANDEM_SHARED(Wide, scratch, [S::threads / 32]);
  const unsigned row = this_row<S>();
  const bool live = row < rows;
  const Wide nothing = -static_cast<Wide>(INFINITY);
  RowTile<S> x;
  x.load(in + int64_t(row) * columns, columns, live, nothing);
  const Wide highest = reduce_row<S::lanes>(x.maximum(), Maximum(), nothing, scratch);
  // A lane's missing columns are -inf and add exp(-inf) = 0; a row that is all -inf gives NaN, as it should.
  if constexpr (logarithm) {
    const Wide total =
        reduce_row<S::lanes>(x.sum([&](int i) { return td_exp(x.at[i] - highest); }), Add(), Wide(0), scratch);
    const Wide log_total = td_log(total);
    x.store(out + int64_t(row) * columns, columns, live, [&](int i) { return x.at[i] - highest - log_total; });
  } else {
#pragma unroll
    for (int i = 0; i < S::items; ++i) x.at[i] = td_exp(x.at[i] - highest);
    const Wide total = reduce_row<S::lanes>(x.sum([&](int i) { return x.column(i) < columns ? x.at[i] : Wide(0); }),
                                            Add(), Wide(0), scratch);
    x.store(out + int64_t(row) * columns, columns, live, [&](int i) { return x.at[i] / total; });
  }
}

template <class W> struct Running {
  W highest, total;  // total is of exp(x - highest)
};
template <class W> __device__ __forceinline__ Running<W> shuffle_xor(Running<W> x, int lanes) {
  return {__shfl_xor_sync(all_lanes, x.highest, lanes), __shfl_xor_sync(all_lanes, x.total, lanes)};
}
struct JoinRunning {
  template <class W> __device__ __forceinline__ Running<W> operator()(Running<W> a, Running<W> b) const {
    const W highest = Maximum()(a.highest, b.highest);
    if (highest == -static_cast<W>(INFINITY)) return {highest, 0};  // nothing yet, or all -inf
    return {highest, a.total * td_exp(a.highest - highest) + b.total * td_exp(b.highest - highest)};
  }
};

template <class T, bool logarithm>
__global__ void __launch_bounds__(256) softmax_long_rows(T* out, const T* in, int64_t columns) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Running<Wide>, scratch, [8]);
  const T* x = in + blockIdx.x * columns;
  T* y = out + blockIdx.x * columns;
  const Wide nothing = -static_cast<Wide>(INFINITY);
  Running<Wide> state{nothing, 0};
  for (int64_t i = threadIdx.x; i < columns; i += 256) state = JoinRunning()(state, Running<Wide>{widen(x[i]), 1});
  state = reduce_block(state, JoinRunning(), Running<Wide>{nothing, 0}, scratch);
  const Wide log_total = td_log(state.total);
  for (int64_t i = threadIdx.x; i < columns; i += 256) {
    const Wide shifted = widen(x[i]) - state.highest;
    y[i] = convert<T>(logarithm ? shifted - log_total : td_exp(shifted) / state.total);
  }
}

// softmax: dx = y (g - sum(g y)); log_softmax: dx = g - exp(y) sum(g).
template <class S, bool logarithm>
__global__ void __launch_bounds__(S::threads)
    softmax_grad_rows(typename S::Element* out, const typename S::Element* grad, const typename S::Element* result,
                      unsigned rows, unsigned columns) {
  using Wide = typename S::Wide;
  TANDEM_SHARED(Wide, scratch, [S::threads / 32]);
  const unsigned row = this_row<S>();
  const bool live = row < rows;
  const int64_t at = int64_t(row) * columns;
  RowTile<S> g, y;
  g.load(grad + at, columns, live, Wide(0));
  y.load(result + at, columns, live, Wide(0));
  const Wide total = reduce_row<S::lanes>(g.sum([&](int i) { return logarithm ? g.at[i] : g.at[i] * y.at[i]; }), Add(),
                                          Wide(0), scratch);
  y.store(out + at, columns, live,
          [&](int i) { return logarithm ? g.at[i] - td_exp(y.at[i]) * total : y.at[i] * (g.at[i] - total); });
}

template <class T, bool logarithm>
__global__ void __launch_bounds__(256) softmax_grad_long_rows(T* out, const T* grad, const T* result, int64_t columns) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Wide, scratch, [8]);
  const int64_t at = blockIdx.x * columns;
  Wide total = 0;
  for (int64_t i = threadIdx.x; i < columns; i += 256) {
    total += logarithm ? widen(grad[at + i]) : widen(grad[at + i]) * widen(result[at + i]);
  }
  total = reduce_block(total, Add(), Wide(0), scratch);
  for (int64_t i = threadIdx.x; i < columns; i += 256) {
    const Wide g = widen(grad[at + i]), y = widen(result[at + i]);
    out[at + i] = convert<T>(logarithm ? g - td_exp(y) * total : y * (g - total));
  }
}

template <bool logarithm> void softmax_kernel(KernelContext& op) {
  visit_floating(op.out().dtype, [&]<class T>() {
    const int64_t columns = op.in(0).shape.back(), count = op.in(0).shape.numel();
    if (count == 0) return;
    const int64_t rows = count / columns;
    const T* x = data<T>(op.in(0));
    T* y = data<T>(op.out());
    in_rows(rows, 1, [&](int64_t first, int64_t part) {
      const int64_t at = first * columns;
      const bool fits = visit_row_shape<T>(columns, is_aligned(x) && is_aligned(y), [&]<class S>() {
        TANDEM_LAUNCH((softmax_rows<S, logarithm>), row_blocks<S>(part), S::threads, 0, stream_of(op), y + at, x + at,
                      unsigned(part), unsigned(columns));
      });
      if (!fits)
        TANDEM_LAUNCH((softmax_long_rows<T, logarithm>), unsigned(part), 256, 0, stream_of(op), y + at, x + at,
                      columns);
    });
  });
}

template <bool logarithm> void softmax_grad_kernel(KernelContext& op) {
  visit_floating(op.out().dtype, [&]<class T>() {
    const int64_t columns = op.in(0).shape.back(), count = op.in(0).shape.numel();
    if (count == 0) return;
    const int64_t rows = count / columns;
    const T *g = data<T>(op.in(0)), *y = data<T>(op.in(1));
    T* out = data<T>(op.out());
    in_rows(rows, 1, [&](int64_t first, int64_t part) {
      const int64_t at = first * columns;
      const bool fits = visit_row_shape<T>(columns, is_aligned(g) && is_aligned(y) && is_aligned(out), [&]<class S>() {
        TANDEM_LAUNCH((softmax_grad_rows<S, logarithm>), row_blocks<S>(part), S::threads, 0, stream_of(op), out + at,
                      g + at, y + at, unsigned(part), unsigned(columns));
      });
      if (!fits)
        TANDEM_LAUNCH((softmax_grad_long_rows<T, logarithm>), unsigned(part), 256, 0, stream_of(op), out + at, g + at,
                      y + at, columns);
    });
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_softmax(Kernels kernels) {
  kernels["softmax"] = gpu::softmax_kernel<false>;
  kernels["log_softmax"] = gpu::softmax_kernel<true>;
  kernels["softmax_grad"] = gpu::softmax_grad_kernel<false>;
  kernels["log_softmax_grad"] = gpu::softmax_grad_kernel<true>;
}

}  // namespace tandem
