// Cutting the trace of a function and of its gradient in two programs: what runs at the call, and what runs at backward().
#pragma once

#include <vector>

#include "graph/ir/joint_graph.h"

namespace tandem::graph {

struct Partition {
  Graph forward;   ///< outputs: the results, then what is saved. Its leaves are those of the joint graph, in order
  Graph backward;  ///< arguments: what is saved, then the cotangents; outputs: the gradients
  std::vector<Saved> saved;
  int64_t saved_bytes = 0;  ///< of the outputs that are there for backward alone
};

/// Saves the fewest bytes from which the gradients can be computed, as a minimum cut of the function's values; what is a
/// result anyway, an argument or a tensor from outside costs nothing. Views are made again; so are cheap pointwise ops where
/// `recompute`. (After min-cut rematerialisation in AOTAutograd: He and Yu, "Transcending runtime-memory tradeoffs in
/// checkpointing by being fusion aware", MLSys 2023.)
/// TraceError where the gradient changes what is outside (a hook that assigns, or draws random numbers), or needs a view with
/// gaps as it was before the function wrote to it.
Partition partition(const Graph& joint, const JointParts& parts, bool recompute, Where where);

}  // namespace tandem::graph
