// Building graphs.
#include "graph/ir/graph.h"

#include <algorithm>
#include <mutex>
#include <unordered_set>

#include "graph/ir/at.h"
#include "graph/ir/region.h"

namespace tandem {

Tensor graph::header_of(const ValueType& type, bool is_scalar) {
  TensorImpl* impl = TensorImpl::create();
  impl->dtype = type.dtype;
  impl->device = type.device;
  impl->is_scalar = is_scalar;
  impl->set_layout(type.shape, type.strides);
  return Tensor::adopt(impl);
}

ValueType graph::type_of(const Tensor& tensor) {
  return {tensor.dtype(), tensor.device(), tensor.shape(), tensor.strides()};
}

std::vector<std::vector<int>> graph::users(const Graph& graph) {
  std::vector<std::vector<int>> result(graph.values.size());
  for (int n = 0; n < count(graph.nodes); ++n)
    for (int input : graph.node(n).inputs) at(result, input).push_back(n);
  return result;
}

const char* graph::intern(const std::string& text) {
  static std::mutex mutex;
  static auto* const texts = new std::unordered_set<std::string>;
  const std::lock_guard lock(mutex);
  return texts->insert(text).first->c_str();
}

int Graph::add_leaf(Leaf leaf, ValueType type) {
  leaf.value = graph::count(values);
  values.push_back({.type = std::move(type), .leaf = graph::count(leaves)});
  leaves.push_back(std::move(leaf));
  return leaves.back().value;
}

namespace graph {

RegionOperands region_operands(const Node& node) {
  const Attributes& attributes = node.attributes;
  if (attributes.find("then")) return {.first = 1, .loops = false};
  if (attributes.find("condition")) return {.carried = count(node.outputs)};
  if (runs_blocks(node)) return {.sequences = static_cast<int>(attributes.integer("by_row")), .loops = false};
  return {.carried = static_cast<int>(attributes.integer("carried")),
          .sequences = static_cast<int>(attributes.integer("sequences"))};
}

bool has_effect(const Node& node) {
  if (node.op->kind == OpKind::effect) return true;
  if (node.op->kind != OpKind::control) return false;
  return std::any_of(node.op->attributes.begin(), node.op->attributes.end(), [&](const AttributeSpec& spec) {
    return spec.type == AttributeType::region && has_effect(region_of(node.attributes, spec.name).graph());
  });
}

bool has_effect(const Graph& graph) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const Node& node) { return has_effect(node); });
}

}  // namespace graph

bool Graph::is_number(int value) const {
  const int index = leaf_of(value);
  if (index < 0) return false;
  const Leaf& found = leaf(index);
  return found.kind == LeafKind::scalar || found.dynamic || (found.tensor.defined() && found.tensor.impl()->is_scalar);
}

int Graph::append(Node node, const std::vector<ValueType>& types) {
  const int index = graph::count(nodes);
  node.outputs.clear();
  for (const ValueType& type : types) {
    values.push_back({.type = type, .node = index, .output = graph::count(node.outputs)});
    node.outputs.push_back(graph::count(values) - 1);
  }
  nodes.push_back(std::move(node));
  return index;
}

int Graph::add_node(const Op& op, std::vector<int> inputs, Attributes attributes, Where where) {
  Tensors headers, results(graph::most_outputs(op));
  for (int input : inputs) headers.push_back(graph::header_of(type(input), is_number(input)));
  Infer infer(op, headers, attributes, results, where);
  infer.run();
  std::vector<ValueType> types;
  for (int i = 0; i < infer.output_count(); ++i) types.push_back(graph::type_of(graph::at(results, i)));
  return append(op, std::move(inputs), std::move(attributes), where, types);
}

int Graph::append(const Op& op, std::vector<int> inputs, Attributes attributes, Where where,
                  const std::vector<ValueType>& types) {
  return append({.op = &op,
                 .inputs = std::move(inputs),
                 .outputs = {},
                 .attributes = std::move(attributes),
                 .where = where,
                 .fused = nullptr},
                types);
}

}  // namespace tandem
