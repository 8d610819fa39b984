// Rows kept in registers: each row is read once, by a warp or by a block, and whatever is computed from it
// (maxima, sums, normalised values) comes from the registers.
#pragma once

#include "kernels/cuda/context.h"
#include "kernels/cuda/device.cuh"

namespace tandem::gpu {

// `lanes` threads (32, or all 256 of the block) own a row; each holds `packs` packs of N neighbours, the packs
// of neighbouring lanes being neighbours in memory.
template <class T, int lanes_, int packs_, int N_> struct RowShape {
  using Element = T;
  using Wide = Compute<T>;
  static constexpr int lanes = lanes_, packs = packs_, N = N_, items = packs_ * N_;
  static constexpr int threads = lanes_ == 32 ? 128 : lanes_;
  static constexpr int rows_per_block = threads / lanes_;
  static constexpr int64_t longest = int64_t(lanes) * items;
};

template <class S> struct RowTile {
  using T = typename S::Element;
  using Wide = typename S::Wide;
  Wide at[S::items];

  static __device__ __forceinline__ unsigned column(int item) {
    return (unsigned(item / S::N) * S::lanes + threadIdx.x % S::lanes) * S::N + unsigned(item % S::N);
  }

  __device__ __forceinline__ void load(const T* row, unsigned columns, bool live, Wide missing) {
#pragma unroll
    for (int p = 0; p < S::packs; ++p) {
      const unsigned first = column(p * S::N);  // columns are a multiple of N: a pack is there or it isn't
      if (live && first < columns) {
        const auto pack = load_pack<S::N>(row + first);
#pragma unroll
        for (int k = 0; k < S::N; ++k) at[p * S::N + k] = widen(pack.at[k]);
      } else {
#pragma unroll
        for (int k = 0; k < S::N; ++k) at[p * S::N + k] = missing;
      }
    }
  }

  // value(item) for each column of a live row.
  template <class F> static __device__ __forceinline__ void store(T* row, unsigned columns, bool live, F value) {
    if (!live) return;
#pragma unroll
    for (int p = 0; p < S::packs; ++p) {
      const unsigned first = column(p * S::N);
      if (first >= columns) break;
      Pack<T, S::N> pack;
#pragma unroll
      for (int k = 0; k < S::N; ++k) pack.at[k] = convert<T>(value(p * S::N + k));
      store_pack(row + first, pack);
    }
  }

  template <class F> static __device__ __forceinline__ Wide sum(F value) {
    Wide total = 0;
#pragma unroll
    for (int i = 0; i < S::items; ++i) total += value(i);
    return total;
  }
  __device__ __forceinline__ Wide maximum() const {
    Wide result = at[0];
#pragma unroll
    for (int i = 1; i < S::items; ++i) result = Maximum()(result, at[i]);
    return result;
  }
};

// Over the lanes of a row; `scratch` is shared and has a place for each of a block's warps.
template <int lanes, class T, class F> __device__ __forceinline__ T reduce_row(T value, F f, T identity, T* scratch) {
  if constexpr (lanes == 32) return reduce_lanes(value, f);
  else return reduce_block(value, f, identity, scratch);
}

template <class S> __device__ __forceinline__ unsigned this_row() {
  return blockIdx.x * S::rows_per_block + threadIdx.x / S::lanes;
}
template <class S> unsigned row_blocks(int64_t rows) { return unsigned(ceil_divide(rows, int64_t(S::rows_per_block))); }

// Calls `f.template operator()<RowShape>()` with the smallest shape that holds a row, and returns whether there is
// one; longer rows have kernels of their own that read them more than once. `aligned` says whether rows may be
// read in 128-bit packs.
template <class T, class F> bool visit_row_shape(int64_t columns, bool aligned, F&& f) {
  constexpr int N = pack_size<T>;
  if (columns <= 32 * 4) {
    f.template operator()<RowShape<T, 32, 4, 1>>();
  } else if (columns <= 32 * 32 && aligned && columns % N == 0) {
    f.template operator()<RowShape<T, 32, 32 / N, N>>();
  } else if (columns <= 32 * 32) {
    f.template operator()<RowShape<T, 32, 32, 1>>();
  } else if (columns <= 256 * 32 && aligned && columns % N == 0) {
    f.template operator()<RowShape<T, 256, 32 / N, N>>();
  } else if (columns <= 256 * 16) {
    f.template operator()<RowShape<T, 256, 16, 1>>();
  } else {
    return false;
  }
  return true;
}

}  // namespace tandem::gpu
