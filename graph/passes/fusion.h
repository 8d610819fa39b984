// fusion: joins pointwise chains, broadcasts, views and row reductions into kernels; horizontal: joins
// kernels that only write state (the optimiser) into one.
#pragma once

#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ir/loop.h"

namespace tandem::graph {

struct FusionOptions {
  bool horizontal = true;
};

/// What was joined, and which producer-consumer pairs were not, with the reason.
struct FusionReport {
  std::vector<std::string> kernels;
  std::vector<std::string> refused;
};

/// Groups become nodes of op "fused" that hold a LoopKernel; what is not fusible stays as it is.
Graph fuse(const Graph& graph, FusionOptions options, FusionReport& report);

/// The op of fused nodes: no kernel of its own, and not in the table.
const Op& fused_op();

}  // namespace tandem::graph
