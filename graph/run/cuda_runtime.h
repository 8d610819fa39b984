// What the CUDA runtime builds for a generated source, for tests of its cache.
#pragma once

#include <string>
#include <vector>

#include "core/device.h"

namespace tandem::graph {

/// What the device's compiler made of a generated source.
struct CudaBinary {
  std::string bytes;
  double compile_seconds = 0;  ///< 0 where the cache on disk had it
  bool from_cache = false;
  std::string note;  ///< why it is not cached on disk, or what was wrong with the entry there
};
/// From the cache on disk (native/disk_cache.h: KEY.cu, KEY.cubin), else from the compiler. CompileError where that
/// refuses it.
CudaBinary build_cuda_source(const std::string& source, const std::vector<std::string>& names, Device device);

}  // namespace tandem::graph
