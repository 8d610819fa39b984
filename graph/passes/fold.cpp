// fold: works out what doesn't depend on any input. 0-d arithmetic on numbers is done now, by the same kernels that would
// do it later. Tensors filled with one number stay: simplify and the kernels know what is in them.
#include <cmath>

#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

/// The call's only result, 0-d, of these numbers.
double result_of(const Node& node, const Tensors& numbers, const Attributes& attributes, DType dtype) {
  const InterceptorScope eager(nullptr);
  Tensor result = Arg(0).scalar(dtype);
  run_kernel(*node.op, numbers, attributes, {&result, 1}, node.where);
  return result.item<double>();
}

}  // namespace

double filled_number(const Graph& graph, const Node& node) {
  return result_of(node, {}, node.attributes, graph.type(node.outputs[0]).dtype);
}

namespace {
/// Of each value: whether a number of the host may stand for it. On a device, only pointwise kernels take one.
std::vector<bool> may_be_numbers(const Graph& graph) {
  std::vector<bool> may(graph.values.size(), true);
  const auto keep = [&](int value) {
    if (value >= 0 && !graph.type(value).device.is_cpu()) at(may, value) = false;
  };
  for (const Node& node : graph.nodes)
    if (!node.op->is_pointwise())
      for (int input : node.inputs) keep(input);
  for (int output : graph.outputs) keep(output);
  for (const StateWrite& write : graph.writes) keep(write.value);
  for (const GradientWrite& write : graph.gradients) keep(write.value);
  return may;
}
}  // namespace

Graph fold(const Graph& graph) {
  Rewriter rewriter(graph);
  const std::vector<bool> may = may_be_numbers(graph);
  for (const Node& node : graph.nodes) {
    const ValueType& type = graph.type(node.outputs[0]);
    if (!at(may, node.outputs[0])) {
      rewriter.copy(node);
      continue;
    }
    if (node.op->fills && type.shape.empty()) {
      rewriter.replace(node.outputs[0], rewriter.scalar(filled_number(graph, node), type.dtype));
      continue;
    }
    bool constant = node.op->is_pointwise() && type.shape.empty() && node.outputs.size() == 1;
    for (int input : node.inputs) constant = constant && constant_number(rewriter.to(), rewriter.mapped(input));
    if (!constant) {
      rewriter.copy(node);
      continue;
    }
    Tensors numbers;
    {
      const InterceptorScope eager(nullptr);
      for (int input : node.inputs)
        numbers.push_back(Arg(*constant_number(rewriter.to(), rewriter.mapped(input))).scalar(graph.type(input).dtype));
    }
    const double number = result_of(node, numbers, node.attributes, type.dtype);
    if (!is_floating(type.dtype) && std::fabs(number) > 9e15) rewriter.copy(node);  // not exact as a double
    else rewriter.replace(node.outputs[0], rewriter.scalar(number, type.dtype));
  }
  return rewriter.finish();
}

}  // namespace tandem::graph
