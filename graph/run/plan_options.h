// What becomes of an optimised graph: switches beside the passes.
#pragma once

namespace tandem::graph {

struct PlanOptions {
  bool memory_plan = true;  ///< values share an arena, packed by liveness; else each has memory of its own
  /// Nothing else ever lies where a result does, so that a caller may give it the memory of an argument (Plan::may_share).
  bool results_apart = false;
  bool emit = true;  ///< fused kernels are generated and compiled; else all ops run on the eager kernels
};

}  // namespace tandem::graph
