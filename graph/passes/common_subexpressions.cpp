// common_subexpressions: calls of one op with the same operands and attributes are made once.
#include <map>
#include <sstream>

#include "graph/passes/pass.h"

namespace tandem::graph {

Graph common_subexpressions(const Graph& graph) {
  Rewriter rewriter(graph);
  std::map<std::pair<const Op*, std::vector<int>>, std::vector<const Node*>> seen;
  for (const Node& node : graph.nodes) {
    std::vector<int> inputs;
    for (int input : node.inputs) inputs.push_back(rewriter.mapped(input));
    std::vector<const Node*>& candidates = seen[{node.op, inputs}];
    const Node* same = nullptr;
    for (const Node* candidate : candidates) {
      bool equal = candidate->attributes == node.attributes;
      for (size_t i = 0; equal && i < node.outputs.size(); ++i)
        equal = graph.values[static_cast<size_t>(candidate->outputs[i])].type ==
                graph.values[static_cast<size_t>(node.outputs[i])].type;
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
