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

  /// The group, after those that it reads from.
  void emit(int g) {
    std::vector<int> waiting{g};
    while (!waiting.empty()) {
      const int now = waiting.back();
      State& state = at(state_, now);
      const Group& group = at(groups_.all, now);
      if (state == State::waiting) {
        state = State::begun;
        std::vector<int> sources;
        groups_.each_member(group, [&](int n) {
          for (int source : groups_.sources(n))
            if (source != now && at(state_, source) != State::done) sources.push_back(source);
        });
        for (int source : sources) TANDEM_ASSERT(at(state_, source) == State::waiting, "fusion made a cycle");
        waiting.insert(waiting.end(), sources.rbegin(), sources.rend());
        continue;
      }
      waiting.pop_back();
      if (state == State::done) continue;
      if (group.fused) emit_kernel(group);
      else emit_node(groups_.node(group.node));
      state = State::done;
    }
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
    if (stored.empty()) return;  // nobody reads what it makes: dead_code was left out
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
    std::vector<int> nodes;  // views, and perhaps a generator below them
    for (int v = value; rewriter_.mapped(v) < 0; v = groups_.node(nodes.back()).inputs[0]) {
      nodes.push_back(groups_.maker(v));
      const bool generator = groups_.is_generator(nodes.back());
      TANDEM_ASSERT(generator || groups_.is_view(nodes.back()),
                    "a value of a kernel is read but not stored: ", groups_.node(nodes.back()).op->name);
      if (!generator) continue;
      for (int input : groups_.node(nodes.back()).inputs) view_of(input);
      break;
    }
    for (; !nodes.empty(); nodes.pop_back()) rewriter_.copy(groups_.node(nodes.back()));
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
