// embedding, gather, scatter, index_select, index_add, one_hot. Indices are checked before anything is written, and what they
// point at is written in their order, whatever the number of threads.
#include <algorithm>
#include <cstring>

#include "core/op.h"
#include "core/range_check.h"
#include "core/scalar/math.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

/// Throws with the first of the values that isn't in [0, bound), and its position in `shape`.
void check_indices(const KernelContext& c, const int64_t* values, const Shape& shape, int64_t bound, const char* what) {
  const int64_t n = shape.numel();
  uint64_t worst = 0;  // negative ones are the greatest as unsigned numbers
  for (int64_t i = 0; i < n; ++i) worst = std::max(worst, static_cast<uint64_t>(values[i]));
  if (n == 0 || worst < static_cast<uint64_t>(bound)) [[likely]]
    return;
  int64_t at = 0;
  while (values[at] >= 0 && values[at] < bound) ++at;
  Shape position = shape;
  for (int64_t d = shape.size() - 1, rest = at; d >= 0; --d) {
    position[static_cast<int>(d)] = rest % shape[static_cast<int>(d)];
    rest /= shape[static_cast<int>(d)];
  }
  c.fail<DimensionError>(RangeCheck{.what = what, .bound = bound}.text(values[at], position));
}

const int64_t* checked_indices(const KernelContext& c, int input, int64_t bound, const char* what) {
  const TensorImpl& index = c.in(input);
  const auto* values = static_cast<const int64_t*>(index.data);
  check_indices(c, values, index.shape, bound, what);
  return values;
}

void embedding_kernel(KernelContext& c) {
  const TensorImpl &weight = c.in(1), &out = c.out();
  const int64_t* ids = checked_indices(c, 0, weight.shape[0], "id");
  const int64_t count = c.in(0).shape.numel(), bytes = weight.shape[1] * size_of(weight.dtype);
  if (bytes == 0) return;
  const char* from = static_cast<const char*>(weight.data);
  char* to = static_cast<char*>(out.data);
  parallel_for(count, std::max<int64_t>(1, 128 * 1024 / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(to + i * bytes, from + ids[i] * bytes, static_cast<size_t>(bytes));
  });
}

/// Rows of g are added in their order; threads take columns each, so the sums don't depend on their number.
template <class T> void embedding_grad(KernelContext& c) {
  const int64_t count = c.out().shape[0], width = c.out().shape[1], n = c.in(1).shape.numel();
  const int64_t* ids = checked_indices(c, 1, count, "id");
  const WideInput<T> g(c.in(0));
  const WideOutput<T> out(c.out());
  parallel_for(
      width, std::max<int64_t>(16, 64 * 1024 / std::max<int64_t>(n + count, 1)),
      [&](int64_t begin, int64_t end) {
        for (int64_t r = 0; r < count; ++r)
          std::fill(out.data() + r * width + begin, out.data() + r * width + end, T(0));
        for (int64_t i = 0; i < n; ++i) {
          T* to = out.data() + ids[i] * width;
          const T* from = g.data() + i * width;
          for (int64_t j = begin; j < end; ++j) to[j] = td_add(to[j], from[j]);
        }
      },
      16);
  out.finish();
}

/// A run of an index along its last dim: elements [first, first + count) in row-major order, and where the first would point
/// in the table, were it 0. The next ones' places are `step` apart.
struct Run {
  int64_t first, count, place, step;
};

/// Walks rows [begin, end) of an index of `shape` into a contiguous tensor of `table_shape` along `dim`: f(run).
template <class F>
void for_runs(const Shape& shape, const Shape& table_shape, int dim, int64_t begin, int64_t end, F&& f) {
  const Shape strides = contiguous_strides(table_shape);
  const int last = shape.size() - 1;
  if (last == 0) return f(Run{begin, end - begin, dim == 0 ? 0 : begin, dim == 0 ? 0 : 1});
  int64_t width = 1;  // of a row: all dims but the first
  for (int d = 1; d <= last; ++d) width *= shape[d];
  Shape at = Shape::filled(last, 0);
  at[0] = begin;
  int64_t place = dim == 0 ? 0 : begin * strides[0];
  for (int64_t i = begin * width; i < end * width; i += shape[last]) {
    f(Run{i, shape[last], place, dim == last ? 0 : 1});
    for (int d = last - 1; d >= 0; --d) {
      const int64_t step = d == dim ? 0 : strides[d];
      place += step;
      if (++at[d] < shape[d]) break;
      at[d] = 0;
      place -= step * shape[d];
    }
  }
}

/// All rows, by threads where they can't meet: each then has the elements below its own positions in dim 0.
template <class F> void for_all_runs(const Shape& shape, const Shape& table_shape, int dim, bool writes, F&& f) {
  if (shape.numel() == 0) return;
  const int64_t rows = shape[0], width = shape.numel() / rows;
  if (writes && dim == 0) return for_runs(shape, table_shape, dim, 0, rows, f);
  parallel_for(rows, std::max<int64_t>(1, kPointwiseGrain / 4 / width),
               [&](int64_t begin, int64_t end) { for_runs(shape, table_shape, dim, begin, end, f); });
}

template <class T> void gather_elements(const KernelContext& c, const int64_t* index, int dim) {
  const TensorImpl &x = c.in(0), &out = c.out();
  const int64_t step = contiguous_strides(x.shape)[dim];
  const T* from = static_cast<const T*>(x.data);
  T* to = static_cast<T*>(out.data);
  for_all_runs(out.shape, x.shape, dim, false, [&](const Run& r) {
    for (int64_t i = 0; i < r.count; ++i) to[r.first + i] = from[r.place + i * r.step + index[r.first + i] * step];
  });
}

void gather_kernel(KernelContext& c) {
  const TensorImpl& x = c.in(0);
  if (c.out().shape.numel() == 0) return;
  if (x.shape.empty()) {
    checked_indices(c, 1, 1, "index");
    copy_elements(x, c.out());
    return;
  }
  const int dim = static_cast<int>(c.attributes.integer("dim"));
  const int64_t* index = checked_indices(c, 1, x.shape[dim], "index");
  switch (size_of(x.dtype)) {
    case 1: return gather_elements<uint8_t>(c, index, dim);
    case 2: return gather_elements<uint16_t>(c, index, dim);
    case 4: return gather_elements<uint32_t>(c, index, dim);
    default: return gather_elements<uint64_t>(c, index, dim);
  }
}

template <class T> void scatter_add(KernelContext& c) {
  const TensorImpl& out = c.out();
  const WideOutput<T> result(out);
  std::fill_n(result.data(), out.shape.numel(), T(0));
  if (out.shape.empty()) {
    checked_indices(c, 1, 1, "index");
    *result.data() = *WideInput<T>(c.in(0)).data();
  } else {
    const int dim = static_cast<int>(c.attributes.integer("dim"));
    const int64_t* index = checked_indices(c, 1, out.shape[dim], "index");
    const WideInput<T> x(c.in(0));
    const int64_t step = contiguous_strides(out.shape)[dim];
    for_all_runs(c.in(0).shape, out.shape, dim, true, [&](const Run& r) {
      T* const to = result.data() + r.place;
      for (int64_t i = 0; i < r.count; ++i) {
        T& sum = to[i * r.step + index[r.first + i] * step];
        sum = td_add(sum, x.data()[r.first + i]);
      }
    });
  }
  result.finish();
}

template <class T> void scatter_elements(const KernelContext& c, const int64_t* index, int dim) {
  const TensorImpl &src = c.in(2), &out = c.out();
  const int64_t step = contiguous_strides(out.shape)[dim], src_step = src.shape.empty() ? 0 : 1;
  const T* from = static_cast<const T*>(src.data);
  T* to = static_cast<T*>(out.data);
  for_all_runs(c.in(1).shape, out.shape, dim, true, [&](const Run& r) {
    for (int64_t i = 0; i < r.count; ++i)
      to[r.place + i * r.step + index[r.first + i] * step] = from[(r.first + i) * src_step];
  });
}

/// x with what `joined` makes of its element and src's in each place.
template <class T, class Join> void scatter_and_join(KernelContext& c, Join&& joined) {
  const TensorImpl& out = c.out();
  const int dim = static_cast<int>(c.attributes.integer("dim"));
  const int64_t* index = checked_indices(c, 1, out.shape[dim], "index");
  const WideOutput<T> result(out);
  copy_elements(c.in(0), Header(result.data(), dtype_of<T>, out.shape).impl);
  const WideInput<T> src(c.in(2));
  const int64_t step = contiguous_strides(out.shape)[dim], src_step = c.in(2).shape.empty() ? 0 : 1;
  for_all_runs(c.in(1).shape, out.shape, dim, true, [&](const Run& r) {
    T* const to = result.data() + r.place;
    for (int64_t i = 0; i < r.count; ++i) {
      T& element = to[i * r.step + index[r.first + i] * step];
      element = joined(element, src.data()[(r.first + i) * src_step]);
    }
  });
  result.finish();
}
template <class T> void scatter_and_add(KernelContext& c) {
  scatter_and_join<T>(c, [](T a, T b) { return td_add(a, b); });
}
template <class T> void scatter_prod(KernelContext& c) {
  scatter_and_join<T>(c, [](T a, T b) { return td_multiply(a, b); });
}

void scatter_kernel(KernelContext& c) {
  const TensorImpl& out = c.out();
  if (c.attributes.flag("add")) {
    if (out.dtype == DType::float64) return scatter_and_add<double>(c);
    return is_floating(out.dtype) ? scatter_and_add<float>(c) : scatter_and_add<int64_t>(c);
  }
  const int dim = static_cast<int>(c.attributes.integer("dim"));
  const int64_t* index = checked_indices(c, 1, out.shape[dim], "index");
  copy_elements(c.in(0), out);
  switch (size_of(out.dtype)) {
    case 1: return scatter_elements<uint8_t>(c, index, dim);
    case 2: return scatter_elements<uint16_t>(c, index, dim);
    case 4: return scatter_elements<uint32_t>(c, index, dim);
    default: return scatter_elements<uint64_t>(c, index, dim);
  }
}

/// A tensor as [outer, extent of dim, inner].
struct Slices {
  int64_t outer = 1, extent, inner = 1;
  Slices(const Shape& shape, int dim) : extent(shape[dim]) {
    for (int d = 0; d < shape.size(); ++d) (d < dim ? outer : inner) *= d == dim ? 1 : shape[d];
  }
};

template <class T>
void select_elements(const Slices& from, const int64_t* index, int64_t count, const void* x, void* out) {
  const T* in = static_cast<const T*>(x);
  T* to = static_cast<T*>(out);
  parallel_for(from.outer, std::max<int64_t>(1, kPointwiseGrain / 4 / std::max<int64_t>(count, 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t o = begin; o < end; ++o)
                   for (int64_t i = 0; i < count; ++i) to[o * count + i] = in[o * from.extent + index[i]];
               });
}

void index_select_kernel(KernelContext& c) {
  const TensorImpl &x = c.in(0), &out = c.out();
  const int dim = static_cast<int>(c.attributes.integer("dim"));
  const Slices from(x.shape, dim);
  const int64_t* index = checked_indices(c, 1, from.extent, "index");
  const int64_t count = out.shape[dim], bytes = from.inner * size_of(x.dtype);
  if (out.shape.numel() == 0) return;
  if (from.inner == 1) {
    switch (bytes) {
      case 1: return select_elements<uint8_t>(from, index, count, x.data, out.data);
      case 2: return select_elements<uint16_t>(from, index, count, x.data, out.data);
      case 4: return select_elements<uint32_t>(from, index, count, x.data, out.data);
      default: return select_elements<uint64_t>(from, index, count, x.data, out.data);
    }
  }
  const char* in = static_cast<const char*>(x.data);
  char* to = static_cast<char*>(out.data);
  parallel_for(from.outer * count, std::max<int64_t>(1, 128 * 1024 / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      std::memcpy(to + r * bytes, in + (r / count * from.extent + index[r % count]) * bytes,
                  static_cast<size_t>(bytes));
  });
}

/// Slices are added in the index's order; threads take outer dims, or columns of the slices.
template <class T> void index_add(KernelContext& c) {
  const TensorImpl& out = c.out();
  const int dim = static_cast<int>(c.attributes.integer("dim"));
  const Slices to(out.shape, dim);
  const WideInput<int64_t> index(c.in(1));
  check_indices(c, index.data(), c.in(1).shape, to.extent, "index");
  const WideOutput<T> result(out);
  copy_elements(c.in(0), Header(result.data(), dtype_of<T>, out.shape).impl);
  const WideInput<T> src(c.in(2));
  const int64_t count = c.in(1).shape[0], slice_work = std::max<int64_t>(count * to.inner, 1);
  const auto add = [&](int64_t outer_begin, int64_t outer_end, int64_t begin, int64_t end) {
    for (int64_t o = outer_begin; o < outer_end; ++o) {
      for (int64_t i = 0; i < count; ++i) {
        T* target = result.data() + (o * to.extent + index.data()[i]) * to.inner;
        const T* from = src.data() + (o * count + i) * to.inner;
        for (int64_t j = begin; j < end; ++j) target[j] = td_add(target[j], from[j]);
      }
    }
  };
  if (to.outer >= num_threads())
    parallel_for(to.outer, std::max<int64_t>(1, kPointwiseGrain / 2 / slice_work),
                 [&](int64_t begin, int64_t end) { add(begin, end, 0, to.inner); });
  else
    parallel_for(
        to.inner, std::max<int64_t>(16, kPointwiseGrain / 2 / std::max<int64_t>(to.outer * count, 1)),
        [&](int64_t begin, int64_t end) { add(0, to.outer, begin, end); }, 16);
  result.finish();
}

void one_hot_kernel(KernelContext& c) {
  const int64_t classes = c.attributes.integer("classes"), n = c.in(0).shape.numel();
  const int64_t* labels = checked_indices(c, 0, classes, "label");
  fill_elements(c.out().data, n * classes, DType::int64, 0);
  auto* out = static_cast<int64_t*>(c.out().data);
  for (int64_t i = 0; i < n; ++i) out[i * classes + labels[i]] = 1;
}

/// kernel<T> in the type that sums are kept in.
#define TANDEM_SUMMING_KERNEL(kernel)                       \
  [](KernelContext& c) {                                    \
    if (c.out().dtype == DType::float64) kernel<double>(c); \
    else if (is_floating(c.out().dtype)) kernel<float>(c);  \
    else kernel<int64_t>(c);                                \
  }

}  // namespace

void add_cpu_index(Kernels kernels) {
  kernels["embedding"] = embedding_kernel;
  kernels["embedding_grad"] = TANDEM_SUMMING_KERNEL(embedding_grad);
  kernels["gather"] = gather_kernel;
  kernels["scatter_add"] = TANDEM_SUMMING_KERNEL(scatter_add);
  kernels["scatter"] = scatter_kernel;
  kernels["scatter_prod"] = TANDEM_SUMMING_KERNEL(scatter_prod);
  kernels["index_select"] = index_select_kernel;
  kernels["index_add"] = TANDEM_SUMMING_KERNEL(index_add);
  kernels["one_hot"] = one_hot_kernel;
}

}  // namespace tandem
