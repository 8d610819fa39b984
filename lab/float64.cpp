// A graph run in float64: what its results would be without rounding, nearly.
#include "lab/float64.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "graph/ir/region.h"

namespace tandem::lab {

namespace {

Tensor widened(const Tensor& tensor) {
  const Tensor plain = tensor.requires_grad() ? tensor.detach() : tensor;
  return is_floating(plain.dtype()) ? plain.to(float64) : plain;
}

Tensor leaf_value(const Graph& graph, const Leaf& leaf, const Tensors& arguments) {
  switch (leaf.kind) {
    case LeafKind::argument: return widened(arguments[static_cast<size_t>(leaf.argument)]);
    case LeafKind::gradient:
      return widened((leaf.argument >= 0 ? arguments[static_cast<size_t>(leaf.argument)] : leaf.tensor).impl()->grad);
    case LeafKind::scalar: {
      const DType type = graph.values[static_cast<size_t>(leaf.value)].type.dtype;
      return Arg(leaf.number).scalar(is_floating(type) ? float64 : type);
    }
    case LeafKind::state:
    case LeafKind::constant: break;
  }
  // Kernels read a key of the random generator, and other host scalars, as they are.
  return leaf.tensor.impl()->is_scalar && !is_floating(leaf.tensor.dtype()) ? leaf.tensor : widened(leaf.tensor);
}

/// Ops that only draw: numbers of another dtype would be other numbers.
bool draws_by_dtype(const Op& op) { return op.kind == OpKind::random && op.inputs == 1; }

Attributes widened(const Attributes& attributes);

/// The same branch or body on float64.
RegionPtr widened(const Region& region) {
  Graph graph = static_cast<const graph::GraphRegion&>(region).graph();
  for (Value& value : graph.values)
    if (is_floating(value.type.dtype)) value.type.dtype = float64;
  for (Node& node : graph.nodes) node.attributes = widened(node.attributes);
  return std::make_shared<const graph::GraphRegion>(std::move(graph));
}

Attributes widened(const Attributes& attributes) {
  Attributes result;
  for (const Attribute& attribute : attributes) {
    if (const RegionPtr* region = std::get_if<RegionPtr>(&attribute.value)) {
      result.set({attribute.name, widened(**region)});
      continue;
    }
    const DType* type = std::get_if<DType>(&attribute.value);
    if (type && is_floating(*type)) result.set({attribute.name, float64});
    else result.set(attribute);
  }
  return result;
}

}  // namespace

Float64Results run_in_float64(const Graph& graph, const Tensors& arguments) {
  NoGrad guard;
  std::vector<Tensor> values(graph.values.size());
  for (const Leaf& leaf : graph.leaves) values[static_cast<size_t>(leaf.value)] = leaf_value(graph, leaf, arguments);

  Float64Results results;
  std::vector<int> reads(graph.values.size(), 0);  // values go when they are last read: a float64 step is large enough
  for (const Node& node : graph.nodes)
    for (const int input : node.inputs) ++reads[static_cast<size_t>(input)];
  for (const int output : graph.outputs) ++reads[static_cast<size_t>(output)];
  for (const StateWrite& write : graph.writes) ++reads[static_cast<size_t>(write.value)];
  for (const GradientWrite& write : graph.gradients)
    if (write.value >= 0) ++reads[static_cast<size_t>(write.value)];

  for (const Node& node : graph.nodes) {
    Tensors inputs;
    for (const int input : node.inputs) inputs.push_back(values[static_cast<size_t>(input)]);
    const bool draws = draws_by_dtype(*node.op);
    Tensors outputs(node.outputs.size());
    dispatch(*node.op, inputs, draws ? node.attributes : widened(node.attributes), outputs, node.where);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      values[static_cast<size_t>(node.outputs[i])] = draws ? widened(outputs[i]) : outputs[i];
    for (const int input : node.inputs)
      if (--reads[static_cast<size_t>(input)] == 0) values[static_cast<size_t>(input)] = Tensor();
  }
  for (const int output : graph.outputs) results.outputs.push_back(values[static_cast<size_t>(output)]);
  for (const StateWrite& write : graph.writes) results.writes.push_back(values[static_cast<size_t>(write.value)]);
  for (const GradientWrite& write : graph.gradients)
    results.gradients.push_back(write.value >= 0 ? values[static_cast<size_t>(write.value)] : Tensor());
  return results;
}

double relative_error(const Tensor& value, const Tensor& reference) {
  NoGrad guard;
  if (reference.numel() == 0) return 0;
  const std::vector<double> got = value.detach().to_vector<double>(), want = reference.to_vector<double>();
  double largest = 0, difference = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(want[i])) continue;
    if (!std::isfinite(got[i])) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, std::abs(want[i]));
    difference = std::max(difference, std::abs(got[i] - want[i]));
  }
  return difference == 0 ? 0 : difference / std::max(largest, std::numeric_limits<double>::min());
}

}  // namespace tandem::lab
