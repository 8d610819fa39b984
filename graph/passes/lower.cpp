// lower: the groups that fusion chose become nodes of op "fused", each holding the loops that compute it
// (lower_kernel.cpp spells them). What isn't fused stays as it is. Views between kernels stay views; those that a
// kernel looks through are dead afterwards.
#include <algorithm>

#include "graph/ir/at.h"
#include "graph/passes/groups.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

/// The op of fused nodes: no kernel of its own, and not in the table.
const Op& fused_op() {
  static const Op op{.name = "fused", .kind = OpKind::opaque, .inputs = kVariadic, .outputs = 0};
  return op;
}

class Lowerer {
 public:
  Lowerer(const Groups& groups, FusionReport& report)
      : groups_(groups), report_(report), rewriter_(groups.graph), wanted_(groups.wanted_values()),
        state_(groups.all.size(), State::waiting) {}

  Graph run() {
    // In order of their last node, operands first.
    std::vector<std::pair<int, int>> order;  // last node, group
    for (int g = 0; g < count(groups_.all); ++g) {
      if (!at(groups_.all, g).alive) continue;
      int last = -1;
      groups_.each_member(at(groups_.all, g), [&](int n) { last = std::max(last, n); });
      order.emplace_back(last, g);
    }
    std::sort(order.begin(), order.end());
    for (const auto& [last, g] : order) emit(g);
    const Graph& graph = groups_.graph;
    for (int output : graph.outputs) view_of(output);
    for (const StateWrite& write : graph.writes) view_of(write.value);
    for (const GradientWrite& write : graph.gradients)
      if (write.value >= 0) view_of(write.value);
    return rewriter_.finish();
  }

 private:
  enum class State : uint8_t { waiting, begun, done };

  void emit(int g) {
    State& state = at(state_, g);
    TANDEM_ASSERT(state != State::begun, "fusion made a cycle");
    if (state == State::done) return;
    state = State::begun;
    const Group& group = at(groups_.all, g);
    groups_.each_member(group, [&](int n) {
      groups_.each_source(n, [&](int source) {
        if (source != g) emit(source);
      });
    });
    if (group.fused) emit_kernel(group);
    else emit_node(groups_.node(group.node));
    state = State::done;
  }

  void emit_node(const Node& node) {
    for (int input : node.inputs) view_of(input);
    rewriter_.copy(node);
  }

  void emit_kernel(const Group& group) {
    std::vector<int> stored, inputs;
    std::vector<ValueType> types;
    std::string names;
    Where where;
    groups_.each_member(group, [&](int n) {
      const Node& node = groups_.node(n);
      for (int output : node.outputs)
        if (at(wanted_, output)) stored.push_back(output), types.push_back(groups_.type(output));
      if (names.size() < 160) names += (names.empty() ? "" : " ") + std::string(node.op->name);
      else if (names.back() != '.') names += " ...";
      if (!where.line()) where = node.where;
    });
    auto kernel = std::make_shared<LoopKernel>(lower_kernel(groups_, group.kernel, stored, inputs));
    for (int& input : inputs) input = view_of(input);
    Graph& to = rewriter_.to();
    const int made = to.append({.op = &fused_op(),
                                .inputs = inputs,
                                .outputs = {},
                                .attributes = {{"ops", names}},
                                .where = where,
                                .fused = kernel},
                               types);
    for (int i = 0; i < count(stored); ++i) rewriter_.replace(at(stored, i), at(to.node(made).outputs, i));
    report_.kernels.push_back(
        detail::str(to_string(where), ": ", group.kernel.segments.size(), " segment(s): ", names));
  }

  /// Copies the views between a value in memory and this one.
  int view_of(int value) {
    if (rewriter_.mapped(value) >= 0) return rewriter_.mapped(value);
    const int maker = groups_.maker(value);
    TANDEM_ASSERT(maker >= 0 && (groups_.is_view(maker) || groups_.is_generator(maker)),
                  "a value of a kernel is read but not stored: ", groups_.node(maker).op->name);
    emit_node(groups_.node(maker));
    return rewriter_.mapped(value);
  }

  const Groups& groups_;
  FusionReport& report_;
  Rewriter rewriter_;
  const std::vector<bool> wanted_;
  std::vector<State> state_;  ///< of each group
};

}  // namespace

Graph lower(const Groups& groups, FusionReport& report) { return Lowerer(groups, report).run(); }

}  // namespace tandem::graph
