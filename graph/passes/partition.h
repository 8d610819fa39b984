// Cutting the trace of a function and of its gradient in two programs: what runs at the call, and what runs at backward().
#pragma once

#include <vector>

#include "graph/ir/graph.h"

namespace tandem::graph {

/// What is what in a graph that holds a function and, behind it, the gradient of its results. The leaves of cotangents are the
/// last ones.
struct JointParts {
  int results = 0;    ///< the first outputs are the function's results, the others are gradients
  int nodes = 0;      ///< the first nodes are the function's
  int arguments = 0;  ///< arguments from this position on are cotangents: gradients of results, given to backward()
  int64_t draws = 0;  ///< that the function makes
};

/// Where an argument of the backward graph comes from.
struct Saved {
  enum class From : uint8_t {
    argument,  ///< argument `index` of the function
    leaf,      ///< the tensor of leaf `index`
    result,    ///< result `index` of the function
    output,    ///< output `index` of the forward graph, which is behind the results
  };
  From from;
  int index;
  ValueType type;
};

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
