// common_subexpressions: calls of one op with the same operands and attributes are made once.
#include <map>

#include "graph/passes/pass.h"

namespace tandem::graph {

Graph common_subexpressions(const Graph& graph) {
  Rewriter rewriter(graph);
  std::map<std::pair<const Op*, std::vector<int>>, std::vector<const Node*>> seen;
  for (const Node& node : graph.nodes) {
    const std::vector<int> inputs = rewriter.mapped(node.inputs);
    std::vector<const Node*>& candidates = seen[{node.op, inputs}];
    const Node* same = nullptr;
    for (const Node* candidate : candidates) {
      bool equal = candidate->attributes == node.attributes;
      for (size_t i = 0; equal && i < node.outputs.size(); ++i)
        equal = graph.type(candidate->outputs[i]) == graph.type(node.outputs[i]);
      if (equal) same = candidate;
    }
    if (same && node.op->kind != OpKind::effect && node.op->kind != OpKind::state) {
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
