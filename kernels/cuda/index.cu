// embedding and its gradient, gather, index_select, one_hot; what writes at positions is in scatter.cu. The gradient adds
// without atomics: each sum has one owner that takes its terms in the order of their positions, so the bits are the same at every
// run. An id out of range is noted; until the note is read it reads as NaN (all bits set) and adds nothing.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/index.h"

namespace tandem {
namespace gpu {
namespace {

template <class W>
__global__ void __launch_bounds__(threads_per_block)
    embedding(W* out, const W* weight, const int64_t* ids, int64_t positions, int64_t rows, int64_t width,
              td_range_note note) {
  for (int64_t i = global_thread(); i < positions * width; i += global_threads()) {
    const int64_t position = i / width, id = ids[position];
    if (in_range(id, rows, position, note)) out[i] = weight[id * width + (i - position * width)];
    else out[i] = W(~W(0));
  }
}

// Wide rows: a warp copies one, 16 bytes a lane.
__global__ void __launch_bounds__(threads_per_block)
    embedding_packs(uint4* out, const uint4* weight, const int64_t* ids, int64_t positions, int64_t rows, int64_t width,
                    td_range_note note) {
  const int64_t warps = global_threads() / 32;
  for (int64_t position = global_thread() / 32; position < positions; position += warps) {
    const int64_t id = ids[position];
    const bool known = in_range(id, rows, position, note);
    for (int64_t i = threadIdx.x % 32; i < width; i += 32) {
      out[position * width + i] = known ? weight[id * width + i] : make_uint4(~0u, ~0u, ~0u, ~0u);
    }
  }
}

// A block owns `own` rows of the table, of which it sums a tile of columns in shared memory. It runs through all ids,
// 256 at a time: warps vote which are its own, in order, then every thread adds those rows in its columns.
constexpr int grad_threads = 256;
constexpr unsigned grad_tile = 512, grad_shared = 40 * 1024;

template <class T>
__global__ void __launch_bounds__(grad_threads)
    embedding_grad(T* out, const T* grad, const int64_t* ids, int64_t positions, int64_t rows, int64_t width,
                   unsigned own, unsigned first_tile, td_range_note note) {
  using Wide = Compute<T>;
  TANDEM_DYNAMIC_SHARED(Wide, sums);
  TANDEM_SHARED(unsigned, votes, [grad_threads / 32]);
  TANDEM_SHARED(int, matches, [grad_threads]);
  const int64_t first_row = int64_t(blockIdx.x) * own, first_column = int64_t(first_tile + blockIdx.y) * grad_tile;
  const unsigned tile = unsigned(width - first_column < grad_tile ? width - first_column : grad_tile);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (unsigned i = threadIdx.x; i < own * tile; i += grad_threads) sums[i] = 0;

  for (int64_t base = 0; base < positions; base += grad_threads) {
    const int64_t position = base + threadIdx.x;
    const int64_t id = position < positions ? ids[position] : -1;
    if (position < positions && blockIdx.x == 0 && first_column == 0) in_range(id, rows, position, note);
    const bool mine = id >= first_row && id < first_row + own && id < rows;
    const unsigned vote = __ballot_sync(all_lanes, mine);
    if (lane == 0) votes[warp] = vote;
    __syncthreads();
    unsigned before = 0, total = 0;
    for (unsigned w = 0; w < grad_threads / 32; ++w) {
      if (w < warp) before += unsigned(__popc(votes[w]));
      total += unsigned(__popc(votes[w]));
    }
    // Where in these 256, and in which of the block's rows.
    if (mine)
      matches[before + unsigned(__popc(vote & ((1u << lane) - 1)))] = int(threadIdx.x << 16 | unsigned(id - first_row));
    __syncthreads();
    for (unsigned m = 0; m < total; ++m) {
      const int64_t from = (base + (matches[m] >> 16)) * width + first_column;
      Wide* const sum = sums + unsigned(matches[m] & 0xffff) * tile;
      for (unsigned i = threadIdx.x; i < tile; i += grad_threads) sum[i] += widen(grad[from + i]);
    }
    __syncthreads();
  }
  __syncthreads();
  for (unsigned i = threadIdx.x; i < own * tile; i += grad_threads) {
    const int64_t row = first_row + i / tile;
    if (row < rows) out[row * width + first_column + i % tile] = convert<T>(sums[i]);
  }
}

template <class W>
__global__ void __launch_bounds__(threads_per_block)
    gather(W* out, const W* in, const int64_t* index, Layout<2> layout, int64_t stride, int64_t extent, int64_t first,
           td_range_note note) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t offset[2];
    layout.offsets(i, offset);
    const int64_t at = index[offset[0]];
    if (in_range(at, extent, first + offset[0], note)) out[offset[0]] = in[offset[1] + at * stride];
    else out[offset[0]] = W(~W(0));
  }
}

// Slices of x along dim: a thread copies a word of one, up to 16 bytes.
template <class W>
__global__ void __launch_bounds__(threads_per_block)
    index_select(W* out, const W* in, const int64_t* index, int64_t first_outer, unsigned first, Divider words,
                 Divider count, int64_t extent, unsigned items, td_range_note note) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < items; i += step) {
    unsigned slice, word, outer, position;
    words.divide(i, slice, word);
    count.divide(first + slice, outer, position);
    const int64_t at = index[position];
    const bool known = in_range(at, extent, position, note);
    W value;
    if (known) value = in[((first_outer + outer) * extent + at) * words.divisor + word];
    else memset(&value, 0xff, sizeof value);
    out[i] = value;
  }
}

// A thread writes N classes of a row.
template <int N>
__global__ void __launch_bounds__(threads_per_block)
    one_hot(int64_t* out, const int64_t* labels, int64_t first, Divider packs, int64_t classes, unsigned items,
            td_range_note note) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < items; i += step) {
    unsigned row, at;
    packs.divide(i, row, at);
    const int64_t label = labels[row];
    if (at == 0) in_range(label, classes, first + row, note);
    Pack<int64_t, N> pack;
#pragma unroll
    for (int k = 0; k < N; ++k) pack.at[k] = label == int64_t(at) * N + k ? 1 : 0;
    store_pack(out + int64_t(i) * N, pack);
  }
}

void embedding_kernel(KernelContext& op) {
  const TensorImpl &ids = op.in(0), &weight = op.in(1);
  const int64_t positions = ids.shape.numel(), rows = weight.shape[0], width = weight.shape[1];
  if (positions * width == 0) return;
  const int64_t row_bytes = width * size_of(weight.dtype);
  const td_range_note note = range_note(op, {.what = "id", .bound = rows}, ids.shape);
  if (row_bytes % 16 == 0 && row_bytes >= 128 && is_aligned(weight.data) && is_aligned(op.out().data)) {
    TANDEM_LAUNCH(embedding_packs, blocks_for(positions * 32), threads_per_block, 0, stream_of(op),
                  data<uint4>(op.out()), data<uint4>(weight), data<int64_t>(ids), positions, rows, row_bytes / 16,
                  note);
    return;
  }
  visit_size(weight.dtype, [&]<class W>() {
    TANDEM_LAUNCH((embedding<W>), blocks_for(positions * width), threads_per_block, 0, stream_of(op), data<W>(op.out()),
                  data<W>(weight), data<int64_t>(ids), positions, rows, width, note);
  });
}

void embedding_grad_kernel(KernelContext& op) {
  visit_floating(op.out().dtype, [&]<class T>() {
    const int64_t rows = op.out().shape[0], width = op.out().shape[1], positions = op.in(1).shape.numel();
    if (rows * width == 0) return;
    const int64_t tile = std::min(width, int64_t(grad_tile));
    // Few rows a block, so that there are blocks enough; many, so that the ids are read seldom.
    const int64_t most = int64_t(grad_shared) / (tile * int64_t(sizeof(Compute<T>)));
    const unsigned own = unsigned(std::clamp(rows / (8 * multiprocessors()), int64_t(1), std::min(most, int64_t(32))));
    const int64_t down = ceil_divide(rows, int64_t(own)), across = ceil_divide(width, int64_t(grad_tile));
    check_most(op, down, most_of_int, "blocks of rows of the table");
    const td_range_note note = range_note(op, {.what = "id", .bound = rows}, op.in(1).shape);
    for (int64_t first = 0; first < across; first += most_across) {
      TANDEM_LAUNCH((embedding_grad<T>), dim3(unsigned(down), unsigned(std::min(most_across, across - first))),
                    grad_threads, size_t(own * tile) * sizeof(Compute<T>), stream_of(op), data<T>(op.out()),
                    data<T>(op.in(0)), data<int64_t>(op.in(1)), positions, rows, width, own, unsigned(first), note);
    }
  });
}

void gather_kernel(KernelContext& op) {
  const TensorImpl &x = op.in(0), &index = op.in(1);
  const int dim = int(op.attributes.integer("dim"));
  Shape strides = x.strides;
  if (strides.size() > 0) strides[dim] = 0;
  const int64_t stride = x.shape.empty() ? 0 : x.strides[dim], extent = x.shape.empty() ? 1 : x.shape[dim];
  const Iteration iteration(index.shape, {{&index.shape, &index.strides}, {&index.shape, &strides}});
  if (index.shape.numel() == 0) return;
  const td_range_note note = range_note(op, {.bound = extent}, index.shape);
  visit_size(x.dtype, [&]<class W>() {
    in_pieces(iteration, [&](const Iteration& piece, const int64_t* offset) {
      TANDEM_LAUNCH((gather<W>), blocks_for(piece.numel()), threads_per_block, 0, stream_of(op),
                    data<W>(op.out()) + offset[0], data<W>(x) + offset[1], data<int64_t>(index) + offset[0],
                    Layout<2>(piece), stride, extent, offset[0], note);
    });
  });
}

/// Calls f with the widest type of which `bytes`, and both addresses, are multiples.
template <class F> void visit_widest(int64_t bytes, const void* a, const void* b, F&& f) {
  const auto fits = [&](int64_t size) {
    return bytes % size == 0 && is_aligned(a, size_t(size)) && is_aligned(b, size_t(size));
  };
  if (fits(16)) return f.template operator()<uint4>();
  if (fits(8)) return f.template operator()<uint64_t>();
  if (fits(4)) return f.template operator()<uint32_t>();
  if (fits(2)) return f.template operator()<uint16_t>();
  return f.template operator()<uint8_t>();
}

void index_select_kernel(KernelContext& op) {
  const TensorImpl &x = op.in(0), &index = op.in(1);
  TensorImpl& out = op.out();
  if (out.shape.numel() == 0) return;
  const int dim = int(op.attributes.integer("dim"));
  int64_t inner = size_of(x.dtype);
  for (int d = dim + 1; d < x.shape.size(); ++d) inner *= x.shape[d];
  const int64_t extent = x.shape[dim], count = index.shape[0], slices = out.shape.numel() * size_of(x.dtype) / inner;
  check_most(op, count, most_of_int, "positions");
  const td_range_note note = range_note(op, {.bound = extent}, index.shape);
  visit_widest(inner, x.data, out.data, [&]<class W>() {
    const int64_t words = inner / int64_t(sizeof(W));
    check_most(op, words, most_items, "words in a slice");
    in_rows(slices, words, [&](int64_t first, int64_t rows) {
      TANDEM_LAUNCH((index_select<W>), blocks_for(rows * words), threads_per_block, 0, stream_of(op),
                    data<W>(out) + first * words, data<W>(x), data<int64_t>(index), first / count,
                    unsigned(first % count), Divider(unsigned(words)), Divider(unsigned(count)), extent,
                    unsigned(rows * words), note);
    });
  });
}

void one_hot_kernel(KernelContext& op) {
  const int64_t classes = op.attributes.integer("classes"), count = op.in(0).shape.numel();
  const td_range_note note = range_note(op, {.what = "label", .bound = classes}, op.in(0).shape);
  const auto launch = [&]<int N>() {
    check_most(op, classes / N, most_items, "words in a row");
    in_rows(count, classes / N, [&](int64_t first, int64_t rows) {
      const int64_t items = rows * (classes / N);
      TANDEM_LAUNCH(one_hot<N>, blocks_for(items), threads_per_block, 0, stream_of(op),
                    data<int64_t>(op.out()) + first * classes, data<int64_t>(op.in(0)) + first, first,
                    Divider(unsigned(classes / N)), classes, unsigned(items), note);
    });
  };
  if (classes % 2 == 0 && is_aligned(op.out().data)) launch.template operator()<2>();
  else launch.template operator()<1>();
}

}  // namespace
}  // namespace gpu

void add_cuda_index(Kernels kernels) {
  kernels["embedding"] = gpu::embedding_kernel;
  kernels["embedding_grad"] = gpu::embedding_grad_kernel;
  kernels["gather"] = gpu::gather_kernel;
  kernels["index_select"] = gpu::index_select_kernel;
  kernels["one_hot"] = gpu::one_hot_kernel;
  kernels["scatter"] = gpu::scatter_kernel;
  kernels["scatter_add"] = gpu::scatter_add_kernel;
  kernels["scatter_prod"] = gpu::scatter_prod_kernel;
  kernels["index_add"] = gpu::index_add_kernel;
}

}  // namespace tandem
