// A matrix product on the ordinary cores, over operands that are functions of (row, column): strided matrices for
// matmul, images and filters for convolution. It serves every dtype, and is the reference of the tensor-core
// kernel.
//
// A block computes a tile of height x width results. It walks k in steps of `depth`, keeping both operands' slices
// in shared memory (two of each, so that one is filled while the other is read) and the next slice in registers
// (so that its loads are under way meanwhile). A thread owns rows x columns results, in groups of four that
// neighbouring threads interleave: 128-bit reads of shared memory without bank conflicts.
#pragma once

#include <span>

#include "kernels/cuda/context.h"
#include "kernels/cuda/layout.h"

namespace tandem::gpu {

template <int height_, int width_, int depth_, int rows_, int columns_> struct TileShape {
  static constexpr int height = height_, width = width_, depth = depth_, rows = rows_, columns = columns_;
  static constexpr int across = width / columns, threads = across * (height / rows);
};

template <class Acc> __device__ __forceinline__ Acc multiply_add(Acc a, Acc b, Acc c) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<Acc, float>) return __fmaf_rn(a, b, c);
  else if constexpr (std::is_same_v<Acc, double>) return __fma_rn(a, b, c);
  else return a * b + c;
#else
  return a * b + c;
#endif
}

// One operand's slices: `length` rows (of A) or columns (of B) by `depth` steps of k.
template <class Acc, int length, int depth, int threads> struct TileLoader {
  static constexpr int count = length * depth / threads, pitch = length + 4;
  static_assert(length * depth % threads == 0);
  Acc held[count];

  // Where the i-th element of this thread lies. `along_k`: neighbours in memory are neighbours in k.
  static __device__ __forceinline__ void place(int i, bool along_k, int& line, int& step) {
    const int index = i * threads + int(threadIdx.x);
    line = along_k ? index / depth : index % length;
    step = along_k ? index % depth : index / length;
  }
  template <class Operand>
  __device__ __forceinline__ void fetch(const Operand& operand, unsigned first_line, unsigned first_k, unsigned end_k) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      int line, step;
      place(i, operand.along_k, line, step);
      const unsigned k = first_k + unsigned(step);
      held[i] = k < end_k ? operand.load(first_line + unsigned(line), k) : Acc(0);
    }
  }
  __device__ __forceinline__ void put(Acc (*tile)[pitch], bool along_k) const {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      int line, step;
      place(i, along_k, line, step);
      tile[step][line] = held[i];
    }
  }
};

// How k is split among blocks where there are too few tiles to fill the device: partial results go to a workspace
// and are added in order.
struct SplitK {
  unsigned splits = 1, chunk = 0;
};
// What of a product's grid a launch has: the first product of the batch, the first tile of columns, and where its partial results
// go among the `all` of a product.
struct GridPart {
  unsigned first_product = 0, first_tile = 0, first_split = 0, all = 1;
};
SplitK split_k(int64_t tiles, int64_t k, int depth);

// A thread's part of a line of shared memory, in the widest reads that its groups allow.
template <int group, class Acc, int count, class Place>
__device__ __forceinline__ void read_groups(Acc (&to)[count], const Acc* line, const Place& place) {
  constexpr int N = group * int(sizeof(Acc)) < 16 ? group : 16 / int(sizeof(Acc));
#pragma unroll
  for (int i = 0; i < count; i += N) {
    const auto pack = load_pack<N>(line + place(i));
#pragma unroll
    for (int k = 0; k < N; ++k) to[i + k] = pack.at[k];
  }
}

// `store(row, column, value)` is called for all places of the tile, also those outside the matrix.
template <class Tile, class Acc, class A, class B, class Store>
__device__ __forceinline__ void multiply_tile(const A& a, const B& b, const Store& store, unsigned first_row,
                                              unsigned first_column, unsigned begin_k, unsigned end_k) {
  using LoaderA = TileLoader<Acc, Tile::height, Tile::depth, Tile::threads>;
  using LoaderB = TileLoader<Acc, Tile::width, Tile::depth, Tile::threads>;
  TANDEM_SHARED(Acc, tile_a, [2][Tile::depth][LoaderA::pitch]);
  TANDEM_SHARED(Acc, tile_b, [2][Tile::depth][LoaderB::pitch]);
  constexpr int row_group = Tile::rows < 4 ? Tile::rows : 4, column_group = Tile::columns < 4 ? Tile::columns : 4;
  const int x = int(threadIdx.x) % Tile::across, y = int(threadIdx.x) / Tile::across;
  const auto row_of = [&](int i) {
    return (i / row_group) * (Tile::height / (Tile::rows / row_group)) + y * row_group + i % row_group;
  };
  const auto column_of = [&](int j) {
    return (j / column_group) * (Tile::width / (Tile::columns / column_group)) + x * column_group + j % column_group;
  };

  LoaderA next_a;
  LoaderB next_b;
  Acc sum[Tile::rows][Tile::columns] = {};
  next_a.fetch(a, first_row, begin_k, end_k);
  next_b.fetch(b, first_column, begin_k, end_k);
  int now = 0;
  for (unsigned k = begin_k; k < end_k; k += Tile::depth) {
    next_a.put(tile_a[now], a.along_k);
    next_b.put(tile_b[now], b.along_k);
    __syncthreads();  // one a step is enough: a slice is overwritten two steps after it was read
    if (k + Tile::depth < end_k) {
      next_a.fetch(a, first_row, k + Tile::depth, end_k);
      next_b.fetch(b, first_column, k + Tile::depth, end_k);
    }
#pragma unroll
    for (int step = 0; step < Tile::depth; ++step) {
      Acc left[Tile::rows], right[Tile::columns];
      read_groups<row_group>(left, tile_a[now][step], row_of);
      read_groups<column_group>(right, tile_b[now][step], column_of);
#pragma unroll
      for (int i = 0; i < Tile::rows; ++i) {
#pragma unroll
        for (int j = 0; j < Tile::columns; ++j) sum[i][j] = multiply_add(left[i], right[j], sum[i][j]);
      }
    }
    now ^= 1;
  }
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::columns; ++j) {
      store(first_row + unsigned(row_of(i)), first_column + unsigned(column_of(j)), sum[i][j]);
    }
  }
}

// Operands of the whole product: `select(which)` moves them to one product of a batch, `along_k` says which way
// neighbours lie, `Acc load(line, k)` gives an element or zero outside. Results: `select(which)` and
// `store(row, column, Acc)` for places inside the matrix.
template <class Tile, class Acc, class A, class B, class Result>
__global__ void __launch_bounds__(Tile::threads)
    multiply(A a, B b, Result result, Acc* partial, unsigned m, unsigned n, unsigned k, SplitK split, GridPart grid) {
  const unsigned which = grid.first_product + blockIdx.z / split.splits, part = blockIdx.z % split.splits;
  a.select(which);
  b.select(which);
  result.select(which);
  if (partial) partial += (size_t(which) * grid.all + grid.first_split + part) * m * n;
  const unsigned begin = part * split.chunk, end = k - begin < split.chunk ? k : begin + split.chunk;
  multiply_tile<Tile, Acc>(
      a, b,
      [&](unsigned row, unsigned column, Acc value) {
        if (row >= m || column >= n) return;
        if (partial) partial[size_t(row) * n + column] = value;
        else result.store(row, column, value);
      },
      blockIdx.x * Tile::height, (grid.first_tile + blockIdx.y) * Tile::width, begin, end);
}

template <class Acc, class Result>
__global__ void __launch_bounds__(threads_per_block)
    add_parts(Result results, const Acc* partial, unsigned n, int64_t plane, unsigned splits, int64_t count) {
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    const unsigned which = unsigned(i / plane);
    const int64_t at = i - which * plane;
    Acc sum = 0;
    for (unsigned s = 0; s < splits; ++s) sum += partial[(int64_t(which) * splits + s) * plane + at];
    Result result = results;
    result.select(which);
    result.store(unsigned(at / n), unsigned(at % n), sum);
  }
}

/// Operands of a product over some of its terms.
template <class A, class B> struct Terms {
  A a;
  B b;
  int64_t k;
};

/// The sum of the products of `terms`, which are more than one where a launch couldn't count all terms. m, n and each k below 2^31.
template <class Tile, class Acc, class A, class B, class Result>
void launch_multiply(std::span<const Terms<A, B>> terms, const Result& result, int64_t batch, int64_t m, int64_t n,
                     Device device, cudaStream_t stream) {
  const int64_t down = ceil_divide(m, int64_t(Tile::height)), across = ceil_divide(n, int64_t(Tile::width));
  GridPart grid;
  grid.all = 0;
  for (const auto& part : terms) {
    TANDEM_ASSERT(std::max({batch, m, n, part.k}) < most_items, "product of ", m, " x ", part.k, " x ", n, ", batch ",
                  batch);
    grid.all += split_k(down * across * batch, part.k, Tile::depth).splits;
  }
  const Workspace workspace(grid.all > 1 ? size_t(batch * grid.all * m * n) * sizeof(Acc) : 0, device);
  Acc* partial = workspace.template as<Acc>();
  for (const auto& [a, b, k] : terms) {
    const SplitK split = split_k(down * across * batch, k, Tile::depth);
    const int64_t products = most_across / split.splits;
    for (int64_t which = 0; which < batch; which += products) {
      for (int64_t tile = 0; tile < across; tile += most_across) {
        grid.first_product = unsigned(which), grid.first_tile = unsigned(tile);
        const dim3 blocks(unsigned(down), unsigned(std::min(most_across, across - tile)),
                          unsigned(std::min(products, batch - which)) * split.splits);
        TANDEM_LAUNCH((multiply<Tile, Acc, A, B, Result>), blocks, Tile::threads, 0, stream, a, b, result, partial,
                      unsigned(m), unsigned(n), unsigned(k), split, grid);
      }
    }
    grid.first_split += split.splits;
  }
  if (partial) {
    TANDEM_LAUNCH((add_parts<Acc, Result>), blocks_for(batch * m * n), threads_per_block, 0, stream, result, partial,
                  unsigned(n), m * n, grid.all, batch * m * n);
  }
}
template <class Tile, class Acc, class A, class B, class Result>
void launch_multiply(const A& a, const B& b, const Result& result, int64_t batch, int64_t m, int64_t n, int64_t k,
                     Device device, cudaStream_t stream) {
  const Terms<A, B> all[] = {{a, b, k}};
  launch_multiply<Tile, Acc, A, B>(std::span<const Terms<A, B>>(all), result, batch, m, n, device, stream);
}

using Tile32 = TileShape<32, 32, 16, 4, 2>;
using Tile64 = TileShape<64, 64, 16, 4, 4>;
using Tile128 = TileShape<128, 128, 8, 8, 8>;

}  // namespace tandem::gpu
