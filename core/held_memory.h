// Memory that is held for long: of as many bytes as are asked for, where caching allocators round up to a class.
#pragma once

#include "memory.h"

namespace tandem {

/// `bytes` of uninitialised memory, 64-byte aligned, straight from the device; let go, it goes back there. It counts in
/// memory_stats() and against the limit as the rest does. OutOfMemoryError.
Storage* allocate_held(size_t bytes, Device device);

}  // namespace tandem
