// A region: a graph that is an attribute of a node. The branches of cond, the bodies of loops.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "graph.h"

namespace tandem::graph {

class Program;

/// What the tape would have kept of a region's trace: detach() and NoGrad leave nothing in a graph.
struct RegionTape {
  std::vector<std::vector<bool>> operands = {};  ///< by node: whether gradients flow to each; empty: to all
  std::vector<bool> results = {};                ///< whether they come from each; missing ones: yes

  bool reaches(size_t node, size_t operand) const {
    return node >= operands.size() || operands[node].empty() || operands[node][operand];
  }
  bool leaves(size_t result) const { return result >= results.size() || results[result]; }
};

/// All that it reads is an argument: what its text closes over are operands of the node. It assigns nothing, so a node with
/// regions is a function of its operands.
class GraphRegion final : public Region {
 public:
  using MakeProgram = std::function<std::shared_ptr<Program>()>;

  explicit GraphRegion(Graph graph, RegionTape tape = {}, std::shared_ptr<Program> program = nullptr)
      : graph_(std::move(graph)), tape_(std::move(tape)), program_(std::move(program)) {}
  /// One whose program is made later, with that of the graph around it.
  GraphRegion(Graph graph, MakeProgram make) : graph_(std::move(graph)), make_(std::move(make)) {}

  const Graph& graph() const { return graph_; }
  const RegionTape& tape() const { return tape_; }
  std::string to_string() const override { return graph_.to_string(); }
  bool equals(const Region& other) const override { return this == &other || to_string() == other.to_string(); }
  /// What runs it: from the pass "regions", or made at the first run (graph/run/regions.cpp).
  Program& program() const;
  bool is_made_later() const { return make_ != nullptr; }

 private:
  Graph graph_;
  RegionTape tape_;
  MakeProgram make_;
  mutable std::once_flag once_;
  mutable std::shared_ptr<Program> program_;
};

/// The region that an attribute holds.
inline const GraphRegion& region_of(const Attributes& attributes, std::string_view name) {
  return static_cast<const GraphRegion&>(*attributes.region(name));
}

/// Calls f with each region of a node.
template <class F> void for_each_region(const Node& node, F&& f) {
  if (node.fused) return;
  for (const AttributeSpec& spec : node.op->attributes)
    if (spec.type == AttributeType::region) f(region_of(node.attributes, spec.name));
}

/// How operands go through a node with regions.
struct RegionOperands {
  int first = 0;      ///< from this operand on they are the regions' arguments
  int carried = 0;    ///< the first of these, which the next turn gets from the results of the body
  int sequences = 0;  ///< then these, of which each turn gets an element
  bool loops = true;
};
RegionOperands region_operands(const Node& node);

/// Whether its region is called for each block of rows (the pass row_pipelines).
inline bool runs_blocks(const Node& node) { return node.attributes.find("blocks") && node.op->kind == OpKind::control; }

/// Whether the node does something beside giving results, itself or in its regions: it is never removed or joined with another.
bool has_effect(const Node& node);
bool has_effect(const Graph& graph);

}  // namespace tandem::graph
