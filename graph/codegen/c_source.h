// Spells loop kernels as C for the system compiler.
#pragma once

#include <string>
#include <vector>

#include "graph/ir/loop.h"

namespace tandem::graph {

/// How to call a generated segment:
///   void name(char* const* buffers, char* partials, long begin, long end)
/// runs units [begin, end) of the segment and leaves the chunk's partial results at 8 bytes each.
/// `buffers` are those named by `reads`, in that order.
struct SegmentCall {
  std::string name;
  std::vector<int> buffers;  ///< indices in LoopKernel::buffers
  int64_t units = 1;         ///< rows, outer indices or elements
  int64_t elements_per_unit = 1;
  double cost = 1;  ///< rough work of an element, in simple operations
  int partials = 0;
};
struct KernelCall {
  std::vector<SegmentCall> segments;
  /// void name(char* const* buffers, char* const* partials, const long* chunks); empty without a finish.
  std::string finish;
  std::vector<int> finish_buffers;
};

/// Collects kernels in one C file. Segments that read the same get one function.
class CSource {
 public:
  KernelCall add(const LoopKernel& kernel);
  /// The whole file; empty if no kernel was added.
  std::string text() const;

 private:
  std::string function(const std::string& signature_and_body, const char* prefix);
  std::vector<std::pair<std::string, std::string>> functions_;  ///< body, name
  std::vector<std::string> helpers_;                            ///< one for each op and dtype in use
};

}  // namespace tandem::graph
