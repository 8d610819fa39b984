// horizontal: kernels that assign to state, and whose results no other kernel reads, become one, which then runs last: an
// optimiser's updates of all parameters are one launch, or a few where parameters are very many. Not so where gradients, which
// nobody else wants, would wait for it in memory: a large update has work enough for a launch of its own.
#include "graph/passes/groups.h"
#include "graph/passes/kept_alive.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {
constexpr int64_t kMayWait =
    16 << 10;  ///< bytes of values that an update alone reads: a larger one isn't bound by its launch
}

void join_state_kernels(Groups& groups, FusionReport& report, Choices* choices) {
  const Graph& graph = groups.graph;
  std::vector<bool> state(graph.values.size(), false), read(graph.values.size(), false);
  std::vector<int> leaf_of(graph.values.size(), -1);  // whose memory a value goes to
  for (const StateWrite& write : graph.writes) {
    const int base = groups.reference(write.value).base;
    at(state, base) = true;
    at(leaf_of, base) = graph.leaf(write.leaf).value;
  }
  for (int n = 0; n < count(graph.nodes); ++n) {
    if (groups.is_view(n)) continue;
    const int group = at(groups.group_of, n);
    for (int input : graph.node(n).inputs) {
      const int base = groups.reference(input).base, maker = groups.maker(base);
      if (maker >= 0 && at(groups.group_of, maker) != group && !groups.computed_again(maker, group))
        at(read, base) = true;
    }
  }
  const KeptAlive kept_alive(groups, choices);
  int target = -1;
  int64_t kept = 0;  // by the target, for updates to come
  std::vector<int> read_by(graph.values.size(), -1), written_by(graph.values.size(), -1);  // of leaves: the last target
  for (int g = 0; g < count(groups.all); ++g) {
    const Group& group = at(groups.all, g);
    if (!group.alive || !group.fused) continue;
    bool assigns = false, mixed = false;
    std::vector<int> members, leaves_read, leaves_written;
    groups.each_member(group, [&](int n) {
      members.push_back(n);
      for (int input : graph.node(n).inputs)
        if (const int base = groups.reference(input).base; groups.maker(base) < 0) leaves_read.push_back(base);
      for (int output : graph.node(n).outputs) {
        assigns = assigns || at(state, output);
        mixed = mixed || at(read, output);
        if (at(leaf_of, output) >= 0) leaves_written.push_back(at(leaf_of, output));
      }
    });
    for (const GroupSegment& segment : group.kernel.segments) mixed = mixed || segment.has_rows();
    if (!assigns || mixed) continue;
    const auto refuse = [&](const auto&... why) {
      if (report.refused.size() < kMostRefused)
        report.refused.push_back(detail::str("the update at ", to_string(graph.node(members[0]).where), ": ", why...));
    };
    const int64_t bytes = kept_alive.last_reads(members);
    if (kept_alive.choose(bytes > kMayWait)) {
      refuse("is large enough for a kernel of its own, and would keep ", bytes, " bytes alive until the others run");
      continue;
    }
    const bool full =
        target >= 0 && (count(at(groups.all, target).kernel.segments) + count(group.kernel.segments) > kMostSegments ||
                        kept_alive.choose(kept + bytes > KeptAlive::kMayKeep));
    const auto among = [&](const std::vector<int>& leaves, const std::vector<int>& by) {
      return std::any_of(leaves.begin(), leaves.end(), [&](int leaf) { return at(by, leaf) == target; });
    };
    if (target < 0 || full) {
      target = g;
      kept = 0;
    } else if (among(leaves_read, written_by) || among(leaves_written, read_by)) {
      refuse("another one reads what it writes, or the other way round");
      continue;
    } else if (groups.independent(g, target)) {
      groups.absorb(g, target);
    } else {
      continue;
    }
    kept += bytes;
    for (const int leaf : leaves_read) at(read_by, leaf) = target;
    for (const int leaf : leaves_written) at(written_by, leaf) = target;
  }
}

}  // namespace tandem::graph
