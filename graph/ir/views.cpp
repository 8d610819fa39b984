// Resolving views: infer says what each one does to shape and strides, Op::view which dims its loop walks.
#include "graph/ir/views.h"

#include "graph/ir/at.h"

namespace tandem::graph {

namespace {

using Walked = std::optional<std::vector<int>>;

/// The dims of `to` in terms of those of `from`, for a reshape that only adds or drops extents of 1.
Walked squeezed(const Shape& from, const Shape& to, const std::vector<int>& dims) {
  std::vector<int> result;
  int i = 0;
  for (const int64_t extent : to) {
    if (extent == 1) {
      result.push_back(-1);
      continue;
    }
    while (i < from.size() && from[i] == 1) ++i;
    if (i == from.size() || from[i] != extent) return std::nullopt;
    result.push_back(at(dims, i++));
  }
  for (; i < from.size(); ++i)
    if (from[i] != 1) return std::nullopt;
  return result;
}

/// What the dims of the view's result walk, if those of its operand walk `dims`.
Walked walked(const Node& node, const Shape& from, const Shape& to, const std::vector<int>& dims) {
  if (node.op->checks_range) return dims;
  if (!node.op->view) return std::nullopt;
  std::vector<int> result;
  switch (*node.op->view) {
    case View::reshape: return squeezed(from, to, dims);
    case View::expand: {
      const int shift = to.size() - from.size();
      for (int i = 0; i < to.size(); ++i)
        result.push_back(i < shift || from[i - shift] != to[i] ? -1 : at(dims, i - shift));
      break;
    }
    case View::permute:
      for (const int64_t d : node.attributes.integers("dims")) result.push_back(at(dims, static_cast<int>(d)));
  }
  return result;
}

}  // namespace

bool is_view(const Graph& graph, int value) {
  const int maker = graph.value(value).node;
  return maker >= 0 && graph.node(maker).op->kind == OpKind::view;
}

int base_of(const Graph& graph, int value) {
  while (is_view(graph, value)) value = graph.node(graph.value(value).node).inputs[0];
  return value;
}

std::vector<Reference> references(const Graph& graph) {
  std::vector<Reference> all(graph.values.size());
  const auto own = [&](int value) {
    const ValueType& type = graph.type(value);
    Reference& r = at(all, value);
    r = {.base = value, .shape = type.shape, .strides = type.strides, .dims = std::vector<int>()};
    for (int i = 0; i < r.shape.size(); ++i) r.dims->push_back(r.shape[i] == 1 ? -1 : i);
  };
  for (const Leaf& leaf : graph.leaves) own(leaf.value);
  for (const Node& node : graph.nodes) {
    if (node.op->kind != OpKind::view) {
      for (int output : node.outputs) own(output);
      continue;
    }
    const Reference& from = at(all, node.inputs[0]);
    const ValueType& type = graph.type(from.base);
    Tensor header = header_of({type.dtype, type.device, from.shape, from.strides}), result;
    Infer infer(*node.op, {&header, 1}, node.attributes, {&result, 1}, node.where);
    infer.run();
    Reference& r = at(all, node.outputs[0]);
    r = {.base = from.base,
         .shape = result.shape(),
         .strides = result.strides(),
         .offset = from.offset + result.impl()->offset,
         .dims = std::nullopt,
         .checked_by = node.op->checks_range ? graph.value(node.outputs[0]).node : from.checked_by};
    if (from.dims) r.dims = walked(node, from.shape, result.shape(), *from.dims);
  }
  return all;
}

}  // namespace tandem::graph
