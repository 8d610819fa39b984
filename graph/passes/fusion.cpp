// fusion. Nodes are visited in order; each joins the kernel that makes one of its operands if their
// iteration spaces agree, or opens a kernel of its own. What a kernel may hold:
//
//   a domain of dims; element nodes over all of it; folds of some dims (rows), which must include the dim
//   that lies innermost in memory; row nodes over what is left; folds of everything into one number,
//   and scalar nodes after them (the finish).
//
// A join is refused where it would make a cycle with nodes outside, where an operand is looked at
// through a slice or reshape that the loop can't follow, where what the kernel reads would wait in memory for what is made
// much later (kept_alive.h), and above the caps below.
#include <algorithm>

#include "graph/ir/at.h"
#include "graph/passes/groups.h"
#include "graph/passes/kept_alive.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

constexpr size_t kMostMembers = 96;        // of a segment: compile time and registers
constexpr int64_t kLongestOnlyRow = 4096;  ///< a fold of everything up to here is a row; beyond, it is worth splitting

class Fuser {
 public:
  Fuser(const Graph& graph, FusionReport& report, Choices* choices)
      : graph_(graph), report_(report), groups_(graph), kept_alive_(groups_, choices) {}

  Groups run() {
    for (int n = 0; n < count(graph_.nodes); ++n) visit(n);
    leave_alone();
    materialise_scalars();
    report_.looked_at = groups_.looked_at();
    return std::move(groups_);
  }

 private:
  const Node& node(int n) const { return graph_.node(n); }

  // ---- Visiting.

  void visit(int n) {
    const Node& now = node(n);
    if (groups_.is_view(n) || groups_.is_generator(n)) return;
    if (groups_.is_scalar_node(n) && now.outputs.size() == 1) {
      bool inside = false;  // reads the only row of a kernel: a row statement of that kernel
      for (int input : now.inputs)
        if (const int maker = groups_.source(input); maker >= 0 && at(groups_.group_of, maker) >= 0)
          inside = inside || (at(groups_.all, at(groups_.group_of, maker)).fused && !groups_.is_finished(maker));
      if (!inside) return visit_scalar(n);
      groups_.in_memory.insert(n);
    }
    const bool in_order = now.op->fold && folds_in_order(*now.op, groups_.type(now.inputs[0]));
    const bool elementwise = now.op->is_pointwise(), folds = now.op->fold && !in_order;
    if ((elementwise || folds) && groups_.type(now.outputs[0]).shape.numel() > 0 &&
        groups_.type(now.inputs[0]).shape.numel() > 0) {
      // The operands' kernels, the one with the most members first.
      std::vector<int> candidates;
      for (int input : now.inputs) {
        const int maker = groups_.source(input);
        const int kernel = maker < 0 ? -1 : at(groups_.group_of, maker);
        if (kernel >= 0 && at(groups_.all, kernel).fused &&
            std::find(candidates.begin(), candidates.end(), kernel) == candidates.end())
          candidates.push_back(kernel);
      }
      std::erase_if(candidates, [&](int kernel) { return keeps_too_much(n, kernel); });
      for (int kernel : candidates)
        if (join(n, kernel)) {
          for (int other : candidates) merge_into(other, kernel, n);
          kept_alive_.joined(n, kernel);
          return;
        }
      if (open(n)) return;
    }
    if (in_order) refuse(n, "adds float64 in the order of the eager kernel, which runs");
    groups_.add(n, {.node = n, .kernel = {}});
  }

  void refuse(int n, const std::string& why) {
    const std::string line = detail::str(node(n).op->name, " at ", to_string(node(n).where), ": ", why);
    if (report_.refused.size() < kMostRefused) report_.refused.push_back(line);
  }

  bool keeps_too_much(int n, int kernel) {
    const std::string why = kept_alive_.refusal(n, kernel);
    if (!why.empty()) refuse(n, why);
    return !why.empty();
  }

  /// The finish of the kernel that makes its operands, or, made of leaves alone, no kernel: it is computed
  /// where it is read.
  void visit_scalar(int n) {
    std::vector<int> finishing;
    bool free = true;
    for (int input : node(n).inputs) {
      const int maker = groups_.source(input);
      if (maker < 0) continue;
      const int kernel = at(groups_.group_of, maker);
      if (kernel < 0) continue;
      if (at(groups_.all, kernel).fused && groups_.is_finished(maker)) {
        if (std::find(finishing.begin(), finishing.end(), kernel) == finishing.end()) finishing.push_back(kernel);
        free = false;
      }
    }
    if (free) return groups_.leave_out(n);
    std::erase_if(finishing, [&](int kernel) { return keeps_too_much(n, kernel); });
    for (size_t i = 1; i < finishing.size(); ++i)
      if (count(at(groups_.all, finishing[0]).kernel.segments) + count(at(groups_.all, finishing[i]).kernel.segments) <=
              kMostSegments &&
          groups_.independent(finishing[0], finishing[i])) {
        groups_.absorb(finishing[i], finishing[0]);
        kept_alive_.absorbed(finishing[i], finishing[0]);
      }
    int kernel = -1;  // the kernel that waits for the others, if one does
    for (int candidate : finishing)
      if (at(groups_.all, candidate).alive && !groups_.makes_cycle(n, candidate) && !reads_unfinished(n, candidate))
        kernel = candidate;
    if (kernel < 0) return groups_.leave_out(n);  // computed wherever it is read
    at(groups_.all, kernel).kernel.finish.push_back(n);
    at(groups_.place_of, n) = {-1, -1};
    groups_.in_memory.insert(n);
    groups_.enter(n, kernel);
    kept_alive_.joined(n, kernel);
  }

  /// Reads an element of the kernel that only its loop knows.
  bool reads_unfinished(int n, int kernel) const {
    for (int input : node(n).inputs)
      if (const int maker = groups_.source(input);
          maker >= 0 && at(groups_.group_of, maker) == kernel && !groups_.is_finished(maker))
        return true;
    return false;
  }

  // ---- Joining.

  bool join(int n, int kernel) {
    Group& into = at(groups_.all, kernel);
    int segment = -1;
    for (int input : node(n).inputs) {
      const int maker = groups_.source(input);
      if (maker < 0 || at(groups_.group_of, maker) != kernel) continue;
      const Place place = at(groups_.place_of, maker);
      if (place.segment < 0 || groups_.is_finished(maker)) {
        refuse(n, "needs a number that is only known when the kernel ends");
        return false;
      }
      if (segment >= 0 && place.segment != segment) {
        refuse(n, "operands come from different segments of one kernel");
        return false;
      }
      segment = place.segment;
    }
    if (segment < 0) return false;
    GroupSegment& group = at(into.kernel.segments, segment);
    if (group.members.size() >= kMostMembers) {
      refuse(n, "the kernel has as many ops as it may");
      return false;
    }
    if (groups_.makes_cycle(n, kernel)) {
      refuse(n, "another operand depends on the kernel's result");
      return false;
    }
    Member member;
    std::string why;
    if (!fit(n, kernel, segment, group, member, why)) {
      refuse(n, why);
      return false;
    }
    at(groups_.place_of, n) = {segment, count(group.members)};
    group.members.push_back(member);
    groups_.enter(n, kernel);
    return true;
  }

  /// Finds the node's place in the segment's domain.
  bool fit(int n, int kernel, int segment, GroupSegment& group, Member& member, std::string& why) {
    const Node& now = node(n);
    const bool folds = now.op->fold.has_value();
    const Shape& space = folds ? groups_.type(now.inputs[0]).shape : groups_.type(now.outputs[0]).shape;
    const Shape unknown = Shape::filled(space.size(), -2);
    std::vector<int> dims(unknown.begin(), unknown.end());
    for (int input : now.inputs) {
      const Reference& r = groups_.reference(input);
      const int maker = groups_.maker(r.base);
      if (maker < 0 || at(groups_.group_of, maker) != kernel) continue;
      const Place place = at(groups_.place_of, maker);
      TANDEM_ASSERT(place.segment == segment);
      if (!r.dims) return why = "an operand is sliced or reshaped on the way", false;
      const Member& source = at(group.members, place.member);
      const int shift = space.size() - r.shape.size();
      for (int i = 0; i < r.shape.size(); ++i) {
        const int base_dim = at(*r.dims, i);
        const int domain_dim = base_dim < 0 ? -1 : at(source.output_dims, base_dim);
        if (domain_dim < 0) continue;
        int& known = at(dims, i + shift);
        if (known >= 0 && known != domain_dim) return why = "operands walk the domain in different orders", false;
        known = domain_dim;
      }
    }
    std::vector<bool> used(group.domain.size(), false);
    for (int d : dims)
      if (d >= 0) {
        if (at(used, d)) return why = "an operand walks one dim twice", false;
        at(used, d) = true;
      }
    for (int j = 0; j < space.size(); ++j) {
      int& d = at(dims, j);
      if (d >= 0) continue;
      d = -1;
      if (space[j] == 1) continue;
      for (int candidate = 0; candidate < count(group.domain) && d < 0; ++candidate)
        if (!at(used, candidate) && at(group.domain, candidate) == space[j]) d = candidate;
      if (d < 0) return why = detail::str("its elements ", space, " are not those of the kernel"), false;
      at(used, d) = true;
    }
    bool all = true, rows = group.has_rows();
    for (size_t d = 0; d < group.domain.size(); ++d) {
      all = all && used[d];
      rows = rows && used[d] != group.reduced[d];
    }
    if (!all && !rows) return why = "it is neither over all elements nor over the rows", false;
    member = {n, all ? Level::element : Level::row, dims, dims};
    if (!folds) return true;
    return fit_fold(now, group, member, why);
  }

  bool fit_fold(const Node& now, GroupSegment& group, Member& member, std::string& why) {
    const Shape& space = groups_.type(now.inputs[0]).shape;
    const Shape& folded = now.attributes.integers("dims");
    std::vector<bool> reduced(group.domain.size(), false);
    bool everything = true;
    member.output_dims.clear();
    const bool keepdim = now.attributes.flag("keepdim");
    for (int i = 0; i < space.size(); ++i) {
      const int d = at(member.dims, i);
      if (folded.contains(i)) {
        if (d >= 0) at(reduced, d) = true;
        if (keepdim) member.output_dims.push_back(-1);
      } else {
        if (d >= 0) everything = false;
        member.output_dims.push_back(d);
      }
    }
    int64_t elements = 1;
    for (int64_t extent : group.domain) elements *= extent;
    if (everything) {
      for (int& d : member.output_dims) d = -1;
      // A domain that is one short row, kept as a dim to broadcast: what follows may read the result in the same kernel.
      bool one_row = keepdim && member.level == Level::element && elements <= kLongestOnlyRow && elements > 1;
      for (size_t d = 0; d < group.domain.size(); ++d) one_row = one_row && (group.reduced[d] || !group.has_rows());
      for (const Member& other : group.members) one_row = one_row && (other.level != Level::finish);
      if (one_row) group.reduced.assign(group.domain.size(), true);
      member.level = one_row ? Level::row : Level::finish;
      return true;
    }
    if (member.level == Level::row) return why = "folds some of the rows' dims", false;
    if (group.has_rows()) {
      if (reduced != group.reduced) return why = "folds other dims than the kernel", false;
    } else {
      bool any = false;
      for (bool r : reduced) any = any || r;
      if (!any) return why = "folds nothing", false;
      // Rows must lie along memory; folding columns is left to the kernel made for it.
      const ValueType& type = groups_.type(now.inputs[0]);
      int innermost = -1;
      for (int i = 0; i < space.size(); ++i)
        if (space[i] > 1 && type.strides[i] != 0 && (innermost < 0 || type.strides[i] < type.strides[innermost]))
          innermost = i;
      if (innermost >= 0 && !folded.contains(innermost))
        return why = "folds columns: dims that don't lie innermost in memory", false;
      for (const Member& other : group.members)
        if (other.level == Level::row) return why = "folds other dims than the kernel", false;
      group.reduced = reduced;
    }
    member.level = Level::row;
    return true;
  }

  bool open(int n) {
    const Node& now = node(n);
    const bool folds = now.op->fold.has_value();
    const Shape& space = folds ? groups_.type(now.inputs[0]).shape : groups_.type(now.outputs[0]).shape;
    if (now.outputs.size() != 1) return false;
    GroupSegment group;
    Member member{n, Level::element, {}, {}};
    for (int i = 0; i < space.size(); ++i) {
      if (space[i] == 1) {
        member.dims.push_back(-1);
        continue;
      }
      member.dims.push_back(count(group.domain));
      group.domain.push_back(space[i]);
    }
    group.reduced.assign(group.domain.size(), false);
    member.output_dims = member.dims;
    std::string why;
    if (folds && !fit_fold(now, group, member, why)) {
      refuse(n, why);
      return false;
    }
    group.members.push_back(member);
    at(groups_.place_of, n) = {0, 0};
    groups_.add(n, {.fused = true, .kernel = {.segments = {std::move(group)}, .finish = {}}});
    kept_alive_.joined(n, at(groups_.group_of, n));
    return true;
  }

  /// `n` of kernel `into` also reads `other`: one segment, if both walk the same domain in the same way.
  void merge_into(int other, int into, int n) {
    if (other == into || !at(groups_.all, other).alive) return;
    Group &a = at(groups_.all, into), &b = at(groups_.all, other);
    if (a.kernel.segments.size() != 1 || b.kernel.segments.size() != 1) return;
    GroupSegment &to = a.kernel.segments[0], &from = b.kernel.segments[0];
    const bool rows_agree = to.reduced == from.reduced || !from.has_rows() || !to.has_rows();
    if (to.domain != from.domain || !rows_agree) return refuse(n, "operands are made over different domains");
    if (to.members.size() + from.members.size() > kMostMembers)
      return refuse(n, "together the operands' kernels have too many ops");
    if (!groups_.mergeable(other, into)) return refuse(n, "joining the operands' kernels would make a cycle");
    if (!walks_agree(into, other) || !walks_agree(other, into))
      return refuse(n, "operands are sliced, folded or walked in another order on the way");
    // Row members of one need the other's reduced dims to be theirs.
    if (!to.has_rows()) to.reduced = from.reduced;
    groups_.merge_segments(other, into);
    kept_alive_.absorbed(other, into);
  }

  /// Whether everything that `user` reads of `source` is there when the same element or row is computed.
  bool walks_agree(int user, int source) const {
    const GroupKernel &reading = at(groups_.all, user).kernel, &made = at(groups_.all, source).kernel;
    for (int n : reading.finish)
      for (int input : node(n).inputs)
        if (const int maker = groups_.source(input);
            maker >= 0 && at(groups_.group_of, maker) == source && !groups_.is_finished(maker))
          return false;
    for (const Member& member : reading.segments[0].members)
      for (int input : node(member.node).inputs) {
        const Reference& r = groups_.reference(input);
        const int maker = groups_.maker(r.base);
        if (maker < 0 || at(groups_.group_of, maker) != source) continue;
        if (groups_.is_finished(maker) || !r.dims) return false;
        const Member& operand = at(made.segments[0].members, at(groups_.place_of, maker).member);
        const int shift = count(member.dims) - r.shape.size();
        for (int i = 0; i < r.shape.size(); ++i) {
          const int base_dim = at(*r.dims, i);
          const int d = base_dim < 0 ? -1 : at(operand.output_dims, base_dim);
          if (d >= 0 && d != at(member.dims, i + shift)) return false;
        }
      }
    return true;
  }

  /// A kernel of one op stays that op, where its eager kernel is as fast: folds, and copies and pointwise ops whose operands
  /// lie as their result does. What is assigned to state is kept for horizontal fusion.
  void leave_alone() {
    std::vector<bool> state(graph_.values.size(), false);
    for (const StateWrite& write : graph_.writes) at(state, groups_.reference(write.value).base) = true;
    for (Group& group : groups_.all) {
      if (!group.alive || !group.fused || group.kernel.segments.size() != 1 || !group.kernel.finish.empty()) continue;
      const std::vector<Member>& members = group.kernel.segments[0].members;
      if (members.size() != 1 || at(state, node(members[0].node).outputs[0]) || !runs_alone(node(members[0].node)))
        continue;
      const int n = members[0].node;
      refuse(n, "nothing to join it with: the eager kernel runs");
      group = {.node = n, .kernel = {}};
      at(groups_.place_of, n) = {};
    }
  }

  bool runs_alone(const Node& now) const {
    const ValueType& type = groups_.type(now.outputs[0]);
    if (!type.device.is_cpu() || !kernel_for(*now.op, type.device)) return false;
    for (int input : now.inputs) {
      const Reference& r = groups_.reference(input);
      const int maker = groups_.maker(r.base);
      // What is computed where it is read would have to be put in memory.
      if (r.checked_by >= 0 || (maker >= 0 && groups_.computed_again(maker))) return false;
      const ValueType& operand = groups_.type(input);
      const bool number = operand.shape.numel() == 1;
      if (now.op->is_pointwise() && now.op->pointwise.expression && !number &&
          (operand.shape != type.shape || operand.strides != type.strides || operand.dtype != type.dtype))
        return false;
    }
    return true;
  }

  /// Scalar nodes that are returned, assigned or read by other kernels get a kernel of their own.
  void materialise_scalars() {
    const std::vector<bool> wanted = groups_.wanted_values();
    for (int n = 0; n < count(graph_.nodes); ++n) {
      if (at(groups_.group_of, n) >= 0 || groups_.is_view(n)) continue;
      if (!at(wanted, node(n).outputs[0])) continue;
      if (groups_.is_generator(n)) groups_.add(n, {.node = n, .kernel = {}});
      else groups_.add(n, {.fused = true, .kernel = {.segments = {}, .finish = {n}}});
    }
  }

  const Graph& graph_;
  FusionReport& report_;
  Groups groups_;
  KeptAlive kept_alive_;
};

}  // namespace

Groups fuse(const Graph& graph, FusionReport& report, Choices* choices) { return Fuser(graph, report, choices).run(); }

}  // namespace tandem::graph
