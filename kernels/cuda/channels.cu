// The kernels that read and write whole tensors for batch and group normalisation. Threads read packs of 16 bytes where channels
// (rows) or pixels (planes) allow it, four of them at a time before the first is used.
#include "kernels/cuda/channels.cuh"

namespace tandem::gpu {
namespace {

constexpr int block = threads_per_block;
constexpr int ahead = 4;  // packs that a thread reads at a time

/// Means are joined as Chan, Golub and LeVeque (1979, eq. 2.1) do it, in double: nothing cancels where x is far from zero.
struct Moments {
  double mean = 0, squares = 0;
  /// With those of other elements, which are `share` of all; weight is the number of elements before, times share.
  __device__ __forceinline__ void join(double other, double other_squares, double share, double weight) {
    const double delta = other - mean;
    squares += other_squares + delta * delta * weight;
    mean += delta * share;
  }
};

/// A few elements around a centre near their mean, which is rounded; what it lacks is found from the deviations.
template <class Wide, int count> struct Centred {
  Wide centre = 0, off = 0, squares = 0;
  template <class F> __device__ __forceinline__ explicit Centred(F element) {
#pragma unroll
    for (int i = 0; i < count; ++i) centre += element(i);
    centre /= count;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const Wide deviation = element(i) - centre;
      off += deviation;
      squares += deviation * deviation;
    }
  }
  __device__ __forceinline__ double mean() const { return centre + off / double(count); }
};

// --- rows of channels ------------------------------------------------------------------------------------------
// A block takes a tile of columns (a pack for each of `wide` threads) of a chunk of rows, which its 256 / wide rows of threads share.

struct RowsView {
  int64_t rows, chunk;
  unsigned columns, splits, tiles, wide, per_segment;
  Divider members;
};
struct RowsPlace {
  int64_t segment, begin, end;
  unsigned split, column, y, high;
  bool live;

  __device__ __forceinline__ RowsPlace(const RowsView& v, unsigned N) {
    const unsigned tile = blockIdx.x % v.tiles, rest = blockIdx.x / v.tiles;
    split = rest % v.splits, segment = rest / v.splits;
    column = (tile * v.wide + threadIdx.x % v.wide) * N;
    y = threadIdx.x / v.wide, high = block / v.wide;
    begin = split * v.chunk, end = begin + v.chunk < v.rows ? begin + v.chunk : v.rows;
    live = column < v.columns;
  }
  __device__ __forceinline__ int64_t offset(const RowsView& v, int64_t row) const {
    return (segment * v.rows + row) * v.columns + column;
  }
  __device__ __forceinline__ int64_t slot(const RowsView& v, unsigned k) const {
    return segment * v.per_segment + v.members.divide(column + k);
  }
  __device__ __forceinline__ Totals* out(const RowsView& v, Totals* totals) const {
    return totals + (segment * v.splits + split) * v.columns + column;
  }
};

template <class T, int N> __global__ void __launch_bounds__(block) row_moments(Totals* out, const T* x, RowsView v) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Totals, scratch, [N][block]);
  TANDEM_SHARED(double, counts, [block]);
  const RowsPlace at(v, N);
  Moments state[N];
  double count = 0;
  if (at.live) {
    const int64_t step = int64_t(at.high) * v.columns;
    int64_t row = at.begin + at.y;
    const T* from = x + at.offset(v, row);
    for (; row + (ahead - 1) * at.high < at.end; row += ahead * at.high, from += ahead * step) {
      Pack<T, N> packs[ahead];
#pragma unroll
      for (int i = 0; i < ahead; ++i) packs[i] = load_pack<N>(from + i * step);
      const double share = ahead / (count + ahead), weight = count * share;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const Centred<Wide, ahead> these([&](int i) { return widen(packs[i].at[k]); });
        state[k].join(these.mean(), these.squares, share, weight);
      }
      count += ahead;
    }
    for (; row < at.end; row += at.high, from += step) {
      const auto pack = load_pack<N>(from);
      const double share = 1 / (count + 1), weight = count * share;
#pragma unroll
      for (int k = 0; k < N; ++k) state[k].join(widen(pack.at[k]), 0, share, weight);
      count += 1;
    }
  }
#pragma unroll
  for (int k = 0; k < N; ++k) scratch[k][threadIdx.x] = {state[k].mean, state[k].squares};
  counts[threadIdx.x] = count;
  for (unsigned half = at.high / 2; half > 0; half /= 2) {
    __syncthreads();
    if (at.y < half) {
      const unsigned other = threadIdx.x + half * v.wide;
      const double more = counts[other], share = more > 0 ? more / (count + more) : 0;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        state[k].join(scratch[k][other].first, scratch[k][other].second, share, count * share);
        scratch[k][threadIdx.x] = {state[k].mean, state[k].squares};
      }
      counts[threadIdx.x] = count += more;
    }
  }
  if (at.y != 0 || !at.live) return;
#pragma unroll
  for (int k = 0; k < N; ++k) at.out(v, out)[k] = {state[k].mean, state[k].squares};
}

template <class T, int N>
__global__ void __launch_bounds__(block) row_sums(Totals* out, const T* g, const T* x, Numbers mean, RowsView v) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Totals, scratch, [N][block]);
  const RowsPlace at(v, N);
  Totals state[N];
  Wide centre[N];
#pragma unroll
  for (int k = 0; k < N; ++k) {
    state[k] = {0, 0};
    centre[k] = at.live ? mean.at<T>(at.slot(v, unsigned(k))) : Wide(0);
  }
  if (at.live) {
    const int64_t step = int64_t(at.high) * v.columns;
    int64_t row = at.begin + at.y, from = at.offset(v, row);
    for (; row + (ahead - 1) * at.high < at.end; row += ahead * at.high, from += ahead * step) {
      Pack<T, N> gs[ahead], xs[ahead];
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        gs[i] = load_pack<N>(g + from + i * step);
        xs[i] = load_pack<N>(x + from + i * step);
      }
#pragma unroll
      for (int k = 0; k < N; ++k) {
        Wide first = 0, second = 0;
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
          first += widen(gs[i].at[k]);
          second += widen(gs[i].at[k]) * (widen(xs[i].at[k]) - centre[k]);
        }
        state[k].first += first;
        state[k].second += second;
      }
    }
    for (; row < at.end; row += at.high, from += step) {
      const auto gs = load_pack<N>(g + from), xs = load_pack<N>(x + from);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        state[k].first += widen(gs.at[k]);
        state[k].second += widen(gs.at[k]) * (widen(xs.at[k]) - centre[k]);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < N; ++k) scratch[k][threadIdx.x] = state[k];
  for (unsigned half = at.high / 2; half > 0; half /= 2) {
    __syncthreads();
    if (at.y < half) {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const Totals more = scratch[k][threadIdx.x + half * v.wide];
        state[k] = {state[k].first + more.first, state[k].second + more.second};
        scratch[k][threadIdx.x] = state[k];
      }
    }
  }
  if (at.y != 0 || !at.live) return;
#pragma unroll
  for (int k = 0; k < N; ++k) at.out(v, out)[k] = state[k];
}

// A thread keeps the numbers of its columns, for all the rows of its block's chunk that are its own.
template <class T, int N>
__global__ void __launch_bounds__(block) apply_rows(T* y, const T* x, Numbers mean, Numbers variance, Numbers weight,
                                                    Numbers bias, double epsilon, RowsView v) {
  using Wide = Compute<T>;
  const RowsPlace at(v, N);
  if (!at.live) return;
  Wide centre[N], scale[N], shift[N];
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const int64_t slot = at.slot(v, unsigned(k));
    centre[k] = mean.at<T>(slot);
    scale[k] = td_rsqrt(variance.at<T>(slot) + static_cast<Wide>(epsilon)) * weight.at<T>(at.column + unsigned(k));
    shift[k] = bias.at<T>(at.column + unsigned(k));
  }
#pragma unroll 4
  for (int64_t row = at.begin + at.y; row < at.end; row += at.high) {
    const int64_t offset = at.offset(v, row);
    auto pack = load_pack<N>(x + offset);
#pragma unroll
    for (int k = 0; k < N; ++k) pack.at[k] = convert<T>((widen(pack.at[k]) - centre[k]) * scale[k] + shift[k]);
    store_pack(y + offset, pack);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(block)
    grad_rows(T* dx, const T* g, const T* x, Numbers mean, Numbers variance, Numbers weight, const Compute<T>* shifts,
              const Compute<T>* slopes, double epsilon, RowsView v) {
  using Wide = Compute<T>;
  const RowsPlace at(v, N);
  if (!at.live) return;
  Wide centre[N], scale[N], shift[N], slope[N];
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const int64_t slot = at.slot(v, unsigned(k));
    centre[k] = mean.at<T>(slot);
    scale[k] = td_rsqrt(variance.at<T>(slot) + static_cast<Wide>(epsilon)) * weight.at<T>(at.column + unsigned(k));
    shift[k] = shifts[slot];
    slope[k] = slopes[slot];
  }
#pragma unroll 2
  for (int64_t row = at.begin + at.y; row < at.end; row += at.high) {
    const int64_t offset = at.offset(v, row);
    const auto gs = load_pack<N>(g + offset);
    auto pack = load_pack<N>(x + offset);
#pragma unroll
    for (int k = 0; k < N; ++k)
      pack.at[k] = convert<T>(scale[k] * widen(gs.at[k]) - shift[k] - (widen(pack.at[k]) - centre[k]) * slope[k]);
    store_pack(dx + offset, pack);
  }
}

// --- planes ------------------------------------------------------------------------------------------------------
// x is [runs, slots, length in packs]: a slot's elements are a run in each of them. A warp or a block takes a chunk of a slot's packs.

struct RunsView {
  int64_t length, stride, total, chunk;  // stride: from run to run; total: packs of a slot
  unsigned slots, splits;
  Divider members;
};

/// One pack of a slot after another, `step` packs apart, without a division in the loop.
struct RunWalk {
  int64_t offset, at, step_offset, step_at;
  __device__ __forceinline__ RunWalk(const RunsView& v, int64_t first, int64_t step) {
    at = first % v.length, offset = first / v.length * v.stride + at;
    step_at = step % v.length, step_offset = step / v.length * v.stride + step_at;
  }
  __device__ __forceinline__ int64_t next(const RunsView& v) {
    const int64_t here = offset;
    at += step_at, offset += step_offset;
    if (at >= v.length) at -= v.length, offset += v.stride - v.length;
    return here;
  }
};
template <int lanes> struct RunsPlace {
  unsigned slot, split, lane;
  int64_t begin, end;
  bool live;
  __device__ __forceinline__ explicit RunsPlace(const RunsView& v) {
    const unsigned item = blockIdx.x * (block / lanes) + threadIdx.x / lanes;
    slot = item % v.slots, split = item / v.slots, lane = threadIdx.x % lanes;
    live = split < v.splits;
    begin = split * v.chunk, end = begin + v.chunk < v.total ? begin + v.chunk : v.total;
    if (!live) end = begin;
  }
};

template <class T, int N, int lanes>
__global__ void __launch_bounds__(block) run_moments(Totals* out, const T* x, RunsView v) {
  using Wide = Compute<T>;
  TANDEM_SHARED(double, scratch, [block / 32]);
  const RunsPlace<lanes> at(v);
  const T* from = x + at.slot * v.length * N;
  RunWalk walk(v, at.begin + at.lane, lanes);
  Moments state;
  double count = 0;
  int64_t i = at.begin + at.lane;
  for (; i + (ahead - 1) * lanes < at.end; i += ahead * lanes) {
    Pack<T, N> packs[ahead];
#pragma unroll
    for (int p = 0; p < ahead; ++p) packs[p] = load_pack<N>(from + walk.next(v) * N);
    const Centred<Wide, ahead * N> these([&](int e) { return widen(packs[e / N].at[e % N]); });
    const double share = ahead * N / (count + ahead * N);
    state.join(these.mean(), these.squares, share, count * share);
    count += ahead * N;
  }
  for (; i < at.end; i += lanes) {
    const auto pack = load_pack<N>(from + walk.next(v) * N);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const double share = 1 / (count + 1);
      state.join(widen(pack.at[k]), 0, share, count * share);
      count += 1;
    }
  }
  const auto sum = [&](double value) {
    if constexpr (lanes == 32) return reduce_lanes(value, Add());
    else return reduce_block(value, Add(), 0.0, scratch);
  };
  const double mean = sum(count * state.mean) / (double(at.end - at.begin) * N), off = state.mean - mean;
  const double squares = sum(state.squares + count * off * off);
  if (at.live && at.lane == 0) out[int64_t(at.split) * v.slots + at.slot] = {mean, squares};
}

template <class T, int N, int lanes>
__global__ void __launch_bounds__(block) run_sums(Totals* out, const T* g, const T* x, Numbers mean, RunsView v) {
  using Wide = Compute<T>;
  TANDEM_SHARED(double, scratch, [block / 32]);
  const RunsPlace<lanes> at(v);
  const int64_t from = at.slot * v.length * N;
  const Wide centre = mean.at<T>(v.members.divide(at.slot));
  RunWalk walk(v, at.begin + at.lane, lanes);
  Totals state{0, 0};
  int64_t i = at.begin + at.lane;
  for (; i + (ahead - 1) * lanes < at.end; i += ahead * lanes) {
    Pack<T, N> gs[ahead], xs[ahead];
#pragma unroll
    for (int p = 0; p < ahead; ++p) {
      const int64_t offset = from + walk.next(v) * N;
      gs[p] = load_pack<N>(g + offset);
      xs[p] = load_pack<N>(x + offset);
    }
    Wide first = 0, second = 0;
#pragma unroll
    for (int e = 0; e < ahead * N; ++e) {
      const Wide value = widen(gs[e / N].at[e % N]);
      first += value;
      second += value * (widen(xs[e / N].at[e % N]) - centre);
    }
    state.first += first;
    state.second += second;
  }
  for (; i < at.end; i += lanes) {
    const int64_t offset = from + walk.next(v) * N;
    const auto gs = load_pack<N>(g + offset), xs = load_pack<N>(x + offset);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      state.first += widen(gs.at[k]);
      state.second += widen(gs.at[k]) * (widen(xs.at[k]) - centre);
    }
  }
  const auto sum = [&](double value) {
    if constexpr (lanes == 32) return reduce_lanes(value, Add());
    else return reduce_block(value, Add(), 0.0, scratch);
  };
  const double first = sum(state.first), second = sum(state.second);
  if (at.live && at.lane == 0) out[int64_t(at.split) * v.slots + at.slot] = {first, second};
}

/// Planes one after another, and whose numbers they take.
struct PlanesView {
  int64_t packs, length;  // of all planes, of one
  Divider by_channels, by_members;
  bool grouped;

  __device__ __forceinline__ void numbers(int64_t plane, unsigned& channel, unsigned& slot) const {
    unsigned image;
    by_channels.divide(unsigned(plane), image, channel);
    slot = grouped ? by_members.divide(unsigned(plane)) : channel;
  }
};

/// Which plane a pack is of, for one pack after another.
struct PlaneWalk {
  int64_t plane, at, step_plane, step_at;
  __device__ __forceinline__ PlaneWalk(const PlanesView& v, int64_t first, int64_t step) {
    plane = first / v.length, at = first % v.length;
    step_plane = step / v.length, step_at = step % v.length;
  }
  __device__ __forceinline__ void next(const PlanesView& v) {
    plane += step_plane, at += step_at;
    if (at >= v.length) at -= v.length, ++plane;
  }
};

// All packs of the tensor, spread over all threads.
template <class T, int N>
__global__ void __launch_bounds__(block) apply_planes(T* y, const T* x, Numbers mean, Numbers variance, Numbers weight,
                                                      Numbers bias, double epsilon, PlanesView v) {
  using Wide = Compute<T>;
  PlaneWalk walk(v, global_thread(), global_threads());
  for (int64_t i = global_thread(); i < v.packs; i += global_threads(), walk.next(v)) {
    unsigned channel, slot;
    v.numbers(walk.plane, channel, slot);
    const Wide centre = mean.at<T>(slot), shift = bias.at<T>(channel);
    const Wide scale = td_rsqrt(variance.at<T>(slot) + static_cast<Wide>(epsilon)) * weight.at<T>(channel);
    auto pack = load_pack<N>(x + i * N);
#pragma unroll
    for (int k = 0; k < N; ++k) pack.at[k] = convert<T>((widen(pack.at[k]) - centre) * scale + shift);
    store_pack(y + i * N, pack);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(block)
    grad_planes(T* dx, const T* g, const T* x, Numbers mean, Numbers variance, Numbers weight, const Compute<T>* shifts,
                const Compute<T>* slopes, double epsilon, PlanesView v) {
  using Wide = Compute<T>;
  PlaneWalk walk(v, global_thread(), global_threads());
  for (int64_t i = global_thread(); i < v.packs; i += global_threads(), walk.next(v)) {
    unsigned channel, slot;
    v.numbers(walk.plane, channel, slot);
    const Wide centre = mean.at<T>(slot), shift = shifts[slot], slope = slopes[slot];
    const Wide scale = td_rsqrt(variance.at<T>(slot) + static_cast<Wide>(epsilon)) * weight.at<T>(channel);
    const auto gs = load_pack<N>(g + i * N);
    auto pack = load_pack<N>(x + i * N);
#pragma unroll
    for (int k = 0; k < N; ++k)
      pack.at[k] = convert<T>(scale * widen(gs.at[k]) - shift - (widen(pack.at[k]) - centre) * slope);
    store_pack(dx + i * N, pack);
  }
}

// --- how the work is cut -------------------------------------------------------------------------------------------

template <class T> int pack_of(int64_t length, std::initializer_list<const void*> operands) {
  bool packed = length % pack_size<T> == 0;
  for (const void* operand : operands) packed = packed && is_aligned(operand);
  return packed ? pack_size<T> : 1;
}

unsigned power_of_two_from(int64_t count, unsigned most) {
  unsigned result = 1;
  while (result < most && result < count) result *= 2;
  return result;
}

/// How many of the items a block takes: enough blocks for the device, each with `least` items or more.
int64_t chunk_of(int64_t items, int64_t parts, int64_t least) {
  int64_t splits = std::min(ceil_divide(4 * multiprocessors(), std::max(parts, int64_t(1))), items / least);
  splits = std::clamp(splits, int64_t(1), int64_t(1024));
  return ceil_divide(items, splits);
}

RowsView rows_view(int64_t rows, int64_t columns, int N, int64_t members, int64_t per_segment) {
  RowsView v{};
  v.rows = rows, v.columns = unsigned(columns), v.per_segment = unsigned(per_segment);
  const int64_t packs = columns / N;
  v.wide = power_of_two_from(packs, 32);
  while (v.wide > 8 && ceil_divide(packs, int64_t(v.wide)) * v.wide > packs + packs / 8)
    v.wide /= 2;  // lanes that idle
  v.tiles = unsigned(ceil_divide(packs, int64_t(v.wide)));
  v.members = Divider(unsigned(members));
  return v;
}
unsigned grid_of(int64_t blocks) {
  TANDEM_ASSERT(blocks < (int64_t(1) << 31), "a grid of ", blocks, " blocks");
  return unsigned(blocks);
}

RowsView view_of_rows(const Cut& cut) {
  RowsView v = rows_view(cut.lines, cut.length, cut.pack, cut.members, cut.per_segment);
  v.chunk = cut.chunk, v.splits = cut.splits;
  return v;
}
RunsView view_of_runs(const Cut& cut) {
  RunsView v{};
  v.length = cut.length / cut.pack, v.stride = cut.segments * v.length, v.total = cut.lines * v.length;
  v.chunk = cut.chunk, v.slots = unsigned(cut.segments), v.splits = cut.splits;
  v.members = Divider(cut.members);
  return v;
}

/// Calls f.template operator()<N>() with the pack's size as a constant.
template <class T, class F> void visit_pack(int pack, F&& f) {
  if (pack == 1) f.template operator()<1>();
  else f.template operator()<pack_size<T>>();
}

constexpr int64_t rows_of_thread =
    16;  // that a thread scales, before the numbers of its columns are worth their reading

template <class T, class F>
void launch_scaling(const Channels& c, std::initializer_list<const void*> operands, F&& launch) {
  const int pack = pack_of<T>(c.in_rows ? c.channels : c.plane, operands);
  visit_pack<T>(pack, [&]<int N>() {
    if (c.in_rows) {
      const int64_t segments = c.groups ? c.batch : 1, rows = c.groups ? c.plane : c.batch * c.plane;
      RowsView v = rows_view(rows, c.channels, N, c.members(), c.groups);
      v.chunk = rows_of_thread * (block / v.wide);
      v.splits = unsigned(ceil_divide(rows, v.chunk));
      launch.template operator()<N>(v, grid_of(segments * v.splits * v.tiles));
    } else {
      PlanesView v{};
      const int64_t planes = c.batch * c.channels;
      v.length = c.plane / N, v.packs = planes * v.length;
      v.by_channels = Divider(unsigned(c.channels)), v.by_members = Divider(unsigned(c.members()));
      v.grouped = c.groups != 0;
      launch.template operator()<N>(v, blocks_for(v.packs));
    }
  });
}

}  // namespace

Channels::Channels(const KernelContext& op, const TensorImpl& x, int64_t groups_)
    : batch(x.shape[0]), channels(x.shape[1]), plane(1), groups(groups_) {
  for (int d = 2; d < x.shape.size(); ++d) plane *= x.shape[d];
  // One row of an image is contiguous by groups, too.
  in_rows = plane == 1 ? groups == 0 : is_channels_last(x);
  check_most(op, channels, most_of_int, "channels");
  if (groups || !in_rows) check_most(op, batch * channels, most_of_int, "channels of all images");
}
Shape Channels::strides(const Shape& shape) const {
  return in_rows && plane > 1 ? channels_last_strides(shape) : contiguous_strides(shape);
}

LaidNumbers::LaidNumbers(const TensorImpl& x, DType of, cudaStream_t stream)
    : wide_(x.dtype != of || of == DType::float32 || of == DType::float64),
      laid_(x, contiguous_strides(x.shape), !wide_ || of == DType::float64 ? of : DType::float32, stream) {}

size_t Cut::bytes() const { return size_t(segments) * splits * size_t(in_rows ? length : 1) * sizeof(Totals); }

template <class T> Cut cut(const Channels& c, bool by_channels, std::initializer_list<const void*> operands) {
  Cut cut{};
  cut.in_rows = c.in_rows;
  cut.per_segment = unsigned(c.groups);
  Pieces& p = cut.pieces;
  p.slots = unsigned(by_channels && c.groups ? c.batch * c.channels : c.slots());
  if (c.in_rows) {
    cut.segments = c.groups ? c.batch : 1, cut.lines = c.groups ? c.plane : c.batch * c.plane, cut.length = c.channels;
    cut.pack = pack_of<T>(cut.length, operands);
    cut.members = unsigned(c.members());
    const RowsView v = rows_view(cut.lines, cut.length, cut.pack, 1, 1);
    cut.chunk = chunk_of(cut.lines, cut.segments * v.tiles, rows_of_thread * (block / v.wide));
    cut.splits = unsigned(ceil_divide(cut.lines, cut.chunk));
    cut.tiles = v.tiles;
    p.inner = Divider(by_channels ? 1 : cut.members);
    p.per_segment = by_channels || !c.groups ? unsigned(c.channels) : unsigned(c.groups);
    p.segment_stride = int64_t(cut.splits) * c.channels, p.outer_stride = c.channels;
    p.chunk = cut.chunk, p.total = cut.lines;
  } else {
    const bool whole = c.groups && !by_channels;  // groups are contiguous
    cut.segments = p.slots, cut.lines = c.groups ? 1 : c.batch, cut.length = whole ? c.members() * c.plane : c.plane;
    cut.pack = pack_of<T>(cut.length, operands);
    cut.members = unsigned(by_channels ? c.members() : 1);
    const int64_t packs = cut.lines * cut.length / cut.pack;
    cut.wide = packs <= 16 * 32 ? 32 : block;
    cut.chunk = chunk_of(packs, ceil_divide(cut.segments, int64_t(block / cut.wide)), rows_of_thread * cut.wide);
    cut.splits = unsigned(ceil_divide(packs, cut.chunk));
    p.per_segment = p.slots, p.segment_stride = 0, p.outer_stride = p.slots;
    p.chunk = cut.chunk * cut.pack, p.total = packs * cut.pack;
  }
  p.outer = cut.splits;
  return cut;
}

template <class T> void launch_moments(const Cut& cut, Totals* out, const T* x, cudaStream_t stream) {
  visit_pack<T>(cut.pack, [&]<int N>() {
    if (cut.in_rows) {
      TANDEM_LAUNCH((row_moments<T, N>), grid_of(cut.segments * cut.splits * cut.tiles), block, 0, stream, out, x,
                    view_of_rows(cut));
    } else if (cut.wide == 32) {
      TANDEM_LAUNCH((run_moments<T, N, 32>), grid_of(ceil_divide(cut.segments * cut.splits, int64_t(block / 32))),
                    block, 0, stream, out, x, view_of_runs(cut));
    } else {
      TANDEM_LAUNCH((run_moments<T, N, block>), grid_of(cut.segments * cut.splits), block, 0, stream, out, x,
                    view_of_runs(cut));
    }
  });
}

template <class T>
void launch_sums(const Cut& cut, Totals* out, const T* g, const T* x, Numbers mean, cudaStream_t stream) {
  visit_pack<T>(cut.pack, [&]<int N>() {
    if (cut.in_rows) {
      TANDEM_LAUNCH((row_sums<T, N>), grid_of(cut.segments * cut.splits * cut.tiles), block, 0, stream, out, g, x, mean,
                    view_of_rows(cut));
    } else if (cut.wide == 32) {
      TANDEM_LAUNCH((run_sums<T, N, 32>), grid_of(ceil_divide(cut.segments * cut.splits, int64_t(block / 32))), block,
                    0, stream, out, g, x, mean, view_of_runs(cut));
    } else {
      TANDEM_LAUNCH((run_sums<T, N, block>), grid_of(cut.segments * cut.splits), block, 0, stream, out, g, x, mean,
                    view_of_runs(cut));
    }
  });
}

template <class T>
void launch_apply(const Channels& c, T* y, const T* x, Numbers mean, Numbers variance, Numbers weight, Numbers bias,
                  double epsilon, cudaStream_t stream) {
  launch_scaling<T>(c, {x, y}, [&]<int N, class View>(const View& v, unsigned blocks) {
    if constexpr (std::is_same_v<View, RowsView>) {
      TANDEM_LAUNCH((apply_rows<T, N>), blocks, block, 0, stream, y, x, mean, variance, weight, bias, epsilon, v);
    } else {
      TANDEM_LAUNCH((apply_planes<T, N>), blocks, block, 0, stream, y, x, mean, variance, weight, bias, epsilon, v);
    }
  });
}

template <class T>
void launch_channel_grad(const Channels& c, T* dx, const T* g, const T* x, Numbers mean, Numbers variance,
                         Numbers weight, const Compute<T>* shift, const Compute<T>* slope, double epsilon,
                         cudaStream_t stream) {
  launch_scaling<T>(c, {dx, g, x}, [&]<int N, class View>(const View& v, unsigned blocks) {
    if constexpr (std::is_same_v<View, RowsView>) {
      TANDEM_LAUNCH((grad_rows<T, N>), blocks, block, 0, stream, dx, g, x, mean, variance, weight, shift, slope,
                    epsilon, v);
    } else {
      TANDEM_LAUNCH((grad_planes<T, N>), blocks, block, 0, stream, dx, g, x, mean, variance, weight, shift, slope,
                    epsilon, v);
    }
  });
}

#define TANDEM_CHANNEL_KERNELS(T)                                                                          \
  template Cut cut<T>(const Channels&, bool, std::initializer_list<const void*>);                          \
  template void launch_moments<T>(const Cut&, Totals*, const T*, cudaStream_t);                            \
  template void launch_sums<T>(const Cut&, Totals*, const T*, const T*, Numbers, cudaStream_t);            \
  template void launch_apply<T>(const Channels&, T*, const T*, Numbers, Numbers, Numbers, Numbers, double, \
                                cudaStream_t);                                                             \
  template void launch_channel_grad<T>(const Channels&, T*, const T*, const T*, Numbers, Numbers, Numbers, \
                                       const Compute<T>*, const Compute<T>*, double, cudaStream_t);
TANDEM_CHANNEL_KERNELS(float)
TANDEM_CHANNEL_KERNELS(double)
TANDEM_CHANNEL_KERNELS(__half)
TANDEM_CHANNEL_KERNELS(__nv_bfloat16)
#undef TANDEM_CHANNEL_KERNELS

}  // namespace tandem::gpu
