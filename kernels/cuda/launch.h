// The spellings that only nvcc can parse: a kernel launch, and shared memory.
//
// Everything else in a .cu file is C++ to any compiler, so that g++ can build the same files against the
// emulator in tests/emulator.
#pragma once

#include <cuda_runtime.h>

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

// TANDEM_LAUNCH((kernel<float, 4>), grid, block, shared_bytes, stream, arguments...)
#define TANDEM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                     \
  do {                                                                                    \
    auto* const tandem_kernel = kernel;                                                   \
    const cudaStream_t tandem_stream = stream;                                            \
    tandem_kernel<<<(grid), (block), (shared_bytes), tandem_stream>>>(__VA_ARGS__);       \
    ::tandem::gpu::check_launch(cudaGetLastError(), "launch of " #kernel, tandem_stream); \
  } while (false)

// TANDEM_SHARED(float, tile, [32][33])
#define TANDEM_SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__

#define TANDEM_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char tandem_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(tandem_dynamic_shared)

#else  // the emulator has its own shared memory

#define TANDEM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                       \
  do {                                                                                                      \
    const cudaStream_t tandem_stream = stream;                                                              \
    ::tandem::gpu::check_launch(::tandem_emulator::launch_kernel((kernel), (grid), (block), (shared_bytes), \
                                                                 tandem_stream __VA_OPT__(, ) __VA_ARGS__), \
                                "launch of " #kernel, tandem_stream);                                       \
  } while (false)

#endif

namespace tandem::gpu {

/// A KernelError that names the call and CUDA's own reason. Whoever ran the op adds its name and the user's line.
[[noreturn]] void raise(cudaError_t error, const char* what);

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) raise(error, what);
}
/// After a launch. With TANDEM_CUDA_SYNC=1 (or set_synchronous) it waits, so that what the kernel did wrong is found here.
void check_launch(cudaError_t error, const char* what, cudaStream_t stream);

}  // namespace tandem::gpu
