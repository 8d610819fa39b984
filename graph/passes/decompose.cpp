// decompose: replaces ops such as softmax, layer_norm or adamw by the simpler ops they are made of, so
// that fusion can join them with their neighbours. Runs only where fusion does: op by op the whole
// kernels are faster.
#include "graph/passes/pass.h"

namespace tandem::graph {

Graph decompose(const Graph& graph) {
  Rewriter rewriter(graph);
  rewriter.decompose = true;
  for (const Node& node : graph.nodes) {
    if (!node.op->decompose) {
      rewriter.copy(node);
      continue;
    }
    const WhereScope scope(node.where);
    Tensors inputs, outputs(node.outputs.size());
    for (int input : node.inputs) inputs.push_back(rewriter.symbol(rewriter.mapped(input)));
    for (size_t i = 0; i < outputs.size(); ++i) outputs[i] = header_of(graph.type(node.outputs[i]));
    rewriter.run(*node.op, inputs, node.attributes, outputs, node.where);
    for (size_t i = 0; i < outputs.size(); ++i)
      rewriter.replace(node.outputs[i], static_cast<int>(outputs[i].impl()->value));
  }
  return rewriter.finish();
}

}  // namespace tandem::graph
