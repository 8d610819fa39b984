// horizontal: kernels that assign to state, and whose results no other kernel reads, become one, which then runs last:
// an optimiser's updates of all parameters are one launch, or a few where parameters are very many.
#include "graph/passes/groups.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

void join_state_kernels(Groups& groups) {
  const Graph& graph = groups.graph;
  std::vector<bool> state(graph.values.size(), false), read(graph.values.size(), false);
  for (const StateWrite& write : graph.writes) at(state, groups.reference(write.value).base) = true;
  for (int n = 0; n < count(graph.nodes); ++n) {
    if (groups.is_view(n)) continue;
    const int group = at(groups.group_of, n);
    for (int input : graph.node(n).inputs) {
      const int base = groups.reference(input).base, maker = groups.maker(base);
      if (maker >= 0 && at(groups.group_of, maker) != group && !groups.computed_again(maker, group))
        at(read, base) = true;
    }
  }
  int target = -1;
  for (int g = 0; g < count(groups.all); ++g) {
    const Group& group = at(groups.all, g);
    if (!group.alive || !group.fused) continue;
    bool assigns = false, mixed = false;
    groups.each_member(group, [&](int n) {
      for (int output : graph.node(n).outputs) {
        assigns = assigns || at(state, output);
        mixed = mixed || at(read, output);
      }
    });
    for (const GroupSegment& segment : group.kernel.segments) mixed = mixed || segment.has_rows();
    if (!assigns || mixed) continue;
    const bool full =
        target >= 0 && count(at(groups.all, target).kernel.segments) + count(group.kernel.segments) > kMostSegments;
    if (target < 0 || full) target = g;
    else if (groups.independent(g, target)) groups.absorb(g, target);
  }
}

}  // namespace tandem::graph
