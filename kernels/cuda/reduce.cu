// Reductions over any set of dims. Two mappings: where the reduced elements of a result are neighbours in
// memory, a warp or a block walks along them (128-bit reads where the row is contiguous); where the neighbours
// belong to different results, each lane owns a result and a warp reads whole lines across. When there are too
// few results to fill the device, the reduced range is split, partial results go to a workspace and a second
// launch folds them in order: no atomics, so the same bits at every run. What is too much for one launch, whose indices have 32
// bits, is taken in parts, and their results are folded all the same.
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

// --- what is folded ------------------------------------------------------------------------------------------
// Input, Accumulator, Output; identity(), load(x, index), combine(a, b), finish(joined, count). The partial results of several
// launches, of which one begins at index `first`, are Joined by joined(accumulator, first) and combine.

template <class T> using Whole = std::conditional_t<std::is_same_v<T, int64_t>, int64_t, int32_t>;
template <class T> inline constexpr bool is_float = std::is_floating_point_v<Compute<T>>;
// Integers and bool sum as int64; extremes of them stay as they are (in a width that shuffles can move).
template <class T> using Total = std::conditional_t<is_float<T>, Compute<T>, int64_t>;
template <class T, bool = is_float<T>> struct KeyOf { using type = Compute<T>; };
template <class T> struct KeyOf<T, false> { using type = Whole<T>; };
template <class T> using Key = typename KeyOf<T>::type;

template <class T> struct Sum {
  using Input = T;
  using Accumulator = Total<T>;
  using Joined = Accumulator;
  using Output = std::conditional_t<is_float<T>, T, int64_t>;
  __device__ static Accumulator identity() { return 0; }
  __device__ static Joined joined(Accumulator a, int64_t) { return a; }
  __device__ static Accumulator load(T x, unsigned) { return static_cast<Accumulator>(widen(x)); }
  __device__ static Accumulator combine(Accumulator a, Accumulator b) { return td_add(a, b); }
  __device__ static Output finish(Accumulator a, double) { return convert<Output>(a); }
};
template <class T> struct Mean : Sum<T> {
  using Accumulator = Total<T>;
  __device__ static T finish(Accumulator a, double count) { return convert<T>(a / static_cast<Accumulator>(count)); }
};
template <class T> struct Product : Sum<T> {
  using Accumulator = Total<T>;
  __device__ static Accumulator identity() { return 1; }
  __device__ static Accumulator combine(Accumulator a, Accumulator b) { return td_multiply(a, b); }
};

template <class K> __device__ __forceinline__ K lowest() {
  if constexpr (std::is_floating_point_v<K>) return -static_cast<K>(INFINITY);
  else return std::is_same_v<K, int64_t> ? K(-9223372036854775807LL - 1) : K(-2147483647 - 1);
}
template <class K> __device__ __forceinline__ K highest() {
  if constexpr (std::is_floating_point_v<K>) return static_cast<K>(INFINITY);
  else return std::is_same_v<K, int64_t> ? K(9223372036854775807LL) : K(2147483647);
}

template <class T> struct Max {  // NaN wins
  using Input = T;
  using Accumulator = Key<T>;
  using Joined = Accumulator;
  using Output = T;
  __device__ static Accumulator identity() { return lowest<Accumulator>(); }
  __device__ static Joined joined(Accumulator a, int64_t) { return a; }
  __device__ static Accumulator load(T x, unsigned) { return widen(x); }
  __device__ static Accumulator combine(Accumulator a, Accumulator b) { return a != a || a > b ? a : b; }
  __device__ static T finish(Accumulator a, double) { return convert<T>(a); }
};
template <class T> struct Min : Max<T> {
  using Accumulator = Key<T>;
  __device__ static Accumulator identity() { return highest<Accumulator>(); }
  __device__ static Accumulator combine(Accumulator a, Accumulator b) { return a != a || a < b ? a : b; }
};

template <class K, class Index> struct Candidate {
  K value;
  Index index;
};
template <class K, class Index>
__device__ __forceinline__ Candidate<K, Index> shuffle_xor(Candidate<K, Index> x, int lanes) {
  return {__shfl_xor_sync(all_lanes, x.value, lanes), __shfl_xor_sync(all_lanes, x.index, lanes)};
}
template <class T> struct ArgMax {  // the first of equals; the first NaN before everything
  using Input = T;
  using Accumulator = Candidate<Key<T>, unsigned>;
  using Joined = Candidate<Key<T>, int64_t>;
  using Output = int64_t;
  static constexpr unsigned nowhere = 0xffffffffu;  // behind all others
  __device__ static Accumulator identity() { return {lowest<Key<T>>(), nowhere}; }
  __device__ static Joined joined(Accumulator a, int64_t first) {
    return {a.value, a.index == nowhere ? 0x7fffffffffffffff : first + a.index};
  }
  __device__ static Accumulator load(T x, unsigned index) { return {static_cast<Key<T>>(widen(x)), index}; }
  template <class Index>
  __device__ static Candidate<Key<T>, Index> combine(Candidate<Key<T>, Index> a, Candidate<Key<T>, Index> b) {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    const bool equal = (a_nan && b_nan) || a.value == b.value;
    const bool first = equal ? a.index < b.index : a_nan || (!b_nan && a.value > b.value);
    return first ? a : b;
  }
  __device__ static int64_t finish(Joined a, double) { return a.index; }
};
template <class T> struct ArgMin : ArgMax<T> {
  using Accumulator = Candidate<Key<T>, unsigned>;
  __device__ static Accumulator identity() { return {highest<Key<T>>(), ArgMax<T>::nowhere}; }
  template <class Index>
  __device__ static Candidate<Key<T>, Index> combine(Candidate<Key<T>, Index> a, Candidate<Key<T>, Index> b) {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    const bool equal = (a_nan && b_nan) || a.value == b.value;
    const bool first = equal ? a.index < b.index : a_nan || (!b_nan && a.value < b.value);
    return first ? a : b;
  }
};

// --- kernels ---------------------------------------------------------------------------------------------------

constexpr int block_threads = 256;

struct Range {
  unsigned rows, columns;        // results, and elements folded into each
  unsigned chunk;                // of the columns, per split; blockIdx.y says which
  unsigned splits, first_split;  // of the columns of all launches, and the first of this one
  int lanes;                     // threads per row: 32 or all of the block
  bool packed;                   // rows are contiguous and aligned

  // The columns of a block; none in the last launch's last blocks, where it has fewer columns than the others.
  __device__ __forceinline__ unsigned begin() const {
    const unsigned at = blockIdx.y * chunk;
    return at < columns ? at : columns;
  }
  __device__ __forceinline__ unsigned end(unsigned begin) const {
    return columns - begin < chunk ? columns : begin + chunk;
  }
};

template <class F>
__device__ __forceinline__ void deliver(typename F::Accumulator value, unsigned row, int64_t out_offset,
                                        const Range& range, typename F::Output* out, typename F::Accumulator* partial) {
  if (range.splits > 1) partial[size_t(row) * range.splits + range.first_split + blockIdx.y] = value;
  else out[out_offset] = F::finish(F::joined(value, 0), range.columns);
}

template <class F>
__global__ void __launch_bounds__(block_threads)
    reduce_rows(typename F::Output* out, typename F::Accumulator* partial, const typename F::Input* in, Range range,
                Layout<2> kept, Layout<1> folded) {
  using Accumulator = typename F::Accumulator;
  TANDEM_SHARED(Accumulator, scratch, [block_threads / 32]);
  const unsigned lanes = unsigned(range.lanes), lane = threadIdx.x % lanes;
  const unsigned row = blockIdx.x * (block_threads / lanes) + threadIdx.x / lanes;
  const bool live = row < range.rows;
  int64_t offset[2];
  kept.offsets(live ? row : 0, offset);
  const typename F::Input* x = in + offset[1];
  const unsigned begin = range.begin(), end = live ? range.end(begin) : begin;

  Accumulator value = F::identity();
  unsigned i = begin;
  if (range.packed) {
    constexpr unsigned N = pack_size<typename F::Input>;
    for (i = begin + lane * N; i + N <= end; i += lanes * N) {
      const auto pack = load_pack<int(N)>(x + i);
#pragma unroll
      for (unsigned k = 0; k < N; ++k) value = F::combine(value, F::load(pack.at[k], i + k));
    }
    i = begin + (end - begin) / N * N;  // what is left is less than a pack
  }
  for (i += lane; i < end; i += lanes) {
    int64_t at[1];
    folded.offsets(i, at);
    value = F::combine(value, F::load(x[at[0]], i));
  }

  value = reduce_lanes(value, [](Accumulator a, Accumulator b) { return F::combine(a, b); });
  if (lanes > 32) {
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (unsigned w = 1; w < block_threads / 32; ++w) value = F::combine(value, scratch[w]);
    }
  }
  if (live && lane == 0) deliver<F>(value, row, offset[0], range, out, partial);
}

constexpr int columns_wide = 32, columns_high = block_threads / columns_wide;

template <class F>
__global__ void __launch_bounds__(block_threads)
    reduce_columns(typename F::Output* out, typename F::Accumulator* partial, const typename F::Input* in, Range range,
                   Layout<2> kept, Layout<1> folded) {
  using Accumulator = typename F::Accumulator;
  TANDEM_SHARED(Accumulator, scratch, [columns_high][columns_wide]);
  const unsigned x = threadIdx.x % columns_wide, y = threadIdx.x / columns_wide;
  const unsigned row = blockIdx.x * columns_wide + x;
  const bool live = row < range.rows;
  int64_t offset[2];
  kept.offsets(live ? row : 0, offset);
  const unsigned begin = range.begin(), end = live ? range.end(begin) : begin;
  Accumulator value = F::identity();
  for (unsigned i = begin + y; i < end; i += columns_high) {
    int64_t at[1];
    folded.offsets(i, at);
    value = F::combine(value, F::load(in[offset[1] + at[0]], i));
  }
  scratch[y][x] = value;
  __syncthreads();
  if (y != 0 || !live) return;
  for (unsigned k = 1; k < columns_high; ++k) value = F::combine(value, scratch[k][x]);
  deliver<F>(value, row, offset[0], range, out, partial);
}

// The last launch: one warp folds the partial results of a row. Of those, `at_once` are of one launch, and `columns` elements.
template <class F>
__global__ void __launch_bounds__(block_threads)
    fold_partial(typename F::Output* out, const typename F::Accumulator* partial, unsigned rows, unsigned splits,
                 unsigned at_once, int64_t columns, double count, Layout<2> kept) {
  using Joined = typename F::Joined;
  const unsigned row = blockIdx.x * (block_threads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  Joined value = F::joined(F::identity(), 0);
  if (row < rows) {
    for (unsigned i = lane; i < splits; i += 32)
      value = F::combine(value, F::joined(partial[size_t(row) * splits + i], i / at_once * columns));
  }
  value = reduce_lanes(value, [](Joined a, Joined b) { return F::combine(a, b); });
  if (row >= rows || lane != 0) return;
  int64_t offset[2];
  kept.offsets(row, offset);
  out[offset[0]] = F::finish(value, count);
}

// --- launching -------------------------------------------------------------------------------------------------

struct Plan {
  Iteration kept, folded;  // operands of kept: out, in; of folded: in
  bool by_columns = false;
};

Plan plan_of(const TensorImpl& in, const Shape& dims) {
  struct Dim {
    int64_t extent, out_stride, in_stride;
  };
  std::vector<Dim> kept, folded;  // innermost first
  int64_t out_stride = 1;
  for (int d = in.shape.size() - 1; d >= 0; --d) {
    if (dims.contains(d)) {
      folded.push_back({in.shape[d], 0, in.strides[d]});
    } else {
      kept.push_back({in.shape[d], out_stride, in.strides[d]});
      out_stride *= in.shape[d];
    }
  }
  // Folded dims stay in row-major order, which argmax's index is counted in.
  std::stable_sort(kept.begin(), kept.end(), [](const Dim& a, const Dim& b) { return a.in_stride < b.in_stride; });
  Plan plan;
  plan.kept.count = 2;
  plan.folded.count = 1;
  const auto fill = [](Iteration& part, const std::vector<Dim>& from, bool with_out) {
    int64_t nearest = std::numeric_limits<int64_t>::max();
    for (auto dim = from.rbegin(); dim != from.rend(); ++dim) {
      part.extent[part.rank] = dim->extent;
      part.stride[0][part.rank] = with_out ? dim->out_stride : dim->in_stride;
      part.stride[1][part.rank] = dim->in_stride;
      ++part.rank;
      if (dim->extent > 1 && dim->in_stride > 0) nearest = std::min(nearest, dim->in_stride);
    }
    return nearest;
  };
  plan.by_columns = fill(plan.kept, kept, true) < fill(plan.folded, folded, false);
  plan.kept.merge();
  plan.folded.merge();
  return plan;
}

/// Some of the results; `kept` are their places from `out` and `x` on.
template <class F>
void launch_results(typename F::Output* out, const typename F::Input* x, const Plan& plan, const Iteration& kept,
                    Device device, cudaStream_t stream) {
  using Accumulator = typename F::Accumulator;
  constexpr int N = pack_size<typename F::Input>;
  const int64_t rows = kept.numel(), columns = plan.folded.numel(), part = std::min(columns, items_at_once());
  int64_t parts = 0;
  in_pieces(plan.folded, [&](const Iteration&, const int64_t*) { ++parts; });

  Range range{};
  range.rows = unsigned(rows);
  range.lanes = !plan.by_columns && part <= 1024 && rows > 1 ? 32 : block_threads;
  const unsigned rows_per_block = plan.by_columns ? columns_wide : unsigned(block_threads / range.lanes);
  const unsigned blocks = ceil_divide(range.rows, rows_per_block);
  // Enough blocks for the device, each with enough to do.
  const int64_t least = plan.by_columns ? 16 * columns_high : 4 * block_threads;
  int64_t splits = std::min(ceil_divide(8 * multiprocessors(), int64_t(blocks)), part / least);
  splits = std::clamp(splits, int64_t(1), int64_t(1024));
  range.chunk = unsigned(ceil_divide(ceil_divide(part, splits), int64_t(N)) * N);
  splits = range.chunk > 0 ? std::max(int64_t(1), ceil_divide(part, int64_t(range.chunk))) : 1;
  range.splits = unsigned(splits * std::max(parts, int64_t(1)));
  const Workspace workspace(range.splits > 1 ? size_t(rows) * range.splits * sizeof(Accumulator) : 0, device);
  auto* partial = workspace.template as<Accumulator>();

  bool whole_packs = plan.folded.rank == 1 && plan.folded.stride[0][0] == 1;
  for (int d = 0; d < kept.rank; ++d) whole_packs = whole_packs && kept.stride[1][d] % N == 0;
  const dim3 grid(blocks, unsigned(splits));
  const auto launch = [&](const Iteration& folded, const int64_t* offset) {
    const auto* from = x + offset[0];
    range.columns = unsigned(folded.numel());
    range.packed = whole_packs && is_aligned(from);
    if (plan.by_columns) {
      TANDEM_LAUNCH((reduce_columns<F>), grid, block_threads, 0, stream, out, partial, from, range, Layout<2>(kept),
                    Layout<1>(folded));
    } else {
      TANDEM_LAUNCH((reduce_rows<F>), grid, block_threads, 0, stream, out, partial, from, range, Layout<2>(kept),
                    Layout<1>(folded));
    }
    range.first_split += unsigned(splits);
  };
  if (columns > 0) {
    in_pieces(plan.folded, launch);
  } else {
    const int64_t none[1] = {};
    launch(plan.folded, none);
  }
  if (range.splits > 1) {
    TANDEM_LAUNCH((fold_partial<F>), ceil_divide(range.rows, unsigned(block_threads / 32)), block_threads, 0, stream,
                  out, partial, range.rows, range.splits, unsigned(splits), part, double(columns), Layout<2>(kept));
  }
}

template <class F> void launch_reduce(KernelContext& op, const Shape& dims) {
  const Plan plan = plan_of(op.in(0), dims);
  const auto* const x = data<typename F::Input>(op.in(0));
  auto* const out = data<typename F::Output>(op.out());
  in_pieces(plan.kept, [&](const Iteration& kept, const int64_t* offset) {
    launch_results<F>(out + offset[0], x + offset[1], plan, kept, op.out().device, stream_of(op));
  });
}

template <template <class> class F> void reduce_any(KernelContext& op) {
  visit_any(op.in(0).dtype, [&]<class T>() { launch_reduce<F<T>>(op, op.attributes.integers("dims")); });
}
void mean_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() { launch_reduce<Mean<T>>(op, op.attributes.integers("dims")); });
}
template <template <class> class F> void position_kernel(KernelContext& op) {
  const Shape dims{op.attributes.integer("dim")};
  visit_any(op.in(0).dtype, [&]<class T>() { launch_reduce<F<T>>(op, dims); });
}

}  // namespace
}  // namespace gpu

void add_cuda_reduce(Kernels kernels) {
  kernels["sum"] = gpu::reduce_any<gpu::Sum>;
  kernels["prod"] = gpu::reduce_any<gpu::Product>;
  kernels["mean"] = gpu::mean_kernel;
  kernels["max"] = gpu::reduce_any<gpu::Max>;
  kernels["min"] = gpu::reduce_any<gpu::Min>;
  kernels["argmax"] = gpu::position_kernel<gpu::ArgMax>;
  kernels["argmin"] = gpu::position_kernel<gpu::ArgMin>;
}

}  // namespace tandem
