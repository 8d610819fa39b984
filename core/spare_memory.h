// Memory that nobody uses while a kernel runs: where a plan's arena has a gap, scratch memory needs no allocator.
#pragma once

#include <cstddef>

namespace tandem {

struct SpareMemory {
  char* begin = nullptr;  ///< 64-byte aligned
  size_t bytes = 0;

  /// A piece from the front; null if it is too small.
  void* take(size_t wanted) {
    wanted = (wanted + 63) / 64 * 64;
    if (wanted > bytes) return nullptr;
    void* const taken = begin;
    begin += wanted;
    bytes -= wanted;
    return taken;
  }
  /// What was taken last comes back; earlier pieces don't.
  void give_back(void* taken, size_t wanted) {
    wanted = (wanted + 63) / 64 * 64;
    if (static_cast<char*>(taken) + wanted != begin) return;
    begin -= wanted;
    bytes += wanted;
  }
};
/// What kernels on this thread may use. None outside planned steps.
extern constinit thread_local SpareMemory spare_memory;

}  // namespace tandem
