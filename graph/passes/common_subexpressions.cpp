// common_subexpressions: calls of one op with the same operands and attributes are made once.
#include <bit>
#include <functional>
#include <map>
#include <tuple>

#include "graph/ir/region.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

/// Tells most attributes apart, so that many calls on one operand (the slices of a tensor, say) are not all compared.
size_t hash_of(const Attributes& attributes) {
  size_t hash = 0;
  const auto add = [&](size_t part) { hash = hash * 1099511628211u + part; };
  for (const Attribute& attribute : attributes) {
    if (const auto* whole = std::get_if<int64_t>(&attribute.value)) add(static_cast<size_t>(*whole));
    else if (const auto* number = std::get_if<double>(&attribute.value)) add(std::bit_cast<uint64_t>(*number));
    else if (const auto* text = std::get_if<std::string>(&attribute.value)) add(std::hash<std::string>()(*text));
    else if (const auto* list = std::get_if<Shape>(&attribute.value))
      for (int64_t each : *list) add(static_cast<size_t>(each));
  }
  return hash;
}

}  // namespace

Graph common_subexpressions(const Graph& graph) {
  Rewriter rewriter(graph);
  std::map<std::tuple<const Op*, std::vector<int>, size_t>, std::vector<const Node*>> seen;
  for (const Node& node : graph.nodes) {
    const std::vector<int> inputs = rewriter.mapped(node.inputs);
    std::vector<const Node*>& candidates = seen[{node.op, inputs, hash_of(node.attributes)}];
    const Node* same = nullptr;
    for (const Node* candidate : candidates) {
      bool equal = candidate->attributes == node.attributes;
      for (size_t i = 0; equal && i < node.outputs.size(); ++i)
        equal = graph.type(candidate->outputs[i]) == graph.type(node.outputs[i]);
      if (equal) same = candidate;
    }
    if (same && node.op->kind != OpKind::state && !has_effect(node)) {
      for (size_t i = 0; i < node.outputs.size(); ++i)
        rewriter.replace(node.outputs[i], rewriter.mapped(same->outputs[i]));
      continue;
    }
    candidates.push_back(&node);
    rewriter.copy(node);
  }
  return rewriter.finish();
}

}  // namespace tandem::graph
