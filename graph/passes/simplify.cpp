// simplify: drops calls that change nothing: copies, casts to the same dtype, x * 1, x / 1, x - 0, views
// of the same shape, broadcasts that a pointwise op does by itself; and masks gradients before they are spread out. Only rules
// that keep every bit, and every check.
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

/// Masking what was placed at the positions of elements that were picked masks no more than these: mask(place(g, p), x) is
/// place(mask(g, picked), p), where (picked, p) = pick(x). So x needn't be kept, and less is masked. -1: the node is none such.
class MaskedPlaces {
 public:
  explicit MaskedPlaces(const Graph& graph) : graph_(graph), readers_(graph.values.size()) {
    for (const Node& node : graph.nodes) {
      for (const int input : node.inputs) ++at(readers_, input);
      if (node.op->picks) pickers_.push_back(&node);
    }
    for (const int output : graph.outputs) ++at(readers_, output);
    for (const StateWrite& write : graph.writes) ++at(readers_, write.value);
    for (const GradientWrite& write : graph.gradients)
      if (write.value >= 0) ++at(readers_, write.value);
  }

  int rewrite(Rewriter& rewriter, const Node& mask) const {
    if (!mask.op->masks) return -1;
    const int maker = graph_.value(mask.inputs[0]).node;
    if (maker < 0 || !graph_.node(maker).op->places || at(readers_, mask.inputs[0]) != 1) return -1;
    const Node& place = graph_.node(maker);
    const int g = place.inputs[0], positions = place.inputs[1];
    const ValueType& type = graph_.type(mask.outputs[0]);
    for (const Node* pick : pickers_) {
      if (pick->inputs[0] != mask.inputs[1] || pick->outputs[1] != positions) continue;
      const int picked = pick->outputs[0];
      const ValueType& smaller = graph_.type(picked);  // the gradient itself may be a view that repeats one element
      const bool alike = graph_.type(mask.inputs[1]).dtype == type.dtype && graph_.type(mask.inputs[0]) == type &&
                         graph_.type(g).shape == smaller.shape && graph_.type(g).dtype == smaller.dtype;
      if (!alike) return -1;
      Graph& to = rewriter.to();
      const int masked =
          to.append(*mask.op, {rewriter.mapped(g), rewriter.mapped(picked)}, mask.attributes, mask.where, {smaller});
      const int made = to.append(*place.op, {to.node(masked).outputs[0], rewriter.mapped(positions)}, place.attributes,
                                 place.where, {type});
      return to.node(made).outputs[0];
    }
    return -1;
  }

 private:
  const Graph& graph_;
  std::vector<int> readers_;  ///< of each value, how many
  std::vector<const Node*> pickers_;
};

}  // namespace

Graph simplify(const Graph& graph) {
  Rewriter rewriter(graph);
  Graph& to = rewriter.to();
  static const Op& add = find_op("add");
  const MaskedPlaces masked(graph);
  for (const Node& node : graph.nodes) {
    if (const int made = masked.rewrite(rewriter, node); made >= 0) {
      rewriter.replace(node.outputs[0], made);
      continue;
    }
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
