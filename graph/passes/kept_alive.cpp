// Counting the bytes that wait.
#include "graph/passes/kept_alive.h"

#include <algorithm>
#include <set>

#include "graph/run/plan.h"

namespace tandem::graph {

namespace {
constexpr int64_t kLeastPeak = 256 << 10;  ///< bytes, below which memory is no matter
constexpr int64_t kOfPeak = 64;
constexpr double kHigh = 0.75;  ///< times the peak
}  // namespace

KeptAlive::KeptAlive(const Groups& groups, Choices* choices)
    : groups_(groups), choices_(choices), profile_(groups.graph, groups.references()),
      counted_in_(groups.graph.values.size(), -1),
      may_keep_(std::clamp(profile_.peak_bytes / kOfPeak, kMayKeep / 16, kMayKeep)) {
  int high = 0;
  for (const int64_t bytes : profile_.alive) {
    high += profile_.peak_bytes >= kLeastPeak &&
            static_cast<double>(bytes) >= kHigh * static_cast<double>(profile_.peak_bytes);
    high_.push_back(high);
  }
}

void KeptAlive::grow(int group) {
  if (group < count(last_member_)) return;
  last_member_.resize(static_cast<size_t>(group) + 1, -1);
  reads_.resize(static_cast<size_t>(group) + 1);
}

int64_t KeptAlive::waiting(int group, int n) {
  Reads& reads = at(reads_, group);
  for (; !reads.later.empty() && reads.later.top().first < n; reads.later.pop())
    reads.ended += reads.later.top().second;
  return reads.ended;
}

int KeptAlive::made_at(int maker) const {
  const int group = at(groups_.group_of, maker);
  return group < 0 || group >= count(last_member_) ? maker : std::max(maker, at(last_member_, group));
}

int64_t KeptAlive::kept_early(int n, int group) const {
  const int early = at(last_member_, group);
  if (early < 0 || early >= n || !crosses_peak(early, n)) return 0;
  bool needed_early = false;
  groups_.each_member(at(groups_.all, group), [&](int member) {
    for (const int output : groups_.node(member).outputs)
      for (const int reader : at(profile_.readers, output))
        if (at(groups_.group_of, reader) != group && reader < n && crosses_peak(reader, n)) needed_early = true;
  });
  if (!needed_early) return 0;
  int64_t bytes = 0;
  for (const int output : groups_.node(n).outputs) bytes += bytes_of(groups_.type(output));
  std::vector<int> known;
  for (const int input : groups_.node(n).inputs) {
    const int base = groups_.reference(input).base;
    if (groups_.maker(base) < 0 || at(profile_.stays, base) || profile_.last_reader(base) != n) continue;
    if (std::find(known.begin(), known.end(), base) != known.end()) continue;
    known.push_back(base);
    bytes -= bytes_of(groups_.type(base));
  }
  return bytes;
}

std::string KeptAlive::refusal(int n, int group) {
  grow(group);
  const int64_t early = kept_early(n, group);
  if (choose(early > may_keep_))
    return detail::str("its result of ", early, " bytes would be kept while the most memory is in use");
  int latest = -1;
  int64_t not_stored = 0;
  std::vector<int> known;
  for (const int input : groups_.node(n).inputs) {
    const int base = groups_.reference(input).base, maker = groups_.maker(base);
    if (maker < 0 || groups_.computed_again(maker) || std::find(known.begin(), known.end(), base) != known.end())
      continue;
    known.push_back(base);
    if (at(groups_.group_of, maker) == group) not_stored += bytes_of(groups_.type(base));
    else latest = std::max(latest, made_at(maker));
  }
  if (latest <= at(last_member_, group)) return {};
  const int64_t waits = waiting(group, n) - not_stored;
  if (!choose(waits > may_keep_)) return {};
  return detail::str("would keep ", waits, " bytes alive until its other operand is there");
}

int64_t KeptAlive::last_reads(const std::vector<int>& nodes) const {
  std::vector<int> values;
  const std::set<int> members(nodes.begin(), nodes.end());
  for (const int n : nodes)
    for (const int input : groups_.node(n).inputs) {
      const int base = groups_.reference(input).base, maker = groups_.maker(base);
      if (maker < 0 || at(profile_.stays, base) || groups_.computed_again(maker)) continue;
      if (members.count(profile_.last_reader(base)) && !members.count(maker)) values.push_back(base);
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
  for (const int input : groups_.node(n).inputs) {
    const int base = groups_.reference(input).base, maker = groups_.maker(base);
    if (maker < 0 || at(profile_.stays, base) || groups_.computed_again(maker)) continue;
    if (at(groups_.group_of, maker) == group || std::exchange(at(counted_in_, base), group) == group) continue;
    at(reads_, group).later.emplace(profile_.last_reader(base), bytes_of(groups_.type(base)));
  }
}

void KeptAlive::absorbed(int other, int group) {
  grow(std::max(other, group));
  at(last_member_, group) = std::max(at(last_member_, group), at(last_member_, other));
  Reads &to = at(reads_, group), &from = at(reads_, other);
  if (to.later.size() < from.later.size()) std::swap(to.later, from.later);
  for (; !from.later.empty(); from.later.pop()) to.later.push(from.later.top());
  to.ended += std::exchange(from.ended, 0);
}

}  // namespace tandem::graph
