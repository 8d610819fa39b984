// N-dimensional iteration over several strided operands: dims merged where all of them allow it.
#pragma once

#include <initializer_list>

#include "core/shape.h"
#include "kernels/cuda/device.cuh"

namespace tandem::gpu {

/// A shape with the strides of `count` operands, on the host, outermost dim first.
struct Iteration {
  static constexpr int max_operands = 7;
  int rank = 0;
  int count = 0;
  int64_t extent[kMaxRank] = {};
  int64_t stride[max_operands][kMaxRank] = {};

  Iteration() = default;
  /// Operands are broadcast to `shape`, aligned at the last dim. Dims are ordered by operand 0's strides
  /// (it is the output, so writes coalesce), those of extent 1 dropped, neighbours merged.
  Iteration(const Shape& shape, std::initializer_list<std::pair<const Shape*, const Shape*>> operands);

  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= extent[i];
    return n;
  }
  void order_by(int operand);
  void merge();
};

/// The same for the device: 32-bit coordinates, 64-bit offsets.
template <int operands> struct Layout {
  int rank = 0;
  unsigned numel = 0;
  Divider extent[kMaxRank];
  int64_t stride[operands][kMaxRank] = {};

  explicit Layout(const Iteration& iteration) : rank(iteration.rank), numel(unsigned(iteration.numel())) {
    TANDEM_ASSERT(iteration.numel() <= 0xffffffff, iteration.numel(), " places of a launch");
    for (int i = 0; i < rank; ++i) {  // innermost first: that is how offsets are peeled off
      const int from = rank - 1 - i;
      extent[i] = Divider(unsigned(iteration.extent[from]));
      for (int operand = 0; operand < operands; ++operand) stride[operand][i] = iteration.stride[operand][from];
    }
  }

  __device__ __forceinline__ void offsets(unsigned index, int64_t (&offset)[operands]) const {
#pragma unroll
    for (int operand = 0; operand < operands; ++operand) offset[operand] = 0;
#pragma unroll
    for (int i = 0; i < kMaxRank; ++i) {
      if (i >= rank) break;
      unsigned rest = 0, at = index;
      if (i + 1 < rank) extent[i].divide(index, rest, at);  // the outermost needs no division
      index = rest;
#pragma unroll
      for (int operand = 0; operand < operands; ++operand) offset[operand] += int64_t(at) * stride[operand][i];
    }
  }
};

/// Calls `f(iteration, offsets)` for pieces of at most `limit` elements, with each operand's offset in elements.
template <class F> void in_pieces(const Iteration& whole, int64_t limit, F f) {
  int64_t offset[Iteration::max_operands] = {};
  const int64_t numel = whole.numel();
  if (numel == 0) return;
  if (numel <= limit) return f(whole, offset);
  int at = 0;  // the outermost dim whose slices are small enough, all dims before it taken one by one
  int64_t inner = numel;
  while (inner / whole.extent[at] > limit) inner /= whole.extent[at++];
  const int64_t slice = inner / whole.extent[at], step = limit / slice;
  const int64_t outer = numel / inner;
  for (int64_t o = 0; o < outer; ++o) {
    int64_t base[Iteration::max_operands] = {};
    int64_t rest = o;
    for (int d = at - 1; d >= 0; --d) {
      const int64_t coordinate = rest % whole.extent[d];
      rest /= whole.extent[d];
      for (int k = 0; k < whole.count; ++k) base[k] += coordinate * whole.stride[k][d];
    }
    for (int64_t begin = 0; begin < whole.extent[at]; begin += step) {
      Iteration piece;
      piece.count = whole.count;
      piece.rank = whole.rank - at;
      for (int d = 0; d < piece.rank; ++d) {
        piece.extent[d] = whole.extent[at + d];
        for (int k = 0; k < whole.count; ++k) piece.stride[k][d] = whole.stride[k][at + d];
      }
      piece.extent[0] = std::min(step, whole.extent[at] - begin);
      for (int k = 0; k < whole.count; ++k) offset[k] = base[k] + begin * whole.stride[k][at];
      f(piece, offset);
    }
  }
}

/// The items that a launch takes at once, so that 32 bits are enough to count them: 2^30, unless a test has said fewer.
int64_t items_at_once();
void set_items_at_once(int64_t items);
constexpr int64_t most_items = int64_t(1) << 31;  ///< of a launch that can't be cut
constexpr int64_t most_across = 65535;            ///< blocks of a grid in its second and third dim

template <class F> void in_pieces(const Iteration& whole, F f) { in_pieces(whole, items_at_once(), f); }

/// Calls `f(first, count)` for rows of `width` items each, as many of them as one launch takes, or one.
template <class F> void in_rows(int64_t rows, int64_t width, F f) {
  if (rows * width == 0) return;
  TANDEM_ASSERT(width <= most_items, "rows of ", width, " items");
  const int64_t step = std::max(int64_t(1), items_at_once() / width);
  for (int64_t first = 0; first < rows; first += step) f(first, std::min(step, rows - first));
}

}  // namespace tandem::gpu
