// Which rows of operands a row of results needs.
#include "graph/passes/rows.h"

#include <algorithm>

#include "graph/ir/at.h"
#include "graph/ir/region.h"

namespace tandem::graph {

namespace {

bool same_rows(const ValueType& operand, const ValueType& result) {
  return operand.shape.size() == result.shape.size() && rows_of(operand) == rows_of(result);
}
/// Read anew by each row.
bool repeats(const ValueType& operand, const ValueType& result) {
  return operand.shape.size() < result.shape.size() || rows_of(operand) == 1;
}

/// Of a view whose dims the op's definition tells.
std::optional<std::vector<bool>> through_view(const Node& node, const ValueType& from, const ValueType& to) {
  switch (*node.op->view) {
    case View::reshape:
      if (rows_of(from) > 1) return std::vector<bool>{true};
      break;
    case View::expand:
      if (same_rows(from, to)) return std::vector<bool>{true};
      if (repeats(from, to)) return std::vector<bool>{false};
      break;
    case View::permute:
      if (node.attributes.integers("dims")[0] == 0) return std::vector<bool>{true};
      break;
  }
  return std::nullopt;
}

std::optional<std::vector<bool>> by_definition(const Graph& graph, const Node& node) {
  Tensors headers;
  for (const int input : node.inputs) headers.push_back(header_of(graph.type(input), graph.is_number(input)));
  const uint32_t operands = node.op->rows(headers, node.attributes);
  if (operands == 0) return std::nullopt;
  std::vector<bool> result;
  for (int i = 0; i < count(node.inputs); ++i) result.push_back(i < 16 && (operands & in(i)) != 0);
  return result;
}

std::optional<std::vector<bool>> by_kind(const Graph& graph, const Node& node) {
  const ValueType& made = graph.type(node.outputs[0]);
  if (node.op->rows) return by_definition(graph, node);
  if (node.op->view) return through_view(node, graph.type(node.inputs[0]), made);
  if (node.op->fold) {
    if (node.attributes.integers("dims").contains(0)) return std::nullopt;
    return std::vector<bool>{true};
  }
  if (!node.op->is_pointwise()) return std::nullopt;
  std::vector<bool> result;
  for (const int input : node.inputs) {
    const ValueType& operand = graph.type(input);
    if (!same_rows(operand, made) && !repeats(operand, made)) return std::nullopt;
    result.push_back(same_rows(operand, made));
  }
  return result;
}

}  // namespace

bool leads_in_memory(const ValueType& type) {
  return !type.shape.empty() && type.strides[0] == type.shape.numel() / std::max<int64_t>(type.shape[0], 1);
}

std::optional<std::vector<bool>> operands_by_row(const Graph& graph, const Node& node,
                                                 const std::vector<Reference>& references) {
  if (node.inputs.empty() || node.outputs.empty() || node.fused || has_effect(node) ||
      node.op->kind == OpKind::control || node.op->kind == OpKind::state)
    return std::nullopt;
  for (const int output : node.outputs) {
    const ValueType& type = graph.type(output);
    if (rows_of(type) < 2 || type.shape.numel() == 0 || !type.device.is_cpu()) return std::nullopt;
    if (node.op->kind != OpKind::view && !leads_in_memory(type)) return std::nullopt;
  }
  for (const int input : node.inputs) {
    const Reference& reference = at(references, input);
    const int maker = graph.value(reference.base).node;
    // Numbers that are computed where they are read would have to be put in memory.
    const bool computed = maker >= 0 && graph.type(input).shape.numel() > 1 &&
                          (graph.node(maker).op->sequence || graph.node(maker).op->fills);
    if (computed || reference.checked_by >= 0 || !graph.type(input).device.is_cpu()) return std::nullopt;
  }
  std::optional<std::vector<bool>> result = by_kind(graph, node);
  if (!result || std::find(result->begin(), result->end(), true) == result->end()) return std::nullopt;
  return result;
}

ValueType block_of(ValueType type, int64_t blocks) {
  type.shape[0] /= blocks;
  return type;
}

Attributes attributes_of_block(const Node& node, int64_t rows, int64_t blocks) {
  Attributes attributes = node.attributes;
  const AttributeValue* const found = attributes.find("shape");
  if (!found) return attributes;
  Shape shape = attributes.integers("shape");
  TANDEM_ASSERT(!shape.empty() && shape[0] == rows, node.op->name, ": its shape ", shape, " doesn't lead with ", rows);
  shape[0] /= blocks;
  attributes.set({"shape", shape});
  return attributes;
}

}  // namespace tandem::graph
