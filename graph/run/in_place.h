// Which results may be written over what their step reads.
#pragma once

#include <unordered_map>
#include <utility>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ir/loop.h"
#include "graph/ir/views.h"

namespace tandem::graph {

/// Both must outlive it. Nodes are known by their index.
class InPlace {
 public:
  InPlace(const Graph& graph, const std::vector<Reference>& references) : graph_(graph), references_(references) {}

  /// Whether the node may write `made`, which it makes, over `read`, a value of the same layout that is no view: each element
  /// is read, by whatever view, before it is written.
  bool reads_before_writing(int node, int read, int made) const;
  /// Whether the memory of `read`, which nothing reads after the node, can be that of `made`: as many bytes, and the above.
  bool may_take_over(int node, int read, int made) const;

 private:
  /// Who reads what in a fused kernel, and who stores: the finish where there is no segment.
  struct KernelUses {
    std::unordered_map<int, std::vector<std::pair<const Segment*, const Statement*>>>
        reads;                                                                ///< by the value read, no view
    std::unordered_map<int, std::pair<const Segment*, const Store*>> stores;  ///< by the value
  };
  const KernelUses& uses_of(int node) const;
  /// By Op::over.
  bool writes_over(const Node& node, int read, int made) const;

  const Graph& graph_;
  const std::vector<Reference>& references_;
  mutable std::unordered_map<int, KernelUses> uses_;
};

}  // namespace tandem::graph
