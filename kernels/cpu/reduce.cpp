// Reductions over any dims of any layout: sum, prod, mean, max, min, argmax, argmin.
//
// Work is cut into pieces by the shape alone, each piece is folded by the vector loops, and the pieces'
// results are folded in order: the same bits whatever the number of threads or the instruction set.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "core/op.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

/// x's dims, extents of 1 dropped, as they lie in memory (innermost last) and merged where possible.
/// `out` is the stride in the (contiguous) output, 0 for a dim that is folded away.
struct Layout {
  struct Dim {
    int64_t extent, x, out;
  };
  Dim dims[kMaxRank];
  int rank = 0;
  int64_t kept = 1, folded = 1;

  Layout(const TensorImpl& x, const Shape& reduced) {
    int64_t out_stride = 1;
    for (int d = x.shape.size() - 1; d >= 0; --d) {
      const bool fold = reduced.contains(d);
      Dim dim{x.shape[d], x.strides[d], fold ? 0 : out_stride};
      if (fold) folded *= dim.extent;
      else kept *= dim.extent, out_stride *= dim.extent;
      if (dim.extent == 1) continue;
      int at = rank++;  // the list is innermost first while it grows
      for (; at > 0 && dims[at - 1].x > dim.x; --at) dims[at] = dims[at - 1];
      dims[at] = dim;
    }
    if (rank == 0) dims[rank++] = {1, 1, 0};
    int last = 0;
    for (int d = 1; d < rank; ++d) {
      Dim& inner = dims[last];
      const Dim& outer = dims[d];
      if (outer.x == inner.x * inner.extent && outer.out == inner.out * inner.extent &&
          (outer.out == 0) == (inner.out == 0))
        inner.extent *= outer.extent;
      else dims[++last] = outer;
    }
    rank = last + 1;
  }
  const Dim& inner() const { return dims[0]; }
};

/// Offsets of the dims that are kept, or folded, beyond the innermost: index to offset in elements.
struct Outer {
  int64_t extent[kMaxRank], x[kMaxRank], out[kMaxRank];
  int rank = 0;
  int64_t count = 1;
  Outer(const Layout& layout, bool folded) {
    for (int d = 1; d < layout.rank; ++d) {
      const Layout::Dim& dim = layout.dims[d];
      if ((dim.out == 0) != folded) continue;
      extent[rank] = dim.extent, x[rank] = dim.x, out[rank] = dim.out;
      ++rank;
      count *= dim.extent;
    }
  }
  int64_t x_offset(int64_t index) const { return offset(index, x); }
  int64_t out_offset(int64_t index) const { return offset(index, out); }

 private:
  int64_t offset(int64_t index, const int64_t* strides) const {
    if (rank == 1) return index * strides[0];
    int64_t result = 0;
    for (int d = 0; d < rank; ++d) {
      result += index % extent[d] * strides[d];
      index /= extent[d];
    }
    return result;
  }
};

template <class T> constexpr DType type_of();
template <> constexpr DType type_of<float>() { return DType::float32; }
template <> constexpr DType type_of<double>() { return DType::float64; }
template <> constexpr DType type_of<int64_t>() { return DType::int64; }

template <class T> const auto& fold_loops(Fold fold) {
  const int at = static_cast<int>(fold);
  if constexpr (std::is_same_v<T, float>) return loops().reduce->f32[at];
  else if constexpr (std::is_same_v<T, double>) return loops().reduce->f64[at];
  else return loops().reduce->i64[at];
}

template <class A> A identity(Fold fold) {
  using Limits = std::numeric_limits<A>;
  switch (fold) {
    case Fold::sum: return 0;
    case Fold::prod: return 1;
    case Fold::max: return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
    default: return Limits::has_infinity ? Limits::infinity() : Limits::max();
  }
}
template <class A> A combine(Fold fold, A a, A b) {
  switch (fold) {
    case Fold::sum: return a + b;
    case Fold::prod: return a * b;
    case Fold::max: return a != a || a > b ? a : b;  // NaN wins
    default: return a != a || a < b ? a : b;
  }
}

/// One reduction: x of any type, computed in T with totals in A.
template <class T> class Reduction {
 public:
  using A = std::conditional_t<std::is_same_v<T, int64_t>, int64_t, double>;

  Reduction(const TensorImpl& x, const TensorImpl& out, const Shape& dims, Fold fold, bool mean)
      : x_(x), out_(out), fold_(fold), mean_(mean), layout_(x, dims), kept_(layout_, false), folded_(layout_, true),
        size_(size_of(x.dtype)), data_(static_cast<const char*>(x.data)),
        direct_(x.dtype == type_of<T>() && layout_.inner().x == 1) {}

  void run() {
    if (layout_.kept == 0) return;
    if (layout_.folded == 0) {
      for (int64_t i = 0; i < layout_.kept; ++i) write(i, identity<A>(fold_));
    } else if (layout_.inner().out == 0) {
      rows();
    } else {
      columns();
    }
  }

 private:
  static constexpr int64_t kPiece = 32 * 1024, kBlock = 1024, kNarrow = 64;

  /// `n` elements of the innermost dim from x's element `offset`, as T: in place, or in `buffer`.
  const T* load(int64_t offset, int64_t n, T* buffer) const {
    const char* from = data_ + offset * size_;
    if (direct_) return reinterpret_cast<const T*>(from);
    char* pointers[] = {reinterpret_cast<char*>(buffer), const_cast<char*>(from)};
    const int64_t strides[] = {sizeof(T), layout_.inner().x * size_};
    loops().cast[static_cast<int>(x_.dtype)][static_cast<int>(type_of<T>())](n, pointers, strides);
    return buffer;
  }

  void write(int64_t at, A total) const {
    if (mean_) total = static_cast<A>(static_cast<double>(total) / static_cast<double>(layout_.folded));
    char* to = static_cast<char*>(out_.data) + at * size_of(out_.dtype);
    if (out_.dtype == DType::float32) {
      *reinterpret_cast<float*>(to) = static_cast<float>(total);
      return;
    }
    char* pointers[] = {to, reinterpret_cast<char*>(&total)};
    const int64_t strides[] = {0, 0};
    loops().cast[static_cast<int>(type_of<A>())][static_cast<int>(out_.dtype)](1, pointers, strides);
  }

  A fold_row(int64_t offset, int64_t n) const {
    const auto row = fold_loops<T>(fold_).row;
    if (direct_) return row(n, load(offset, n, nullptr));
    if constexpr (std::is_same_v<T, float>)
      if (fold_ == Fold::sum && x_.dtype == DType::bfloat16 && layout_.inner().x == 1)
        return loops().reduce->sum_bf16(n, reinterpret_cast<const uint16_t*>(data_) + offset);
    T buffer[kBlock];
    A total = identity<A>(fold_);
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t count = std::min(kBlock, n - i);
      total = combine(fold_, total, row(count, load(offset + i * layout_.inner().x, count, buffer)));
    }
    return total;
  }

  // The innermost dim is folded: each output is a list of rows, or of pieces of them.
  void rows() {
    const int64_t width = layout_.inner().extent;
    const int64_t rows = folded_.count;
    const int64_t cuts = std::max<int64_t>(1, width / kPiece);  // pieces of a row
    const int64_t row_piece = (width + cuts - 1) / cuts;
    const int64_t bundle = std::max<int64_t>(1, kPiece / row_piece);  // rows in a piece of work
    const int64_t pieces = cuts > 1 ? rows * cuts : (rows + bundle - 1) / bundle;
    const auto fold_piece = [&](int64_t base, int64_t piece) {
      if (cuts > 1) {
        const int64_t first = piece % cuts * row_piece;
        return fold_row(base + folded_.x_offset(piece / cuts) + first * layout_.inner().x,
                        std::min(row_piece, width - first));
      }
      A total = identity<A>(fold_);
      const int64_t end = std::min(rows, (piece + 1) * bundle);
      for (int64_t r = piece * bundle; r < end; ++r)
        total = combine(fold_, total, fold_row(base + folded_.x_offset(r), width));
      return total;
    };
    if (pieces == 1) {
      const int64_t grain = std::max<int64_t>(1, kPiece / layout_.folded);
      parallel_for(kept_.count, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) write(kept_.out_offset(i), fold_piece(kept_.x_offset(i), 0));
      });
      return;
    }
    const Scratch scratch(kept_.count * pieces * static_cast<int64_t>(sizeof(A)));
    A* partial = scratch.as<A>();
    parallel_for(kept_.count * pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) partial[i] = fold_piece(kept_.x_offset(i / pieces), i % pieces);
    });
    for (int64_t i = 0; i < kept_.count; ++i) {
      A total = partial[i * pieces];
      for (int64_t p = 1; p < pieces; ++p) total = combine(fold_, total, partial[i * pieces + p]);
      write(kept_.out_offset(i), total);
    }
  }

  /// accumulators[j] = fold of rows [first, first + count) of the folded dims, over columns [at, at + width).
  void fold_columns(int64_t base, int64_t first, int64_t count, int64_t at, int64_t width, A* accumulators) const {
    const auto fold = fold_loops<T>(fold_).columns;
    std::fill(accumulators, accumulators + width, identity<A>(fold_));
    base += at * layout_.inner().x;
    if (direct_ && folded_.rank <= 1) {
      const int64_t stride = folded_.rank ? folded_.x[0] : 0;
      const T* from = reinterpret_cast<const T*>(data_) + base + first * stride;
      if (stride == width && width <= kNarrow / 2 && count >= 16) {
        // Rows that follow each other and are shorter than a vector: several of them count as one.
        const int64_t side = kNarrow / width, groups = count / side;
        A several[kNarrow];
        std::fill(several, several + side * width, identity<A>(fold_));
        fold(groups, side * width, from, side * width, several);
        fold_loops<A>(fold_).columns(side, width, several, width, accumulators);
        fold(count - groups * side, width, from + groups * side * width, stride, accumulators);
        return;
      }
      fold(count, width, from, stride, accumulators);
      return;
    }
    if (direct_) {
      for (int64_t r = first; r < first + count;) {  // runs along the innermost of the folded dims
        const int64_t run = std::min(first + count - r, folded_.extent[0] - r % folded_.extent[0]);
        fold(run, width, reinterpret_cast<const T*>(data_) + base + folded_.x_offset(r), folded_.x[0], accumulators);
        r += run;
      }
      return;
    }
    T buffer[8 * kBlock];
    for (int64_t r = first; r < first + count; r += 8) {
      const int64_t run = std::min<int64_t>(8, first + count - r);
      for (int64_t i = 0; i < run; ++i) load(base + folded_.x_offset(r + i), width, buffer + i * kBlock);
      fold(run, width, buffer, kBlock, accumulators);
    }
  }

  // The innermost dim is kept: whole rows are folded into a row of accumulators.
  void columns() {
    const int64_t width = layout_.inner().extent, rows = folded_.count;
    const int64_t strip = std::min(width, kBlock), strips = (width + strip - 1) / strip;
    const int64_t bundle = std::min<int64_t>(1024, std::max<int64_t>(64, 2 * kPiece / strip));
    const int64_t cuts = (rows + bundle - 1) / bundle;
    const int64_t units = kept_.count * strips * cuts, elements = layout_.kept * layout_.folded;
    const int64_t grain = std::max<int64_t>(1, units * kPiece / std::max<int64_t>(elements, 1));
    const auto unit = [&](int64_t u, A* accumulators) {
      const int64_t cut = u % cuts, at = u / cuts % strips * strip, base = kept_.x_offset(u / cuts / strips);
      fold_columns(base, cut * bundle, std::min(bundle, rows - cut * bundle), at, std::min(strip, width - at),
                   accumulators);
    };
    if (cuts == 1) {
      parallel_for(units, grain, [&](int64_t begin, int64_t end) {
        A accumulators[kBlock];
        for (int64_t u = begin; u < end; ++u) {
          unit(u, accumulators);
          write_columns(u / strips, u % strips * strip, std::min(strip, width - u % strips * strip),
                        [&](int64_t j) { return accumulators[j]; });
        }
      });
      return;
    }
    const Scratch scratch(units * strip * static_cast<int64_t>(sizeof(A)));
    A* partial = scratch.as<A>();
    parallel_for(units, grain, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) unit(u, partial + u * strip);
    });
    parallel_for(kept_.count * strips, std::max<int64_t>(1, kPiece / (cuts * strip)), [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) {
        const A* from = partial + u * cuts * strip;
        write_columns(u / strips, u % strips * strip, std::min(strip, width - u % strips * strip), [&](int64_t j) {
          A total = from[j];
          for (int64_t cut = 1; cut < cuts; ++cut) total = combine(fold_, total, from[cut * strip + j]);
          return total;
        });
      }
    });
  }

  template <class F> void write_columns(int64_t kept, int64_t at, int64_t width, F&& total) const {
    const int64_t base = kept_.out_offset(kept), step = layout_.inner().out;
    for (int64_t j = 0; j < width; ++j) write(base + (at + j) * step, total(j));
  }

  const TensorImpl& x_;
  const TensorImpl& out_;
  const Fold fold_;
  const bool mean_;
  const Layout layout_;
  const Outer kept_, folded_;
  const int64_t size_;
  const char* data_;
  const bool direct_;
};

void reduce(KernelContext& c, Fold fold, bool mean) {
  const TensorImpl& x = c.in(0);
  const Shape& dims = c.attributes.integers("dims");
  switch (x.dtype) {
    case DType::float64: Reduction<double>(x, c.out(), dims, fold, mean).run(); break;
    case DType::float32:
    case DType::float16:
    case DType::bfloat16: Reduction<float>(x, c.out(), dims, fold, mean).run(); break;
    default: Reduction<int64_t>(x, c.out(), dims, fold, mean).run(); break;
  }
}

/// The first place of the extreme of `n` numbers, or of the first NaN.
template <class T> int64_t first_extreme(Fold fold, int64_t n, const T* x) {
  const T extreme = static_cast<T>(fold_loops<T>(fold).row(n, x));
  int64_t i = 0;
  if (extreme != extreme) {
    while (x[i] == x[i]) ++i;
  } else {
    while (x[i] != extreme) ++i;
  }
  return i;
}

template <class T> void position_rows(Fold fold, const TensorImpl& x, int dim, int64_t* out) {
  // Rows along `dim` as T: x itself, or a copy with `dim` last.
  Shape shape = x.shape, strides = x.strides;
  const int64_t width = shape[dim], step = strides[dim];
  shape.erase(dim), strides.erase(dim);
  shape.push_back(width), strides.push_back(step);
  TensorImpl rows;
  rows.dtype = x.dtype, rows.data = x.data;
  rows.set_layout(shape, strides);
  const bool direct = rows.contiguous && x.dtype == type_of<T>();
  const Scratch scratch(direct ? 0 : shape.numel() * static_cast<int64_t>(sizeof(T)));
  if (!direct) {
    TensorImpl copy;
    copy.dtype = type_of<T>(), copy.data = scratch.as<T>();
    copy.set_contiguous_layout(shape);
    copy_elements(rows, copy);
    rows.data = copy.data;
  }
  const T* data = static_cast<const T*>(rows.data);
  parallel_for(shape.numel() / width, std::max<int64_t>(1, kPointwiseGrain / width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) out[r] = first_extreme(fold, width, data + r * width);
  });
}

void position_kernel(KernelContext& c, Fold fold) {
  const TensorImpl& x = c.in(0);
  int64_t* out = static_cast<int64_t*>(c.out().data);
  if (x.shape.empty()) {
    *out = 0;
    return;
  }
  if (x.shape.numel() == 0) return;
  int dim = static_cast<int>(c.attributes.integer("dim"));
  if (dim < 0) dim += x.shape.size();
  switch (x.dtype) {
    case DType::float64: position_rows<double>(fold, x, dim, out); break;
    case DType::float32:
    case DType::float16:
    case DType::bfloat16: position_rows<float>(fold, x, dim, out); break;
    default: position_rows<int64_t>(fold, x, dim, out); break;
  }
}

}  // namespace

void add_cpu_reduce(Kernels kernels) {
  kernels["sum"] = [](KernelContext& c) { reduce(c, Fold::sum, false); };
  kernels["prod"] = [](KernelContext& c) { reduce(c, Fold::prod, false); };
  kernels["mean"] = [](KernelContext& c) { reduce(c, Fold::sum, true); };
  kernels["max"] = [](KernelContext& c) { reduce(c, Fold::max, false); };
  kernels["min"] = [](KernelContext& c) { reduce(c, Fold::min, false); };
  kernels["argmax"] = [](KernelContext& c) { position_kernel(c, Fold::max); };
  kernels["argmin"] = [](KernelContext& c) { position_kernel(c, Fold::min); };
}

}  // namespace tandem
