// Single steps of an LSTM or GRU whose products are made elsewhere, and their gradients. A thread takes packs of 16 bytes of
// neighbouring units, so that each operand is read once, and each result written once, in whole sectors.
#include "kernels/cuda/rnn.cuh"

namespace tandem {
namespace gpu {
namespace {

/// Calls f(row, unit) for each `N` units of each row.
template <int N, class F> __device__ __forceinline__ void each_unit(int64_t rows, int64_t width, const F& f) {
  const int64_t packs = width / N;
  for (int64_t i = global_thread(); i < rows * packs; i += global_threads()) {
    const int64_t row = i / packs;
    f(row, (i - row * packs) * N);
  }
}

/// Neighbours of each of a row's gates: x [rows, gates width].
template <class T, int gates, int N> struct Gates {
  Pack<T, N> at[gates];
  __device__ __forceinline__ void load(const T* x, int64_t row, int64_t unit, int64_t width) {
#pragma unroll
    for (int g = 0; g < gates; ++g) at[g] = load_pack<N>(x + (row * gates + g) * width + unit);
  }
  __device__ __forceinline__ void store(T* x, int64_t row, int64_t unit, int64_t width) const {
#pragma unroll
    for (int g = 0; g < gates; ++g) store_pack(x + (row * gates + g) * width + unit, at[g]);
  }
};

template <class T, int N>
__global__ void __launch_bounds__(threads_per_block)
    lstm_cell(T* hiddens, T* nexts, const T* gates, const T* cells, int64_t rows, int64_t width) {
  each_unit<N>(rows, width, [&](int64_t row, int64_t unit) {
    const int64_t at = row * width + unit;
    Gates<T, 4, N> in;
    in.load(gates, row, unit, width);
    const auto cell = load_pack<N>(cells + at);
    Pack<T, N> hidden, next;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const auto y = lstm_unit(widen(in.at[0].at[k]), widen(in.at[1].at[k]), widen(in.at[2].at[k]),
                               widen(in.at[3].at[k]), widen(cell.at[k]));
      hidden.at[k] = convert<T>(y.hidden), next.at[k] = convert<T>(y.cell);
    }
    store_pack(hiddens + at, hidden);
    store_pack(nexts + at, next);
  });
}

template <class T> struct LstmCellGrad {
  const T *d_hidden, *d_next, *gates, *cell, *next;
  T *d_gates, *d_cell;
};
template <class T, int N>
__global__ void __launch_bounds__(threads_per_block) lstm_cell_grad(LstmCellGrad<T> p, int64_t rows, int64_t width) {
  using Wide = Compute<T>;
  each_unit<N>(rows, width, [&](int64_t row, int64_t unit) {
    const int64_t at = row * width + unit;
    Gates<T, 4, N> in, out;
    in.load(p.gates, row, unit, width);
    const auto d_hidden = load_pack<N>(p.d_hidden + at), d_next = load_pack<N>(p.d_next + at);
    const auto cell = load_pack<N>(p.cell + at), next = load_pack<N>(p.next + at);
    Pack<T, N> d_cell;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const LstmUnitGrad<Wide> d =
          lstm_unit_grad<Wide>(td_sigmoid(widen(in.at[0].at[k])), td_sigmoid(widen(in.at[1].at[k])),
                               td_tanh(widen(in.at[2].at[k])), td_sigmoid(widen(in.at[3].at[k])), widen(cell.at[k]),
                               widen(next.at[k]), widen(d_hidden.at[k]), widen(d_next.at[k]));
      out.at[0].at[k] = convert<T>(d.i), out.at[1].at[k] = convert<T>(d.f);
      out.at[2].at[k] = convert<T>(d.g), out.at[3].at[k] = convert<T>(d.o);
      d_cell.at[k] = convert<T>(d.cell);
    }
    out.store(p.d_gates, row, unit, width);
    store_pack(p.d_cell + at, d_cell);
  });
}

/// A unit's three gates.
template <class T, int N>
__device__ __forceinline__ void unit_of(Compute<T> (&to)[3], const Gates<T, 3, N>& from, int k) {
#pragma unroll
  for (int g = 0; g < 3; ++g) to[g] = widen(from.at[g].at[k]);
}

template <class T, int N>
__global__ void __launch_bounds__(threads_per_block)
    gru_cell(T* nexts, const T* x_gates, const T* h_gates, const T* hiddens, int64_t rows, int64_t width) {
  each_unit<N>(rows, width, [&](int64_t row, int64_t unit) {
    const int64_t at = row * width + unit;
    Gates<T, 3, N> x, h;
    x.load(x_gates, row, unit, width);
    h.load(h_gates, row, unit, width);
    const auto hidden = load_pack<N>(hiddens + at);
    Pack<T, N> next;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      Compute<T> of_x[3], of_h[3];
      unit_of(of_x, x, k);
      unit_of(of_h, h, k);
      next.at[k] = convert<T>(gru_unit(of_x, of_h, widen(hidden.at[k])).hidden);
    }
    store_pack(nexts + at, next);
  });
}

template <class T> struct GruCellGrad {
  const T *d_next, *x, *h, *hidden;
  T *d_x, *d_h, *d_hidden;
};
template <class T, int N>
__global__ void __launch_bounds__(threads_per_block) gru_cell_grad(GruCellGrad<T> p, int64_t rows, int64_t width) {
  using Wide = Compute<T>;
  each_unit<N>(rows, width, [&](int64_t row, int64_t unit) {
    const int64_t at = row * width + unit;
    Gates<T, 3, N> x, h;
    x.load(p.x, row, unit, width);
    h.load(p.h, row, unit, width);
    const auto d_next = load_pack<N>(p.d_next + at), hidden = load_pack<N>(p.hidden + at);
    Pack<T, N> d_hidden;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      Wide of_x[3], of_h[3];
      unit_of(of_x, x, k);
      unit_of(of_h, h, k);
      const GruUnit<Wide> y = gru_unit(of_x, of_h, widen(hidden.at[k]));
      const GruUnitGrad<Wide> d =
          gru_unit_grad<Wide>(y.r, y.z, y.n, y.product, widen(hidden.at[k]), widen(d_next.at[k]));
      x.at[0].at[k] = h.at[0].at[k] = convert<T>(d.reset);
      x.at[1].at[k] = h.at[1].at[k] = convert<T>(d.update);
      x.at[2].at[k] = convert<T>(d.new_x), h.at[2].at[k] = convert<T>(d.new_h);
      d_hidden.at[k] = convert<T>(d.hidden);
    }
    x.store(p.d_x, row, unit, width);
    h.store(p.d_h, row, unit, width);
    store_pack(p.d_hidden + at, d_hidden);
  });
}

/// Calls `f.template operator()<T, N>(rows)` with the pack that all operands and results allow.
template <class F> void over_cells(KernelContext& op, F&& f) {
  const int64_t width = op.outputs.back().shape().back(), count = op.outputs.back().shape().numel();
  if (count == 0) return;
  visit_floating(op.out().dtype, [&]<class T>() {
    bool packed = width % pack_size<T> == 0;
    for (const Tensor& each : op.inputs) packed = packed && is_aligned(each.impl()->data);
    for (const Tensor& each : op.outputs) packed = packed && is_aligned(each.impl()->data);
    if (packed) f.template operator()<T, pack_size<T>>(count / width, width);
    else f.template operator()<T, 1>(count / width, width);
  });
}

void lstm_cell_kernel(KernelContext& op) {
  over_cells(op, [&]<class T, int N>(int64_t rows, int64_t width) {
    TANDEM_LAUNCH((lstm_cell<T, N>), blocks_for(rows * width / N), threads_per_block, 0, stream_of(op),
                  data<T>(op.out(0)), data<T>(op.out(1)), data<T>(op.in(0)), data<T>(op.in(1)), rows, width);
  });
}
void lstm_cell_grad_kernel(KernelContext& op) {
  over_cells(op, [&]<class T, int N>(int64_t rows, int64_t width) {
    const LstmCellGrad<T> p{data<T>(op.in(0)), data<T>(op.in(1)),  data<T>(op.in(2)), data<T>(op.in(3)),
                            data<T>(op.in(4)), data<T>(op.out(0)), data<T>(op.out(1))};
    TANDEM_LAUNCH((lstm_cell_grad<T, N>), blocks_for(rows * width / N), threads_per_block, 0, stream_of(op), p, rows,
                  width);
  });
}
void gru_cell_kernel(KernelContext& op) {
  over_cells(op, [&]<class T, int N>(int64_t rows, int64_t width) {
    TANDEM_LAUNCH((gru_cell<T, N>), blocks_for(rows * width / N), threads_per_block, 0, stream_of(op),
                  data<T>(op.out()), data<T>(op.in(0)), data<T>(op.in(1)), data<T>(op.in(2)), rows, width);
  });
}
void gru_cell_grad_kernel(KernelContext& op) {
  over_cells(op, [&]<class T, int N>(int64_t rows, int64_t width) {
    const GruCellGrad<T> p{data<T>(op.in(0)),  data<T>(op.in(1)),  data<T>(op.in(2)), data<T>(op.in(3)),
                           data<T>(op.out(0)), data<T>(op.out(1)), data<T>(op.out(2))};
    TANDEM_LAUNCH((gru_cell_grad<T, N>), blocks_for(rows * width / N), threads_per_block, 0, stream_of(op), p, rows,
                  width);
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_rnn_cells(Kernels kernels) {
  kernels["lstm_cell"] = gpu::lstm_cell_kernel;
  kernels["lstm_cell_grad"] = gpu::lstm_cell_grad_kernel;
  kernels["gru_cell"] = gpu::gru_cell_kernel;
  kernels["gru_cell_grad"] = gpu::gru_cell_grad_kernel;
}

}  // namespace tandem
