// Comparing traces.
#include "graph/trace/difference.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace tandem::graph {

namespace {
std::string describe_node(const Graph& graph, size_t n) {
  if (n >= graph.nodes.size()) return "the end of the function";
  return detail::str(graph.nodes[n].op->name, " at ", to_string(graph.nodes[n].where));
}
}  // namespace

std::string structural_difference(const Graph& a, const Graph& b) {
  for (size_t n = 0; n < std::max(a.nodes.size(), b.nodes.size()); ++n) {
    const bool same = n < a.nodes.size() && n < b.nodes.size() && a.nodes[n].op == b.nodes[n].op &&
                      a.nodes[n].inputs == b.nodes[n].inputs && a.nodes[n].outputs == b.nodes[n].outputs &&
                      a.nodes[n].attributes == b.nodes[n].attributes;
    if (!same) return detail::str("then: ", describe_node(a, n), "; now: ", describe_node(b, n));
  }
  if (a.leaves.size() != b.leaves.size())
    return detail::str("it read ", a.leaves.size(), " tensors and numbers from outside, now ", b.leaves.size());
  for (size_t i = 0; i < a.leaves.size(); ++i) {
    const Leaf &x = a.leaves[i], &y = b.leaves[i];
    const ValueType &tx = a.type(x.value), &ty = b.type(y.value);
    if (x.kind != y.kind || !(tx == ty))
      return detail::str("then: ", name_of(x.kind), " ", tx, " read at ", to_string(x.where),
                         "; now: ", name_of(y.kind), " ", ty, " read at ", to_string(y.where));
  }
  if (a.outputs != b.outputs || a.draws != b.draws || a.writes.size() != b.writes.size() ||
      a.gradients.size() != b.gradients.size())
    return "its results, assigns or gradients are others";
  for (size_t i = 0; i < a.writes.size(); ++i)
    if (a.writes[i].leaf != b.writes[i].leaf || a.writes[i].value != b.writes[i].value)
      return detail::str("another assign at ", to_string(b.writes[i].where));
  for (size_t i = 0; i < a.gradients.size(); ++i)
    if (a.gradients[i].value != b.gradients[i].value || a.gradients[i].argument != b.gradients[i].argument)
      return "a gradient is another value";
  return {};
}

std::vector<size_t> aliases(const Graph& graph) {
  std::unordered_map<const Storage*, size_t> first;
  std::vector<size_t> result;
  for (size_t i = 0; i < graph.leaves.size(); ++i)
    if (const Leaf& leaf = graph.leaves[i]; leaf.kind == LeafKind::state)
      result.push_back(first.try_emplace(leaf.tensor.impl()->storage, i).first->second);
  return result;
}

bool same_operands(const std::vector<TapeOperand>& a, const std::vector<TapeOperand>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const TapeOperand& x, const TapeOperand& y) {
    return x.argument == y.argument && x.outside.impl() == y.outside.impl();
  });
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return std::memcmp(a.impl()->data, b.impl()->data, static_cast<size_t>(a.numel() * size_of(a.dtype()))) == 0;
}

}  // namespace tandem::graph
