// move_invariants, prune_regions: loops do no work that each turn would do again, and carry nothing that nobody reads.
#include <algorithm>

#include "graph/ir/region.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

std::vector<const char*> regions_of(const Node& node) {
  std::vector<const char*> names;
  if (node.op->kind == OpKind::control)
    for (const AttributeSpec& spec : node.op->attributes)
      if (spec.type == AttributeType::region) names.push_back(spec.name);
  return names;
}
RegionPtr as_region(Graph graph) { return std::make_shared<const GraphRegion>(std::move(graph)); }

// ---- Invariants.

/// Moves what a region computes of its captures alone before the loop.
class Mover {
 public:
  Mover(Rewriter& rewriter, Node& loop, const RegionOperands& operands, const Graph& region, bool runs_anyway)
      : rewriter_(rewriter), loop_(loop), first_(operands.first), region_(region), outside_(region.values.size(), -1),
        invariant_(region.values.size()), moved_(region.nodes.size()) {
    for (const Leaf& leaf : region.leaves)
      at(invariant_, leaf.value) =
          leaf.kind == LeafKind::argument ? leaf.argument >= operands.carried + operands.sequences : !leaf.run_time;
    for (size_t n = 0; n < region.nodes.size(); ++n) {
      const Node& node = region.nodes[n];
      const bool same = std::all_of(node.inputs.begin(), node.inputs.end(), [&](int i) { return at(invariant_, i); });
      if (!same || !may_move(node, runs_anyway)) continue;
      for (const int output : node.outputs) at(invariant_, output) = true;
      // What costs nothing where it is read stays there, but for others to move.
      moved_[n] = node.op->kind != OpKind::view && !node.op->fills && !node.op->sequence && !node.inputs.empty();
    }
  }

  Graph run() {
    std::vector<bool> read(region_.values.size());  // by what stays
    for (const int output : region_.outputs) at(read, output) = true;
    for (size_t n = 0; n < region_.nodes.size(); ++n)
      for (const int input : region_.nodes[n].inputs)
        if (!moved_[n]) at(read, input) = true;
    Rewriter inside(region_);
    for (size_t n = 0; n < region_.nodes.size(); ++n) {
      if (!moved_[n]) {
        inside.copy(region_.nodes[n]);
        continue;
      }
      for (const int output : region_.nodes[n].outputs) {
        if (!at(read, output)) continue;
        Leaf leaf{.kind = LeafKind::argument, .argument = count(loop_.inputs) - first_, .where = {}};
        loop_.inputs.push_back(before_loop(output));
        inside.replace(output, inside.to().add_leaf(std::move(leaf), region_.type(output)));
      }
    }
    return inside.finish();
  }

 private:
  static bool may_move(const Node& node, bool runs_anyway) {
    if (has_effect(node) || node.op->kind == OpKind::state) return false;
    if (runs_anyway) return true;
    // It might not have run at all, so it must not be able to fail.
    const OpKind kind = node.op->kind;
    return !node.op->user && !node.op->checks_range &&
           (kind == OpKind::pointwise || kind == OpKind::view || kind == OpKind::reduce || kind == OpKind::contract);
  }

  /// The value where the loop stands.
  int before_loop(int value) {
    int& known = at(outside_, value);
    if (known >= 0) return known;
    if (const int index = region_.leaf_of(value); index >= 0) {
      const Leaf& leaf = region_.leaf(index);
      known = leaf.kind == LeafKind::argument ? at(loop_.inputs, first_ + leaf.argument)
                                              : rewriter_.scalar(leaf.number, region_.type(value).dtype);
      return known;
    }
    const Node& node = region_.node(region_.value(value).node);
    Node made = node;
    for (int& input : made.inputs) input = before_loop(input);
    std::vector<ValueType> types;
    for (const int output : node.outputs) types.push_back(region_.type(output));
    made.outputs.clear();
    const int index = rewriter_.to().append(std::move(made), types);
    for (int i = 0; i < count(node.outputs); ++i)
      at(outside_, at(node.outputs, i)) = at(rewriter_.to().node(index).outputs, i);
    return at(outside_, value);
  }

  Rewriter& rewriter_;
  Node& loop_;
  const int first_;
  const Graph& region_;
  std::vector<int> outside_;
  std::vector<bool> invariant_, moved_;
};

// ---- Pruning.

std::vector<bool> arguments_read(const Graph& graph, const std::vector<bool>& results, int arguments) {
  std::vector<bool> needed(graph.values.size()), read(static_cast<size_t>(arguments));
  for (int i = 0; i < count(graph.outputs); ++i)
    if (at(results, i)) at(needed, at(graph.outputs, i)) = true;
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    const Node& node = graph.nodes[n];
    if (has_effect(node) ||
        std::any_of(node.outputs.begin(), node.outputs.end(), [&](int output) { return at(needed, output); }))
      for (const int input : node.inputs) at(needed, input) = true;
  }
  for (const Leaf& leaf : graph.leaves)
    if (leaf.kind == LeafKind::argument && at(needed, leaf.value)) at(read, leaf.argument) = true;
  return read;
}

/// The region with these results, and the arguments that they need, numbered anew.
Graph reduced(const Graph& graph, const std::vector<bool>& results, const std::vector<int>& places) {
  Graph kept = graph;
  kept.outputs.clear();
  for (int i = 0; i < count(graph.outputs); ++i)
    if (at(results, i)) kept.outputs.push_back(at(graph.outputs, i));
  kept = dead_code(kept);
  std::vector<bool> read(kept.values.size());
  for (const int output : kept.outputs) at(read, output) = true;
  for (const Node& node : kept.nodes)
    for (const int input : node.inputs) at(read, input) = true;
  Graph made;
  std::vector<int> map(kept.values.size(), -1);
  for (Leaf leaf : kept.leaves) {
    const int value = leaf.value;
    if (!at(read, value)) continue;
    if (leaf.kind == LeafKind::argument) leaf.argument = at(places, leaf.argument);
    at(map, value) = made.add_leaf(std::move(leaf), kept.type(value));
  }
  for (const Node& node : kept.nodes) {
    Node copy = node;
    std::vector<ValueType> types;
    for (int& input : copy.inputs) input = at(map, input);
    for (const int output : node.outputs) types.push_back(kept.type(output));
    copy.outputs.clear();
    const int index = made.append(std::move(copy), types);
    for (int i = 0; i < count(node.outputs); ++i) at(map, at(node.outputs, i)) = at(made.node(index).outputs, i);
  }
  for (const int output : kept.outputs) made.outputs.push_back(at(map, output));
  return made;
}

/// The node without results that nobody reads, what is carried for these alone, and operands that no region reads.
Node pruned(const Node& node, const std::vector<bool>& read) {
  const RegionOperands shape = region_operands(node);
  const std::vector<const char*> names = regions_of(node);
  const int arguments = count(node.inputs) - shape.first, carried = shape.carried;
  const Graph& last =
      region_of(node.attributes, names.back()).graph();  // whose results are the node's: body, or a branch
  const int own = count(last.outputs), kept = count(node.outputs) - own;
  std::vector<bool> live(static_cast<size_t>(own));
  bool keeps = false;
  for (int i = 0; i < own; ++i) at(live, i) = at(read, at(node.outputs, i));
  for (int i = 0; i < kept; ++i)
    if (at(read, at(node.outputs, own + i))) at(live, i) = keeps = true;
  std::vector<bool> needed;
  for (bool changed = true; changed;) {
    changed = false;
    needed.assign(static_cast<size_t>(arguments), false);
    for (const char* const name : names) {
      const Graph& graph = region_of(node.attributes, name).graph();
      const bool all = shape.loops && name != names.back();  // the condition of a loop
      const std::vector<bool> here =
          arguments_read(graph, all ? std::vector<bool>(graph.outputs.size(), true) : live, arguments);
      for (int i = 0; i < arguments; ++i)
        if (at(here, i)) at(needed, i) = true;
    }
    for (int i = 0; i < carried; ++i)
      if (at(needed, i) && !at(live, i)) at(live, i) = changed = true;
  }
  if (std::find(live.begin(), live.end(), true) == live.end()) return node;  // it stays for what it does
  for (int i = 0; i < carried; ++i) at(needed, i) = at(live, i);
  if (shape.sequences > 0 && std::none_of(needed.begin() + carried, needed.begin() + carried + shape.sequences,
                                          [](bool each) { return each; }))
    at(needed, carried) = true;  // one gives the length
  Node made = node;
  std::vector<int> places(static_cast<size_t>(arguments), -1);
  made.inputs.resize(static_cast<size_t>(shape.first));
  int next = 0;
  for (int i = 0; i < arguments; ++i)
    if (at(needed, i)) at(places, i) = next++, made.inputs.push_back(at(node.inputs, shape.first + i));
  made.outputs.clear();
  for (int i = 0; i < own; ++i)
    if (at(live, i)) made.outputs.push_back(at(node.outputs, i));
  for (int i = 0; i < kept; ++i)
    if (keeps && at(live, i)) made.outputs.push_back(at(node.outputs, own + i));
  for (const char* const name : names) {
    const Graph& graph = region_of(node.attributes, name).graph();
    const bool all = shape.loops && name != names.back();
    const std::vector<bool> results = all ? std::vector<bool>(graph.outputs.size(), true) : live;
    made.attributes.set({name, as_region(prune_regions(reduced(graph, results, places)))});
  }
  if (shape.sequences > 0) {
    made.attributes.set({"carried", static_cast<int64_t>(std::count(live.begin(), live.begin() + carried, true))});
    made.attributes.set(
        {"sequences",
         static_cast<int64_t>(std::count(needed.begin() + carried, needed.begin() + carried + shape.sequences, true))});
    made.attributes.set({"keeps", keeps});
  }
  return made;
}

}  // namespace

Graph move_invariants(const Graph& graph) {
  Rewriter rewriter(graph);
  for (const Node& node : graph.nodes) {
    Node loop = node;
    loop.inputs = rewriter.mapped(node.inputs);
    for (const char* const name : regions_of(node)) {
      Graph region = move_invariants(region_of(node.attributes, name).graph());
      const RegionOperands operands = region_operands(node);
      const bool runs_anyway = operands.sequences > 0 || name != regions_of(node).back();  // a scan, or a condition
      if (operands.loops) region = Mover(rewriter, loop, operands, region, runs_anyway).run();
      loop.attributes.set({name, as_region(std::move(region))});
    }
    rewriter.copy(loop, loop.inputs);
  }
  return rewriter.finish();
}

Graph prune_regions(const Graph& graph) {
  std::vector<bool> read(graph.values.size());
  const auto need = [&](int value) {
    if (value >= 0) at(read, value) = true;
  };
  for (const int output : graph.outputs) need(output);
  for (const StateWrite& write : graph.writes) need(write.value);
  for (const GradientWrite& write : graph.gradients) need(write.value);
  std::vector<Node> nodes;  // from the last to the first
  bool changed = false;
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    const Node& node = graph.nodes[n];
    nodes.push_back(regions_of(node).empty() ? node : pruned(node, read));
    changed = changed || nodes.back().inputs.size() != node.inputs.size();
    for (const int input : nodes.back().inputs) need(input);
  }
  Rewriter rewriter(graph);
  for (; !nodes.empty(); nodes.pop_back()) rewriter.copy(nodes.back());
  return changed ? dead_code(rewriter.finish()) : rewriter.finish();
}

}  // namespace tandem::graph
