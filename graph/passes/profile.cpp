// Counting what is alive, in the order of the nodes.
#include "graph/passes/profile.h"

#include <algorithm>

#include "graph/ir/at.h"
#include "graph/run/plan.h"

namespace tandem::graph {

bool may_join_kernel(const Node& node) {
  return (node.op->is_pointwise() && !node.op->user) || node.op->fold || node.op->fills || node.op->sequence;
}

Profile::Profile(const Graph& graph, const std::vector<Reference>& references)
    : readers(graph.values.size()), stays(graph.values.size()), alive(graph.nodes.size()) {
  const auto is_view = [&](int n) { return graph.node(n).op->kind == OpKind::view; };
  for (int n = 0; n < count(graph.nodes); ++n)
    if (!is_view(n))
      for (const int input : graph.node(n).inputs)
        if (std::vector<int>& all = at(readers, at(references, input).base); all.empty() || all.back() != n)
          all.push_back(n);
  const auto keep = [&](int value) {
    if (value >= 0) at(stays, at(references, value).base) = true;
  };
  for (const int output : graph.outputs) keep(output);
  for (const GradientWrite& write : graph.gradients) keep(write.value);
  std::vector<bool> in_place(graph.values.size());  // as a rule: it lies in the memory of the state
  for (const StateWrite& write : graph.writes) {
    keep(write.value);
    at(in_place, at(references, write.value).base) = true;
  }
  std::vector<int> next_apart(graph.nodes.size() + 1,
                              count(graph.nodes));  // the first from each on that joins no kernel
  for (int n = count(graph.nodes); n-- > 0;)
    at(next_apart, n) = is_view(n) || may_join_kernel(graph.node(n)) ? at(next_apart, n + 1) : n;
  std::vector<int64_t> change(graph.nodes.size() + 1);
  for (int n = 0; n < count(graph.nodes); ++n)
    for (const int output : graph.node(n).outputs) {
      const int last = last_reader(output);
      if (is_view(n) || (may_join_kernel(graph.node(n)) && !at(stays, output) && last < at(next_apart, n))) continue;
      const int64_t bytes = at(in_place, output) ? 0 : bytes_of(graph.type(output));
      at(change, n) += bytes;
      if (!at(stays, output)) at(change, std::max(last, n) + 1) -= bytes;
    }
  int64_t now = 0;
  for (int n = 0; n < count(graph.nodes); ++n) {
    at(alive, n) = now += at(change, n);
    if (now > peak_bytes) peak_bytes = now, peak = n;
  }
}

}  // namespace tandem::graph
