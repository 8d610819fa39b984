// Emits loop kernels as CUDA C++ for run-time compilation (kernels/cuda/module.h).
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "graph/codegen/emitter.h"

namespace tandem::graph {

/// How to launch a generated kernel: one launch for all segments of a LoopKernel and its finish. Its arguments
/// are the buffers, each a device pointer, in the order of `buffers`; then, if `partial_bytes` is not zero, a
/// pointer to so many bytes of device memory, zero at the first launch (each launch leaves its last eight zero); then, if
/// the LoopKernel has checks, a td_range_note (kernels/cuda/range_note.cuh).
struct CudaKernelCall {
  std::string name;
  std::vector<int> buffers;  ///< indices in LoopKernel::buffers
  unsigned blocks = 1;
  unsigned threads = 256;
  size_t partial_bytes = 0;
};

/// Collects kernels in one translation unit. Those that read the same are one.
class CudaSource : public GeneratedSource {
 public:
  static constexpr const char* tier = "generated CUDA";  ///< what Stats::tier calls it
  /// One launch, or several where the arguments of one would be too many.
  std::vector<CudaKernelCall> add(const LoopKernel& kernel);
  /// The whole source; empty if no kernel was added.
  std::string text() const;
  const std::vector<std::string>& kernel_names() const { return kernel_names_; }

 private:
  std::vector<std::string> kernels_, kernel_names_;
  std::unordered_map<std::string, std::string>
      names_of_kernels_;  ///< by their text: launches that read the same are one
};

}  // namespace tandem::graph
