// Fills, ranges, and copies of every kind: contiguous ones are left to the copy engine, transposes go through
// tiles of shared memory so that both sides are read and written in whole lines, the rest is strided.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

template <class T> __global__ void __launch_bounds__(threads_per_block) fill(T* out, T value, Layout<1> layout) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t offset[1];
    layout.offsets(i, offset);
    out[offset[0]] = value;
  }
}

template <class T>
__global__ void __launch_bounds__(threads_per_block) arange(T* out, double begin, double step, int64_t count) {
  for (int64_t i = global_thread(); i < count; i += global_threads()) out[i] = convert<T>(begin + double(i) * step);
}

template <class To, class From>
__global__ void __launch_bounds__(threads_per_block) cast(To* to, const From* from, Layout<2> layout) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t offset[2];
    layout.offsets(i, offset);
    to[offset[0]] = convert<To>(from[offset[1]]);
  }
}

// `rows` runs along the source's unit stride, `columns` along the target's.
struct TransposeShape {
  unsigned rows, columns;
  int64_t to_row_stride, from_column_stride;
  Divider tiles_across, tiles;
};

template <class W>
__global__ void __launch_bounds__(256)
    transpose(W* to, const W* from, TransposeShape shape, Layout<2> batch, unsigned tile_count) {
  TANDEM_SHARED(W, tile, [32][33]);  // one column more, so that a column's elements lie in different banks
  const unsigned lane = threadIdx.x % 32, first = threadIdx.x / 32;
  for (unsigned t = blockIdx.x; t < tile_count; t += gridDim.x) {
    unsigned which, in_plane, tile_row, tile_column;
    shape.tiles.divide(t, which, in_plane);
    shape.tiles_across.divide(in_plane, tile_row, tile_column);
    int64_t offset[2];
    batch.offsets(which, offset);
    for (unsigned i = first; i < 32; i += 8) {
      const unsigned row = tile_row * 32 + lane, column = tile_column * 32 + i;
      if (row < shape.rows && column < shape.columns)
        tile[i][lane] = from[offset[1] + row + column * shape.from_column_stride];
    }
    __syncthreads();
    for (unsigned i = first; i < 32; i += 8) {
      const unsigned row = tile_row * 32 + i, column = tile_column * 32 + lane;
      if (row < shape.rows && column < shape.columns)
        to[offset[0] + row * shape.to_row_stride + column] = tile[lane][i];
    }
    __syncthreads();
  }
}

// Takes the dims `row` and the last out of `whole` and transposes them; the others are a batch.
template <class W> void launch_transpose(W* to, const W* from, const Iteration& whole, int row, cudaStream_t stream) {
  const int column = whole.rank - 1;
  Iteration batch;
  batch.count = 2;
  for (int d = 0; d < column; ++d) {
    if (d == row) continue;
    batch.extent[batch.rank] = whole.extent[d];
    for (int k = 0; k < 2; ++k) batch.stride[k][batch.rank] = whole.stride[k][d];
    ++batch.rank;
  }
  const unsigned across = unsigned(ceil_divide(whole.extent[column], int64_t(32)));
  const unsigned tiles = across * unsigned(ceil_divide(whole.extent[row], int64_t(32)));
  const TransposeShape shape{unsigned(whole.extent[row]),
                             unsigned(whole.extent[column]),
                             whole.stride[0][row],
                             whole.stride[1][column],
                             Divider(across),
                             Divider(tiles)};
  const unsigned count = tiles * unsigned(batch.numel());
  TANDEM_LAUNCH((transpose<W>), blocks_for(int64_t(count) * 256), 256, 0, stream, to, from, shape, Layout<2>(batch),
                count);
}

/// Whether both sides may be moved `factor` elements at a time.
template <class W> bool moves_by(int64_t factor, const W* to, const W* from, const Iteration& whole) {
  const int last = whole.rank - 1;
  bool fits = is_aligned(to, size_t(factor) * sizeof(W)) && is_aligned(from, size_t(factor) * sizeof(W)) &&
              whole.extent[last] % factor == 0;
  for (int k = 0; k < 2; ++k) {
    fits = fits && whole.stride[k][last] == 1;
    for (int d = 0; d < last; ++d) fits = fits && whole.stride[k][d] % factor == 0;
  }
  return fits;
}

template <class W> void copy_words(W* to, const W* from, const Iteration& whole, cudaStream_t stream) {
  const auto unit = [&](int k) { return whole.rank == 0 || (whole.rank == 1 && whole.stride[k][0] == 1); };
  if (unit(0) && unit(1)) {
    check(cudaMemcpyAsync(to, from, size_t(whole.numel()) * sizeof(W), cudaMemcpyDeviceToDevice, stream), "copy");
    return;
  }
  if constexpr (sizeof(W) < 16) {  // rows that lie whole on both sides: in the widest words that divide them
    using Wider = std::conditional_t<
        sizeof(W) == 8, uint4,
        std::conditional_t<sizeof(W) == 4, uint64_t, std::conditional_t<sizeof(W) == 2, uint32_t, uint16_t>>>;
    if (moves_by(2, to, from, whole)) {
      Iteration wide = whole;
      wide.extent[wide.rank - 1] /= 2;
      for (int k = 0; k < 2; ++k)
        for (int d = 0; d + 1 < wide.rank; ++d) wide.stride[k][d] /= 2;
      return copy_words(reinterpret_cast<Wider*>(to), reinterpret_cast<const Wider*>(from), wide, stream);
    }
  }
  in_pieces(whole, [&](const Iteration& piece, const int64_t* offset) {
    const int last = piece.rank - 1;
    if (piece.rank >= 2 && piece.stride[0][last] == 1 && piece.stride[1][last] != 1) {
      for (int d = 0; d < last; ++d) {
        if (piece.stride[1][d] != 1 || piece.extent[d] < 8 || piece.extent[last] < 8) continue;
        return launch_transpose(to + offset[0], from + offset[1], piece, d, stream);
      }
    }
    TANDEM_LAUNCH((cast<W, W>), blocks_for(piece.numel()), threads_per_block, 0, stream, to + offset[0],
                  from + offset[1], Layout<2>(piece));
  });
}

template <class T> void fill_strided(T* to, T value, const Shape& shape, const Shape& strides, cudaStream_t stream) {
  in_pieces(Iteration(shape, {{&shape, &strides}}), [&](const Iteration& piece, const int64_t* offset) {
    TANDEM_LAUNCH((fill<T>), blocks_for(piece.numel()), threads_per_block, 0, stream, to + offset[0], value,
                  Layout<1>(piece));
  });
}

// On the host: a C++ number that became an operand.
double host_value(const TensorImpl& scalar) {
  switch (scalar.dtype) {
    case DType::float32: return *static_cast<const float*>(scalar.data);
    case DType::float64: return *static_cast<const double*>(scalar.data);
    case DType::float16: return static_cast<float>(*static_cast<const Float16*>(scalar.data));
    case DType::bfloat16: return static_cast<float>(*static_cast<const BFloat16*>(scalar.data));
    case DType::int32: return *static_cast<const int32_t*>(scalar.data);
    case DType::int64: return double(*static_cast<const int64_t*>(scalar.data));
    case DType::int16: return *static_cast<const int16_t*>(scalar.data);
    case DType::int8: return *static_cast<const int8_t*>(scalar.data);
    case DType::uint8: return *static_cast<const uint8_t*>(scalar.data);
    default: return *static_cast<const bool*>(scalar.data);
  }
}

void fill_kernel(KernelContext& op) {
  const double value = op.attributes.number("value");
  visit_any(op.out().dtype, [&]<class T>() {
    fill_strided(data<T>(op.out()), number_as<T>(value), op.out().shape, op.out().strides, stream_of(op));
  });
}

void arange_kernel(KernelContext& op) {
  const int64_t count = op.out().shape.numel();
  if (count == 0) return;
  visit_any(op.out().dtype, [&]<class T>() {
    TANDEM_LAUNCH((arange<T>), blocks_for(count), threads_per_block, 0, stream_of(op), data<T>(op.out()),
                  op.attributes.number("begin"), op.attributes.number("step"), count);
  });
}

void copy_kernel(KernelContext& op) {
  TensorImpl& out = op.out();
  if (!op.in(0).is_scalar) return copy_strided(op.in(0), out.shape, out.data, out.dtype, out.strides, stream_of(op));
  visit_any(out.dtype, [&]<class T>() {
    fill_strided(data<T>(out), number_as<T>(host_value(op.in(0))), out.shape, out.strides, stream_of(op));
  });
}

}  // namespace

void copy_strided(const TensorImpl& from, const Shape& shape, void* to, DType to_type, const Shape& to_strides,
                  cudaStream_t stream) {
  const Iteration iteration(shape, {{&shape, &to_strides}, {&from.shape, &from.strides}});
  if (iteration.numel() == 0) return;
  if (from.dtype == to_type) {
    return visit_size(to_type, [&]<class W>() { copy_words(static_cast<W*>(to), data<W>(from), iteration, stream); });
  }
  visit_any(to_type, [&]<class To>() {
    visit_any(from.dtype, [&]<class From>() {
      if constexpr (!std::is_same_v<To, From>) {
        in_pieces(iteration, [&](const Iteration& piece, const int64_t* offset) {
          TANDEM_LAUNCH((cast<To, From>), blocks_for(piece.numel()), threads_per_block, 0, stream,
                        static_cast<To*>(to) + offset[0], data<From>(from) + offset[1], Layout<2>(piece));
        });
      }
    });
  });
}

}  // namespace gpu

void add_cuda_create(Kernels kernels) {
  kernels["full"] = gpu::fill_kernel;
  kernels["arange"] = gpu::arange_kernel;
  for (const char* name : {"cast", "contiguous", "copy", "barrier"}) kernels[name] = gpu::copy_kernel;
}

}  // namespace tandem
