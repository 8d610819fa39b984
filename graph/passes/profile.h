// How much memory is in use at each node, before kernels are known.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ir/views.h"

namespace tandem::graph {

/// Who reads what, views looked through.
struct Profile {
  Profile(const Graph& graph, const std::vector<Reference>& references);

  std::vector<std::vector<int>> readers;  ///< nodes, of each value that is no view
  std::vector<bool> stays;                ///< of each value: a result, a gradient or state, which no reader frees
  std::vector<int64_t> alive;  ///< bytes at each node. What only neighbours in a kernel would read is none of them
  int peak = 0;                ///< the first node with the most
  int64_t peak_bytes = 0;

  /// The last node that reads the value; -1: none.
  int last_reader(int value) const {
    const std::vector<int>& all = readers[static_cast<size_t>(value)];
    return all.empty() ? -1 : all.back();
  }
};

/// Whether fusion makes it part of a kernel with its neighbours, where nothing else forbids it.
bool may_join_kernel(const Node& node);

}  // namespace tandem::graph
