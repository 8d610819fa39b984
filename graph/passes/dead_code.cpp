// dead_code: drops what no result, assign or gradient needs.
#include "graph/ir/region.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

Graph dead_code(const Graph& graph) {
  std::vector<bool> needed(graph.values.size(), false);
  const auto need = [&](int value) {
    if (value >= 0) at(needed, value) = true;
  };
  for (int output : graph.outputs) need(output);
  for (const StateWrite& write : graph.writes) need(write.value);
  for (const GradientWrite& write : graph.gradients) need(write.value);
  std::vector<bool> keep(graph.nodes.size(), false);
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    bool wanted = has_effect(graph.nodes[n]);
    for (int output : graph.nodes[n].outputs) wanted = wanted || at(needed, output);
    if (!wanted) continue;
    keep[n] = true;
    for (int input : graph.nodes[n].inputs) need(input);
  }
  Rewriter rewriter(graph);
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    if (keep[n]) rewriter.copy(graph.nodes[n]);
  return rewriter.finish();
}

}  // namespace tandem::graph
