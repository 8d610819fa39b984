// sort, topk and searchsorted. Elements become unsigned keys in the same order, NaN last (sort_lines.cuh); the values of the result
// are read where the positions say, so that they are x's to the bit. Where dim isn't the last one, lines are transposed first.
// searchsorted: a lane for each value, which halves its way through the row.
#include <algorithm>
#include <optional>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/sort_lines.cuh"

namespace tandem {
namespace gpu {
namespace {

/// Unsigned numbers in the order of x. Both zeros are one key, as is every NaN.
__device__ __forceinline__ uint64_t key_of(int32_t x) { return uint32_t(x) ^ 0x80000000u; }
__device__ __forceinline__ uint64_t key_of(int64_t x) { return uint64_t(x) ^ (uint64_t(1) << 63); }
__device__ __forceinline__ uint64_t key_of(float x) {
  if (x != x) return 0xffffffffu;
  const unsigned bits = __float_as_uint(x + 0.0f);  // -0 to 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ uint64_t key_of(double x) {
  if (x != x) return ~uint64_t(0);
  const uint64_t bits = uint64_t(__double_as_longlong(x + 0.0));
  return bits >> 63 ? ~bits : bits | (uint64_t(1) << 63);
}

template <class Item, class T> struct Elements {
  const T* x;  // [lines, n]
  int64_t n;
  bool descending;
  __device__ __forceinline__ Item operator()(int64_t line, int64_t i) const {
    const uint64_t key = key_of(widen(x[line * n + i]));
    const uint64_t all = sizeof(Compute<T>) == 8 ? ~uint64_t(0) : uint64_t(0xffffffffu);
    return Item::make(descending ? ~key & all : key, i);
  }
};

/// `x` and `keys` are [lines, n] one after another, the same but for keys' dtype; results are [lines, kept].
struct Order {
  const TensorImpl& x;
  const TensorImpl& keys;
  int64_t lines, n, kept;
  bool descending;
  void* values;
  int64_t* indices;
  Device device;
  cudaStream_t stream;
};

/// Lines side by side, as many as have room.
template <class Item, class T> void order_lines(const Order& order) {
  constexpr int64_t room = int64_t(1) << 28;
  const int64_t line_bytes = sort_bytes<Item>(order.n), size = size_of(order.x.dtype);
  const int64_t at_once =
      std::min(order.lines, line_bytes == 0 ? int64_t(1) << 30 : std::max(int64_t(1), room / line_bytes));
  const Workspace space(size_t(at_once * line_bytes), order.device);
  for (int64_t first = 0; first < order.lines; first += at_once) {
    const Elements<Item, T> source{data<T>(order.keys) + first * order.n, order.n, order.descending};
    ItemSink<Item> sink;
    sink.kept = order.kept;
    sink.values = static_cast<char*>(order.values) + first * order.kept * size;
    sink.indices = order.indices + first * order.kept;
    sink.x = data<char>(order.x) + first * order.n * size;
    sink.n = order.n;
    sink.size = int(size);
    sort_lines(source, sink, std::min(at_once, order.lines - first), order.n, space.template as<Item>(), order.stream);
  }
}
template <class T> void order_lines_of(const Order& order) {
  if constexpr (sizeof(Compute<T>) == 4) {
    if (order.n < 0xffffffff) return order_lines<PackedItem, T>(order);
  }
  order_lines<WideItem, T>(order);
}
void order_any(const Order& order) {
  switch (order.keys.dtype) {
    case DType::float64: return order_lines_of<double>(order);
    case DType::int64: return order_lines_of<int64_t>(order);
    case DType::float32: return order_lines_of<float>(order);
    case DType::float16: return order_lines_of<__half>(order);
    case DType::bfloat16: return order_lines_of<__nv_bfloat16>(order);
    default: return order_lines_of<int32_t>(order);
  }
}

/// A header of memory of its own.
struct Held {
  Workspace memory;
  TensorImpl header;
  Held(const Shape& shape, DType type, Device device) : memory(size_t(shape.numel() * size_of(type)), device) {
    header.dtype = type;
    header.device = device;
    header.data = memory.as<void>();
    header.set_contiguous_layout(shape);
  }
};

/// With dim `from` moved to the end.
Shape moved(Shape shape, int from) {
  const int64_t value = shape[from];
  shape.erase(from);
  shape.push_back(value);
  return shape;
}

void order_kernel(KernelContext& op, int64_t kept) {
  const TensorImpl& x = op.in(0);
  TensorImpl &values = op.out(0), &indices = op.out(1);
  const int dim = int(op.attributes.integer("dim"));
  const int64_t n = x.shape[dim];
  if (values.shape.numel() == 0) return;
  const cudaStream_t stream = stream_of(op);
  const Device device = values.device;
  const bool in_place = x.shape.numel() == n || dim == x.shape.size() - 1;
  const auto copy = [&](const TensorImpl& from, TensorImpl& to, const Shape& strides) {
    copy_strided(from, from.shape, to.data, to.dtype, strides, stream);
  };

  std::optional<Held> lines, keys, line_values, line_indices;
  const TensorImpl* rows = &x;
  if (!in_place) {
    lines.emplace(moved(x.shape, dim), x.dtype, device);
    TensorImpl view;
    view.dtype = x.dtype, view.data = x.data;
    view.set_layout(moved(x.shape, dim), moved(x.strides, dim));
    copy(view, lines->header, lines->header.strides);
    rows = &lines->header;
    line_values.emplace(moved(values.shape, dim), values.dtype, device);
    line_indices.emplace(moved(indices.shape, dim), indices.dtype, device);
  }
  const TensorImpl* ordered = rows;
  if (size_of(x.dtype) < 4 && !is_floating(x.dtype)) {  // small integers as int32
    keys.emplace(rows->shape, DType::int32, device);
    copy(*rows, keys->header, keys->header.strides);
    ordered = &keys->header;
  }
  order_any({*rows, *ordered, x.shape.numel() / n, n, kept, op.attributes.flag("descending"),
             in_place ? values.data : line_values->header.data,
             static_cast<int64_t*>(in_place ? indices.data : line_indices->header.data), device, stream});
  if (in_place) return;
  copy(line_values->header, values, moved(values.strides, dim));
  copy(line_indices->header, indices, moved(indices.strides, dim));
}

void sort_kernel(KernelContext& op) { order_kernel(op, op.in(0).shape[int(op.attributes.integer("dim"))]); }
void topk_kernel(KernelContext& op) { order_kernel(op, op.attributes.integer("k")); }

/// NaN counts as the greatest.
template <class T> __device__ __forceinline__ bool before(T a, T b) { return b != b ? a == a : a < b; }

template <class T>
__global__ void searchsorted(int64_t* out, const T* sorted, const T* values, int64_t count, int64_t n, int64_t per_row,
                             bool shared, bool right) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const T* row = sorted + (shared ? 0 : i / per_row * n);
  const auto wanted = widen(values[i]);
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    const auto x = widen(row[middle]);
    if (right ? !before(wanted, x) : before(x, wanted)) low = middle + 1;
    else high = middle;
  }
  out[i] = low;
}

void searchsorted_kernel(KernelContext& op) {
  const Shape& shape = op.out().shape;
  const int64_t count = shape.numel();
  if (count == 0) return;
  visit_any(op.in(0).dtype, [&]<class T>() {
    TANDEM_LAUNCH((searchsorted<T>), unsigned(ceil_divide(count, int64_t(128))), 128, 0, stream_of(op),
                  data<int64_t>(op.out()), data<T>(op.in(0)), data<T>(op.in(1)), count, op.in(0).shape.back(),
                  shape.empty() ? int64_t(1) : shape.back(), op.in(0).shape.size() == 1, op.attributes.flag("right"));
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_sort(Kernels kernels) {
  kernels["sort"] = gpu::sort_kernel;
  kernels["topk"] = gpu::topk_kernel;
  kernels["searchsorted"] = gpu::searchsorted_kernel;
}

}  // namespace tandem
