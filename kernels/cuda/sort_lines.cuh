// Sorting lines of items, each a key and the position that it comes from, so that no two are equal: any sort of them is stable, and
// the same bits at every run.
//
// A block sorts a tile in shared memory: 8 or 16 items a thread in registers, then runs are merged in pairs, every thread finding
// where its share begins by a binary search along a diagonal (merge path). Short lines lie side by side in a tile. Lines of several
// tiles are merged by further launches, each of which reads and writes every item once, in whole lines of memory.
#pragma once

#include <algorithm>

#include "kernels/cuda/kernels.h"

namespace tandem::gpu {

constexpr int sort_threads = 256;

/// For keys of 32 bits, and lines of fewer than 2^32 - 1 elements.
struct PackedItem {
  static constexpr int per_thread = 16;
  uint64_t bits;
  static __device__ __forceinline__ PackedItem make(uint64_t key, int64_t at) { return {key << 32 | uint64_t(at)}; }
  static __device__ __forceinline__ PackedItem last() { return {~uint64_t(0)}; }
  __device__ __forceinline__ uint64_t key() const { return bits >> 32; }
  __device__ __forceinline__ int64_t at() const { return int64_t(bits & 0xffffffffu); }
  friend __device__ __forceinline__ bool operator<(PackedItem a, PackedItem b) { return a.bits < b.bits; }
};
struct WideItem {
  static constexpr int per_thread = 8;
  uint64_t first;
  int64_t second;
  static __device__ __forceinline__ WideItem make(uint64_t key, int64_t at) { return {key, at}; }
  static __device__ __forceinline__ WideItem last() { return {~uint64_t(0), 0x7fffffffffffffff}; }
  __device__ __forceinline__ uint64_t key() const { return first; }
  __device__ __forceinline__ int64_t at() const { return second; }
  friend __device__ __forceinline__ bool operator<(const WideItem& a, const WideItem& b) {
    return a.first != b.first ? a.first < b.first : a.second < b.second;
  }
};
template <class Item> inline constexpr int sort_tile = sort_threads* Item::per_thread;

// --- where items come from, and where they go ------------------------------------------------------------------

template <class Item> struct ItemSource {
  const Item* items;
  int64_t line_stride;
  __device__ __forceinline__ Item operator()(int64_t line, int64_t i) const { return items[line * line_stride + i]; }
};

/// The first `kept` of each tile, or, once a line is sorted, of the line: as items, or as the elements of x that they stand for and
/// their positions.
template <class Item> struct ItemSink {
  Item* items = nullptr;
  int64_t line_stride = 0, kept = 0;
  void* values = nullptr;  // [lines, kept]
  int64_t* indices = nullptr;
  const void* x = nullptr;  // [lines, n], elements of `size` bytes
  int64_t n = 0;
  int size = 0;

  __device__ __forceinline__ void tile(int64_t line, int64_t which, int64_t i, Item item) const {
    if (i >= kept) return;
    if (items) items[line * line_stride + which * kept + i] = item;
    else result(line, i, item);
  }
  __device__ __forceinline__ void merged(int64_t line, int64_t i, Item item) const {
    if (i >= kept) return;
    if (items) items[line * line_stride + i] = item;
    else result(line, i, item);
  }
  __device__ __forceinline__ void result(int64_t line, int64_t i, Item item) const {
    const int64_t to = line * kept + i, from = line * n + item.at();
    indices[to] = item.at();
    switch (size) {
      case 1: static_cast<uint8_t*>(values)[to] = static_cast<const uint8_t*>(x)[from]; break;
      case 2: static_cast<uint16_t*>(values)[to] = static_cast<const uint16_t*>(x)[from]; break;
      case 4: static_cast<uint32_t*>(values)[to] = static_cast<const uint32_t*>(x)[from]; break;
      default: static_cast<uint64_t*>(values)[to] = static_cast<const uint64_t*>(x)[from]; break;
    }
  }
};

// --- in a block ------------------------------------------------------------------------------------------------

/// A tile in shared memory, with a gap after each thread's items, so that neighbouring threads use different banks.
template <class Item> struct Tile {
  static constexpr int P = Item::per_thread, size = sort_tile<Item>;
  using Memory = Item[size + size / P];
  Item* items;
  __device__ __forceinline__ Item& operator[](unsigned i) const { return items[i + i / P]; }

  /// How many of the first `diagonal` items of two sorted runs, merged, are the first run's.
  __device__ __forceinline__ unsigned split(unsigned a, unsigned a_count, unsigned b, unsigned b_count,
                                            unsigned diagonal) const {
    unsigned low = diagonal > b_count ? diagonal - b_count : 0, high = diagonal < a_count ? diagonal : a_count;
    while (low < high) {
      const unsigned middle = (low + high) / 2;
      if ((*this)[a + middle] < (*this)[b + diagonal - 1 - middle]) low = middle + 1;
      else high = middle;
    }
    return low;
  }
  /// The next items of the two from that diagonal on.
  __device__ __forceinline__ void merge(Item (&to)[P], unsigned a, unsigned a_count, unsigned b, unsigned b_count,
                                        unsigned diagonal) const {
    unsigned i = split(a, a_count, b, b_count, diagonal), j = diagonal - i;
    Item x = i < a_count ? (*this)[a + i] : Item::last(), y = j < b_count ? (*this)[b + j] : Item::last();
#pragma unroll
    for (int k = 0; k < P; ++k) {
      if (j >= b_count || (i < a_count && x < y)) {
        to[k] = x;
        ++i;
        x = i < a_count ? (*this)[a + i] : Item::last();
      } else {
        to[k] = y;
        ++j;
        y = j < b_count ? (*this)[b + j] : Item::last();
      }
    }
  }
  __device__ __forceinline__ void put(const Item (&from)[P]) const {
#pragma unroll
    for (int k = 0; k < P; ++k) (*this)[threadIdx.x * P + unsigned(k)] = from[k];
  }
};

/// A bitonic network in registers.
template <class Item, int P> __device__ __forceinline__ void sort_registers(Item (&items)[P]) {
#pragma unroll
  for (int size = 2; size <= P; size *= 2) {
#pragma unroll
    for (int apart = size / 2; apart > 0; apart /= 2) {
#pragma unroll
      for (int i = 0; i < P; ++i) {
        if ((i & apart) != 0) continue;
        const bool up = (i & size) == 0 || size == P;
        const Item a = items[i], b = items[i + apart];
        const bool swap = up ? b < a : a < b;
        items[i] = swap ? b : a;
        items[i + apart] = swap ? a : b;
      }
    }
  }
}

// Lines of one tile or less, several in a block, or the tiles of longer ones. Reads and writes neighbours; what happens between is
// in registers and shared memory.
template <class Item, class Source>
__global__ void __launch_bounds__(sort_threads)
    sort_tiles(Source source, ItemSink<Item> sink, int64_t lines, int64_t n, int64_t tiles, int log_slots) {
  constexpr int P = Item::per_thread;
  using Memory = typename Tile<Item>::Memory;
  TANDEM_SHARED(Memory, memory, );
  const Tile<Item> tile{memory};
  const unsigned slots = 1u << log_slots;  // of a line, or of a tile
  int64_t first = int64_t(blockIdx.x) * (sort_tile<Item> >> log_slots), which = 0;
  if (tiles > 1) {
    which = first % tiles;
    first /= tiles;
  }
  const int64_t begin = which * sort_tile<Item>;
  for (unsigned s = threadIdx.x; s < sort_tile<Item>; s += sort_threads) {
    const int64_t line = first + (s >> log_slots), i = begin + (s & (slots - 1));
    tile[s] = line < lines && i < n ? source(line, i) : Item::last();
  }
  __syncthreads();
  Item items[P];
#pragma unroll
  for (int k = 0; k < P; ++k) items[k] = tile[threadIdx.x * P + unsigned(k)];
  sort_registers(items);
  tile.put(items);  // each thread writes what it alone has read
  __syncthreads();
  for (unsigned width = P; width < slots; width *= 2) {
    const unsigned at = threadIdx.x * P, base = at & ~(2 * width - 1);
    tile.merge(items, base, width, base + width, width, at - base);
    __syncthreads();
    tile.put(items);
    __syncthreads();
  }
  for (unsigned s = threadIdx.x; s < sort_tile<Item>; s += sort_threads) {
    const int64_t line = first + (s >> log_slots);
    const unsigned i = s & (slots - 1);
    if (line < lines && begin + i < n) sink.tile(line, which, i, tile[s]);
  }
}

/// Tile::split of runs in device memory, by a warp: 32 places at once.
template <class Item>
__device__ __forceinline__ int64_t split_by_warp(const Item* a, int64_t a_count, const Item* b, int64_t b_count,
                                                 int64_t diagonal) {
  int64_t low = diagonal > b_count ? diagonal - b_count : 0, high = diagonal < a_count ? diagonal : a_count;
  while (low < high) {
    const int64_t length = high - low, place = low + length * int64_t(threadIdx.x % 32) / 32;
    const bool below = a[place] < b[diagonal - 1 - place];
    const int count = __popc(__ballot_sync(all_lanes, below));
    if (count < 32) high = low + length * count / 32;
    if (count > 0) low = low + length * (count - 1) / 32 + 1;
  }
  return low;
}

// Runs of `width` merged in pairs: a block writes one tile of the result.
template <class Item>
__global__ void __launch_bounds__(sort_threads)
    merge_runs(const Item* from, ItemSink<Item> sink, int64_t n, int64_t width, int64_t tiles) {
  constexpr int P = Item::per_thread;
  using Memory = typename Tile<Item>::Memory;
  TANDEM_SHARED(Memory, memory, );
  TANDEM_SHARED(int64_t, splits, [2]);
  const Tile<Item> tile{memory};
  const int64_t line = int64_t(blockIdx.x) / tiles, begin = int64_t(blockIdx.x) % tiles * sort_tile<Item>;
  const int64_t base = begin / (2 * width) * (2 * width), middle = base + width < n ? base + width : n,
                end = middle + width < n ? middle + width : n;
  const Item *a = from + line * n + base, *b = from + line * n + middle;
  const int64_t first = begin - base,
                last = first + sort_tile<Item> < end - base ? first + sort_tile<Item> : end - base;
  if (threadIdx.x < 64) {
    const int64_t split = split_by_warp(a, middle - base, b, end - middle, threadIdx.x < 32 ? first : last);
    if (threadIdx.x % 32 == 0) splits[threadIdx.x / 32] = split;
  }
  __syncthreads();
  const unsigned count = unsigned(last - first), a_count = unsigned(splits[1] - splits[0]), b_count = count - a_count;
  a += splits[0];
  b += first - splits[0];
  for (unsigned s = threadIdx.x; s < count; s += sort_threads) tile[s] = s < a_count ? a[s] : b[s - a_count];
  __syncthreads();
  Item items[P];
  const unsigned at = threadIdx.x * P;
  tile.merge(items, 0, a_count, a_count, b_count, at < count ? at : count);
  __syncthreads();
  tile.put(items);
  __syncthreads();
  for (unsigned s = threadIdx.x; s < count; s += sort_threads) sink.merged(line, begin + s, tile[s]);
}

// --- launching -------------------------------------------------------------------------------------------------

inline int log2_above(int64_t n) {
  int log = 0;
  while ((int64_t(1) << log) < n) ++log;
  return log;
}

template <class Item, class Source>
void launch_tiles(const Source& source, const ItemSink<Item>& sink, int64_t lines, int64_t n, cudaStream_t stream) {
  const int64_t tiles = std::max(int64_t(1), ceil_divide(n, int64_t(sort_tile<Item>)));
  const int slots = std::max(log2_above(Item::per_thread), log2_above(std::min(n, int64_t(sort_tile<Item>))));
  const int64_t blocks = ceil_divide(lines * tiles, int64_t(sort_tile<Item> >> slots));
  TANDEM_ASSERT(blocks < (int64_t(1) << 31), "too many lines for one launch");
  TANDEM_LAUNCH((sort_tiles<Item, Source>), unsigned(blocks), sort_threads, 0, stream, source, sink, lines, n, tiles,
                slots);
}

/// Bytes of workspace that a line of `n` takes.
template <class Item> int64_t sort_bytes(int64_t n) { return n <= sort_tile<Item> ? 0 : 2 * n * int64_t(sizeof(Item)); }

/// The first sink.kept of each line, in order. `space` has sort_bytes<Item>(n) for each line.
template <class Item, class Source>
void sort_lines(const Source& source, const ItemSink<Item>& sink, int64_t lines, int64_t n, Item* space,
                cudaStream_t stream) {
  constexpr int64_t tile = sort_tile<Item>;
  if (n <= tile) return launch_tiles(source, sink, lines, n, stream);
  Item *from = space, *to = space + lines * n;
  ItemSink<Item> items{.items = from};
  if (sink.kept <= tile / 4) {  // few of many: what can't be among them is dropped tile by tile
    const auto left = [&](int64_t count) {
      const int64_t whole = count / tile;
      return whole * sink.kept + std::min(sink.kept, count - whole * tile);
    };
    items.kept = sink.kept;
    items.line_stride = left(n);
    launch_tiles(source, items, lines, n, stream);
    for (int64_t count = left(n);; count = left(count), std::swap(from, to)) {
      const ItemSource<Item> again{from, count};
      if (count <= tile) return launch_tiles(again, sink, lines, count, stream);
      items.items = to;
      items.line_stride = left(count);
      launch_tiles(again, items, lines, count, stream);
    }
  }
  items.kept = tile;
  items.line_stride = n;
  launch_tiles(source, items, lines, n, stream);
  items.kept = n;
  for (int64_t width = tile; width < n; width *= 2, std::swap(from, to)) {
    const bool last = 2 * width >= n;
    items.items = to;
    const int64_t tiles = ceil_divide(last ? sink.kept : n, tile);
    TANDEM_ASSERT(lines * tiles < (int64_t(1) << 31), "too many lines for one launch");
    TANDEM_LAUNCH((merge_runs<Item>), unsigned(lines * tiles), sort_threads, 0, stream, from, last ? sink : items, n,
                  width, tiles);
  }
}

}  // namespace tandem::gpu
