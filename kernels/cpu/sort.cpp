// sort, topk and searchsorted. A row's elements become unsigned keys in the same order, NaN last, each with its
// position behind it: so items are unique, any sort of them is stable, and comparing two is one instruction.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "core/op.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

/// Unsigned numbers in the order of x. Both zeros are one key, as is every NaN.
uint32_t key_of(int32_t x) { return static_cast<uint32_t>(x) ^ 0x80000000u; }
uint64_t key_of(int64_t x) { return static_cast<uint64_t>(x) ^ (uint64_t{1} << 63); }
uint32_t key_of(float x) {
  if (x != x) return ~0u;
  uint32_t bits;
  x += 0.0f;  // -0 to 0
  std::memcpy(&bits, &x, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
uint64_t key_of(double x) {
  if (x != x) return ~uint64_t{0};
  uint64_t bits;
  x += 0.0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits >> 63 ? ~bits : bits | (uint64_t{1} << 63);
}

/// Key and position in one number, for keys of 32 bits and rows shorter than 2^32.
struct Packed {
  uint64_t bits;
  Packed() = default;
  Packed(uint64_t key, int64_t at) : bits(key << 32 | static_cast<uint64_t>(at)) {}
  int64_t at() const { return static_cast<int64_t>(bits & 0xffffffffu); }
  bool operator<(const Packed& other) const { return bits < other.bits; }
};
struct Wide {
  uint64_t key;
  int64_t position;
  Wide() = default;
  Wide(uint64_t key, int64_t at) : key(key), position(at) {}
  int64_t at() const { return position; }
  bool operator<(const Wide& other) const { return key != other.key ? key < other.key : position < other.position; }
};

template <class Item> void sort_items(std::vector<Item>& items, std::vector<Item>&) {
  std::sort(items.begin(), items.end());
}

/// Long rows by their keys, 11 bits at a time from the lowest; equal digits keep their order.
void sort_items(std::vector<Packed>& items, std::vector<Packed>& spare) {
  constexpr size_t kLong = 2048, kDigits = 2048;
  if (items.size() < kLong) return std::sort(items.begin(), items.end());
  spare.resize(items.size());
  for (int shift = 32; shift < 64; shift += 11) {
    size_t place[kDigits + 1] = {};
    for (const Packed& item : items) ++place[(item.bits >> shift) % kDigits + 1];
    for (size_t d = 0; d < kDigits; ++d) place[d + 1] += place[d];
    for (const Packed& item : items) spare[place[(item.bits >> shift) % kDigits]++] = item;
    std::swap(items, spare);
  }
}

/// Moves `count` elements of that size: to[i * step] = from[places[i * step] * step].
template <class T> void take(const char* from, char* to, const int64_t* places, int64_t count, int64_t step) {
  for (int64_t i = 0; i < count; ++i)
    reinterpret_cast<T*>(to)[i * step] = reinterpret_cast<const T*>(from)[places[i * step] * step];
}

/// The first `kept` of each row along dim, in order.
template <class T, class Item> void order_rows(KernelContext& c, int64_t kept) {
  const TensorImpl& x = c.in(0);
  const int dim = static_cast<int>(c.attributes.integer("dim"));
  const bool descending = c.attributes.flag("descending");
  int64_t outer = 1, inner = 1;
  for (int d = 0; d < x.shape.size(); ++d)
    if (d != dim) (d < dim ? outer : inner) *= x.shape[d];
  const int64_t n = x.shape[dim], size = size_of(x.dtype);
  if (outer * inner * kept == 0) return;
  const WideInput<T> wide(x);
  const char* from = static_cast<const char*>(x.data);
  char* values = static_cast<char*>(c.out(0).data);
  int64_t* indices = static_cast<int64_t*>(c.out(1).data);
  parallel_for(outer * inner, std::max<int64_t>(1, kPointwiseGrain / (8 * std::max<int64_t>(n, 1))),
               [&](int64_t begin, int64_t end) {
                 std::vector<Item> items, spare;
                 for (int64_t row = begin; row < end; ++row) {
                   const int64_t first = row / inner * n * inner + row % inner,
                                 to = row / inner * kept * inner + row % inner;
                   items.resize(static_cast<size_t>(n));
                   for (int64_t i = 0; i < n; ++i) {
                     const auto key = key_of(wide.data()[first + i * inner]);
                     items[static_cast<size_t>(i)] = Item(descending ? static_cast<decltype(key)>(~key) : key, i);
                   }
                   if (kept < n) {
                     std::nth_element(items.begin(), items.begin() + kept, items.end());
                     items.resize(static_cast<size_t>(kept));
                     std::sort(items.begin(), items.end());  // no longer by position, as sorting by digits needs them
                   } else {
                     sort_items(items, spare);
                   }
                   for (int64_t i = 0; i < kept; ++i) indices[to + i * inner] = items[static_cast<size_t>(i)].at();
                   const char* row_from = from + first * size;
                   char* row_to = values + to * size;
                   switch (size) {
                     case 1: take<uint8_t>(row_from, row_to, indices + to, kept, inner); break;
                     case 2: take<uint16_t>(row_from, row_to, indices + to, kept, inner); break;
                     case 4: take<uint32_t>(row_from, row_to, indices + to, kept, inner); break;
                     default: take<uint64_t>(row_from, row_to, indices + to, kept, inner); break;
                   }
                 }
               });
}

void order_kernel(KernelContext& c, int64_t kept) {
  const bool packs = c.in(0).shape.numel() <= std::numeric_limits<uint32_t>::max();
  switch (c.in(0).dtype) {
    case DType::float64: return order_rows<double, Wide>(c, kept);
    case DType::int64: return order_rows<int64_t, Wide>(c, kept);
    case DType::float32:
    case DType::float16:
    case DType::bfloat16: return packs ? order_rows<float, Packed>(c, kept) : order_rows<float, Wide>(c, kept);
    default: return packs ? order_rows<int32_t, Packed>(c, kept) : order_rows<int32_t, Wide>(c, kept);
  }
}

template <class T> void search_rows(KernelContext& c) {
  const Shape& shape = c.out().shape;
  if (shape.numel() == 0) return;
  const WideInput<T> sorted(c.in(0)), values(c.in(1));
  const bool right = c.attributes.flag("right"), shared = c.in(0).shape.size() == 1;
  const int64_t n = c.in(0).shape.back(), per_row = shape.empty() ? 1 : shape.back();
  int64_t* out = static_cast<int64_t*>(c.out().data);
  parallel_for(shape.numel(), kPointwiseGrain / 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* row = sorted.data() + (shared ? 0 : i / per_row * n);
      const auto wanted = key_of(values.data()[i]);
      const auto place = right ? std::upper_bound(row, row + n, wanted, [](auto key, T x) { return key < key_of(x); })
                               : std::lower_bound(row, row + n, wanted, [](T x, auto key) { return key_of(x) < key; });
      out[i] = place - row;
    }
  });
}

void searchsorted_kernel(KernelContext& c) {
  switch (c.in(0).dtype) {
    case DType::float64: return search_rows<double>(c);
    case DType::float32:
    case DType::float16:
    case DType::bfloat16: return search_rows<float>(c);
    default: return search_rows<int64_t>(c);
  }
}

}  // namespace

void add_cpu_sort(Kernels kernels) {
  kernels["sort"] = [](KernelContext& c) {
    order_kernel(c, c.in(0).shape[static_cast<int>(c.attributes.integer("dim"))]);
  };
  kernels["topk"] = [](KernelContext& c) { order_kernel(c, c.attributes.integer("k")); };
  kernels["searchsorted"] = searchsorted_kernel;
}

}  // namespace tandem
