// What fusion (fusion.cpp) decides, horizontal joins further and lower spells as loops: groups of nodes, each a kernel
// to be, or a node that stays as it is.
#pragma once

#include <functional>
#include <set>
#include <vector>

#include "graph/ir/at.h"
#include "graph/ir/graph.h"
#include "graph/ir/loop.h"
#include "graph/ir/views.h"

namespace tandem::graph {

/// A member of a segment: a graph node, its level, and for each of its iteration dims the dim of the
/// segment's domain (-1 for extent 1).
struct Member {
  int node = -1;
  Level level = Level::element;
  std::vector<int> dims;         ///< of the iteration: the output's dims, or a reduction's operand's
  std::vector<int> output_dims;  ///< of the output
};

struct GroupSegment {
  std::vector<int64_t> domain;
  std::vector<bool> reduced;    ///< which domain dims row reductions fold; all false without any
  std::vector<Member> members;  ///< in topological order
  bool has_rows() const {
    for (bool r : reduced)
      if (r) return true;
    return false;
  }
};

/// A kernel to be: segments, and scalar nodes that run after them.
struct GroupKernel {
  std::vector<GroupSegment> segments;
  std::vector<int> finish;  ///< nodes
};

struct Group {
  bool fused = false;
  int node = -1;       ///< of a group that isn't fused
  GroupKernel kernel;  ///< of one that is
  bool alive = true;   ///< not absorbed by another
};

/// Where a value is made within a kernel.
struct Place {
  int segment = -1;  ///< -1: the finish
  int member = -1;
};

constexpr int kMostSegments = 512;  ///< of a kernel
/// Groups that are joined have at most so many between them, so that the time is that of their number.
constexpr int kFarthest = 1024;

/// The groups of a graph. Views belong to none: they are looked through. Groups are kept in an order in which each comes
/// after all that it reads from, so that a path between two is looked for among the groups between them only.
class Groups {
 public:
  explicit Groups(const Graph& graph);

  const Graph& graph;
  std::vector<Group> all;
  std::vector<int> group_of;    ///< of each node; -1: a view, or a scalar computed where it is read
  std::vector<Place> place_of;  ///< of each node in its fused group
  /// Scalar nodes that depend on a kernel's result, so that they are read from memory, not computed again.
  std::set<int> in_memory;

  const Node& node(int n) const { return graph.node(n); }
  const ValueType& type(int value) const { return graph.type(value); }
  int maker(int value) const { return graph.value(value).node; }
  const Reference& reference(int value) const { return references_[static_cast<size_t>(value)]; }
  const std::vector<Reference>& references() const { return references_; }
  /// The node that makes what the value shows through its views; -1: none.
  int source(int value) const { return maker(reference(value).base); }
  bool is_view(int n) const { return node(n).op->kind == OpKind::view; }
  /// full, arange and random_uniform: computed wherever they are read.
  bool is_generator(int n) const;
  /// One-element pointwise node.
  bool is_scalar_node(int n) const;
  /// Made by the finish, or by a fold whose result is only complete there.
  bool is_finished(int n) const;
  /// Generators and scalars made of numbers and memory are not read by kernels but computed again.
  bool computed_again(int n) const { return is_generator(n) || (is_scalar_node(n) && !in_memory.count(n)); }
  bool computed_again(int n, int by_group) const;

  /// Groups whose results the node reads, also through what is computed again.
  std::vector<int> sources(int n) const;
  void each_member(const Group& group, const std::function<void(int node)>& visit) const;
  /// Joining `n` to the group is fine if nothing that n reads elsewhere depends on the group. Said to make one also where that
  /// takes too long to tell.
  bool makes_cycle(int n, int group);
  /// Neither reads what the other makes, as far as can be told soon.
  bool independent(int a, int b);
  /// Two groups may become one if every path between them is a direct edge, as far as can be told soon.
  bool mergeable(int a, int b);
  /// What the searches for a cycle have looked at or moved, which grows with the number of nodes, no faster.
  int64_t looked_at() const { return looked_at_; }
  /// Values read outside the group that makes them, or returned.
  std::vector<bool> wanted_values() const;

  /// A node's group of its own.
  void add(int n, Group group);
  /// The node is in that group from now on, which reads what it reads.
  void enter(int n, int group);
  /// Stays out of all groups: who reads it reads what it is made of.
  void leave_out(int n) { at(seen_through_, n) = sources(n); }
  /// Moves the segments and finish of `other` to `group`.
  void absorb(int other, int group);
  /// Two groups of one segment each become one segment.
  void merge_segments(int other, int group);

 private:
  void index_members(int group, int first_segment = 0);
  void join_finish(const GroupKernel& from, int group);
  /// Who has absorbed it, or itself.
  int alive(int group) const;
  /// `group` takes over what `other` reads, and its place in the order.
  void take_over(int other, int group);
  /// Whether a walk from there to `first` would be longer than is worth it.
  bool far(const std::vector<int>& starts, int first) const;
  /// The groups from `starts` back to what comes after `first` in the order, sources before their readers; whether
  /// `first` is read on the way.
  bool walk_back(const std::vector<int>& starts, int first, std::vector<int>* passed = nullptr);
  /// Puts these right before `first`, in their order.
  void move_before(int first, std::vector<int> groups);

  std::vector<Reference> references_;
  std::vector<std::vector<int>> seen_through_;  ///< sources of each node that is left out
  std::vector<std::vector<int>> reads_;         ///< sources of each group, some of them absorbed since
  std::vector<int> order_, position_;           ///< groups in order; of each group
  std::vector<int> absorbed_by_;                ///< of each group; -1: none
  std::vector<int> passed_by_;                  ///< of each group: the last walk that came by
  int walk_ = 0;
  int64_t looked_at_ = 0;
};

/// Spells a kernel as loops. `stored` are the values to put in memory; the node's inputs are appended to
/// `inputs` in the order of the buffers.
LoopKernel lower_kernel(const Groups& groups, const GroupKernel& kernel, const std::vector<int>& stored,
                        std::vector<int>& inputs);

}  // namespace tandem::graph
