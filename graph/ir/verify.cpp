// The verifier: what every graph must hold, after the trace and after each pass.
#include "core/dispatch.h"
#include "graph/ir/at.h"
#include "graph/ir/graph.h"

namespace tandem {

void verify(const Graph& graph, const char* after_pass) {
  const auto fail = [&](const Node& node, const auto&... parts) {
    throw GraphError(detail::str("verify", *after_pass ? detail::str(" after ", after_pass) : "", ": ", node.op->name,
                                 ": ", parts...),
                     node.where);
  };
  std::vector<bool> made(graph.values.size(), false);
  for (const Leaf& leaf : graph.leaves) graph::at(made, leaf.value) = true;
  const auto exists = [&](int value) { return value >= 0 && value < graph::count(graph.values); };
  for (int n = 0; n < graph::count(graph.nodes); ++n) {
    const Node& node = graph.node(n);
    Tensors headers, results(node.fused ? 0 : graph::most_outputs(*node.op));
    for (int input : node.inputs) {
      if (!exists(input)) fail(node, "operand ", input, " doesn't exist");
      if (!graph::at(made, input)) fail(node, "operand %", input, " is used before it is made");
      const int leaf = graph.leaf_of(input);
      headers.push_back(graph::header_of(
          graph.type(input), leaf >= 0 && (graph.leaf(leaf).kind == LeafKind::scalar || graph.leaf(leaf).dynamic ||
                                           graph.type(input).dtype == int64)));
    }
    for (int output : node.outputs) {
      if (graph::at(made, output)) fail(node, "%", output, " is made twice");
      graph::at(made, output) = true;
      if (graph.value(output).node != n) fail(node, "%", output, " names another node as its maker");
      const ValueType& type = graph.type(output);
      if (node.op->kind != OpKind::view && !type.shape.contains(0) && !is_dense(type.shape, type.strides))
        fail(node, "%", output, " is ", type, ", but only views may leave gaps or repeat elements");
    }
    if (node.fused) continue;
    Attributes fitted = node.attributes;
    if (const std::string problem = fit(node.op->attributes, fitted); !problem.empty()) fail(node, problem);
    if (fitted != node.attributes)
      fail(node, "its attributes are not as its definition has them: ", to_string(node.op->attributes));
    for (const Tensor& header : headers)
      if (node.op->contiguous_inputs && !header.is_contiguous())
        fail(node, "an operand has strides ", header.strides(), ", but must be contiguous");
    Infer infer(*node.op, headers, node.attributes, results, node.where);
    infer.run();
    if (infer.output_count() != graph::count(node.outputs))
      fail(node, "it has ", node.outputs.size(), " outputs, infer makes ", infer.output_count());
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const ValueType& type = graph.type(node.outputs[i]);
      if (node.op->kind == OpKind::view && type.strides != results[i].strides())
        fail(node, "output ", i, " is a view with strides ", type.strides, ", infer says ", results[i].strides());
      if (type.shape != results[i].shape() || type.dtype != results[i].dtype())
        fail(node, "output ", i, " has type ", type, ", infer says ", graph::type_of(results[i]));
    }
  }
  const auto check = [&](int value) {
    if (!exists(value))
      throw GraphError(detail::str("verify: a returned, assigned or gradient value %", value, " doesn't exist"),
                       Where());
  };
  for (int output : graph.outputs) check(output);
  for (const StateWrite& write : graph.writes) check(write.value);
  for (const GradientWrite& write : graph.gradients)
    if (write.value != -1) check(write.value);
  for (int output : graph.outputs)
    if (!graph::at(made, output))
      throw GraphError(detail::str("verify: the returned value %", output, " is never made"), Where());
  for (const StateWrite& write : graph.writes)
    if (!graph::at(made, write.value))
      throw GraphError(detail::str("verify: the assigned value %", write.value, " is never made"), write.where);
}

}  // namespace tandem
