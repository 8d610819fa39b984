// Fused kernels on a CUDA device, the graph that a whole step is captured into, and the numbers of the host that
// such a step reads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "graph/codegen/cuda_source.h"

namespace tandem::gpu {
class Module;
}

namespace tandem::graph {

/// What the device's compiler made of a generated source.
struct CudaBinary {
  std::string bytes;
  double compile_seconds = 0;  ///< 0 where the cache on disk had it
  bool from_cache = false;
  std::string note;  ///< why it is not cached on disk, or what was wrong with the entry there
};
/// From the cache on disk (graph/native/disk_cache.h: KEY.cu, KEY.cubin), else from the compiler. CompileError where that refuses it.
CudaBinary build_cuda_source(const std::string& source, const std::vector<std::string>& names, Device device);

/// The kernels of one generated source. Programs whose source is the same share them.
struct CudaKernels {
  std::shared_ptr<gpu::Module> module;
  double compile_seconds = 0;  ///< 0 where they were there already
  bool from_cache = true;      ///< in memory or on disk
  std::string note = {};       ///< of CudaBinary
};
CudaKernels load_cuda_source(const std::string& source, const std::vector<std::string>& names, Device device);

/// One launch. `table` holds the buffers' addresses, which the program patches when they move.
class CudaLaunch {
 public:
  CudaLaunch(const CudaKernelCall& call, const gpu::Module& module, Device device);
  std::vector<void*> table;
  void run();

 private:
  void* kernel_;
  unsigned blocks_, threads_;
  Device device_;
  Tensor partials_;
  std::vector<void*> arguments_;
};

/// Numbers that live on the host (learning rate, step, random key) and that kernels on the device read: copied to
/// fixed places there before each run, so that a captured step reads those of the call.
class HostNumbers {
 public:
  /// Adds a value of so many bytes; returns its index.
  int add(size_t bytes);
  /// To be called once all are added.
  void allocate(Device device);
  void* on_device(int index) const {
    return static_cast<char*>(device_.impl()->data) + offsets_[static_cast<size_t>(index)];
  }
  void set(int index, const void* from);
  /// Copies them to the device, if any has changed.
  void upload();
  bool empty() const { return offsets_.empty(); }

 private:
  std::vector<size_t> offsets_, sizes_;
  std::vector<char> bytes_;
  bool changed_ = false;
  Tensor device_;
};

}  // namespace tandem::graph
