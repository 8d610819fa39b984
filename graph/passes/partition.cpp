// The cut: what is kept for backward, as a minimum cut of the function's values.
#include "graph/passes/partition.h"

#include <algorithm>

#include "core/random.h"
#include "graph/ir/at.h"
#include "graph/passes/flow.h"

namespace tandem::graph {

namespace {

class Partitioner {
 public:
  Partitioner(const Graph& joint, const JointParts& parts, bool recompute, Where where)
      : graph_(joint), parts_(parts), recompute_(recompute), where_(where) {
    mark_gradient_part();
  }

  Partition cut() {
    refuse_effects();
    mark_needed();
    choose();
    build_forward();
    build_backward();
    return std::move(result_);
  }

  void refuse_effects() const {
    const auto fail = [&](const char* what, Where where) {
      throw TraceError(
          detail::str("backward() of a compiled function: its gradient (a hook, or a gradient of the program's own) ",
                      what, ", which would be done at the call; call backward() inside the compiled function"),
          where);
    };
    for (const StateWrite& write : graph_.writes)
      if (at(of_gradient_, write.value)) fail("assigns to a tensor", write.where);
    for (const GradientWrite& write : graph_.gradients)
      if (write.value >= 0 && at(of_gradient_, write.value)) fail("sets grad() of a tensor", where_);
    if (graph_.draws != parts_.draws) fail("draws random numbers", where_);
  }

 private:
  bool is_cotangent(const Leaf& leaf) const {
    return leaf.kind == LeafKind::argument && leaf.argument >= parts_.arguments;
  }

  /// What depends on a cotangent is computed at backward().
  void mark_gradient_part() {
    of_gradient_.assign(graph_.values.size(), false);
    for (const Leaf& leaf : graph_.leaves)
      if (is_cotangent(leaf)) at(of_gradient_, leaf.value) = true;
    for (const Node& node : graph_.nodes) {
      const bool depends =
          std::any_of(node.inputs.begin(), node.inputs.end(), [&](int input) { return at(of_gradient_, input); });
      for (const int output : node.outputs) at(of_gradient_, output) = depends;
    }
  }

  /// Values of the gradient part that a gradient needs, and values of the function that are read by these.
  void mark_needed() {
    needed_.assign(graph_.values.size(), false);
    read_.assign(graph_.values.size(), false);
    const auto need = [&](int value) { at(at(of_gradient_, value) ? needed_ : read_, value) = true; };
    for (int i = parts_.results; i < count(graph_.outputs); ++i) need(at(graph_.outputs, i));
    for (size_t n = graph_.nodes.size(); n-- > 0;) {
      const Node& node = graph_.nodes[n];
      if (std::any_of(node.outputs.begin(), node.outputs.end(), [&](int output) { return at(needed_, output); }))
        for (const int input : node.inputs) need(input);
    }
  }

  bool can_recompute(const Node& node, int n) const {
    if (node.op->kind == OpKind::random) return false;
    if (n >= parts_.nodes) return true;  // nobody computes it before
    if (node.op->kind == OpKind::view || node.op->kind == OpKind::create) return true;
    return recompute_ && node.op->is_pointwise() && node.op->pointwise.cost != Cost::heavy && !node.op->user;
  }

  /// What backward() alone asks for is done there: it may be expensive, or raise an error. But that a mask is kept, say, in the place
  /// of what it is made of, costs nothing.
  bool is_backward_only(const Node& node, int n) const {
    const OpKind kind = node.op->kind;
    const bool cheap = kind == OpKind::view || kind == OpKind::create ||
                       (node.op->is_pointwise() && node.op->pointwise.cost != Cost::heavy && !node.op->checks_range);
    return n >= parts_.nodes && (!cheap || node.op->user);
  }

  /// Whether the tensor of the leaf is at backward() what it was at the call, or says that it has been written to. A number of
  /// the program's text is part of the graph.
  bool by_reference(const Leaf& leaf) const {
    if (leaf.kind == LeafKind::gradient) return false;
    if (leaf.kind == LeafKind::scalar) return !leaf.run_time;
    if (leaf.kind == LeafKind::constant) return true;
    if (leaf.kind == LeafKind::state && leaf.tensor.impl()->storage == default_generator().state().impl()->storage)
      return false;
    for (const StateWrite& write : graph_.writes) {
      const Leaf& written = graph_.leaf(write.leaf);
      if (written.value == leaf.value) return false;
      if (written.kind == LeafKind::state && leaf.kind == LeafKind::state &&
          written.tensor.impl()->storage == leaf.tensor.impl()->storage)
        return false;
    }
    return true;
  }

  /// Each value is two vertices, with its bytes as the capacity between them. Of values with the same bytes the last are kept: what
  /// leads there isn't computed again.
  void choose() {
    const int values = count(graph_.values), source = 2 * values, sink = source + 1;
    Flow flow(sink + 1);
    std::vector<bool> is_result(graph_.values.size()), known(graph_.values.size());
    for (int i = 0; i < parts_.results; ++i) {  // an expanded one is returned as a tensor of its own, in another layout
      const int result = at(graph_.outputs, i);
      at(is_result, result) = is_dense(graph_.type(result).shape, graph_.type(result).strides);
    }
    std::vector<int> open;
    const auto visit = [&](int value) {
      if (at(known, value)) return;
      at(known, value) = true;
      open.push_back(value);
    };
    for (int v = 0; v < values; ++v)
      if (at(read_, v)) {
        visit(v);
        flow.connect(2 * v + 1, sink, Flow::kUnbounded);
      }
    while (!open.empty()) {
      const int v = open.back();
      open.pop_back();
      const Value& value = graph_.value(v);
      const bool made = value.node >= 0, again = made && can_recompute(graph_.node(value.node), value.node);
      int64_t bytes = std::max<int64_t>(value.type.shape.numel() * size_of(value.type.dtype), 1);
      if (at(is_result, v) || (!made && by_reference(graph_.leaf(value.leaf)))) bytes = 0;
      else if (made && !is_dense(value.type.shape, value.type.strides)) bytes = Flow::kUnbounded;  // a view
      else if (made && graph_.node(value.node).op->kind == OpKind::view) ++bytes;                  // kept as a copy
      flow.connect(2 * v, 2 * v + 1, bytes);
      if (!again || bytes == 0) flow.connect(source, 2 * v, Flow::kUnbounded);
      if (!again) continue;
      if (is_backward_only(graph_.node(value.node), value.node)) flow.connect(2 * v, sink, Flow::kUnbounded);
      for (const int input : graph_.node(value.node).inputs) {
        visit(input);
        flow.connect(2 * input + 1, 2 * v, Flow::kUnbounded);
      }
    }
    const std::vector<bool> reached = flow.all_but_sink_side(source, sink);
    saved_.assign(graph_.values.size(), false);
    for (int v = 0; v < values; ++v) at(saved_, v) = at(known, v) && at(reached, 2 * v) && !at(reached, 2 * v + 1);
  }

  void build_forward() {
    Graph& forward = result_.forward;
    std::vector<bool> wanted(graph_.values.size());
    const auto want = [&](int value) {
      if (value >= 0) at(wanted, value) = true;
    };
    for (int i = 0; i < parts_.results; ++i) want(at(graph_.outputs, i));
    for (const StateWrite& write : graph_.writes) want(write.value);
    for (const GradientWrite& write : graph_.gradients) want(write.value);
    std::vector<int> outputs;
    for (int v = 0; v < count(graph_.values); ++v) {
      if (!at(saved_, v)) continue;
      const Value& value = graph_.value(v);
      const auto results = graph_.outputs.begin();
      const auto found = std::find(results, results + parts_.results, v);
      if (value.node < 0 && by_reference(graph_.leaf(value.leaf))) {
        const Leaf& leaf = graph_.leaf(value.leaf);
        if (leaf.kind == LeafKind::argument)
          result_.saved.push_back({Saved::From::argument, leaf.argument, value.type});
        else if (leaf.kind == LeafKind::scalar) continue;  // part of the text
        else result_.saved.push_back({Saved::From::leaf, value.leaf, value.type});
      } else if (found != results + parts_.results) {
        result_.saved.push_back({Saved::From::result, static_cast<int>(found - results), value.type});
      } else {
        if (!is_dense(value.type.shape, value.type.strides))
          throw TraceError(
              detail::str("backward() of a compiled function: its gradient needs ", value.type,
                          ", a view with gaps, as it was before the function wrote to it; read a clone() of it"),
              value.node < 0 ? graph_.leaf(value.leaf).where : where_);
        result_.saved.push_back({Saved::From::output, parts_.results + count(outputs), value.type});
        result_.saved_bytes += value.type.shape.numel() * size_of(value.type.dtype);
        outputs.push_back(v);
        want(v);
      }
      order_.push_back(v);
    }
    std::vector<bool> keep(graph_.nodes.size());
    for (size_t n = graph_.nodes.size(); n-- > 0;) {
      const Node& node = graph_.nodes[n];
      keep[n] = static_cast<int>(n) < parts_.nodes ||
                std::any_of(node.outputs.begin(), node.outputs.end(), [&](int output) { return at(wanted, output); });
      if (keep[n])
        for (const int input : node.inputs) want(input);
    }
    std::vector<int> map(graph_.values.size(), -1);
    for (const Leaf& leaf : graph_.leaves)
      if (!is_cotangent(leaf)) at(map, leaf.value) = forward.add_leaf(leaf, graph_.type(leaf.value));
    for (size_t n = 0; n < graph_.nodes.size(); ++n)
      if (keep[n]) copy(graph_.nodes[n], forward, map);
    for (int i = 0; i < parts_.results; ++i) forward.outputs.push_back(at(map, at(graph_.outputs, i)));
    for (const int value : outputs) forward.outputs.push_back(at(map, value));
    forward.writes = graph_.writes;
    for (StateWrite& write : forward.writes) write.value = at(map, write.value);
    forward.gradients = graph_.gradients;
    for (GradientWrite& write : forward.gradients)
      if (write.value >= 0) write.value = at(map, write.value);
    forward.draws = parts_.draws;
  }

  void build_backward() {
    Graph& backward = result_.backward;
    std::vector<int> map(graph_.values.size(), -1);
    const auto add_argument = [&](int value, int position) {
      at(map, value) = backward.add_leaf(
          {.kind = LeafKind::argument, .argument = position, .dynamic = graph_.is_number(value), .where = where_},
          graph_.type(value));
    };
    for (int i = 0; i < count(order_); ++i) add_argument(at(order_, i), i);
    for (const Leaf& leaf : graph_.leaves) {
      if (is_cotangent(leaf)) add_argument(leaf.value, count(order_) + leaf.argument - parts_.arguments);
      else if (leaf.kind == LeafKind::scalar && at(map, leaf.value) < 0)
        at(map, leaf.value) = backward.add_leaf(leaf, graph_.type(leaf.value));
    }
    std::vector<bool> wanted(graph_.values.size()), keep(graph_.nodes.size());
    for (int i = parts_.results; i < count(graph_.outputs); ++i) at(wanted, at(graph_.outputs, i)) = true;
    for (size_t n = graph_.nodes.size(); n-- > 0;) {
      const Node& node = graph_.nodes[n];
      keep[n] = std::any_of(node.outputs.begin(), node.outputs.end(),
                            [&](int output) { return at(wanted, output) && at(map, output) < 0; });
      if (keep[n])
        for (const int input : node.inputs) at(wanted, input) = true;
    }
    for (size_t n = 0; n < graph_.nodes.size(); ++n)
      if (keep[n]) copy(graph_.nodes[n], backward, map);
    for (int i = parts_.results; i < count(graph_.outputs); ++i)
      backward.outputs.push_back(at(map, at(graph_.outputs, i)));
  }

  /// Results that are there already keep their place.
  void copy(const Node& node, Graph& to, std::vector<int>& map) const {
    Node copied = node;
    std::vector<ValueType> types;
    for (int& input : copied.inputs) input = at(map, input);
    for (const int output : node.outputs) types.push_back(graph_.type(output));
    copied.outputs.clear();
    const int n = to.append(std::move(copied), types);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      if (int& mapped = at(map, node.outputs[i]); mapped < 0) mapped = to.node(n).outputs[i];
  }

  const Graph& graph_;
  const JointParts& parts_;
  bool recompute_;
  Where where_;
  std::vector<bool> of_gradient_, needed_, read_, saved_;
  std::vector<int> order_;  ///< the values that are saved, as arguments of the backward graph
  Partition result_;
};

}  // namespace

Partition partition(const Graph& joint, const JointParts& parts, bool recompute, Where where) {
  return Partitioner(joint, parts, recompute, where).cut();
}

}  // namespace tandem::graph
