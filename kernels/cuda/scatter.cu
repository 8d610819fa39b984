// scatter, scatter_add, scatter_prod, index_add: what writes at positions that are data. No float is added by atomics: where several
// elements go to one place, all of them are combined by one owner in a fixed order, so the bits are the same at every run. An index
// out of range is noted and writes nothing.
//
// Lines of up to 128 elements along dim: the first of those that go to one place adds the others. Longer ones: positions are sorted
// by where they go (sort_lines.cuh), and runs of equal ones are folded, each by a block, or in parts that a second launch folds.
#include <algorithm>

#include "kernels/cuda/index.h"
#include "kernels/cuda/sort_lines.cuh"

namespace tandem {
namespace gpu {
namespace {

// --- what is folded ----------------------------------------------------------------------------------------------

template <class T, bool product_> struct Fold {
  using Element = T;
  using A = std::conditional_t<std::is_floating_point_v<Compute<T>>, Compute<T>, int64_t>;
  static constexpr A identity = product_ ? 1 : 0;
  static __device__ __forceinline__ A load(T x) { return static_cast<A>(widen(x)); }
  static __device__ __forceinline__ A combine(A a, A b) { return product_ ? td_multiply(a, b) : td_add(a, b); }
  static __device__ __forceinline__ void into(T& place, A total) { place = convert<T>(combine(load(place), total)); }
};

/// The lines along dim of an index, and where theirs are in the result: operands index (and src), out.
struct Lines {
  int64_t n, index_stride, out_stride, extent;
};

constexpr int64_t short_line = 128;

// A thread for each element of the index. It is the owner of the place that it points at unless an earlier element of its line
// points there too; then it folds all of those, in order. Operands: index and src, out, the place along dim.
template <class F>
__global__ void __launch_bounds__(threads_per_block)
    fold_short(typename F::Element* out, Operand<typename F::Element> src, int src_step, const int64_t* index,
               Layout<3> layout, Lines lines, int64_t first, int64_t first_place, td_range_note note) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t offset[3];
    layout.offsets(i, offset);
    const int64_t at = index[offset[0]];
    if (!in_range(at, lines.extent, first + offset[0], note)) continue;
    const int64_t own = first_place + offset[2], line = offset[0] - own * lines.index_stride;
    bool owner = true;
    for (int64_t k = 0; owner && k < own; ++k) owner = index[line + k * lines.index_stride] != at;
    if (!owner) continue;
    auto& place = out[offset[1] + at * lines.out_stride];
    typename F::A total = F::combine(F::load(place), F::load(src.at(offset[0] * src_step)));
    for (int64_t k = own + 1; k < lines.n; ++k) {
      const int64_t other = line + k * lines.index_stride;
      if (index[other] == at) total = F::combine(total, F::load(src.at(other * src_step)));
    }
    place = convert<typename F::Element>(total);
  }
}

// --- long lines --------------------------------------------------------------------------------------------------

using Item = PackedItem;

void check_line(const KernelContext& op, int64_t n, int64_t extent) {
  check_most(op, n, 0xfffffffe, "positions along dim");
  check_most(op, extent, 0xfffffffe, "places along dim");
}

/// Where elements go, by their places along dim; what is out of range goes behind the end.
struct Targets {
  const int64_t* index;
  Layout<2> layout;
  int64_t stride, extent, first;
  td_range_note note;
  __device__ __forceinline__ Item operator()(int64_t line, int64_t i) const {
    int64_t offset[2];
    layout.offsets(unsigned(line), offset);
    const int64_t from = offset[0] + i * stride, at = index[from];
    return Item::make(uint64_t(in_range(at, extent, first + from, note) ? at : extent), i);
  }
};

constexpr int fold_threads = 256, fold_items = 8, fold_tile = fold_threads * fold_items;

/// What a tile leaves of runs that don't begin and end in it.
template <class A> struct Edges {
  A head;       // of the run that began before and ends here
  A tail;       // of the run that goes on behind
  int64_t run;  // 0: none goes on; 1: one does that began here; 2: one that fills the tile
};

template <class A> struct Running {
  A total;
  unsigned begins;  // whether a run begins in there
};

// All positions of a tile at once: a segmented scan in registers and warps, each run's total written where the run ends.
template <class F>
__global__ void __launch_bounds__(fold_threads)
    fold_tiles(typename F::Element* out, Operand<typename F::Element> src, int src_step, const Item* items,
               int64_t items_stride, Layout<2> layout, Lines lines, unsigned tiles, Edges<typename F::A>* edges) {
  using A = typename F::A;
  TANDEM_SHARED(A, warp_totals, [fold_threads / 32]);
  TANDEM_SHARED(unsigned, warp_begins, [fold_threads / 32]);
  const unsigned line = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  int64_t offset[2];
  layout.offsets(line, offset);
  const Item* const sorted = items + int64_t(line) * items_stride;
  const int64_t first = int64_t(tile) * fold_tile + threadIdx.x * fold_items;
  const int count = int(first >= lines.n ? 0 : lines.n - first < fold_items ? lines.n - first : fold_items);

  uint64_t key[fold_items + 2];  // [k + 1]: of item k; [0]: of the one before
  A value[fold_items];
  const uint64_t behind = first + count < lines.n ? sorted[first + count].key() : ~uint64_t(0);
  key[0] = first > 0 && count > 0 ? sorted[first - 1].key() : ~uint64_t(0);
  Running<A> own{F::identity, 0};
#pragma unroll
  for (int k = 0; k < fold_items; ++k) {
    value[k] = F::identity;
    key[k + 1] = key[k];
    if (k >= count) continue;
    const Item item = sorted[first + k];
    key[k + 1] = item.key();
    value[k] = F::load(src.at((offset[0] + item.at() * lines.index_stride) * src_step));
    const bool begins = (first == 0 && k == 0) || key[k + 1] != key[k];
    own.total = begins ? value[k] : F::combine(own.total, value[k]);
    own.begins |= begins ? 1u : 0u;
  }

  // What runs into this thread's items from those before.
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Running<A> all = own;
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) {
    const A total = __shfl_up_sync(all_lanes, all.total, apart);
    const unsigned begins = __shfl_up_sync(all_lanes, all.begins, apart);
    if (int(lane) < apart) continue;
    if (!all.begins) all.total = F::combine(total, all.total);
    all.begins |= begins;
  }
  if (lane == 31) {
    warp_totals[warp] = all.total;
    warp_begins[warp] = all.begins;
  }
  Running<A> before{__shfl_up_sync(all_lanes, all.total, 1), __shfl_up_sync(all_lanes, all.begins, 1)};
  if (lane == 0) before = {F::identity, 0};
  __syncthreads();
  Running<A> carried{F::identity, 0};
  for (unsigned w = 0; w < warp; ++w) {
    carried.total = warp_begins[w] ? warp_totals[w] : F::combine(carried.total, warp_totals[w]);
    carried.begins |= warp_begins[w];
  }
  A total = before.begins ? before.total : F::combine(carried.total, before.total);
  bool here = before.begins || carried.begins;  // the run that is on its way began in this tile

  Edges<A>* const edge = edges ? edges + int64_t(line) * tiles + tile : nullptr;
#pragma unroll
  for (int k = 0; k < fold_items; ++k) {
    if (k >= count) break;
    const bool begins = (first == 0 && k == 0) || key[k + 1] != key[k];
    total = begins ? value[k] : F::combine(total, value[k]);
    here = here || begins;
    const int64_t next = first + k + 1;
    const bool ends = next == lines.n || (k + 1 < count ? key[k + 2] : behind) != key[k + 1];
    if (ends && !here) edge->head = total;
    if (ends && here && key[k + 1] < uint64_t(lines.extent))
      F::into(out[offset[1] + int64_t(key[k + 1]) * lines.out_stride], total);
    if (edge && (next == lines.n || next % fold_tile == 0)) {
      edge->run = ends ? 0 : here ? 1 : 2;
      if (!ends) edge->tail = total;
    }
  }
}

// Runs of more than one tile: the warp of the tile where one begins folds what the tiles behind have left of it.
template <class F>
__global__ void __launch_bounds__(fold_threads)
    fold_edges(typename F::Element* out, const Item* items, int64_t items_stride, Layout<2> layout, Lines lines,
               unsigned tiles, const Edges<typename F::A>* edges) {
  using A = typename F::A;
  const unsigned which = blockIdx.x * (fold_threads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (which >= layout.numel * tiles) return;
  const unsigned line = which / tiles, tile = which % tiles;
  const Edges<A>* const all = edges + int64_t(line) * tiles;
  if (all[tile].run != 1) return;
  A through = F::identity;
  unsigned last = tile + 1;
  for (bool found = false; !found;) {
    const unsigned at = last + lane;
    const bool fills = at < tiles && all[at].run == 2;
    const unsigned ends = ~__ballot_sync(all_lanes, fills);
    const unsigned whole = ends ? unsigned(__ffs(int(ends))) - 1 : 32;
    if (lane < whole) through = F::combine(through, all[at].tail);
    last += whole;
    found = whole < 32;
  }
  through = reduce_lanes(through, [](A a, A b) { return F::combine(a, b); });
  if (lane != 0) return;
  int64_t offset[2];
  layout.offsets(line, offset);
  const uint64_t key = items[int64_t(line) * items_stride + int64_t(tile + 1) * fold_tile - 1].key();
  if (key >= uint64_t(lines.extent)) return;
  F::into(out[offset[1] + int64_t(key) * lines.out_stride],
          F::combine(F::combine(all[tile].tail, through), all[last].head));
}

/// Folds lines whose positions are sorted; `items_stride` is 0 where all lines have the same ones.
template <class F>
void launch_fold(typename F::Element* out, Operand<typename F::Element> src, int src_step, const Item* items,
                 int64_t items_stride, const Layout<2>& layout, const Lines& lines, Device device) {
  const cudaStream_t stream = stream_of(device);
  const int64_t tiles = ceil_divide(lines.n, int64_t(fold_tile)), blocks = int64_t(layout.numel) * tiles;
  TANDEM_ASSERT(blocks < (int64_t(1) << 31), "too many lines for one launch");
  const Workspace space(tiles > 1 ? size_t(blocks) * sizeof(Edges<typename F::A>) : 0, device);
  auto* edges = space.template as<Edges<typename F::A>>();
  TANDEM_LAUNCH((fold_tiles<F>), unsigned(blocks), fold_threads, 0, stream, out, src, src_step, items, items_stride,
                layout, lines, unsigned(tiles), edges);
  if (tiles > 1) {
    TANDEM_LAUNCH((fold_edges<F>), unsigned(ceil_divide(blocks, int64_t(fold_threads / 32))), fold_threads, 0, stream,
                  out, items, items_stride, layout, lines, unsigned(tiles), edges);
  }
}

/// Operands of an index's lines, or with dim of its elements: the index, out, and the place along dim.
Iteration iteration_of(const TensorImpl& index, const TensorImpl& out, int dim, bool lines) {
  Shape shape = index.shape, out_strides = out.strides, place = Shape::filled(shape.size(), 0);
  if (shape.size() > 0) {
    if (lines) shape[dim] = 1;
    out_strides[dim] = 0;
    place[dim] = 1;
  }
  return Iteration(shape, {{&shape, &index.strides}, {&shape, &out_strides}, {&shape, &place}});
}
Lines lines_of(const TensorImpl& index, const TensorImpl& out, int dim) {
  if (index.shape.empty()) return {1, 0, 0, 1};
  return {index.shape[dim], index.strides[dim], out.strides[dim], out.shape[dim]};
}

/// Adds src to out, or multiplies it, where the index says.
template <class F> void fold_into(KernelContext& op, const TensorImpl& index, const TensorImpl& src) {
  using T = typename F::Element;
  TensorImpl& out = op.out();
  const int dim = int(op.attributes.integer("dim"));
  if (index.shape.numel() == 0) return;
  const Lines lines = lines_of(index, out, dim);
  const td_range_note note = range_note(op, {.bound = lines.extent}, index.shape);
  const int src_step = src.shape.empty() ? 0 : 1;
  const auto shifted = [&](int64_t offset) {
    Operand<T> moved = operand<T>(src);
    if (moved.data) moved.data += offset * src_step;
    return moved;
  };
  if (lines.n <= short_line) {
    in_pieces(iteration_of(index, out, dim, false), [&](const Iteration& piece, const int64_t* offset) {
      TANDEM_LAUNCH((fold_short<F>), blocks_for(piece.numel()), threads_per_block, 0, stream_of(op),
                    data<T>(out) + offset[1], shifted(offset[0]), src_step, data<int64_t>(index) + offset[0],
                    Layout<3>(piece), lines, offset[0], offset[2], note);
    });
    return;
  }
  check_line(op, lines.n, lines.extent);
  constexpr int64_t room = int64_t(1) << 28;
  const int64_t line_bytes = lines.n * int64_t(sizeof(Item)) + sort_bytes<Item>(lines.n);
  const Iteration all = iteration_of(index, out, dim, true);
  const int64_t at_once = std::clamp(room / line_bytes, int64_t(1), all.numel());
  const Workspace space(size_t(at_once * line_bytes), out.device);
  Item *const items = space.template as<Item>(), *const work = items + at_once * lines.n;
  in_pieces(all, at_once, [&](const Iteration& piece, const int64_t* offset) {
    const Layout<2> layout(piece);
    const Targets targets{data<int64_t>(index) + offset[0], layout, lines.index_stride, lines.extent, offset[0], note};
    ItemSink<Item> sink;
    sink.items = items, sink.line_stride = lines.n, sink.kept = lines.n;
    sort_lines(targets, sink, int64_t(layout.numel), lines.n, work, stream_of(op));
    launch_fold<F>(data<T>(out) + offset[1], shifted(offset[0]), src_step, items, lines.n, layout, lines, out.device);
  });
}

// --- scatter -------------------------------------------------------------------------------------------------------
// The last element in row-major order stays: its number is the greatest of those that claim a place.

enum class Turn { open, claim, write, direct };

template <class W, class Number, Turn turn>
__global__ void __launch_bounds__(threads_per_block)
    scatter(W* out, Operand<W> src, int src_step, const int64_t* index, Number* claims, Layout<2> layout, Lines lines,
            int64_t first, int64_t first_out, td_range_note note) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t offset[2];
    layout.offsets(i, offset);
    const int64_t at = index[offset[0]], to = offset[1] + at * lines.out_stride;
    const bool first_turn = turn == Turn::open || turn == Turn::direct;
    if (first_turn ? !in_range(at, lines.extent, first + offset[0], note) : at < 0 || at >= lines.extent) continue;
    const auto number = static_cast<Number>(first + offset[0]);
    if constexpr (turn == Turn::open) claims[first_out + to] = 0;
    if constexpr (turn == Turn::claim) atomicMax(&claims[first_out + to], number);
    if constexpr (turn == Turn::write || turn == Turn::direct) {
      if (turn == Turn::write && claims[first_out + to] != number) continue;
      out[to] = src.at(offset[0] * src_step);
    }
  }
}

void replace(KernelContext& op) {
  const TensorImpl &index = op.in(1), &src = op.in(2);
  TensorImpl& out = op.out();
  const int dim = int(op.attributes.integer("dim"));
  if (index.shape.numel() == 0) return;
  const Lines lines = lines_of(index, out, dim);
  const td_range_note note = range_note(op, {.bound = lines.extent}, index.shape);
  const bool direct = lines.n == 1;  // no two go to one place
  const bool few = index.shape.numel() <= 0xffffffff;
  const Workspace claims(direct ? 0 : size_t(out.shape.numel()) * (few ? sizeof(unsigned) : sizeof(unsigned long long)),
                         out.device);
  const int src_step = src.shape.empty() ? 0 : 1;
  visit_size(out.dtype, [&]<class W>() {
    const auto launch = [&]<Turn turn, class Number>() {
      in_pieces(iteration_of(index, out, dim, false), [&](const Iteration& piece, const int64_t* offset) {
        Operand<W> from = operand<W>(src);
        if (from.data) from.data += offset[0] * src_step;
        TANDEM_LAUNCH((scatter<W, Number, turn>), blocks_for(piece.numel()), threads_per_block, 0, stream_of(op),
                      data<W>(out) + offset[1], from, src_step, data<int64_t>(index) + offset[0],
                      claims.template as<Number>(), Layout<2>(piece), lines, offset[0], offset[1], note);
      });
    };
    const auto in_turns = [&]<class Number>() {
      launch.template operator()<Turn::open, Number>();
      launch.template operator()<Turn::claim, Number>();
      launch.template operator()<Turn::write, Number>();
    };
    if (direct) launch.template operator()<Turn::direct, unsigned>();
    else if (few) in_turns.template operator()<unsigned>();
    else in_turns.template operator()<unsigned long long>();
  });
}

// --- index_add -----------------------------------------------------------------------------------------------------

constexpr int column_threads = 128;
constexpr int64_t column_chunk = 64;

/// src [outer, n, inner] into out [outer, extent, inner].
struct Slices {
  int64_t n, extent, columns;
  Divider inner;
  __device__ __forceinline__ int64_t from(unsigned column, int64_t i) const { return place(column, n, i); }
  __device__ __forceinline__ int64_t to(unsigned column, int64_t i) const { return place(column, extent, i); }
  __device__ __forceinline__ int64_t place(unsigned column, int64_t size, int64_t i) const {
    unsigned outer, at;
    inner.divide(column, outer, at);
    return (int64_t(outer) * size + i) * inner.divisor + at;
  }
};

// A warp reads 32 columns of 64 slices that go to neighbouring places, and writes the sums of those that all of it has.
template <class F>
__global__ void __launch_bounds__(column_threads)
    fold_columns(typename F::Element* out, const typename F::Element* src, const Item* items, Slices slices,
                 unsigned column_tiles, int64_t units, typename F::A* heads, typename F::A* tails) {
  const int64_t unit = int64_t(blockIdx.x) * (column_threads / 32) + threadIdx.x / 32;
  if (unit >= units) return;
  const int64_t chunk = unit / column_tiles, begin = chunk * column_chunk,
                end = begin + column_chunk < slices.n ? begin + column_chunk : slices.n;
  const int64_t column = unit % column_tiles * 32 + threadIdx.x % 32;
  if (column >= slices.columns) return;
  const typename F::Element* const from = src + slices.from(unsigned(column), 0);
  typename F::Element* const to = out + slices.to(unsigned(column), 0);
  const int64_t inner = slices.inner.divisor;
  uint64_t run = items[begin].key();
  bool here = begin == 0 || items[begin - 1].key() != run;
  typename F::A total = F::identity;
  const auto finish = [&] {
    if (!here) heads[chunk * slices.columns + column] = total;
    else if (run < uint64_t(slices.extent)) F::into(to[int64_t(run) * inner], total);
  };
#pragma unroll 4
  for (int64_t i = begin; i < end; ++i) {
    const Item item = items[i];
    const typename F::A value = F::load(from[item.at() * inner]);
    if (item.key() != run) {
      finish();
      run = item.key();
      here = true;
      total = F::identity;
    }
    total = F::combine(total, value);
  }
  if (end < slices.n && items[end].key() == run) tails[chunk * slices.columns + column] = total;
  else finish();
}

template <class F>
__global__ void __launch_bounds__(column_threads)
    fold_column_edges(typename F::Element* out, const Item* items, Slices slices, unsigned column_tiles, int64_t units,
                      const typename F::A* heads, const typename F::A* tails) {
  const int64_t unit = int64_t(blockIdx.x) * (column_threads / 32) + threadIdx.x / 32;
  if (unit >= units) return;
  const int64_t chunk = unit / column_tiles, begin = chunk * column_chunk;
  int64_t end = begin + column_chunk;
  const int64_t column = unit % column_tiles * 32 + threadIdx.x % 32;
  if (column >= slices.columns || end >= slices.n) return;
  const uint64_t run = items[end].key();
  if (items[end - 1].key() != run || (begin > 0 && items[begin - 1].key() == run))
    return;  // none begins here and goes on
  typename F::A total = tails[chunk * slices.columns + column];
  int64_t next = chunk + 1;
  for (end += column_chunk; end < slices.n && items[end].key() == run && items[end - 1].key() == run;
       end += column_chunk)
    total = F::combine(total, tails[next++ * slices.columns + column]);
  total = F::combine(total, heads[next * slices.columns + column]);
  if (run < uint64_t(slices.extent)) F::into(out[slices.to(unsigned(column), int64_t(run))], total);
}

/// A contiguous copy, unless it is that already.
class Contiguous {
 public:
  Contiguous(const TensorImpl& x, Device device)
      : space_(x.contiguous ? 0 : size_t(x.shape.numel() * size_of(x.dtype)), device) {
    header_.dtype = x.dtype;
    header_.device = device;
    header_.set_contiguous_layout(x.shape);
    header_.data = x.data;
    if (x.contiguous) return;
    header_.data = space_.as<void>();
    copy_strided(x, x.shape, header_.data, x.dtype, header_.strides, stream_of(device));
  }
  const TensorImpl& operator*() const { return header_; }

 private:
  Workspace space_;
  TensorImpl header_;
};

template <class F> void add_slices(KernelContext& op, const TensorImpl& index, const TensorImpl& src) {
  using T = typename F::Element;
  TensorImpl& out = op.out();
  const cudaStream_t stream = stream_of(op);
  const int dim = int(op.attributes.integer("dim"));
  const int64_t n = index.shape[0], extent = out.shape[dim];
  int64_t inner = 1;
  for (int d = dim + 1; d < out.shape.size(); ++d) inner *= out.shape[d];
  const int64_t columns = src.shape.numel() / n;
  check_line(op, n, extent);
  check_most(op, columns, most_of_int, "elements at a position");
  const td_range_note note = range_note(op, {.bound = extent}, index.shape);
  const Workspace space(size_t(n * int64_t(sizeof(Item)) + sort_bytes<Item>(n)), out.device);
  Item* const items = space.template as<Item>();
  ItemSink<Item> sink;
  sink.items = items, sink.line_stride = n, sink.kept = n;
  const Layout<2> one_line{Iteration()};
  sort_lines(Targets{data<int64_t>(index), one_line, 1, extent, 0, note}, sink, int64_t(1), n, items + n, stream);

  if (columns < 32) {
    const Shape lines{columns / inner, inner}, from{n * inner, 1}, to{extent * inner, 1};
    const Layout<2> layout(Iteration(lines, {{&lines, &from}, {&lines, &to}}));
    launch_fold<F>(data<T>(out), operand<T>(src), 1, items, 0, layout, {n, inner, inner, extent}, out.device);
    return;
  }
  const int64_t chunks = ceil_divide(n, column_chunk), tiles = ceil_divide(columns, int64_t(32)),
                units = chunks * tiles, blocks = ceil_divide(units, int64_t(column_threads / 32));
  TANDEM_ASSERT(blocks < (int64_t(1) << 31), op.op.name, " of ", src.shape);
  const Slices slices{n, extent, columns, Divider(unsigned(inner))};
  using A = typename F::A;
  const Workspace edges(chunks > 1 ? size_t(2 * chunks * columns) * sizeof(A) : 0, out.device);
  A *heads = edges.template as<A>(), *tails = heads + chunks * columns;
  TANDEM_LAUNCH((fold_columns<F>), unsigned(blocks), column_threads, 0, stream, data<T>(out), data<T>(src), items,
                slices, unsigned(tiles), units, heads, tails);
  if (chunks > 1) {
    TANDEM_LAUNCH((fold_column_edges<F>), unsigned(blocks), column_threads, 0, stream, data<T>(out), items, slices,
                  unsigned(tiles), units, heads, tails);
  }
}

void copy_of_x(KernelContext& op) {
  TensorImpl& out = op.out();
  copy_strided(op.in(0), out.shape, out.data, out.dtype, out.strides, stream_of(op));
}

}  // namespace

void scatter_kernel(KernelContext& op) {
  if (op.out().shape.numel() == 0) return;
  copy_of_x(op);
  if (!op.attributes.flag("add")) return replace(op);
  visit_any(op.out().dtype, [&]<class T>() { fold_into<Fold<T, false>>(op, op.in(1), op.in(2)); });
}

void scatter_prod_kernel(KernelContext& op) {
  if (op.out().shape.numel() == 0) return;
  copy_of_x(op);
  visit_any(op.out().dtype, [&]<class T>() { fold_into<Fold<T, true>>(op, op.in(1), op.in(2)); });
}

void scatter_add_kernel(KernelContext& op) {
  TensorImpl& out = op.out();
  if (out.shape.numel() == 0) return;
  check(cudaMemsetAsync(out.data, 0, size_t(out.shape.numel() * size_of(out.dtype)), stream_of(op)), "scatter_add");
  visit_any(out.dtype, [&]<class T>() { fold_into<Fold<T, false>>(op, op.in(1), op.in(0)); });
}

void index_add_kernel(KernelContext& op) {
  TensorImpl& out = op.out();
  if (out.shape.numel() == 0) return;
  copy_of_x(op);
  if (op.in(2).shape.numel() == 0) return;
  const Contiguous index(op.in(1), out.device), src(op.in(2), out.device);
  visit_any(out.dtype, [&]<class T>() { add_slices<Fold<T, false>>(op, *index, *src); });
}

}  // namespace gpu
}  // namespace tandem
