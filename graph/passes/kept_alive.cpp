// Counting the bytes that wait.
#include "graph/passes/kept_alive.h"

#include <algorithm>
#include <set>

#include "graph/run/plan.h"

namespace tandem::graph {

KeptAlive::KeptAlive(const Groups& groups, Choices* choices)
    : groups_(groups), choices_(choices), last_reader_(groups.graph.values.size(), -1),
      stays_(groups.graph.values.size()) {
  const Graph& graph = groups.graph;
  for (int n = 0; n < count(graph.nodes); ++n)
    if (!groups.is_view(n))
      for (const int input : graph.node(n).inputs) at(last_reader_, groups.reference(input).base) = n;
  const auto keep = [&](int value) {
    if (value >= 0) at(stays_, groups.reference(value).base) = true;
  };
  for (const int output : graph.outputs) keep(output);
  for (const StateWrite& write : graph.writes) keep(write.value);
  for (const GradientWrite& write : graph.gradients) keep(write.value);
}

void KeptAlive::grow(int group) {
  if (group < count(last_member_)) return;
  last_member_.resize(static_cast<size_t>(group) + 1, -1);
  keeps_.resize(static_cast<size_t>(group) + 1);
}

int KeptAlive::made_at(int maker) const {
  const int group = at(groups_.group_of, maker);
  return group < 0 || group >= count(last_member_) ? maker : std::max(maker, at(last_member_, group));
}

std::string KeptAlive::refusal(int n, int group) {
  grow(group);
  int latest = -1;
  int64_t not_stored = 0;
  std::vector<int> known;
  for (const int input : groups_.node(n).inputs) {
    const int base = groups_.reference(input).base, maker = groups_.maker(base);
    if (maker < 0 || groups_.computed_again(maker) || std::find(known.begin(), known.end(), base) != known.end()) continue;
    known.push_back(base);
    if (at(groups_.group_of, maker) == group) not_stored += bytes_of(groups_.type(base));
    else latest = std::max(latest, made_at(maker));
  }
  if (latest <= at(last_member_, group)) return {};
  const int64_t waits = at(keeps_, group) - not_stored;
  if (!choose(waits > kMayKeep)) return {};
  return detail::str("would keep ", waits, " bytes alive until its other operand is there");
}

int64_t KeptAlive::last_reads(const std::vector<int>& nodes) const {
  std::vector<int> values;
  const std::set<int> members(nodes.begin(), nodes.end());
  for (const int n : nodes)
    for (const int input : groups_.node(n).inputs) {
      const int base = groups_.reference(input).base, maker = groups_.maker(base);
      if (maker < 0 || at(stays_, base) || groups_.computed_again(maker)) continue;
      if (members.count(at(last_reader_, base)) && !members.count(maker)) values.push_back(base);
    }
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  int64_t bytes = 0;
  for (const int value : values) bytes += bytes_of(groups_.type(value));
  return bytes;
}

void KeptAlive::joined(int n, int group) {
  grow(group);
  at(last_member_, group) = std::max(at(last_member_, group), n);
  std::vector<int> known;
  for (const int input : groups_.node(n).inputs) {
    const int base = groups_.reference(input).base, maker = groups_.maker(base);
    if (maker < 0 || at(stays_, base) || at(last_reader_, base) != n || groups_.computed_again(maker)) continue;
    if (at(groups_.group_of, maker) == group || std::find(known.begin(), known.end(), base) != known.end()) continue;
    known.push_back(base);
    at(keeps_, group) += bytes_of(groups_.type(base));
  }
}

void KeptAlive::absorbed(int other, int group) {
  grow(std::max(other, group));
  at(last_member_, group) = std::max(at(last_member_, group), at(last_member_, other));
  at(keeps_, group) += at(keeps_, other);
}

}  // namespace tandem::graph
