// CUDA C++ source to kernels at run time, by NVRTC and the runtime's library interface.
#include <nvrtc.h>

#include <vector>

#include "kernels/cuda/context.h"
#include "kernels/cuda/module.h"

namespace tandem::gpu {
namespace {

void check_nvrtc(nvrtcResult result, const char* what) {
  if (result == NVRTC_SUCCESS) return;
  throw CompileError(detail::str("NVRTC: ", what, ": ", nvrtcGetErrorString(result)), Where::current());
}

// compute capability as in 90
int architecture(Device device) {
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index), "reading device properties");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.index), "reading device properties");
  return major * 10 + minor;
}

}  // namespace

const char* const source_prelude =
    "#define TANDEM_SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__\n"
    "#define TANDEM_DYNAMIC_SHARED(type, name)                                                                   \\\n"
    "  extern __shared__ __align__(16) unsigned char tandem_dynamic_shared[];                                   \\\n"
    "  type* const name = reinterpret_cast<type*>(tandem_dynamic_shared)\n";

std::string compiler_identity(Device device) {
  int major = 0, minor = 0;
  check_nvrtc(nvrtcVersion(&major, &minor), "version");
  return detail::str("NVRTC ", major, ".", minor, ", sm_", architecture(device));
}

std::string compile_source(const std::string& source, std::span<const std::string>, Device device) {
  nvrtcProgram program = nullptr;
  check_nvrtc(nvrtcCreateProgram(&program, source.c_str(), "generated.cu", 0, nullptr, nullptr), "creating a program");
  const std::string target = detail::str("-arch=sm_", architecture(device));
  // No contraction: one operation of the source is one rounding, as in eager kernels.
  const char* options[] = {target.c_str(), "-std=c++20", "-fmad=false", "-default-device"};
  const nvrtcResult result = nvrtcCompileProgram(program, 4, options);
  std::string binary;
  if (result != NVRTC_SUCCESS) {
    size_t size = 0;
    std::string log;
    if (nvrtcGetProgramLogSize(program, &size) == NVRTC_SUCCESS && size > 1) {
      log.resize(size);
      (void)nvrtcGetProgramLog(program, log.data());
    }
    (void)nvrtcDestroyProgram(&program);
    throw CompileError(
        detail::str("NVRTC refused generated CUDA source: ", nvrtcGetErrorString(result), "\n", log.c_str()),
        Where::current());
  }
  size_t size = 0;
  check_nvrtc(nvrtcGetCUBINSize(program, &size), "size of the binary");
  binary.resize(size);
  check_nvrtc(nvrtcGetCUBIN(program, binary.data()), "reading the binary");
  (void)nvrtcDestroyProgram(&program);
  return binary;
}

struct Module::State {
  cudaLibrary_t library = nullptr;
};

Module::Module(const std::string& binary, Device device) : state_(new State) {
  (void)stream_of(device);  // makes the device current
  check(cudaLibraryLoadData(&state_->library, binary.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
        "loading compiled kernels");
}
Module::~Module() { (void)cudaLibraryUnload(state_->library); }

void* Module::kernel(const std::string& name) const {
  cudaKernel_t kernel = nullptr;
  check(cudaLibraryGetKernel(&kernel, state_->library, name.c_str()), name.c_str());
  return kernel;
}

void launch(void* kernel, Extent grid, Extent block, size_t shared_bytes, void** arguments, Device device) {
  const cudaStream_t stream = stream_of(device);
  if (shared_bytes > 48 * 1024) {
    check(cudaKernelSetAttributeForDevice(static_cast<cudaKernel_t>(kernel),
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes), device.index),
          "shared memory of a generated kernel");
  }
  check_launch(cudaLaunchKernel(kernel, dim3(grid.x, grid.y, grid.z), dim3(block.x, block.y, block.z), arguments,
                                shared_bytes, stream),
               "launch of a generated kernel", stream);
}

}  // namespace tandem::gpu
