// Emits loop kernels as C for the system compiler.
#pragma once

#include <string>
#include <vector>

#include "graph/codegen/emitter.h"

namespace tandem::graph {

/// How to call a generated segment:
///   void name(char* const* buffers, char* partials, char* scratch, long begin, long end)
/// runs units [begin, end) of the segment and leaves the chunk's partial results at 8 bytes each. Scratch is memory of the
/// thread's own.
/// The first argument points at the buffers, in the order of SegmentCall::buffers.
struct SegmentCall {
  std::string name;
  std::vector<int> buffers;  ///< indices in LoopKernel::buffers
  int64_t units = 1;         ///< rows, outer indices or elements; or tiles of them
  int64_t elements_per_unit = 1;
  double cost = 1;  ///< rough work of an element, in simple operations
  int partials = 0;
  int64_t widest = INT64_MAX;  ///< the most columns that the code has room for
  int tile_dim = -1;           ///< of the domain: a unit holds `tile` of its indices; -1: one of each dim
  int64_t tile = 1;
  int64_t scratch_per_column = 0, scratch = 0;  ///< bytes, of each column (their number rounded up to 16) and in all
};
/// A check, and where the values lie that it checks, if they are read from memory: for who looks for the first bad one.
struct CheckedLoad {
  ValueCheck check;
  int buffer = -1;
  Position position;
  Shape extents;
};
/// Behind the last buffer of each segment and of the finish, the caller passes one int64 for each check, all 0: those
/// that found a value out of range are set to 1. Then come the numbers that the code reads at run time.
struct KernelCall {
  std::vector<SegmentCall> segments;
  std::vector<CheckedLoad> checks;
  /// void name(char* const* buffers, char* const* partials, const long* chunks); empty without a finish.
  std::string finish;
  std::vector<int> finish_buffers;
  std::vector<int64_t> numbers;  ///< LoopKernel::at_run_time, then the sites of draws

  /// For the same kernel in other sizes. False if the code doesn't serve them.
  bool resize(const LoopKernel& kernel);
};

/// Collects kernels in one C file.
class CSource : public GeneratedSource {
 public:
  static constexpr const char* tier = "generated C";  ///< what Stats::tier calls it
  KernelCall add(const LoopKernel& kernel);
  /// The whole file; empty if no kernel was added. `cuts` gets where each function begins: what stands before the first of
  /// them and any of the functions are a file as well.
  std::string text(std::vector<size_t>* cuts = nullptr) const;
};

}  // namespace tandem::graph
