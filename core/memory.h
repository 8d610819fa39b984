// The caching allocators, one per device: statistics, limit, trimming; and reference-counted storage.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "device.h"
#include "error.h"

namespace tandem {

struct MemoryStats {
  int64_t in_use = 0;              ///< bytes held by live storages (rounded up to their block)
  int64_t peak = 0;                ///< most bytes in use since the last reset_peak
  int64_t reserved = 0;            ///< bytes taken from the device: in use + cached
  int64_t allocations = 0;         ///< requests served
  int64_t device_allocations = 0;  ///< of these, how many went to the device
};
MemoryStats memory_stats(Device device = {});
void reset_peak_memory(Device device = {});
/// Gives cached blocks back to the device.
void trim_memory(Device device = {});
/// Most bytes that may be reserved; 0 is no limit. Beyond it an OutOfMemoryError is thrown.
void set_memory_limit(int64_t bytes, Device device = {});

/// Memory that tensors share. Its version counts writes, so that autograd can tell when a
/// saved tensor was overwritten.
class Storage {
 public:
  /// `bytes` of uninitialised memory, 64-byte aligned.
  static Storage* allocate(size_t bytes, Device device);
  /// Memory that somebody else owns; `deleter(context)` runs when the last tensor lets go.
  static Storage* wrap(void* data, size_t bytes, Device device, void (*deleter)(void*) = nullptr,
                       void* context = nullptr);

  void retain() { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (references_.load(std::memory_order_acquire) == 1 || references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
      destroy();
  }
  int references() const { return references_.load(std::memory_order_relaxed); }

  void* data = nullptr;
  size_t bytes = 0;
  Device device;
  uint32_t version = 0;
  Where last_write;  ///< the line of the last assign

 private:
  void destroy();
  std::atomic<int> references_{1};
  bool owned_ = true;
  void (*deleter_)(void*) = nullptr;
  void* context_ = nullptr;
};

}  // namespace tandem
