// simplify: drops calls that change nothing: copies, casts to the same dtype, x * 1, x / 1, x - 0, views
// of the same shape, broadcasts that a pointwise op does by itself. Only rules that keep every bit, and every check.
#include <algorithm>
#include <bit>

#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

/// The operand that the node's result equals, if their types agree, or -1. A fold of extents of 1 keeps values too.
int same_as(const Graph& graph, const Op& op, const std::vector<int>& inputs) {
  const auto is = [&](const std::optional<double>& neutral, int i) {
    const double* number = neutral ? constant_number(graph, at(inputs, i)) : nullptr;
    return number && std::bit_cast<uint64_t>(*number) == std::bit_cast<uint64_t>(*neutral);  // x - -0 is not x
  };
  if (op.keeps_values || is(op.neutral.right, 1)) return 0;
  return is(op.neutral.left, 0) ? 1 : -1;
}

/// The node that makes the value, if it is such a view.
const Node* made_by(View view, const Graph& graph, int value) {
  const int maker = graph.value(value).node;
  return maker >= 0 && graph.node(maker).op->view == view ? &graph.node(maker) : nullptr;
}

/// What reads the value has to be a kernel: it checks what it reads.
bool is_checked(const Graph& graph, int value) {
  const int maker = graph.value(value).node;
  return maker >= 0 && graph.node(maker).op->checks_range;
}

/// Operands that expand() or full() made as large as another one already is, as they were before: smaller, or a number.
void drop_repeats(Rewriter& rewriter, const Shape& shape, std::vector<int>& inputs) {
  const Graph& graph = rewriter.to();
  for (int& input : inputs) {
    const bool covered = std::any_of(inputs.begin(), inputs.end(), [&](const int& other) {
      return &other != &input && graph.type(other).shape == shape;
    });
    if (!covered) continue;
    const int maker = graph.value(input).node;
    if (const Node* expand = made_by(View::expand, graph, input)) input = expand->inputs[0];
    else if (maker >= 0 && graph.node(maker).op->fills)
      input = rewriter.scalar(filled_number(graph, graph.node(maker)), graph.type(input).dtype);
  }
}

}  // namespace

Graph simplify(const Graph& graph) {
  Rewriter rewriter(graph);
  Graph& to = rewriter.to();
  static const Op& add = find_op("add");
  for (const Node& node : graph.nodes) {
    std::vector<int> inputs = rewriter.mapped(node.inputs);
    const int result = node.outputs[0];
    const ValueType& type = graph.type(result);
    if (node.op->is_pointwise()) drop_repeats(rewriter, type.shape, inputs);
    if (const int same = node.outputs.size() == 1 ? same_as(to, *node.op, inputs) : -1;
        same >= 0 && to.type(at(inputs, same)) == type && !is_checked(to, at(inputs, same))) {
      rewriter.replace(result, at(inputs, same));
      continue;
    }
    if (node.op->fold == Fold::sum && to.type(inputs[0]) == type) {  // over extents of 1: no more than 0 + -0 = 0
      inputs.push_back(rewriter.scalar(0, type.dtype));
      const int made = to.append(add, std::move(inputs), {}, node.where, {type});
      rewriter.replace(result, to.node(made).outputs[0]);
      continue;
    }
    if (node.op->view == View::reshape)  // of a reshape: one of what that was made from
      if (const Node* first = made_by(View::reshape, to, inputs[0])) {
        const int base = first->inputs[0];
        const ValueType& base_type = to.type(base);
        if (base_type == type) {
          rewriter.replace(result, base);
          continue;
        }
        if (is_contiguous(base_type.shape, base_type.strides)) inputs[0] = base;
      }
    rewriter.copy(node, std::move(inputs));
  }
  return rewriter.finish();
}

}  // namespace tandem::graph
