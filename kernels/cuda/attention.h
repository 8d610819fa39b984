// What the kernels of attention share: the call as the host sees it, and the parts of it that go to the device.
#pragma once

#include <optional>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/random_key.cuh"

namespace tandem::gpu {

/// A tensor [batch.., heads, rows, columns], or a part of a packed one. Strides in elements.
struct HeadMatrices {
  void* data = nullptr;
  DType dtype = DType::float32;
  Shape strides;  ///< of the dims before the last two
  int64_t rows = 0, columns = 0, row = 0, column = 0;
};

/// Whether the rows can be read in packs of 16 bytes.
inline bool is_packed(const HeadMatrices& x) {
  const int64_t pack = 16 / size_of(x.dtype);
  bool result = x.column == 1 && x.columns % pack == 0 && x.row % pack == 0 && is_aligned(x.data);
  for (const int64_t stride : x.strides) result = result && stride % pack == 0;
  return result;
}

struct AttentionProblem {
  HeadMatrices q, k, v, out, g, dq, dk, dv;  ///< those that the call has
  std::optional<HeadMatrices> mask;          ///< broadcast to the scores; bool, or float64 for float64, else float32
  void* log_sum_exp = nullptr;               ///< [heads, time], dense
  void* row_sums = nullptr;                  ///< backward: of g out, the same
  Shape batch;
  int64_t heads = 0, time = 0, source = 0, depth = 0, width = 0;
  double scale = 1, dropout = 0;
  bool causal = false;
  RandomWords key;
  DType type = DType::float32;  ///< of q
  Device device;
  cudaStream_t stream = nullptr;
};

/// Where the heads of several operands lie; heads are counted row-major.
template <int operands>
Layout<operands> heads_of(const AttentionProblem& p, const HeadMatrices* const (&of)[operands]) {
  static_assert(operands <= Iteration::max_operands);
  Iteration all;
  all.rank = p.batch.size();
  all.count = operands;
  for (int d = 0; d < all.rank; ++d) {
    all.extent[d] = p.batch[d];
    for (int k = 0; k < operands; ++k) all.stride[k][d] = of[k]->strides[d];
  }
  all.merge();
  return Layout<operands>(all);
}

/// One head of an operand, once it has been moved there.
template <class T> struct HeadRows {
  T* data;
  int64_t row, column;
  __device__ __forceinline__ T& at(int64_t r, int64_t c) const { return data[r * row + c * column]; }
  __device__ __forceinline__ HeadRows moved(int64_t elements) const { return {data + elements, row, column}; }
};
template <class T> HeadRows<const T> rows_to_read(const HeadMatrices& x) {
  return {static_cast<const T*>(x.data), x.row, x.column};
}
template <class T> HeadRows<T> rows_to_write(const HeadMatrices& x) {
  return {static_cast<T*>(x.data), x.row, x.column};
}

/// The mask, bool or of the type that is computed in, as numbers to add to the scores.
struct MaskRows {
  const void* data = nullptr;  ///< null without a mask
  bool is_bool = false;
  int64_t row = 0, column = 0;

  template <class W> __device__ __forceinline__ MaskRows moved(int64_t elements) const {
    MaskRows result = *this;
    if (data) result.data = static_cast<const char*>(data) + elements * (is_bool ? 1 : int64_t(sizeof(W)));
    return result;
  }
  template <class W> __device__ __forceinline__ W at(int64_t r, int64_t c) const {
    const int64_t offset = r * row + c * column;
    if (is_bool) return static_cast<const bool*>(data)[offset] ? W(0) : -static_cast<W>(INFINITY);
    return static_cast<const W*>(data)[offset];
  }
};
inline MaskRows mask_rows(const AttentionProblem& p) {
  if (!p.mask) return {};
  return {p.mask->data, p.mask->dtype == DType::bool_, p.mask->row, p.mask->column};
}
/// An operand without a mask, whose heads don't matter.
inline const HeadMatrices& mask_or(const AttentionProblem& p, const HeadMatrices& other) {
  return p.mask ? *p.mask : other;
}

/// Which weights are kept: weight (i, j) of a head as element (head time + i) source + j of a draw.
struct KeptWeights {
  RandomWords key;
  float probability = 0;  ///< 0: all
  double scale = 1;       ///< of those that are kept
};
inline KeptWeights kept_weights(const AttentionProblem& p) {
  return {p.key, static_cast<float>(p.dropout), p.dropout < 1 ? 1 / (1 - p.dropout) : 0};
}

/// Blocks of `side` rows of all heads, launched in pieces that a grid can hold: f(first block, blocks).
template <class F> void in_row_blocks(int64_t heads, int64_t rows, int64_t side, F f) {
  const int64_t all = heads * ceil_divide(rows, side), most = int64_t(1) << 30;
  for (int64_t first = 0; first < all; first += most) f(first, unsigned(std::min(most, all - first)));
}

/// Which block of rows of which head this is. Where later blocks have more to do they come first.
struct RowBlock {
  unsigned head;
  int64_t index;
  __device__ __forceinline__ RowBlock(int64_t first, int64_t blocks, bool last_first) {
    const int64_t at = first + blockIdx.x;
    head = unsigned(at / blocks);
    index = at % blocks;
    if (last_first) index = blocks - 1 - index;
  }
};

/// Kernels of 16-bit floats on the tensor cores: vectors of at most 128 numbers, all operands packed.
void core_attention(const AttentionProblem& problem);
void core_grad_of_queries(const AttentionProblem& problem);
void core_grad_of_sources(const AttentionProblem& problem);

/// Kernels of any layout and any vectors, on the ordinary cores.
void plain_attention(const AttentionProblem& problem);
void plain_attention_grad(const AttentionProblem& problem);

}  // namespace tandem::gpu
