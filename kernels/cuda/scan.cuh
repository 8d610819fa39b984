// Scans along one dim of [outer, n, inner]: each result from all elements up to it, combined by an operation that need only be
// associative. The order of operations depends on the shape and the device alone.
//
// An operation F has a State (trivially copyable), identity(), combine(earlier, later), up(state, lanes, width), load(at, i) of the
// element at an offset, the i-th of its line, and store(at, state).
#pragma once

#include <algorithm>

#include "kernels/cuda/kernels.h"

namespace tandem::gpu {

constexpr int scan_threads = 256, scan_items = 4, scan_most_chunks = 256;

/// [outer, n, inner], walked along n in `chunks` pieces.
struct ScanShape {
  int64_t lines = 1, n = 1, inner = 1, chunk = 0;
  int chunks = 1;
  bool reverse = false;

  ScanShape(const Shape& shape, int dim, bool reverse) : reverse(reverse) {
    int64_t outer = 1;
    for (int d = 0; d < shape.size(); ++d) (d < dim ? outer : d == dim ? n : inner) *= shape[d];
    lines = n == 0 ? 0 : outer * inner;
    chunk = n;
  }
  /// In so many pieces at most, of a multiple of `unit` elements.
  void cut(int64_t pieces, int64_t unit) {
    chunk = ceil_divide(ceil_divide(n, std::max(int64_t(1), pieces)), unit) * unit;
    chunks = int(ceil_divide(n, chunk));
  }
  __device__ __forceinline__ int64_t first(int64_t line) const {
    return inner == 1 ? line * n : line / inner * (n * inner) + line % inner;
  }
  __device__ __forceinline__ int64_t place(int64_t i) const { return (reverse ? n - 1 - i : i) * inner; }
};

template <class F, int width> __device__ __forceinline__ typename F::State scan_lanes(typename F::State state) {
#pragma unroll
  for (int apart = 1; apart < width; apart *= 2) {
    const typename F::State before = F::up(state, apart, width);
    if (int(threadIdx.x % width) >= apart) state = F::combine(before, state);
  }
  return state;
}

/// What the pieces before `chunk` come to, by the lanes of a warp, each of which folds neighbours.
template <class F>
__device__ __forceinline__ typename F::State fold_before(const typename F::State* totals, int chunk) {
  constexpr int each = scan_most_chunks / 32;
  const int lane = int(threadIdx.x % 32);
  typename F::State state = F::identity();
  for (int c = lane * each; c < chunk && c < (lane + 1) * each; ++c) state = F::combine(state, totals[c]);
  return scan_lanes<F, 32>(state);  // the last lane has all
}

// Lines that lie along the innermost dim: `lanes` threads (4, 32, or the block) walk a line, or a piece of it, four neighbours a
// thread and step, and carry what there was from step to step. `totals_only`: the first launch of two, which leaves what the pieces
// come to; the second reads that.
template <class F, int lanes, bool totals_only>
__global__ void __launch_bounds__(scan_threads) scan_rows(F f, ScanShape shape, typename F::State* totals) {
  using State = typename F::State;
  constexpr int width = lanes < 32 ? lanes : 32, warps = lanes / width, step = lanes * scan_items;
  TANDEM_SHARED(State, warp_totals, [scan_threads / 32 + 1]);
  const int64_t unit = int64_t(blockIdx.x) * (scan_threads / lanes) + threadIdx.x / lanes;
  const int64_t line = unit / shape.chunks;
  const int chunk = int(unit - line * shape.chunks);
  const bool live = line < shape.lines;
  const int64_t first = live ? shape.first(line) : 0, begin = chunk * shape.chunk,
                end = !live                           ? begin
                      : shape.n - begin < shape.chunk ? shape.n
                                                      : begin + shape.chunk;
  const unsigned lane = threadIdx.x % width, warp = threadIdx.x % lanes / width;
  State carry = F::identity();
  if (!totals_only && lanes == scan_threads && chunk > 0) {  // the block's own chunk: all threads agree
    if (warp == 0) {
      const State before = fold_before<F>(totals + line * shape.chunks, chunk);
      if (lane == 31) warp_totals[warps] = before;
    }
    __syncthreads();
    carry = warp_totals[warps];
  }
  for (int64_t base = begin; base < begin + shape.chunk && base < shape.n; base += step) {
    const int64_t own = base + int64_t(threadIdx.x % lanes) * scan_items;
    State state[scan_items], all = F::identity();
#pragma unroll
    for (int k = 0; k < scan_items; ++k) {
      state[k] = own + k < end ? f.load(first + shape.place(own + k), own + k) : F::identity();
      all = F::combine(all, state[k]);
    }
    const State up_to = scan_lanes<F, width>(all);
    State before = F::up(up_to, 1, width), total;
    if (lane == 0) before = F::identity();
    if constexpr (warps > 1) {
      __syncthreads();  // whoever still reads the last step's
      if (lane == 31) warp_totals[warp] = up_to;
      __syncthreads();
      total = F::identity();
      State warps_before = F::identity();
#pragma unroll
      for (unsigned w = 0; w < warps; ++w) {
        if (w == warp) warps_before = total;
        total = F::combine(total, warp_totals[w]);
      }
      before = F::combine(warps_before, before);
    } else {
      total = F::last(up_to, width);
    }
    if constexpr (!totals_only) {
      before = F::combine(carry, before);
#pragma unroll
      for (int k = 0; k < scan_items; ++k) {
        if (own + k >= end) break;
        before = F::combine(before, state[k]);
        f.store(first + shape.place(own + k), before);
      }
    }
    carry = F::combine(carry, total);
  }
  if (totals_only && threadIdx.x == 0) totals[unit] = carry;
}

// Lines across: a thread walks a line, or a piece of it, and neighbours read neighbours.
template <class F, bool totals_only>
__global__ void __launch_bounds__(scan_threads) scan_columns(F f, ScanShape shape, typename F::State* totals) {
  using State = typename F::State;
  const int64_t line = int64_t(blockIdx.x) / shape.chunks * scan_threads + threadIdx.x;
  const int chunk = int(int64_t(blockIdx.x) % shape.chunks);
  if (line >= shape.lines) return;
  const int64_t first = shape.first(line), begin = chunk * shape.chunk,
                end = shape.n - begin < shape.chunk ? shape.n : begin + shape.chunk;
  State carry = F::identity();
  if (!totals_only)
    for (int c = 0; c < chunk; ++c) carry = F::combine(carry, totals[c * shape.lines + line]);
  for (int64_t i = begin; i < end; i += scan_items) {
    State state[scan_items];
#pragma unroll
    for (int k = 0; k < scan_items; ++k)  // all are on their way before the first is needed
      state[k] = i + k < end ? f.load(first + shape.place(i + k), i + k) : F::identity();
#pragma unroll
    for (int k = 0; k < scan_items; ++k) {
      if (i + k >= end) break;
      carry = F::combine(carry, state[k]);
      if constexpr (!totals_only) f.store(first + shape.place(i + k), carry);
    }
  }
  if constexpr (totals_only) totals[chunk * shape.lines + line] = carry;
}

template <class F, int lanes> void launch_scan_rows(const F& f, const ScanShape& shape, cudaStream_t stream) {
  const int64_t blocks = ceil_divide(shape.lines, int64_t(scan_threads / lanes));
  TANDEM_ASSERT(blocks < (int64_t(1) << 31), "too many lines for one launch");
  TANDEM_LAUNCH((scan_rows<F, lanes, false>), unsigned(blocks), scan_threads, 0, stream, f, shape, nullptr);
}

/// Few long lines are cut into pieces, so that the device is full.
template <class F> void launch_scan(const F& f, ScanShape shape, Device device) {
  using State = typename F::State;
  if (shape.lines == 0) return;
  const cudaStream_t stream = stream_of(device);
  if (shape.inner == 1) {
    if (shape.n <= 4 * scan_items) return launch_scan_rows<F, 4>(f, shape, stream);
    if (shape.n <= 1024) return launch_scan_rows<F, 32>(f, shape, stream);
    shape.cut(std::min({8 * multiprocessors() / shape.lines, shape.n / 4096, int64_t(scan_most_chunks)}),
              scan_threads * scan_items);
    if (shape.chunks == 1) return launch_scan_rows<F, scan_threads>(f, shape, stream);
    const Workspace totals(size_t(shape.lines * shape.chunks) * sizeof(State), device);
    const unsigned blocks = unsigned(shape.lines * shape.chunks);
    TANDEM_LAUNCH((scan_rows<F, scan_threads, true>), blocks, scan_threads, 0, stream, f, shape,
                  totals.template as<State>());
    TANDEM_LAUNCH((scan_rows<F, scan_threads, false>), blocks, scan_threads, 0, stream, f, shape,
                  totals.template as<State>());
    return;
  }
  const int64_t across = ceil_divide(shape.lines, int64_t(scan_threads));
  shape.cut(std::min({8 * multiprocessors() / across, shape.n / 256, int64_t(64)}), scan_items);
  TANDEM_ASSERT(across * shape.chunks < (int64_t(1) << 31), "too many lines for one launch");
  const unsigned blocks = unsigned(across * shape.chunks);
  const Workspace totals(shape.chunks > 1 ? size_t(shape.lines * shape.chunks) * sizeof(State) : 0, device);
  if (shape.chunks > 1) {
    TANDEM_LAUNCH((scan_columns<F, true>), blocks, scan_threads, 0, stream, f, shape, totals.template as<State>());
  }
  TANDEM_LAUNCH((scan_columns<F, false>), blocks, scan_threads, 0, stream, f, shape, totals.template as<State>());
}

}  // namespace tandem::gpu
