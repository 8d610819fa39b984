// simplify: drops calls that change nothing: copies, casts to the same dtype, x * 1, x / 1, x - 0, views
// of the same shape, broadcasts that a pointwise op does by itself. Only rules that keep every bit.
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

/// The operand that the node's result equals, or -1.
int same_as(const Graph& graph, const Node& node, const std::vector<int>& inputs) {
  const std::string_view name = node.op->name;
  const auto is_number = [&](size_t i, double wanted) {
    const double* number = constant_number(graph, inputs[i]);
    return number && *number == wanted;
  };
  if (name == "copy" || name == "cast" || name == "contiguous") return 0;
  if (name == "mul" && is_number(1, 1)) return 0;
  if (name == "mul" && is_number(0, 1)) return 1;
  if (name == "div" && is_number(1, 1)) return 0;
  if (name == "sub" && is_number(1, 0)) return 0;
  if (name == "reshape" || name == "expand") return 0;
  if (name == "sum" || name == "max" || name == "min" || name == "prod" || name == "mean") return 0;
  return -1;
}

}  // namespace

Graph simplify(const Graph& graph) {
  Rewriter rewriter(graph);
  for (const Node& node : graph.nodes) {
    std::vector<int> inputs;
    for (int input : node.inputs) inputs.push_back(rewriter.mapped(input));
    Graph& to = rewriter.to();
    const ValueType& type = graph.values[static_cast<size_t>(node.outputs[0])].type;
    if (const int same = node.outputs.size() == 1 ? same_as(to, node, inputs) : -1; same >= 0) {
      const int operand = inputs[static_cast<size_t>(same)];
      // The very same type: shape, dtype and layout. A reduction of extents 1 keeps values, whatever it is.
      if (to.values[static_cast<size_t>(operand)].type == type) {
        rewriter.replace(node.outputs[0], operand);
        continue;
      }
    }
    if (is_elementwise(*node.op) && node.inputs.size() > 1) {
      // Operands that expand() made as large as another one already is.
      for (size_t i = 0; i < inputs.size(); ++i) {
        const int maker = to.values[static_cast<size_t>(inputs[i])].node;
        if (maker < 0 || std::string_view(to.nodes[static_cast<size_t>(maker)].op->name) != "expand") continue;
        bool full_elsewhere = false;
        for (size_t j = 0; j < inputs.size(); ++j)
          full_elsewhere |= j != i && to.values[static_cast<size_t>(inputs[j])].type.shape == type.shape;
        if (full_elsewhere) inputs[i] = to.nodes[static_cast<size_t>(maker)].inputs[0];
      }
    }
    // Views of views: one view of the first.
    if (const std::string_view name = node.op->name; name == "reshape" && inputs.size() == 1) {
      const int maker = to.values[static_cast<size_t>(inputs[0])].node;
      if (maker >= 0 && std::string_view(to.nodes[static_cast<size_t>(maker)].op->name) == "reshape") {
        const int base = to.nodes[static_cast<size_t>(maker)].inputs[0];
        const ValueType& base_type = to.values[static_cast<size_t>(base)].type;
        if (base_type == type) {
          rewriter.replace(node.outputs[0], base);
          continue;
        }
        if (is_contiguous(base_type.shape, base_type.strides)) inputs[0] = base;
      }
    }
    // Copies the node with these operands.
    Node made = node;
    made.inputs = inputs;
    made.outputs.clear();
    const int index = static_cast<int>(to.nodes.size());
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      made.outputs.push_back(static_cast<int>(to.values.size()));
      to.values.push_back({graph.values[static_cast<size_t>(node.outputs[i])].type, index, static_cast<int>(i)});
      rewriter.replace(node.outputs[i], made.outputs.back());
    }
    to.nodes.push_back(std::move(made));
  }
  return rewriter.finish();
}

}  // namespace tandem::graph
