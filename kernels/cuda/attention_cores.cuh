// What the tensor-core kernels of attention share: tiles in shared memory, fragments of them, and what a score becomes.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/tensor_core.cuh"

namespace tandem::gpu {

constexpr int core_threads = 128, core_warps = core_threads / 32;
constexpr float log2_of_e = 1.44269504088896341f, log_of_2 = 0.69314718055994531f;

// Rows of `depth` 16-bit numbers in shared memory, in chunks of 16 bytes. Chunk c of row r lies in another place of its
// row for each r, so that the same chunk of eight rows in turn is in all 32 banks: ldmatrix takes one pass.
template <class T, int depth> struct CoreTile {
  static constexpr int chunks = depth / 8;
  static_assert(chunks % 4 == 0);

  static __device__ __forceinline__ int turn(int row) { return chunks % 8 == 0 ? row % 8 : row / 2 % 4; }
  static __device__ __forceinline__ T* at(T* tile, int row, int chunk) {
    return tile + row * depth + (chunk ^ turn(row)) * 8;
  }
  // The same for rows `first` + row and chunks `chunk` + next, where first is a multiple of 8, chunk of 2, and next is 0 or
  // 1: what differs from lane to lane is computed once, for all fragments.
  static __device__ __forceinline__ T* at(T* tile, int first, int row, int chunk, int next) {
    const int turned = next ^ turn(row);
    if constexpr (chunks % 8 == 0) return tile + ((row * depth + turned * 8) ^ chunk * 8) + first * depth;
    else return tile + row * depth + (chunk ^ turned) * 8 + first * depth;
  }

  // Starts to copy `rows` rows from row `first` on; zeros beyond the last row and column. A thread's rows are multiples of
  // eight apart, so that its chunk keeps its place in them.
  template <int rows>
  static __device__ __forceinline__ void fetch(T* tile, const HeadRows<const T>& from, int first, int end,
                                               int columns) {
    constexpr int across = chunks <= 4 ? 4 : chunks <= 8 ? 8 : 16, step = core_threads / across;
    static_assert(rows % step == 0 && step % 8 == 0);
    const int chunk = int(threadIdx.x) % across, row = int(threadIdx.x) / across;
    if (chunks < across && chunk >= chunks) return;
    T* const to = at(tile, row, chunk);
    const T* data = from.data + (first + row) * from.row + chunk * 8;
    const int rows_left = chunk * 8 < columns ? end - first - row : 0;
#pragma unroll
    for (int i = 0; i < rows; i += step, data += step * from.row) {
      const bool there = i < rows_left;
      copy_async_16(to + i * depth, there ? data : from.data, there ? 16 : 0);
    }
  }

  // Writes 16-row fragments of results into a warp's own rows, and those from there to device memory in whole chunks.
  template <int blocks>
  static __device__ __forceinline__ void store(T* tile, int warp_row, const float (&x)[blocks][depth / 8][4],
                                               const float (&factor)[blocks][2], const HeadRows<T>& to, int first,
                                               int end, int columns) {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int m = 0; m < blocks; ++m) {
#pragma unroll
      for (int n = 0; n < depth / 8; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = warp_row + m * 16 + half * 8 + lane / 4;
          const unsigned pair =
              pack_halves<T>(x[m][n][half * 2] * factor[m][half], x[m][n][half * 2 + 1] * factor[m][half]);
          *reinterpret_cast<unsigned*>(at(tile, row, n) + lane % 4 * 2) = pair;
        }
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < blocks * 16 * chunks / 32; ++i) {
      const int at_chunk = i * 32 + lane, row = warp_row + at_chunk / chunks, chunk = at_chunk % chunks;
      if (first + row < end && chunk * 8 < columns)
        store_pack(to.data + (first + row) * to.row + chunk * 8, load_pack<8>(at(tile, row, chunk)));
    }
  }

  // Fragments by ldmatrix: a lane gives row lane % 8 of matrix lane / 8.
  // A of rows [row, row + 16) and k [k, k + 16).
  static __device__ __forceinline__ void left(unsigned (&out)[4], T* tile, int row, int k) {
    const int lane = int(threadIdx.x) % 32;
    load_matrices<false>(out, at(tile, row, lane % 16, k / 8, lane / 16));
  }
  // B of 16 columns that are rows of the tile: its pair of registers for the first eight, then for the others.
  static __device__ __forceinline__ void right(unsigned (&out)[4], T* tile, int line, int k) {
    const int lane = int(threadIdx.x) % 32;
    load_matrices<false>(out, at(tile, line, lane / 16 * 8 + lane % 8, k / 8, lane / 8 % 2));
  }
  // B of 16 columns of the tile, whose rows are k.
  static __device__ __forceinline__ void right_turned(unsigned (&out)[4], T* tile, int line, int k) {
    const int lane = int(threadIdx.x) % 32;
    load_matrices<true>(out, at(tile, k, lane % 16, line / 8, lane / 16));
  }
};

// sum [16 blocks, columns] = rows of `left` times rows of `right`, over `depth`.
template <class T, int depth, int blocks, int columns>
__device__ __forceinline__ void multiply_tiles(float (&sum)[blocks][columns / 8][4], T* left, int first_row, T* right) {
  using Tile = CoreTile<T, depth>;
#pragma unroll
  for (int m = 0; m < blocks; ++m) {
#pragma unroll
    for (int n = 0; n < columns / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[m][n][i] = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < depth; k += 16) {
    unsigned a[blocks][4];
#pragma unroll
    for (int m = 0; m < blocks; ++m) Tile::left(a[m], left, first_row + m * 16, k);
#pragma unroll
    for (int n = 0; n < columns; n += 16) {
      unsigned b[4];
      Tile::right(b, right, n, k);
#pragma unroll
      for (int m = 0; m < blocks; ++m) {
        multiply_16x8x16<T>(sum[m][n / 8], a[m], b[0], b[1]);
        multiply_16x8x16<T>(sum[m][n / 8 + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// sum [16 blocks, depth] += weights [16 blocks, rows] times the rows of `right`. The weights are results of a product: a
// lane holds just the numbers of two neighbouring 16 x 8 blocks that it must give as the left operand of the next.
template <class T, int depth, int blocks, int rows>
__device__ __forceinline__ void add_weighted(float (&sum)[blocks][depth / 8][4],
                                             const float (&weights)[blocks][rows / 8][4], T* right) {
  using Tile = CoreTile<T, depth>;
#pragma unroll
  for (int k = 0; k < rows; k += 16) {
    unsigned a[blocks][4];
#pragma unroll
    for (int m = 0; m < blocks; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&from)[4] = weights[m][k / 8 + i / 2];
        a[m][i] = pack_halves<T>(from[i % 2 * 2], from[i % 2 * 2 + 1]);
      }
    }
#pragma unroll
    for (int n = 0; n < depth; n += 16) {
      unsigned b[4];
      Tile::right_turned(b, right, n, k);
#pragma unroll
      for (int m = 0; m < blocks; ++m) {
        multiply_16x8x16<T>(sum[m][n / 8], a[m], b[0], b[1]);
        multiply_16x8x16<T>(sum[m][n / 8 + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// A call without its operands. Scores are kept in units of log 2: exp2 is one instruction.
struct CoreCall {
  MaskRows mask;
  KeptWeights kept;
  int time, source, depth, width;
  float scale;  // of q k, times log2(e)
  float plain_scale;
  bool causal;

  __device__ __forceinline__ bool sees(int i, int j) const { return j < source && (!causal || j <= i); }
  // Whether some of a tile's queries may not look at some of its sources (or these don't exist).
  __device__ __forceinline__ bool is_partial(int i0, int j0, int columns) const {
    return j0 + columns > source || (causal && j0 + columns - 1 > i0);
  }
  // The scaled score plus the mask.
  __device__ __forceinline__ float masked(float s, const MaskRows& of_head, int i, int j) const {
    s *= scale;
    if (of_head.data && i < time && j < source) s += of_head.at<float>(i, j) * log2_of_e;
    return s;
  }
};
inline CoreCall core_call(const AttentionProblem& p) {
  return {mask_rows(p),
          kept_weights(p),
          int(p.time),
          int(p.source),
          int(p.depth),
          int(p.width),
          static_cast<float>(p.scale * 1.44269504088896341),
          static_cast<float>(p.scale),
          p.causal};
}

// A row's log-sum-exp as scores are kept; where the row saw nothing, what makes all weights 0.
__device__ __forceinline__ float core_level(float log_sum_exp) {
  return log_sum_exp == -INFINITY ? INFINITY : log_sum_exp * log2_of_e;
}

// Which of the four weights that a lane holds of a block of 16 x 8 are kept, as bits: (row, column), (row, column + 1)
// and the same eight rows further on.
struct CoreDraw {
  td_u64 seed, draw;
  float probability;
  bool whole;  // rows of weights start at multiples of four: blocks of Philox don't span rows

  __device__ __forceinline__ explicit CoreDraw(const CoreCall& call)
      : seed(call.kept.key.get_seed()), draw(call.kept.key.get_draw()), probability(call.kept.probability),
        whole(call.source % 4 == 0) {}

  __device__ __forceinline__ bool keeps(td_u32 word) const { return td_uniform_from_word(word) >= probability; }
  __device__ __forceinline__ bool keeps_element(td_u64 element) const {
    return keeps(td_philox_u32(seed, draw, element));
  }

  // Rows are queries: `first` is the element of row lane / 4 and column 2 (lane % 4).
  __device__ __forceinline__ unsigned of_queries(td_u64 first, int64_t source) const {
    const td_u64 second = first + td_u64(8 * source);
    if (!whole) {
      unsigned bits = 0;
#pragma unroll 1
      for (unsigned i = 0; i < 4; ++i) bits |= unsigned(keeps_element((i < 2 ? first : second) + (i & 1u))) << i;
      return bits;
    }
    // Two lanes share the blocks of two rows: each draws one, and gives the other its half.
    const bool odd = threadIdx.x % 2;
    const td_philox_block block = td_philox_words(seed, draw, (odd ? second : first) >> 2);
    const td_u32 low = shuffle_xor(odd ? block.word[0] : block.word[2], 1);
    const td_u32 high = shuffle_xor(odd ? block.word[1] : block.word[3], 1);
    const unsigned own = unsigned(keeps(odd ? block.word[2] : block.word[0])) |
                         unsigned(keeps(odd ? block.word[3] : block.word[1])) << 1;
    const unsigned other = unsigned(keeps(low)) | unsigned(keeps(high)) << 1;
    return odd ? other | own << 2 : own | other << 2;
  }

  // Rows are sources, columns queries: `first` is the element of source lane / 4 and query 2 (lane % 4).
  __device__ __forceinline__ unsigned of_sources(td_u64 first, int64_t source) const {
    if (!whole) {
      unsigned bits = 0;
#pragma unroll 1
      for (unsigned i = 0; i < 4; ++i)
        bits |= unsigned(keeps_element(first + (i & 1u ? td_u64(source) : 0) + (i & 2u ? 8 : 0))) << i;
      return bits;
    }
    // Four lanes, of neighbouring sources, share four blocks: each draws one, and they turn the 4 x 4 words.
    const unsigned part = threadIdx.x / 4 % 4;
    const td_u64 element = first + (part & 1u ? td_u64(source) : 0) + (part & 2u ? 8 : 0);
    td_philox_block block = td_philox_words(seed, draw, element >> 2);
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const td_u32 got = shuffle_xor(part & 1u ? block.word[i] : block.word[i + 1], 4);
      (part & 1u ? block.word[i] : block.word[i + 1]) = got;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const td_u32 got = shuffle_xor(part & 2u ? block.word[i] : block.word[i + 2], 8);
      (part & 2u ? block.word[i] : block.word[i + 2]) = got;
    }
    return unsigned(keeps(block.word[0])) | unsigned(keeps(block.word[1])) << 1 | unsigned(keeps(block.word[2])) << 2 |
           unsigned(keeps(block.word[3])) << 3;
  }
};

// Whether a call needs the kernels that look at each score: a mask, dropout, or a scale by which the greatest product
// isn't the greatest score.
inline bool has_extras(const AttentionProblem& p) { return p.mask || p.dropout > 0 || !(p.scale > 0); }

// f.template operator()<T, depth, extras>() with the smallest depth that holds the vectors.
template <class F> void visit_cores(const AttentionProblem& p, F&& f) {
  const auto of_type = [&]<class T>() {
    const auto of_depth = [&]<int depth>() {
      if (has_extras(p)) f.template operator()<T, depth, true>();
      else f.template operator()<T, depth, false>();
    };
    const int64_t columns = std::max(p.depth, p.width);
    if (columns <= 32) of_depth.template operator()<32>();
    else if (columns <= 64) of_depth.template operator()<64>();
    else if (columns <= 96) of_depth.template operator()<96>();
    else of_depth.template operator()<128>();
  };
  if (p.type == DType::float16) of_type.template operator()<__half>();
  else of_type.template operator()<__nv_bfloat16>();
}

}  // namespace tandem::gpu
