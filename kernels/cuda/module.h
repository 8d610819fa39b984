// CUDA C++ source to kernels at run time: NVRTC, or in the emulated build the system's C++ compiler. Names no CUDA
// type.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "core/device.h"

namespace tandem::gpu {

/// Put this in front of generated sources. It defines TANDEM_SHARED(type, name, [dims]) for __shared__ variables (the
/// emulator, which has no __shared__, defines it itself) and TANDEM_DYNAMIC_SHARED(type, name).
extern const char* const source_prelude;

/// What compiled code depends on beside the source: compiler, version and architecture. Part of a cache's key.
std::string compiler_identity(Device device);

/// Compiles `source`, whose kernels are all `extern "C" __global__ void name(…)`, and returns the binary (a cubin).
/// CompileError with the compiler's own words otherwise.
std::string compile_source(const std::string& source, std::span<const std::string> kernel_names, Device device);

/// A binary of compile_source in memory, ready to launch from.
class Module {
 public:
  Module(const std::string& binary, Device device);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  /// The kernel of that name, for launch(). Valid as long as the module.
  void* kernel(const std::string& name) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};
/// `arguments[i]` points at the i-th argument. The launch goes to the device's stream; it is recorded by a capture.
void launch(void* kernel, Extent grid, Extent block, size_t shared_bytes, void** arguments, Device device);

}  // namespace tandem::gpu
