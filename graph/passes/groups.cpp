// Who reads what between groups, and how two become one.
#include "graph/passes/groups.h"

#include <algorithm>

#include "graph/ir/at.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

Groups::Groups(const Graph& graph) : graph(graph), group_of(graph.nodes.size(), -1), place_of(graph.nodes.size()) {}

bool Groups::is_generator(int n) const {
  const std::optional<Sequence>& sequence = node(n).op->sequence;
  return sequence && (*sequence != Sequence::uniform || type(node(n).outputs[0]).dtype == DType::float32);
}

bool Groups::is_scalar_node(int n) const {
  if (!node(n).op->is_pointwise()) return false;
  for (int input : node(n).inputs)
    if (type(input).shape.numel() != 1) return false;
  return type(node(n).outputs[0]).shape.numel() == 1;
}

bool Groups::is_finished(int n) const {
  const Place place = at(place_of, n);
  if (place.segment < 0) return true;
  const GroupSegment& segment = at(at(all, at(group_of, n)).kernel.segments, place.segment);
  return at(segment.members, place.member).level == Level::finish;
}

bool Groups::computed_again(int n, int by_group) const {
  return (by_group < 0 || at(all, by_group).fused) && computed_again(n);
}

void Groups::each_source(int n, const std::function<void(int)>& visit) const {
  for (int input : node(n).inputs) {
    const int made_by = source(input);
    if (made_by < 0) continue;
    if (at(group_of, made_by) >= 0 && !computed_again(made_by, at(group_of, n))) visit(at(group_of, made_by));
    else each_source(made_by, visit);
  }
}

void Groups::each_member(const Group& group, const std::function<void(int)>& visit) const {
  if (!group.fused) return visit(group.node);
  for (const GroupSegment& segment : group.kernel.segments)
    for (const Member& member : segment.members) visit(member.node);
  for (int n : group.kernel.finish) visit(n);
}

/// Whether `from` is `to`, or reads, directly or not, what it makes.
bool Groups::reaches(int from, int to, std::set<int>& seen) const {
  if (from == to) return true;
  if (!seen.insert(from).second) return false;
  bool found = false;
  each_member(at(all, from), [&](int n) {
    if (!found) each_source(n, [&](int source) { found = found || (source != from && reaches(source, to, seen)); });
  });
  return found;
}

bool Groups::makes_cycle(int n, int group) const {
  bool cycle = false;
  each_source(n, [&](int source) {
    std::set<int> seen;
    if (source != group && !cycle) cycle = reaches(source, group, seen);
  });
  return cycle;
}

bool Groups::independent(int a, int b) const {
  std::set<int> seen_a, seen_b;
  return !reaches(a, b, seen_a) && !reaches(b, a, seen_b);
}

bool Groups::mergeable(int a, int b) const { return !reaches_indirectly(a, b) && !reaches_indirectly(b, a); }

bool Groups::reaches_indirectly(int from, int to) const {
  bool indirect = false;
  each_member(at(all, from), [&](int n) {
    each_source(n, [&](int source) {
      std::set<int> seen;
      if (source != from && source != to && !indirect) indirect = reaches(source, to, seen);
    });
  });
  return indirect;
}

std::vector<bool> Groups::wanted_values() const {
  std::vector<bool> wanted(graph.values.size(), false);
  const auto want = [&](int value) {
    if (value >= 0) at(wanted, reference(graph, value).base) = true;
  };
  for (int output : graph.outputs) want(output);
  for (const StateWrite& write : graph.writes) want(write.value);
  for (const GradientWrite& write : graph.gradients) want(write.value);
  for (int n = 0; n < count(graph.nodes); ++n) {
    if (is_view(n)) continue;
    const int group = at(group_of, n);
    for (int input : node(n).inputs) {
      const int made_by = source(input);
      if (made_by < 0 || computed_again(made_by, group)) continue;
      if (at(group_of, made_by) < 0 || at(group_of, made_by) != group) want(input);
    }
  }
  return wanted;
}

void Groups::add(int n, Group group) {
  at(group_of, n) = count(all);
  all.push_back(std::move(group));
}

void Groups::index_members(int group) {
  GroupKernel& kernel = at(all, group).kernel;
  for (int s = 0; s < count(kernel.segments); ++s) {
    const std::vector<Member>& members = at(kernel.segments, s).members;
    for (int m = 0; m < count(members); ++m) {
      at(group_of, at(members, m).node) = group;
      at(place_of, at(members, m).node) = {s, m};
    }
  }
  for (int n : kernel.finish) at(group_of, n) = group;
}

void Groups::absorb(int other, int group) {
  Group &a = at(all, group), &b = at(all, other);
  a.kernel.segments.insert(a.kernel.segments.end(), b.kernel.segments.begin(), b.kernel.segments.end());
  a.kernel.finish.insert(a.kernel.finish.end(), b.kernel.finish.begin(), b.kernel.finish.end());
  std::sort(a.kernel.finish.begin(), a.kernel.finish.end());
  b.alive = false;
  b.kernel = {};
  index_members(group);
}

}  // namespace tandem::graph
