// Who reads what between groups, and how two become one.
#include "graph/passes/groups.h"

#include <algorithm>
#include <iterator>

#include "graph/passes/pass.h"

namespace tandem::graph {

Groups::Groups(const Graph& graph)
    : graph(graph), group_of(graph.nodes.size(), -1), place_of(graph.nodes.size()),
      references_(tandem::graph::references(graph)), seen_through_(graph.nodes.size()) {}

bool Groups::is_generator(int n) const {
  const std::optional<Sequence>& sequence = node(n).op->sequence;
  if (node(n).op->fills) return true;
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

std::vector<int> Groups::sources(int n) const {
  std::vector<int> result;
  for (int input : node(n).inputs) {
    const int made_by = source(input);
    if (made_by < 0) continue;
    if (const int group = at(group_of, made_by); group >= 0 && !computed_again(made_by, at(group_of, n)))
      result.push_back(group);
    else
      for (int source : at(seen_through_, made_by)) result.push_back(alive(source));
  }
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

void Groups::each_member(const Group& group, const std::function<void(int)>& visit) const {
  if (!group.fused) return visit(group.node);
  for (const GroupSegment& segment : group.kernel.segments)
    for (const Member& member : segment.members) visit(member.node);
  for (int n : group.kernel.finish) visit(n);
}

// ---- Paths between groups.

int Groups::alive(int group) const {
  while (at(absorbed_by_, group) >= 0) group = at(absorbed_by_, group);
  return group;
}

bool Groups::far(const std::vector<int>& starts, int first) const {
  return std::any_of(starts.begin(), starts.end(),
                     [&](int start) { return at(position_, alive(start)) - at(position_, first) > kFarthest; });
}

bool Groups::walk_back(const std::vector<int>& starts, int first, std::vector<int>* passed) {
  const int begin = at(position_, first);
  ++walk_;
  std::vector<int> waiting;
  bool found = false;
  const auto reach = [&](int group) {
    ++looked_at_;
    found = found || group == first;
    if (at(position_, group) <= begin || at(passed_by_, group) == walk_) return;
    at(passed_by_, group) = walk_;
    waiting.push_back(group);
    if (passed) passed->push_back(group);
  };
  for (int start : starts) reach(alive(start));
  while (!waiting.empty() && !found) {
    const int group = waiting.back();
    waiting.pop_back();
    for (int source : at(reads_, group)) reach(alive(source));
  }
  return found;
}

void Groups::move_before(int first, std::vector<int> groups) {
  if (groups.empty()) return;
  const auto earlier = [&](int a, int b) { return at(position_, a) < at(position_, b); };
  std::sort(groups.begin(), groups.end(), earlier);
  const int begin = at(position_, first), end = at(position_, groups.back()) + 1;
  looked_at_ += end - begin;
  ++walk_;
  std::vector<int> others;
  for (int group : groups) at(passed_by_, group) = walk_;
  for (int i = begin; i < end; ++i)
    if (at(passed_by_, at(order_, i)) != walk_) others.push_back(at(order_, i));
  groups.insert(groups.end(), others.begin(), others.end());
  for (int i = begin; i < end; ++i) {
    at(order_, i) = at(groups, i - begin);
    at(position_, at(order_, i)) = i;
  }
}

bool Groups::makes_cycle(int n, int group) {
  std::vector<int> elsewhere = sources(n);
  std::erase(elsewhere, group);
  return far(elsewhere, group) || walk_back(elsewhere, group);
}

bool Groups::independent(int a, int b) {
  if (at(position_, a) < at(position_, b)) std::swap(a, b);
  return !far(at(reads_, a), b) && !walk_back(at(reads_, a), b);
}

bool Groups::mergeable(int a, int b) {
  if (at(position_, a) < at(position_, b)) std::swap(a, b);
  std::vector<int> others;
  for (int source : at(reads_, a))
    if (alive(source) != b) others.push_back(source);
  return !far(others, b) && !walk_back(others, b);
}

std::vector<bool> Groups::wanted_values() const {
  std::vector<bool> wanted(graph.values.size(), false);
  const auto want = [&](int value) {
    if (value >= 0) at(wanted, reference(value).base) = true;
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

// ---- Joining.

void Groups::add(int n, Group group) {
  all.push_back(std::move(group));
  const int made = count(all) - 1;
  reads_.emplace_back();
  absorbed_by_.push_back(-1);
  passed_by_.push_back(0);
  position_.push_back(count(order_));
  order_.push_back(made);
  enter(n, made);
}

void Groups::enter(int n, int group) {
  at(group_of, n) = group;
  std::vector<int> read = sources(n), later;
  std::erase(read, group);
  TANDEM_ASSERT(!walk_back(read, group, &later), "fusion made a cycle");
  move_before(group, std::move(later));
  std::vector<int>& reads = at(reads_, group);
  reads.insert(reads.end(), read.begin(), read.end());
}

void Groups::take_over(int other, int group) {
  const int first = at(position_, other) < at(position_, group) ? other : group, last = first == other ? group : other;
  std::vector<int> read, later;
  for (int source : at(reads_, last))
    if (alive(source) != first) read.push_back(source);
  TANDEM_ASSERT(!walk_back(read, first, &later), "fusion made a cycle");
  move_before(first, std::move(later));
  if (first == other) {
    std::swap(at(order_, at(position_, other)), at(order_, at(position_, group)));
    std::swap(at(position_, other), at(position_, group));
  }
  at(absorbed_by_, other) = group;
  std::vector<int> reads;
  for (const int part : {other, group})
    for (int source : at(reads_, part))
      if (const int from = alive(source); from != group) reads.push_back(from);
  std::sort(reads.begin(), reads.end());
  reads.erase(std::unique(reads.begin(), reads.end()), reads.end());
  at(reads_, group) = std::move(reads);
  at(reads_, other).clear();
  at(all, other).alive = false;
  at(all, other).kernel = {};
}

void Groups::index_members(int group, int first_segment) {
  const GroupKernel& kernel = at(all, group).kernel;
  for (int s = first_segment; s < count(kernel.segments); ++s) {
    const std::vector<Member>& members = at(kernel.segments, s).members;
    for (int m = 0; m < count(members); ++m) {
      at(group_of, at(members, m).node) = group;
      at(place_of, at(members, m).node) = {s, m};
    }
  }
}

void Groups::absorb(int other, int group) {
  GroupKernel &a = at(all, group).kernel, &b = at(all, other).kernel;
  const int before = count(a.segments);
  a.segments.insert(a.segments.end(), std::make_move_iterator(b.segments.begin()),
                    std::make_move_iterator(b.segments.end()));
  join_finish(b, group);
  index_members(group, before);
  take_over(other, group);
}

void Groups::merge_segments(int other, int group) {
  GroupKernel &a = at(all, group).kernel, &b = at(all, other).kernel;
  std::vector<Member>& members = a.segments[0].members;
  const std::vector<Member>& more = b.segments[0].members;
  members.insert(members.end(), more.begin(), more.end());
  std::sort(members.begin(), members.end(), [](const Member& x, const Member& y) { return x.node < y.node; });
  join_finish(b, group);
  index_members(group);
  take_over(other, group);
}

void Groups::join_finish(const GroupKernel& from, int group) {
  std::vector<int>& finish = at(all, group).kernel.finish;
  for (int n : from.finish) at(group_of, n) = group;
  finish.insert(finish.end(), from.finish.begin(), from.finish.end());
  std::sort(finish.begin(), finish.end());
}

}  // namespace tandem::graph
