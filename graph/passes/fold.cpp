// fold: works out what doesn't depend on any input. A filled tensor becomes a number that is broadcast,
// and 0-d arithmetic on numbers is done now, by the same kernels that would do it later.
#include <cmath>

#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

/// A 0-d host tensor of that number.
Tensor materialise(double number, DType dtype) {
  const InterceptorScope eager(nullptr);
  return dtype == int64 || dtype == int32 || dtype == uint8 ? Arg(static_cast<int64_t>(number)).scalar(dtype)
                                                            : Arg(number).scalar(dtype);
}

}  // namespace

Graph fold(const Graph& graph) {
  Rewriter rewriter(graph);
  static const Op& expand = find_op("expand");
  for (const Node& node : graph.nodes) {
    const ValueType& type = graph.type(node.outputs[0]);
    if (node.op->fills) {
      const int number = rewriter.scalar(node.attributes.number("value"), type.dtype);
      if (type.shape.empty()) {
        rewriter.replace(node.outputs[0], number);
      } else {
        Graph& to = rewriter.to();
        const int made = to.add_node(expand, {number}, {{"shape", type.shape}}, node.where);
        const int value = to.node(made).outputs[0];
        to.type(value).device = type.device;
        rewriter.replace(node.outputs[0], value);
      }
      continue;
    }
    bool constant = node.op->is_pointwise() && type.shape.empty() && node.outputs.size() == 1;
    for (int input : node.inputs) constant = constant && constant_number(rewriter.to(), rewriter.mapped(input));
    if (!constant) {
      rewriter.copy(node);
      continue;
    }
    Tensors inputs;
    for (int input : node.inputs)
      inputs.push_back(materialise(*constant_number(rewriter.to(), rewriter.mapped(input)), graph.type(input).dtype));
    Tensor result = materialise(0, type.dtype);
    run_kernel(*node.op, inputs, node.attributes, {&result, 1}, node.where);
    const double number = result.item<double>();
    if (!is_floating(type.dtype) && std::fabs(number) > 9e15) rewriter.copy(node);  // not exact as a double
    else rewriter.replace(node.outputs[0], rewriter.scalar(number, type.dtype));
  }
  return rewriter.finish();
}

}  // namespace tandem::graph
