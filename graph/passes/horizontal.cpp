// horizontal: kernels that assign to state, and whose results no other kernel reads, become one, which then runs last: an
// optimiser's updates of all parameters are one launch, or a few where parameters are very many. Not so where gradients, which
// nobody else wants, would wait for it in memory: a large update has work enough for a launch of its own.
#include "graph/passes/groups.h"
#include "graph/passes/kept_alive.h"
#include "graph/passes/pass.h"
#include "graph/run/plan.h"

namespace tandem::graph {

namespace {
constexpr int64_t kMayWait =
    16 << 10;  ///< bytes of values that an update alone reads: a larger one isn't bound by its launch

/// What a kernel that assigns to state reads and writes of it.
struct Update {
  int group = -1;
  std::vector<int> members = {}, reads = {}, writes = {};  ///< nodes; leaves' values
};

/// The kernels that may be joined, in order.
std::vector<Update> find_updates(const Groups& groups) {
  const Graph& graph = groups.graph;
  std::vector<bool> read(graph.values.size(), false);
  std::vector<int> leaf_of(graph.values.size(), -1);  // whose memory a value goes to
  for (const StateWrite& write : graph.writes)
    at(leaf_of, groups.reference(write.value).base) = graph.leaf(write.leaf).value;
  for (int n = 0; n < count(graph.nodes); ++n) {
    if (groups.is_view(n)) continue;
    const int group = at(groups.group_of, n);
    for (int input : graph.node(n).inputs) {
      const int base = groups.reference(input).base, maker = groups.maker(base);
      if (maker >= 0 && at(groups.group_of, maker) != group && !groups.computed_again(maker, group))
        at(read, base) = true;
    }
  }
  std::vector<Update> updates;
  for (int g = 0; g < count(groups.all); ++g) {
    const Group& group = at(groups.all, g);
    if (!group.alive || !group.fused) continue;
    Update update{.group = g};
    bool mixed = false;
    groups.each_member(group, [&](int n) {
      update.members.push_back(n);
      for (int input : graph.node(n).inputs)
        if (const int base = groups.reference(input).base; groups.maker(base) < 0) update.reads.push_back(base);
      for (int output : graph.node(n).outputs) {
        mixed = mixed || at(read, output);
        if (at(leaf_of, output) >= 0) update.writes.push_back(at(leaf_of, output));
      }
    });
    for (const GroupSegment& segment : group.kernel.segments) mixed = mixed || segment.has_rows();
    if (!update.writes.empty() && !mixed) updates.push_back(std::move(update));
  }
  return updates;
}

}  // namespace

void join_state_kernels(Groups& groups, FusionReport& report, Choices* choices) {
  const Graph& graph = groups.graph;
  const KeptAlive kept_alive(groups, choices);
  const std::vector<Update> updates = find_updates(groups);
  // Of leaves: who writes them, the last other one that reads them, and the last kernel of several that does.
  std::vector<int> writer(graph.values.size(), -1), reader(graph.values.size(), -1);
  std::vector<int> read_by(graph.values.size(), -1), written_by(graph.values.size(), -1);
  for (const Update& update : updates)
    for (const int leaf : update.writes) at(writer, leaf) = update.group;
  for (const Update& update : updates)
    for (const int leaf : update.reads)
      if (at(writer, leaf) != update.group) at(reader, leaf) = update.group;
  int target = -1;
  int64_t kept = 0;  // by the target, for updates to come
  for (const Update& update : updates) {
    const auto refuse = [&](const auto&... why) {
      if (report.refused.size() < kMostRefused)
        report.refused.push_back(
            detail::str("the update at ", to_string(graph.node(update.members[0]).where), ": ", why...));
    };
    const int64_t bytes = kept_alive.last_reads(update.members);
    if (kept_alive.choose(bytes > kMayWait)) {
      refuse("is large enough for a kernel of its own, and would keep ", bytes, " bytes alive until the others run");
      continue;
    }
    // Where one reads what another writes, the order of the two is settled; of several in one kernel there may be none.
    bool tangled = false;
    for (const int leaf : update.reads)
      if (at(writer, leaf) >= 0 && at(writer, leaf) != update.group)
        tangled = kept_alive.choose(bytes_of(graph.type(leaf)) > kMayWait) || at(written_by, leaf) == target || tangled;
    for (const int leaf : update.writes)
      if (at(reader, leaf) >= 0)
        tangled = kept_alive.choose(bytes_of(graph.type(leaf)) > kMayWait) || at(read_by, leaf) == target || tangled;
    if (tangled) {
      refuse("another one reads what it writes, or the other way round");
      continue;
    }
    const int segments = count(at(groups.all, update.group).kernel.segments);
    const bool full = target >= 0 && (count(at(groups.all, target).kernel.segments) + segments > kMostSegments ||
                                      kept_alive.choose(kept + bytes > KeptAlive::kMayKeep));
    if (target < 0 || full) {
      target = update.group;
      kept = 0;
    } else if (groups.independent(update.group, target)) {
      groups.absorb(update.group, target);
    } else {
      continue;
    }
    kept += bytes;
    for (const int leaf : update.reads) at(read_by, leaf) = target;
    for (const int leaf : update.writes) at(written_by, leaf) = target;
  }
}

}  // namespace tandem::graph
