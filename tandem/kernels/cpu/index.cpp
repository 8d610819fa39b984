// embedding, gather and their gradients. Indices are checked before anything is written.
#include <algorithm>
#include <cstring>

#include "tandem/core/op.h"
#include "tandem/kernels/cpu/copy.h"
#include "tandem/kernels/cpu/isa.h"
#include "tandem/kernels/cpu/parallel.h"

namespace tandem {

namespace {

const int64_t* checked_indices(const KernelContext& c, int input, int64_t bound, const char* what) {
  const TensorImpl& index = c.in(input);
  const int64_t* values = static_cast<const int64_t*>(index.data);
  const int64_t n = index.shape.numel();
  uint64_t worst = 0;  // negative ones are the greatest as unsigned numbers
  for (int64_t i = 0; i < n; ++i) worst = std::max(worst, static_cast<uint64_t>(values[i]));
  if (n == 0 || worst < static_cast<uint64_t>(bound)) [[likely]]
    return values;
  int64_t at = 0;
  while (values[at] >= 0 && values[at] < bound) ++at;
  Shape position = index.shape;
  for (int64_t d = index.shape.size() - 1, rest = at; d >= 0; --d) {
    position[static_cast<int>(d)] = rest % index.shape[static_cast<int>(d)];
    rest /= index.shape[static_cast<int>(d)];
  }
  c.fail<DimensionError>(what, " ", values[at], " at ", position, " is out of range for ", bound, " (0 to ", bound - 1, ")");
}

void embedding_kernel(KernelContext& c) {
  const TensorImpl &weight = c.in(1), &out = c.out();
  const int64_t* ids = checked_indices(c, 0, weight.shape[0], "id");
  const int64_t count = c.in(0).shape.numel(), bytes = weight.shape[1] * size_of(weight.dtype);
  if (bytes == 0) return;
  const char* from = static_cast<const char*>(weight.data);
  char* to = static_cast<char*>(out.data);
  parallel_for(count, std::max<int64_t>(1, 128 * 1024 / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::memcpy(to + i * bytes, from + ids[i] * bytes, static_cast<size_t>(bytes));
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
        for (int64_t r = 0; r < count; ++r) std::fill(out.data() + r * width + begin, out.data() + r * width + end, T(0));
        for (int64_t i = 0; i < n; ++i) {
          T* to = out.data() + ids[i] * width;
          const T* from = g.data() + i * width;
          for (int64_t j = begin; j < end; ++j) to[j] += from[j];
        }
      },
      16);
  out.finish();
}

/// Walks an index of `shape`: f(i, place) with i its row-major position and place the matching element of a
/// contiguous tensor of `table_shape`, had the index been 0 along `dim`.
template <class F> void for_places(const Shape& shape, const Shape& table_shape, int dim, F&& f) {
  const Shape strides = contiguous_strides(table_shape);
  const int64_t n = shape.numel();
  const int rank = shape.size();
  Shape at = Shape::filled(rank, 0);
  int64_t place = 0;
  for (int64_t i = 0; i < n; ++i) {
    f(i, place);
    for (int d = rank - 1; d >= 0; --d) {
      const int64_t step = d == dim ? 0 : strides[d];
      place += step;
      if (++at[d] < shape[d]) break;
      at[d] = 0;
      place -= step * shape[d];
    }
  }
}

template <class T> void gather_elements(const KernelContext& c, const int64_t* index, int dim) {
  const TensorImpl &x = c.in(0), &out = c.out();
  const int64_t step = contiguous_strides(x.shape)[dim];
  const T* from = static_cast<const T*>(x.data);
  T* to = static_cast<T*>(out.data);
  for_places(out.shape, x.shape, dim, [&](int64_t i, int64_t place) { to[i] = from[place + index[i] * step]; });
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
    for_places(c.in(0).shape, out.shape, dim,
               [&](int64_t i, int64_t place) { result.data()[place + index[i] * step] += x.data()[i]; });
  }
  result.finish();
}

/// kernel<T> in the type that sums are kept in.
#define TANDEM_SUMMING_KERNEL(kernel)                                          \
  [](KernelContext& c) {                                                       \
    if (c.out().dtype == DType::float64) kernel<double>(c);                    \
    else if (is_floating(c.out().dtype)) kernel<float>(c);                     \
    else kernel<int64_t>(c);                                                   \
  }

}  // namespace

void add_cpu_index(OpTable& table) {
  table.at("embedding").cpu = embedding_kernel;
  table.at("embedding_grad").cpu = TANDEM_SUMMING_KERNEL(embedding_grad);
  table.at("gather").cpu = gather_kernel;
  table.at("scatter_add").cpu = TANDEM_SUMMING_KERNEL(scatter_add);
}

}  // namespace tandem
