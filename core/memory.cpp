// Caching allocators: freed blocks wait in lists by size class and are handed out again, so a
// training loop stops asking the system after its first step. Four classes to each doubling, so
// at most a fifth of a block is wasted.
#include "core/memory.h"

#include <bit>
#include <memory>
#include <string>
#include <vector>

#include "core/held_memory.h"
#include "core/pool.h"
#include "core/spare_memory.h"

namespace tandem {

constinit thread_local SpareMemory spare_memory;

namespace {

constexpr size_t kSmallest = 64;
constexpr int kClasses = 4 * (64 - 6) + 1;  // of every size_t, though none beyond kLargest is ever handed out
constexpr size_t kLargest = size_t{1} << 62;

/// Rounds up to the next size class: (4 + k) * 2^n for k in 0..3, at least 64 bytes. What rounds up to 2^64 becomes 0.
int class_of(size_t bytes, size_t& rounded) {
  if (bytes <= kSmallest) {
    rounded = kSmallest;
    return 0;
  }
  const int log = std::bit_width(bytes - 1) - 1;  // 2^log < = bytes-1
  const size_t quarter = size_t{1} << (log - 2);
  const size_t steps = (bytes - 1) / quarter + 1;  // 5..8
  rounded = steps * quarter;
  return (log - 6) * 4 + static_cast<int>(steps) - 4;
}

class SpinLock {
 public:
  void lock() {
    while (flag_.test_and_set(std::memory_order_acquire)) {
      while (flag_.test(std::memory_order_relaxed)) {}
    }
  }
  void unlock() { flag_.clear(std::memory_order_release); }

 private:
  std::atomic_flag flag_;
};

struct Hold {
  explicit Hold(SpinLock& lock) : lock(lock) { lock.lock(); }
  ~Hold() { lock.unlock(); }
  SpinLock& lock;
};

class CachingAllocator {
 public:
  explicit CachingAllocator(Device device) : device_(device) {}

  void* allocate(size_t bytes) {
    size_t rounded;
    const int size_class = class_of(bytes, rounded);
    {
      Hold hold(lock_);
      ++stats_.allocations;
      if (auto& list = free_[size_class]; !list.empty()) {
        void* data = list.back();
        list.pop_back();
        use(rounded);
        return data;
      }
    }
    return allocate_from_device(rounded, size_class);
  }

  /// Allocates nothing: destructors call it, also while an exception is on its way.
  void release(void* data, size_t bytes) {
    size_t rounded;
    const int size_class = class_of(bytes, rounded);
    Hold hold(lock_);
    stats_.in_use -= static_cast<int64_t>(rounded);
    free_[size_class].push_back(data);
  }

  /// Of no class.
  void* allocate_held(size_t bytes) {
    if (bytes > kLargest) out_of_memory(bytes);
    void* const data = from_device(bytes);
    Hold hold(lock_);
    ++stats_.allocations;
    taken(bytes);
    return data;
  }
  void release_held(void* data, size_t bytes) {
    backend(device_.kind).release(device_, data, bytes);
    Hold hold(lock_);
    stats_.in_use -= static_cast<int64_t>(bytes);
    stats_.reserved -= static_cast<int64_t>(bytes);
  }

  void trim() {
    Hold hold(lock_);
    for (int c = 0; c < kClasses; ++c) {
      if (free_[c].empty()) continue;
      const size_t bytes = c == 0 ? kSmallest : static_cast<size_t>((c - 1) % 4 + 5) << ((c - 1) / 4 + 4);
      for (void* data : free_[c]) {
        backend(device_.kind).release(device_, data, bytes);
        stats_.reserved -= static_cast<int64_t>(bytes);
      }
      blocks_[c] -= free_[c].size();
      free_[c].clear();  // and keeps room for those that are in use
    }
  }

  MemoryStats stats() {
    Hold hold(lock_);
    return stats_;
  }
  void reset_peak() {
    Hold hold(lock_);
    stats_.peak = stats_.in_use;
  }
  void set_limit(int64_t bytes) {
    Hold hold(lock_);
    limit_ = bytes;
  }

 private:
  void use(size_t rounded) {
    stats_.in_use += static_cast<int64_t>(rounded);
    if (stats_.in_use > stats_.peak) stats_.peak = stats_.in_use;
  }

  [[gnu::noinline]] void* allocate_from_device(size_t rounded, int size_class) {
    if (rounded == 0 || rounded > kLargest) out_of_memory(rounded);
    struct Room {  // in the list, for one block more
      CachingAllocator& all;
      int c;
      bool taken = false;
      Room(CachingAllocator& all, int c) : all(all), c(c) {
        Hold hold(all.lock_);
        std::vector<void*>& list = all.free_[c];
        if (list.capacity() <= all.blocks_[c]) list.reserve(2 * all.blocks_[c] + 1);
        ++all.blocks_[c];
      }
      ~Room() {
        if (taken) return;
        Hold hold(all.lock_);
        --all.blocks_[c];
      }
    } room(*this, size_class);
    void* const data = from_device(rounded);
    Hold hold(lock_);
    taken(rounded);
    room.taken = true;
    return data;
  }

  /// Trims where there is no room otherwise.
  void* from_device(size_t bytes) {
    if (!device_.is_cpu()) cuda(device_.index);  // throws where there is no such device
    for (const bool trimmed : {false, true}) {
      const int64_t limit = limit_;
      if (limit == 0 || stats().reserved + static_cast<int64_t>(bytes) <= limit)
        if (void* const data = backend(device_.kind).allocate(device_, bytes)) return data;
      if (!trimmed) trim();
    }
    out_of_memory(bytes);
  }
  void taken(size_t bytes) {
    stats_.reserved += static_cast<int64_t>(bytes);
    ++stats_.device_allocations;
    use(bytes);
  }

  [[noreturn]] void out_of_memory(size_t bytes) {  // 0: 2^64 of them
    const MemoryStats now = stats();
    throw OutOfMemoryError(
        detail::str(to_string(device_), ": no room for ", bytes ? std::to_string(bytes) : "2^64",
                    " bytes: ", now.in_use, " in use, ", now.reserved, " reserved",
                    limit_ ? detail::str(", limit ", limit_.load()) : std::string(),
                    "; use a smaller batch, run under NoGrad where no gradient is needed, or raise set_memory_limit"),
        Where());
  }

  Device device_;
  SpinLock lock_;
  std::vector<void*> free_[kClasses];
  size_t blocks_[kClasses] = {};  ///< of each class, free or in use: each has its place in the list
  MemoryStats stats_;
  std::atomic<int64_t> limit_{0};
};

CachingAllocator& allocator(Device device) {
  // Never destroyed: tensors in static storage may outlive everything else.
  static CachingAllocator* const cpu_allocator = new CachingAllocator(Device{});
  if (device.is_cpu()) return *cpu_allocator;
  static CachingAllocator* const* const cuda_allocators = [] {
    auto** all = new CachingAllocator*[256];
    for (int i = 0; i < 256; ++i) all[i] = new CachingAllocator(Device{DeviceKind::cuda, static_cast<uint8_t>(i)});
    return all;
  }();
  return *cuda_allocators[device.index];
}

}  // namespace

MemoryStats memory_stats(Device device) { return allocator(device).stats(); }
void reset_peak_memory(Device device) { allocator(device).reset_peak(); }
void trim_memory(Device device) { allocator(device).trim(); }
void set_memory_limit(int64_t bytes, Device device) { allocator(device).set_limit(bytes); }

Storage* Storage::allocate(size_t bytes, Device device) {
  Storage* storage = Pool<Storage>::create();
  try {
    storage->data = allocator(device).allocate(bytes);
  } catch (...) {
    Pool<Storage>::destroy(storage);
    throw;
  }
  storage->bytes = bytes;
  storage->device = device;
  return storage;
}

Storage* allocate_held(size_t bytes, Device device) {
  struct Held {
    void* data;
    size_t bytes;
    Device device;
  };
  auto held = std::make_unique<Held>(Held{nullptr, bytes, device});
  Storage* const storage = Storage::wrap(
      nullptr, bytes, device,
      [](void* context) {
        const std::unique_ptr<Held> ends(static_cast<Held*>(context));
        if (ends->data) allocator(ends->device).release_held(ends->data, ends->bytes);
      },
      held.get());
  Held& kept = *held.release();
  try {
    kept.data = storage->data = allocator(device).allocate_held(bytes);
  } catch (...) {
    storage->release();
    throw;
  }
  return storage;
}

Storage* Storage::wrap(void* data, size_t bytes, Device device, void (*deleter)(void*), void* context) {
  Storage* storage = Pool<Storage>::create();
  storage->data = data;
  storage->bytes = bytes;
  storage->device = device;
  storage->owned_ = false;
  storage->deleter_ = deleter;
  storage->context_ = context;
  return storage;
}

void Storage::destroy() {
  if (owned_) allocator(device).release(data, bytes);
  else if (deleter_) deleter_(context_);
  Pool<Storage>::destroy(this);
}

}  // namespace tandem
