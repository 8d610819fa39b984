// fusion. Nodes are visited in order; each joins the kernel that makes one of its operands if their
// iteration spaces agree, or opens a kernel of its own. What a kernel may hold:
//
//   a domain of dims; element nodes over all of it; folds of some dims (rows), which must include the dim
//   that lies innermost in memory; row nodes over what is left; folds of everything into one number,
//   and scalar nodes after them (the finish).
//
// A join is refused where it would make a cycle with nodes outside, where an operand is looked at
// through a slice or reshape that the loop can't follow, and above the caps below.
#include "graph/passes/fusion.h"

#include <algorithm>
#include <functional>

#include "graph/passes/fusion_groups.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

constexpr size_t kMostMembers = 96;        // of a segment: compile time and registers
constexpr int64_t kLongestOnlyRow = 4096;  ///< a fold of everything up to here is a row; beyond, it is worth splitting
constexpr size_t kMostSegments = 512;      // of a kernel

bool is_fold(const Op& op) {
  const std::string_view name = op.name;
  return name == "sum" || name == "max" || name == "min" || name == "prod";
}

class Fuser {
 public:
  Fuser(const Graph& graph, FusionOptions options, FusionReport& report)
      : context_(graph), graph_(graph), options_(options), report_(report), unit_(graph.nodes.size(), -1),
        place_(graph.nodes.size()) {}

  Graph run() {
    for (int n = 0; n < static_cast<int>(graph_.nodes.size()); ++n) visit(n);
    materialise_scalars();
    if (options_.horizontal) merge_state_kernels();
    return rebuild();
  }

 private:
  struct Unit {
    bool fused = false;
    int node = -1;  ///< of an unfused unit
    GroupKernel kernel;
    bool alive = true;
  };

  const Node& node(int n) const { return graph_.nodes[static_cast<size_t>(n)]; }

  // ---- Dependencies between units. Views belong to no unit: they are looked through.

  /// Units whose results the node reads.
  void each_source(int n, const std::function<void(int)>& visit_unit) const {
    for (int input : node(n).inputs) {
      const Reference r = context_.reference(input);
      const int maker = context_.maker(r.base);
      if (maker < 0) continue;
      if (unit_[static_cast<size_t>(maker)] >= 0 && !computed_again(maker, unit_[static_cast<size_t>(n)]))
        visit_unit(unit_[static_cast<size_t>(maker)]);
      else each_source(maker, visit_unit);
    }
  }
  /// Generators and scalars made of numbers and memory are not read by kernels but computed again.
  bool computed_again(int maker, int by_unit) const {
    if (by_unit >= 0 && !units_[static_cast<size_t>(by_unit)].fused) return false;
    return context_.is_generator(maker) || (context_.is_scalar_node(maker) && !context_.in_memory.count(maker));
  }
  void each_member(const Unit& unit, const std::function<void(int)>& visit_node) const {
    if (!unit.fused) return visit_node(unit.node);
    for (const GroupSegment& segment : unit.kernel.segments)
      for (const Member& member : segment.members) visit_node(member.node);
    for (int n : unit.kernel.finish) visit_node(n);
  }
  /// Whether `from` reads, directly or not, what `to` makes, other than by the direct edges of `except`.
  bool reaches(int from, int to, std::set<int>& seen) const {
    if (from == to) return true;
    if (!seen.insert(from).second) return false;
    bool found = false;
    each_member(units_[static_cast<size_t>(from)], [&](int n) {
      if (!found) each_source(n, [&](int source) { found = found || (source != from && reaches(source, to, seen)); });
    });
    return found;
  }
  /// Joining `n` to `unit` is fine if nothing that n reads elsewhere depends on the unit.
  bool makes_cycle(int n, int unit) const {
    bool cycle = false;
    each_source(n, [&](int source) {
      std::set<int> seen;
      if (source != unit && !cycle) cycle = reaches(source, unit, seen);
    });
    return cycle;
  }
  bool independent(int a, int b) const {
    std::set<int> seen_a, seen_b;
    return !reaches(a, b, seen_a) && !reaches(b, a, seen_b);
  }
  /// Two units may become one if every path between them is a direct edge.
  bool mergeable(int a, int b) const { return !reaches_indirectly(a, b) && !reaches_indirectly(b, a); }
  bool reaches_indirectly(int from, int to) const {
    bool indirect = false;
    each_member(units_[static_cast<size_t>(from)], [&](int n) {
      each_source(n, [&](int source) {
        std::set<int> seen;
        if (source != from && source != to && !indirect) indirect = reaches(source, to, seen);
      });
    });
    return indirect;
  }

  // ---- Visiting.

  void visit(int n) {
    const Node& now = node(n);
    if (context_.is_view(n) || context_.is_generator(n)) return;
    if (context_.is_scalar_node(n) && now.outputs.size() == 1) {
      bool inside = false;  // reads the only row of a kernel: a row statement of that kernel
      for (int input : now.inputs)
        if (const int maker = context_.maker(context_.reference(input).base);
            maker >= 0 && unit_[static_cast<size_t>(maker)] >= 0)
          inside =
              inside || (units_[static_cast<size_t>(unit_[static_cast<size_t>(maker)])].fused && !is_finished(maker));
      if (!inside) return visit_scalar(n);
      context_.in_memory.insert(n);
    }
    const bool elementwise = is_elementwise(*now.op), folds = is_fold(*now.op);
    if ((elementwise || folds) && context_.type(now.outputs[0]).shape.numel() > 0 &&
        context_.type(now.inputs[0]).shape.numel() > 0) {
      // The operands' kernels, the one with the most members first.
      std::vector<int> candidates;
      for (int input : now.inputs) {
        const int maker = context_.maker(context_.reference(input).base);
        const int unit = maker < 0 ? -1 : unit_[static_cast<size_t>(maker)];
        if (unit >= 0 && units_[static_cast<size_t>(unit)].fused &&
            std::find(candidates.begin(), candidates.end(), unit) == candidates.end())
          candidates.push_back(unit);
      }
      for (int unit : candidates)
        if (join(n, unit)) {
          for (int other : candidates) merge_into(other, unit, n);
          return;
        }
      if (open(n)) return;
    }
    unit_[static_cast<size_t>(n)] = static_cast<int>(units_.size());
    units_.push_back({.fused = false, .node = n, .kernel = {}, .alive = true});
  }

  void refuse(int n, const std::string& why) {
    const std::string line = detail::str(node(n).op->name, " at ", to_string(node(n).where), ": ", why);
    if (report_.refused.size() < 200) report_.refused.push_back(line);
  }

  /// The finish of the kernel that makes its operands, or, made of leaves alone, no kernel: it is computed
  /// where it is read.
  void visit_scalar(int n) {
    std::vector<int> finishing;
    bool free = true;
    for (int input : node(n).inputs) {
      const int maker = context_.maker(context_.reference(input).base);
      if (maker < 0) continue;
      const int unit = unit_[static_cast<size_t>(maker)];
      if (unit < 0) continue;
      if (units_[static_cast<size_t>(unit)].fused && is_finished(maker)) {
        if (std::find(finishing.begin(), finishing.end(), unit) == finishing.end()) finishing.push_back(unit);
        free = false;
      }
    }
    if (free) return;
    for (size_t i = 1; i < finishing.size(); ++i)
      if (independent(finishing[0], finishing[i])) absorb(finishing[i], finishing[0]);
    int unit = -1;  // the kernel that waits for the others, if one does
    for (int candidate : finishing)
      if (units_[static_cast<size_t>(candidate)].alive && !makes_cycle(n, candidate) && !reads_unfinished(n, candidate))
        unit = candidate;
    if (unit < 0) return;  // computed wherever it is read
    units_[static_cast<size_t>(unit)].kernel.finish.push_back(n);
    unit_[static_cast<size_t>(n)] = unit;
    place_[static_cast<size_t>(n)] = {-1, -1};
    context_.in_memory.insert(n);
  }

  /// Reads an element of the kernel that only its loop knows.
  bool reads_unfinished(int n, int unit) const {
    for (int input : node(n).inputs)
      if (const int maker = context_.maker(context_.reference(input).base);
          maker >= 0 && unit_[static_cast<size_t>(maker)] == unit && !is_finished(maker))
        return true;
    return false;
  }

  /// Made by the finish, or by a fold whose result is only complete there.
  bool is_finished(int maker) const {
    const Place place = place_[static_cast<size_t>(maker)];
    if (place.segment < 0) return true;
    const GroupSegment& segment = units_[static_cast<size_t>(unit_[static_cast<size_t>(maker)])]
                                      .kernel.segments[static_cast<size_t>(place.segment)];
    return segment.members[static_cast<size_t>(place.member)].level == Level::finish;
  }

  // ---- Joining.

  bool join(int n, int unit) {
    Unit& into = units_[static_cast<size_t>(unit)];
    int segment = -1;
    for (int input : node(n).inputs) {
      const int maker = context_.maker(context_.reference(input).base);
      if (maker < 0 || unit_[static_cast<size_t>(maker)] != unit) continue;
      const Place place = place_[static_cast<size_t>(maker)];
      if (place.segment < 0 || is_finished(maker)) {
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
    GroupSegment& group = into.kernel.segments[static_cast<size_t>(segment)];
    if (group.members.size() >= kMostMembers) {
      refuse(n, "the kernel has as many ops as it may");
      return false;
    }
    if (makes_cycle(n, unit)) {
      refuse(n, "another operand depends on the kernel's result");
      return false;
    }
    Member member;
    std::string why;
    if (!fit(n, unit, segment, group, member, why)) {
      refuse(n, why);
      return false;
    }
    place_[static_cast<size_t>(n)] = {segment, static_cast<int>(group.members.size())};
    group.members.push_back(member);
    unit_[static_cast<size_t>(n)] = unit;
    return true;
  }

  /// Finds the node's place in the segment's domain.
  bool fit(int n, int unit, int segment, GroupSegment& group, Member& member, std::string& why) {
    const Node& now = node(n);
    const bool folds = is_fold(*now.op);
    const Shape& space = folds ? context_.type(now.inputs[0]).shape : context_.type(now.outputs[0]).shape;
    std::vector<int> dims(static_cast<size_t>(space.size()), -2);
    for (int input : now.inputs) {
      const Reference r = context_.reference(input);
      const int maker = context_.maker(r.base);
      if (maker < 0 || unit_[static_cast<size_t>(maker)] != unit) continue;
      const Place place = place_[static_cast<size_t>(maker)];
      TANDEM_ASSERT(place.segment == segment);
      if (!r.dims) return why = "an operand is sliced or reshaped on the way", false;
      const Member& source = group.members[static_cast<size_t>(place.member)];
      const int shift = space.size() - r.shape.size();
      for (int i = 0; i < r.shape.size(); ++i) {
        const int base_dim = (*r.dims)[static_cast<size_t>(i)];
        const int domain_dim = base_dim < 0 ? -1 : source.output_dims[static_cast<size_t>(base_dim)];
        if (domain_dim < 0) continue;
        int& known = dims[static_cast<size_t>(i + shift)];
        if (known >= 0 && known != domain_dim) return why = "operands walk the domain in different orders", false;
        known = domain_dim;
      }
    }
    std::vector<bool> used(group.domain.size(), false);
    for (int d : dims)
      if (d >= 0) {
        if (used[static_cast<size_t>(d)]) return why = "an operand walks one dim twice", false;
        used[static_cast<size_t>(d)] = true;
      }
    for (int j = 0; j < space.size(); ++j) {
      int& d = dims[static_cast<size_t>(j)];
      if (d >= 0) continue;
      d = -1;
      if (space[j] == 1) continue;
      for (size_t candidate = 0; candidate < group.domain.size() && d < 0; ++candidate)
        if (!used[candidate] && group.domain[candidate] == space[j]) d = static_cast<int>(candidate);
      if (d < 0) return why = detail::str("its elements ", space, " are not those of the kernel"), false;
      used[static_cast<size_t>(d)] = true;
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
    const Shape& space = context_.type(now.inputs[0]).shape;
    const Shape& folded = now.attributes.integers("dims");
    std::vector<bool> reduced(group.domain.size(), false);
    bool everything = true;
    member.output_dims.clear();
    const bool keepdim = now.attributes.flag("keepdim");
    for (int i = 0; i < space.size(); ++i) {
      const int d = member.dims[static_cast<size_t>(i)];
      if (folded.contains(i)) {
        if (d >= 0) reduced[static_cast<size_t>(d)] = true;
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
      const ValueType& type = context_.type(now.inputs[0]);
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
    const bool folds = is_fold(*now.op);
    const Shape& space = folds ? context_.type(now.inputs[0]).shape : context_.type(now.outputs[0]).shape;
    if (now.outputs.size() != 1) return false;
    GroupSegment group;
    Member member{n, Level::element, {}, {}};
    for (int i = 0; i < space.size(); ++i) {
      if (space[i] == 1) {
        member.dims.push_back(-1);
        continue;
      }
      member.dims.push_back(static_cast<int>(group.domain.size()));
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
    unit_[static_cast<size_t>(n)] = static_cast<int>(units_.size());
    place_[static_cast<size_t>(n)] = {0, 0};
    Unit unit;
    unit.fused = true;
    unit.kernel.segments.push_back(std::move(group));
    units_.push_back(std::move(unit));
    return true;
  }

  /// `n` of unit `into` also reads `other`: one segment, if both walk the same domain in the same way.
  void merge_into(int other, int into, int n) {
    if (other == into || !units_[static_cast<size_t>(other)].alive) return;
    Unit &a = units_[static_cast<size_t>(into)], &b = units_[static_cast<size_t>(other)];
    if (a.kernel.segments.size() != 1 || b.kernel.segments.size() != 1) return;
    GroupSegment &to = a.kernel.segments[0], &from = b.kernel.segments[0];
    const bool rows_agree = to.reduced == from.reduced || !from.has_rows() || !to.has_rows();
    if (to.domain != from.domain || !rows_agree) return refuse(n, "operands are made over different domains");
    if (to.members.size() + from.members.size() > kMostMembers)
      return refuse(n, "together the operands' kernels have too many ops");
    if (!mergeable(other, into)) return refuse(n, "joining the operands' kernels would make a cycle");
    if (!walks_agree(into, other) || !walks_agree(other, into))
      return refuse(n, "operands are sliced, folded or walked in another order on the way");
    // Row members of one need the other's reduced dims to be theirs.
    if (!to.has_rows()) to.reduced = from.reduced;
    std::vector<Member> members = to.members;
    members.insert(members.end(), from.members.begin(), from.members.end());
    std::sort(members.begin(), members.end(), [](const Member& x, const Member& y) { return x.node < y.node; });
    to.members = std::move(members);
    a.kernel.finish.insert(a.kernel.finish.end(), b.kernel.finish.begin(), b.kernel.finish.end());
    std::sort(a.kernel.finish.begin(), a.kernel.finish.end());
    b.alive = false;
    b.kernel = {};
    index_members(into);
  }

  /// Whether everything that `user` reads of `source` is there when the same element or row is computed.
  bool walks_agree(int user, int source) const {
    const GroupKernel &reading = units_[static_cast<size_t>(user)].kernel,
                      &made = units_[static_cast<size_t>(source)].kernel;
    for (int n : reading.finish)
      for (int input : node(n).inputs)
        if (const int maker = context_.maker(context_.reference(input).base);
            maker >= 0 && unit_[static_cast<size_t>(maker)] == source && !is_finished(maker))
          return false;
    for (const Member& member : reading.segments[0].members)
      for (int input : node(member.node).inputs) {
        const Reference r = context_.reference(input);
        const int maker = context_.maker(r.base);
        if (maker < 0 || unit_[static_cast<size_t>(maker)] != source) continue;
        if (is_finished(maker) || !r.dims) return false;
        const Member& operand =
            made.segments[0].members[static_cast<size_t>(place_[static_cast<size_t>(maker)].member)];
        const int shift = static_cast<int>(member.dims.size()) - r.shape.size();
        for (int i = 0; i < r.shape.size(); ++i) {
          const int base_dim = (*r.dims)[static_cast<size_t>(i)];
          const int d = base_dim < 0 ? -1 : operand.output_dims[static_cast<size_t>(base_dim)];
          if (d >= 0 && d != member.dims[static_cast<size_t>(i + shift)]) return false;
        }
      }
    return true;
  }

  void index_members(int unit) {
    GroupKernel& kernel = units_[static_cast<size_t>(unit)].kernel;
    for (size_t s = 0; s < kernel.segments.size(); ++s)
      for (size_t m = 0; m < kernel.segments[s].members.size(); ++m) {
        const int n = kernel.segments[s].members[m].node;
        unit_[static_cast<size_t>(n)] = unit;
        place_[static_cast<size_t>(n)] = {static_cast<int>(s), static_cast<int>(m)};
      }
    for (int n : kernel.finish) unit_[static_cast<size_t>(n)] = unit;
  }

  /// Moves the segments and finish of `other` to `unit`.
  void absorb(int other, int unit) {
    Unit &a = units_[static_cast<size_t>(unit)], &b = units_[static_cast<size_t>(other)];
    a.kernel.segments.insert(a.kernel.segments.end(), b.kernel.segments.begin(), b.kernel.segments.end());
    a.kernel.finish.insert(a.kernel.finish.end(), b.kernel.finish.begin(), b.kernel.finish.end());
    std::sort(a.kernel.finish.begin(), a.kernel.finish.end());
    b.alive = false;
    b.kernel = {};
    index_members(unit);
  }

  // ---- Scalars that have to be in memory, and the optimiser.

  /// Values read outside the unit that makes them, or returned.
  std::vector<bool> wanted_values() const {
    std::vector<bool> wanted(graph_.values.size(), false);
    const auto want = [&](int value) {
      if (value >= 0) wanted[static_cast<size_t>(context_.reference(value).base)] = true;
    };
    for (int output : graph_.outputs) want(output);
    for (const StateWrite& write : graph_.writes) want(write.value);
    for (const GradientWrite& write : graph_.gradients) want(write.value);
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (context_.is_view(static_cast<int>(n))) continue;
      for (int input : graph_.nodes[n].inputs) {
        const int base = context_.reference(input).base, maker = context_.maker(base);
        if (maker < 0) continue;
        const int unit = unit_[n], source = unit_[static_cast<size_t>(maker)];
        if (!computed_again(maker, unit) && (source < 0 || source != unit)) want(input);
      }
    }
    return wanted;
  }

  /// Scalar nodes that are returned, assigned or read by other kernels get a kernel of their own.
  void materialise_scalars() {
    const std::vector<bool> wanted = wanted_values();
    for (int n = 0; n < static_cast<int>(graph_.nodes.size()); ++n) {
      if (unit_[static_cast<size_t>(n)] >= 0 || context_.is_view(n)) continue;
      if (!wanted[static_cast<size_t>(node(n).outputs[0])]) continue;
      unit_[static_cast<size_t>(n)] = static_cast<int>(units_.size());
      Unit unit;
      if (context_.is_generator(n)) {
        unit.node = n;
      } else {
        unit.fused = true;
        unit.kernel.finish.push_back(n);
        place_[static_cast<size_t>(n)] = {-1, -1};
      }
      units_.push_back(std::move(unit));
    }
  }

  /// Kernels that assign to state, and whose results no other kernel reads, become one, which then runs last.
  void merge_state_kernels() {
    std::vector<bool> state(graph_.values.size(), false), other(graph_.values.size(), false);
    for (const StateWrite& write : graph_.writes)
      state[static_cast<size_t>(context_.reference(write.value).base)] = true;
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (context_.is_view(static_cast<int>(n))) continue;
      for (int input : graph_.nodes[n].inputs) {
        const int maker = context_.maker(context_.reference(input).base);
        if (maker >= 0 && unit_[static_cast<size_t>(maker)] != unit_[n] && !computed_again(maker, unit_[n]))
          other[static_cast<size_t>(context_.reference(input).base)] = true;
      }
    }
    int target = -1;
    for (int u = 0; u < static_cast<int>(units_.size()); ++u) {
      Unit& unit = units_[static_cast<size_t>(u)];
      if (!unit.alive || !unit.fused) continue;
      bool only_state = false, mixed = false;
      each_member(unit, [&](int n) {
        for (int output : node(n).outputs) {
          only_state = only_state || state[static_cast<size_t>(output)];
          mixed = mixed || other[static_cast<size_t>(output)];
        }
      });
      for (const GroupSegment& segment : unit.kernel.segments) mixed = mixed || segment.has_rows();
      if (!only_state || mixed) continue;
      if (target < 0) target = u;
      else if (units_[static_cast<size_t>(target)].kernel.segments.size() + unit.kernel.segments.size() <=
                   kMostSegments &&
               independent(u, target))
        absorb(u, target);
    }
  }

  // ---- The new graph.

  Graph rebuild() {
    const std::vector<bool> wanted = wanted_values();
    // Units in order of their last node, operands first.
    std::vector<std::pair<int, int>> order;  // last node, unit
    for (int u = 0; u < static_cast<int>(units_.size()); ++u) {
      if (!units_[static_cast<size_t>(u)].alive) continue;
      int last = -1;
      each_member(units_[static_cast<size_t>(u)], [&](int n) { last = std::max(last, n); });
      order.emplace_back(last, u);
    }
    std::sort(order.begin(), order.end());
    Rewriter rewriter(graph_);
    std::vector<int> state(units_.size(), 0);
    const std::function<void(int)> emit = [&](int u) {
      if (state[static_cast<size_t>(u)]) {
        TANDEM_ASSERT(state[static_cast<size_t>(u)] == 2, "fusion made a cycle");
        return;
      }
      state[static_cast<size_t>(u)] = 1;
      each_member(units_[static_cast<size_t>(u)], [&](int n) {
        each_source(n, [&](int source) {
          if (source != u) emit(source);
        });
      });
      emit_unit(rewriter, units_[static_cast<size_t>(u)], wanted);
      state[static_cast<size_t>(u)] = 2;
    };
    for (const auto& [last, u] : order) emit(u);
    for (int output : graph_.outputs) view_of(rewriter, output);
    for (const StateWrite& write : graph_.writes) view_of(rewriter, write.value);
    for (const GradientWrite& write : graph_.gradients)
      if (write.value >= 0) view_of(rewriter, write.value);
    return rewriter.finish();
  }

  /// Copies the views between a value in memory and this one.
  int view_of(Rewriter& rewriter, int value) {
    if (rewriter.mapped(value) >= 0) return rewriter.mapped(value);
    const int maker = context_.maker(value);
    TANDEM_ASSERT(maker >= 0 && (context_.is_view(maker) || context_.is_generator(maker)),
                  "a value of a kernel is read but not stored: ", node(maker).op->name);
    for (int input : node(maker).inputs) view_of(rewriter, input);
    rewriter.copy(node(maker));
    return rewriter.mapped(value);
  }

  void emit_unit(Rewriter& rewriter, const Unit& unit, const std::vector<bool>& wanted) {
    if (!unit.fused) {
      for (int input : node(unit.node).inputs) view_of(rewriter, input);
      rewriter.copy(node(unit.node));
      return;
    }
    std::vector<int> stored, inputs;
    std::string names;
    each_member(unit, [&](int n) {
      for (int output : node(n).outputs)
        if (wanted[static_cast<size_t>(output)]) stored.push_back(output);
      if (names.size() < 160) names += (names.empty() ? "" : " ") + std::string(node(n).op->name);
      else if (names.back() != '.') names += " ...";
    });
    auto kernel = std::make_shared<LoopKernel>(lower(context_, unit.kernel, stored, inputs));
    Node made{
        .op = &fused_op(), .inputs = {}, .outputs = {}, .attributes = {{"ops", names}}, .where = {}, .fused = kernel};
    each_member(unit, [&](int n) {
      if (!made.where.line()) made.where = node(n).where;
    });
    for (int input : inputs) made.inputs.push_back(view_of(rewriter, input));
    Graph& to = rewriter.to();
    const int index = static_cast<int>(to.nodes.size());
    for (size_t i = 0; i < stored.size(); ++i) {
      made.outputs.push_back(static_cast<int>(to.values.size()));
      to.values.push_back({context_.type(stored[i]), index, static_cast<int>(i)});
      rewriter.replace(stored[i], made.outputs.back());
    }
    to.nodes.push_back(std::move(made));
    report_.kernels.push_back(
        detail::str(to_string(to.nodes.back().where), ": ", unit.kernel.segments.size(), " segment(s): ", names));
  }

  GroupContext context_;
  const Graph& graph_;
  FusionOptions options_;
  FusionReport& report_;
  std::vector<Unit> units_;
  std::vector<int> unit_;     ///< of each node; -1: a view, or a scalar computed where it is read
  std::vector<Place> place_;  ///< of each node in its fused unit
};

}  // namespace

const Op& fused_op() {
  static const Op op{.name = "fused", .kind = OpKind::opaque, .inputs = kVariadic, .outputs = 0};
  return op;
}

Graph fuse(const Graph& graph, FusionOptions options, FusionReport& report) {
  return Fuser(graph, options, report).run();
}

}  // namespace tandem::graph
