// What fusion works on, between choosing groups (fusion.cpp) and spelling them as loops (lower.cpp).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ir/loop.h"

namespace tandem::graph {

/// An operand seen through the views between it and the value that is made or comes from outside.
struct Reference {
  int base = -1;  ///< value without views
  Shape shape;    ///< as the user sees it
  Shape strides;  ///< of the base's memory, as seen through the views
  int64_t offset = 0;
  /// For each dim: the dim of the base that it walks, or -1 (extent 1, or repeated). Not set if the
  /// views slice or reorder elements in a way that the base's own loop can't follow.
  std::optional<std::vector<int>> dims;
};

/// A member of a segment: a graph node, its level, and for each of its iteration dims the dim of the
/// segment's domain (-1 for extent 1).
struct Member {
  int node = -1;
  Level level = Level::element;
  std::vector<int> dims;         ///< of the iteration: the output's dims, or a reduction's operand's
  std::vector<int> output_dims;  ///< of the output
};

struct GroupSegment {
  std::vector<int64_t> domain;
  std::vector<bool> reduced;    ///< which domain dims row reductions fold; all false without any
  std::vector<Member> members;  ///< in topological order
  bool has_rows() const {
    for (bool r : reduced)
      if (r) return true;
    return false;
  }
};

/// A kernel to be: segments, and scalar nodes that run after them.
struct GroupKernel {
  std::vector<GroupSegment> segments;
  std::vector<int> finish;  ///< nodes
};

/// Where a value is made within a kernel.
struct Place {
  int segment = -1;  ///< -1: the finish
  int member = -1;
};

/// Read access to a graph with what fusion asks of it.
class GroupContext {
 public:
  explicit GroupContext(const Graph& graph);
  const Graph& graph;
  /// Scalar nodes that depend on a kernel's result, so that they are read from memory, not computed again.
  std::set<int> in_memory;
  Reference reference(int value) const;
  bool is_view(int node) const { return graph.nodes[static_cast<size_t>(node)].op->kind == OpKind::view; }
  /// arange and random_uniform: computed wherever they are read.
  bool is_generator(int node) const;
  /// One-element pointwise node.
  bool is_scalar_node(int node) const;
  const ValueType& type(int value) const { return graph.values[static_cast<size_t>(value)].type; }
  int maker(int value) const { return graph.values[static_cast<size_t>(value)].node; }
};

/// Spells a kernel as loops. `stored` are the values to put in memory; the node's inputs are appended to
/// `inputs` in the order of the buffers.
LoopKernel lower(const GroupContext& context, const GroupKernel& kernel, const std::vector<int>& stored,
                 std::vector<int>& inputs);

}  // namespace tandem::graph
