// A time step of a recurrent layer in one launch: the product of the state (or of the gates' gradients) with the recurrent
// weight, and what becomes of it in the registers of whoever owns the unit. The steps of a layer are so many launches, which
// a captured graph makes one. Weight and state come from the L2 cache, which holds them from step to step.
//
// A block makes all gates of `units` units for `rows` rows of the batch. Its eight warps share the terms: in each slab of 256
// bytes a line a warp multiplies 32 bytes, while the next slab is on its way to the other half of shared memory. So there are
// many small blocks, of eight warps each, also where the batch is small. The warps' sums are added in order at the end.
// The 16-bit types multiply on tensor cores, float and double on the ordinary ones.
#pragma once

#include <algorithm>
#include <array>

#include "core/scalar/math.h"
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/tensor_core.cuh"

namespace tandem::gpu {

constexpr int step_threads = 256, step_warps = step_threads / 32;
constexpr int slab_packs = 2 * step_warps;  // of 16 bytes, in each line

template <class T, int rows_, int units_, int gates_> struct StepShape {
  using Element = T;
  using Wide = Compute<T>;
  static constexpr int rows = rows_, units = units_, gates = gates_, columns = units_ * gates_;
  static constexpr int pitch = (slab_packs + 1) * pack_size<T>;  // 8 lines start in different banks
  static constexpr int lines = rows + (columns + 15) / 16 * 16;  // tensor cores read 16 columns at a time
  static constexpr int slab = lines * pitch;
  static constexpr int sums_pitch = columns + 4;
  static constexpr int bytes = std::max(2 * slab * int(sizeof(T)), step_warps* rows* sums_pitch* int(sizeof(Wide)));
  static_assert(bytes <= 48 * 1024 && columns % 8 == 0);
};

/// a [rows, k] times the transposed weight, whose line g units + u belongs to gate g of unit u. Lines begin at multiples of 16
/// bytes and are zeros up to such a one. Without a there is nothing to add.
template <class T> struct StepProduct {
  const T* a = nullptr;
  const T* weight = nullptr;
  int64_t a_pitch = 0, weight_pitch = 0;
  unsigned packs = 0;  ///< of 16 bytes, in a line
};

template <class S>
__device__ __forceinline__ void fetch_slab(typename S::Element* slab, const StepProduct<typename S::Element>& p,
                                           unsigned first_row, unsigned rows, unsigned first_unit, unsigned units,
                                           unsigned first_pack) {
  using T = typename S::Element;
  constexpr int all = (S::rows + S::columns) * slab_packs;
#pragma unroll
  for (int begin = 0; begin < all; begin += step_threads) {
    const unsigned i = unsigned(begin) + threadIdx.x, line = i / slab_packs, pack = first_pack + i % slab_packs;
    if (i >= unsigned(all)) break;
    const T* from = p.weight;
    bool there = pack < p.packs;
    if (line < unsigned(S::rows)) {
      there = there && first_row + line < rows;
      if (there) from = p.a + (first_row + line) * p.a_pitch;
    } else {
      const unsigned column = line - S::rows, unit = first_unit + column % S::units;
      there = there && unit < units;
      if (there) from = p.weight + (int64_t(column / S::units) * units + unit) * p.weight_pitch;
    }
    copy_async_16(slab + line * S::pitch + i % slab_packs * pack_size<T>,
                  there ? from + int64_t(pack) * pack_size<T> : from, there ? 16 : 0);
  }
}

/// A warp's part of the block's sums, on the ordinary cores: a lane has every eighth row of every fourth column.
template <class S> struct CoreSums {
  using T = typename S::Element;
  static constexpr int down = S::rows / 8, across = S::columns / 4, N = pack_size<T>;
  static_assert(S::rows % 8 == 0);
  T sum[down][across] = {};

  __device__ __forceinline__ void add(const T* slab) {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const T* a = slab + lane / 4 * S::pitch + warp * 2 * N;
    const T* b = slab + (S::rows + lane % 4) * S::pitch + warp * 2 * N;
#pragma unroll
    for (int pack = 0; pack < 2; ++pack) {
      Pack<T, N> left[down];
#pragma unroll
      for (int i = 0; i < down; ++i) left[i] = load_pack<N>(a + i * 8 * S::pitch + pack * N);
#pragma unroll
      for (int j = 0; j < across; ++j) {
        const Pack<T, N> right = load_pack<N>(b + j * 4 * S::pitch + pack * N);
#pragma unroll
        for (int i = 0; i < down; ++i) {
#pragma unroll
          for (int k = 0; k < N; ++k) sum[i][j] = multiply_add(left[i].at[k], right.at[k], sum[i][j]);
        }
      }
    }
  }
  __device__ __forceinline__ void put(T* sums) const {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < down; ++i) {
#pragma unroll
      for (int j = 0; j < across; ++j) sums[(lane / 4 + i * 8) * S::sums_pitch + lane % 4 + j * 4] = sum[i][j];
    }
  }
};

/// The same on tensor cores.
template <class S> struct TensorSums {
  using T = typename S::Element;
  static constexpr int down = S::rows / 16, across = S::columns / 8;
  static_assert(S::rows % 16 == 0);
  float sum[down][across][4] = {};

  __device__ __forceinline__ void add(const T* slab) {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, matrix = lane / 8, line = lane % 8;
    const T* at = slab + line * S::pitch + warp * 16;
    unsigned left[down][4];
#pragma unroll
    for (int i = 0; i < down; ++i)  // (rows, k): (low, low) (high, low) (low, high) (high, high)
      load_matrices<false>(left[i], at + (i * 16 + matrix % 2 * 8) * S::pitch + matrix / 2 * 8);
#pragma unroll
    for (int pair = 0; pair < (across + 1) / 2;
         ++pair) {  // (columns, k): (low, low) (low, high) (high, low) (high, high)
      unsigned right[4];
      load_matrices<false>(right, at + (S::rows + pair * 16 + matrix / 2 * 8) * S::pitch + matrix % 2 * 8);
#pragma unroll
      for (int j = 2 * pair; j < 2 * pair + 2 && j < across; ++j) {
#pragma unroll
        for (int i = 0; i < down; ++i) multiply_16x8x16<T>(sum[i][j], left[i], right[j % 2 * 2], right[j % 2 * 2 + 1]);
      }
    }
  }
  __device__ __forceinline__ void put(float* sums) const {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < down; ++i) {
#pragma unroll
      for (int j = 0; j < across; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
          store_pack(sums + (i * 16 + lane / 4 + half * 8) * S::sums_pitch + j * 8 + lane % 4 * 2,
                     Pack<float, 2>{{sum[i][j][half * 2], sum[i][j][half * 2 + 1]}});
      }
    }
  }
};

/// Calls cell(row, unit, sums) for each unit of each row, with its sum for each gate.
template <class S, class Cell>
__global__ void __launch_bounds__(step_threads, sizeof(typename S::Element) == 8 ? 1 : 2)
    recurrent_step(StepProduct<typename S::Element> product, Cell cell, unsigned rows, unsigned units) {
  using T = typename S::Element;
  using Wide = typename S::Wide;
  TANDEM_SHARED(unsigned char, shared, [S::bytes]);
  const unsigned first_row = blockIdx.x * S::rows, first_unit = blockIdx.y * S::units;
  Wide* const sums = reinterpret_cast<Wide*>(shared);
  if (product.a) {
    T* const slabs = reinterpret_cast<T*>(shared);
    std::conditional_t<is_half<T>, TensorSums<S>, CoreSums<S>> mine;
    const auto fetch = [&](unsigned pack, int which) {
      fetch_slab<S>(slabs + which * S::slab, product, first_row, rows, first_unit, units, pack);
      copy_async_commit();
    };
    fetch(0, 0);
    int now = 0;
    for (unsigned pack = 0; pack < product.packs; pack += slab_packs, now ^= 1) {
      copy_async_wait<0>();
      __syncthreads();  // this slab is there, and nobody reads the other any more
      if (pack + slab_packs < product.packs) fetch(pack + slab_packs, now ^ 1);
      mine.add(slabs + now * S::slab);
    }
    __syncthreads();
    mine.put(sums + threadIdx.x / 32 * (S::rows * S::sums_pitch));
    __syncthreads();
  }
  for (int i = int(threadIdx.x); i < S::rows * S::units; i += step_threads) {
    const int row = i / S::units, unit = i % S::units;
    if (first_row + unsigned(row) >= rows || first_unit + unsigned(unit) >= units) continue;
    Wide total[S::gates] = {};
    if (product.a) {
#pragma unroll
      for (int gate = 0; gate < S::gates; ++gate) {
#pragma unroll
        for (int warp = 0; warp < step_warps; ++warp)
          total[gate] += sums[(warp * S::rows + row) * S::sums_pitch + gate * S::units + unit];
      }
    }
    cell(first_row + unsigned(row), first_unit + unsigned(unit), total);
  }
}

/// One step of `rows` rows. A cell says how many gates it has (`gates`), and takes sums of as many.
template <class T, class Cell>
void launch_step(const StepProduct<T>& product, const Cell& cell, int64_t rows, int64_t units, cudaStream_t stream) {
  constexpr int tile_units = Cell::gates > 1 ? 8 : 16;
  const auto launch = [&]<class S>() {
    const int64_t across = ceil_divide(units, int64_t(S::units));
    TANDEM_ASSERT(across <= most_across, "a recurrent layer of ", units, " units");
    TANDEM_LAUNCH((recurrent_step<S, Cell>), dim3(unsigned(ceil_divide(rows, int64_t(S::rows))), unsigned(across)),
                  step_threads, 0, stream, product, cell, unsigned(rows), unsigned(units));
  };
  constexpr int few = is_half<T> ? 16 : 8, many = sizeof(T) == 8 ? 16 : 32;
  if (rows <= few) launch.template operator()<StepShape<T, few, tile_units, Cell::gates>>();
  else launch.template operator()<StepShape<T, many, tile_units, Cell::gates>>();
}

// --- Lines that steps can read 16 bytes at a time --------------------------------------------------------------------

template <class T> int64_t padded(int64_t width) { return ceil_divide(width, int64_t(pack_size<T>)) * pack_size<T>; }
template <class T> bool reads_in_packs(const T* lines, int64_t width) {
  return width % pack_size<T> == 0 && is_aligned(lines);
}

/// to [lines, pitch] = from [lines, width], zeros after it. `to` in order, so writes coalesce.
template <class T>
__global__ void __launch_bounds__(threads_per_block)
    pad_lines(T* to, const T* from, int64_t width, int64_t pitch, int64_t count) {
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    const int64_t line = i / pitch, at = i - line * pitch;
    to[i] = at < width ? from[line * width + at] : convert<T>(0.0f);
  }
}

/// to [columns, pitch] = the transpose of from [lines, columns], zeros after it. Tiles of 32 x 32 through shared memory: reads
/// and writes coalesce.
template <class T>
__global__ void __launch_bounds__(threads_per_block)
    transpose_lines(T* to, const T* from, int64_t lines, int64_t columns, int64_t pitch) {
  TANDEM_SHARED(T, tile, [32][33]);
  const int64_t first_line = blockIdx.x * int64_t(32), first_column = blockIdx.y * int64_t(32);
  const int across = int(threadIdx.x) % 32;
  for (int down = int(threadIdx.x) / 32; down < 32; down += 8) {
    const int64_t line = first_line + down, column = first_column + across;
    tile[down][across] = line < lines && column < columns ? from[line * columns + column] : convert<T>(0.0f);
  }
  __syncthreads();
  for (int down = int(threadIdx.x) / 32; down < 32; down += 8) {
    const int64_t line = first_line + across, column = first_column + down;
    if (column < columns && line < pitch) to[column * pitch + line] = tile[across][down];
  }
}

/// The weight [gates width, width] as steps read it: where it is, if they can, or a copy.
template <class T> class StepWeight {
 public:
  /// Lines as they are, for products with states; or transposed, for those with gradients of gates.
  StepWeight(const T* weight, int64_t lines, int64_t width, bool transposed, Device device, cudaStream_t stream)
      : data(weight), pitch(padded<T>(transposed ? lines : width)),
        copy_(
            transposed || !reads_in_packs(weight, width) ? size_t((transposed ? width : lines) * pitch) * sizeof(T) : 0,
            device) {
    T* const to = copy_.template as<T>();
    if (!to) return;
    data = to;
    if (transposed) {
      TANDEM_LAUNCH((transpose_lines<T>),
                    dim3(unsigned(ceil_divide(pitch, int64_t(32))), unsigned(ceil_divide(width, int64_t(32)))),
                    threads_per_block, 0, stream, to, weight, lines, width, pitch);
    } else {
      TANDEM_LAUNCH((pad_lines<T>), blocks_for(lines * pitch), threads_per_block, 0, stream, to, weight, width, pitch,
                    lines * pitch);
    }
  }
  const T* data;
  int64_t pitch;

 private:
  Workspace copy_;
};

/// The rows [rows, width] that a step writes and the next one reads: read where they are put, or, if that can't be read 16 bytes
/// at a time, from one of two copies, of which a step reads one and writes the other.
template <class T> class StepRows {
 public:
  /// `first`, if given, are rows that the first step reads. `results` are where all steps put theirs.
  StepRows(const T* first, const T* results, int64_t rows, int64_t width, Device device, cudaStream_t stream)
      : pitch_(padded<T>(width)), size_(rows * pitch_),
        copies_(reads_in_packs(results, width) && (!first || reads_in_packs(first, width))
                    ? 0
                    : size_t(2 * size_) * sizeof(T),
                device),
        read_(copies_.template as<T>()), write_(read_ ? read_ + size_ : nullptr) {
    if (!read_) return;
    check(cudaMemsetAsync(read_, 0, size_t(2 * size_) * sizeof(T), stream), "clearing rows");
    if (first)
      TANDEM_LAUNCH((pad_lines<T>), blocks_for(size_), threads_per_block, 0, stream, read_, first, width, pitch_,
                    size_);
  }
  /// What a step that follows `before` is given to read.
  StepProduct<T> product(const T* before, const StepWeight<T>& weight) const {
    return {read_ ? read_ : before, weight.data, pitch_, weight.pitch, unsigned(pitch_ / pack_size<T>)};
  }
  /// Where a step has to put its rows beside the result; null: nowhere.
  T* copy() const { return write_; }
  int64_t pitch() const { return pitch_; }
  void next() { std::swap(read_, write_); }

 private:
  int64_t pitch_, size_;
  Workspace copies_;
  T *read_, *write_;
};

// --- What cells carry ------------------------------------------------------------------------------------------------

/// A number of each unit that one step hands to the next: in float also where tensors are of 16 bits.
template <class T> struct Carried {
  using Wide = Compute<T>;
  const T* narrow;   ///< read where there is no `wide`; null: zeros
  const Wide* wide;  ///< may be where `next` is
  Wide* next;        ///< null: nobody reads it but from a tensor
  __device__ __forceinline__ Wide read(int64_t at) const {
    return wide ? wide[at] : narrow ? widen(narrow[at]) : Wide(0);
  }
  __device__ __forceinline__ void write(int64_t at, Wide value) const {
    if (next) next[at] = value;
  }
};

/// States that steps also write as tensors: read from there, but for the 16-bit types.
template <class T> class CarriedStates {
 public:
  CarriedStates(int64_t count, Device device) : own_(is_half<T> ? size_t(count) * sizeof(float) : 0, device) {}
  Carried<T> after(const T* before, bool first) const {
    Compute<T>* const own = own_.template as<Compute<T>>();
    return {before, first ? nullptr : own, own};
  }

 private:
  Workspace own_;
};

/// Gradients that begin as zeros and end in a tensor, which holds them on the way too, but for the 16-bit types.
template <class T> class CarriedGradients {
 public:
  CarriedGradients(T* result, int64_t count, Device device)
      : result_(result), own_(is_half<T> ? size_t(count) * sizeof(float) : 0, device) {}
  Carried<T> at(bool first) const {
    if constexpr (is_half<T>) {
      float* const own = own_.template as<float>();
      return {nullptr, first ? nullptr : own, own};
    } else {
      return {nullptr, first ? nullptr : result_, result_};
    }
  }

 private:
  T* result_;
  Workspace own_;
};

/// The extents of a layer, and the order of its steps.
struct RecurrentLayer {
  int64_t time, batch, width;
  bool reverse;
  Device device;
  cudaStream_t stream;
  RecurrentLayer(const KernelContext& op, const Shape& steps)
      : time(steps[0]), batch(steps[1]), width(steps[2]), reverse(op.attributes.flag("reverse")),
        device(op.out().device), stream(stream_of(op)) {
    check_most(op, batch, most_of_int, "rows of a batch");
    check_most(op, width, most_across * 8, "units");
  }
  bool empty() const { return batch * width == 0; }
  int64_t states() const { return batch * width; }
  /// Which states those of a step are; the last step is time - 1.
  int64_t place(int64_t step) const { return (reverse ? time - 1 - step : step) * states(); }
};

// --- Units: the operations and their order are those that core/ops/rnn.cpp breaks the cells into ------------------------

template <class W> struct LstmUnit { W i, f, g, o, cell, hidden; };
template <class W> __device__ __forceinline__ LstmUnit<W> lstm_unit(W input, W forget, W candidate, W output, W cell) {
  const W i = td_sigmoid(input), f = td_sigmoid(forget), g = td_tanh(candidate), o = td_sigmoid(output);
  const W next = f * cell + i * g;
  return {i, f, g, o, next, o * td_tanh(next)};
}

template <class W> struct LstmUnitGrad { W i, f, g, o, cell; };
/// From gates after their nonlinearities. d_next is the gradient of the next cell.
template <class W>
__device__ __forceinline__ LstmUnitGrad<W> lstm_unit_grad(W i, W f, W g, W o, W cell, W next, W d_hidden, W d_next) {
  const W bent = td_tanh(next);
  const W dc = d_next + d_hidden * o * (W(1) - bent * bent);
  return {dc * g * i * (W(1) - i), dc * cell * f * (W(1) - f), dc * i * (W(1) - g * g),
          d_hidden * bent * o * (W(1) - o), dc * f};
}

template <class W> struct GruUnit { W r, z, n, product, hidden; };
template <class W> __device__ __forceinline__ GruUnit<W> gru_unit(const W (&x)[3], const W (&h)[3], W hidden) {
  const W r = td_sigmoid(x[0] + h[0]), z = td_sigmoid(x[1] + h[1]), n = td_tanh(x[2] + r * h[2]);
  return {r, z, n, h[2], n + z * (hidden - n)};
}

template <class W> struct GruUnitGrad { W reset, update, new_x, new_h, hidden; };
template <class W>
__device__ __forceinline__ GruUnitGrad<W> gru_unit_grad(W r, W z, W n, W product, W hidden, W d_next) {
  const W d_new = (d_next - d_next * z) * (W(1) - n * n);
  return {d_new * product * r * (W(1) - r), d_next * (hidden - n) * z * (W(1) - z), d_new, d_new * r, d_next * z};
}

}  // namespace tandem::gpu
