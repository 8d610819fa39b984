// The passes, in the order they run. This list is the table of contents of graph mode.
#pragma once

#include <string>
#include <vector>

#include "graph/passes/fusion.h"
#include "graph/trace/compile.h"

namespace tandem::graph {

struct Optimised {
  Graph graph;
  std::vector<Stage> stages;  ///< "traced" and then one for each pass that ran
  std::vector<PassTime> times;
  FusionReport fusion;
};

/// Runs all passes but those in `without` (names as in pass_names()). Without "fusion" there is nothing
/// to gain from taking ops apart, so "decompose" is left out with it.
Optimised optimise(const Graph& traced, const std::vector<std::string>& without, Where where);

}  // namespace tandem::graph
