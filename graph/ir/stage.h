// What the passes leave to be looked at: the graph after each, and what it cost.
#pragma once

#include <string>
#include <vector>

#include "graph.h"

namespace tandem {

/// Names of all passes in the order they run.
std::vector<std::string> pass_names();

struct PassTime {
  std::string name;
  double seconds = 0;
  int nodes_before = 0, nodes_after = 0;
};
/// The graph after one pass.
struct Stage {
  std::string name;
  Graph graph;
};

}  // namespace tandem
