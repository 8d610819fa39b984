// What a join costs in memory: a kernel runs when the last of its operands is there, and keeps the others alive until then.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir/choices.h"
#include "graph/passes/groups.h"
#include "graph/passes/profile.h"

namespace tandem::graph {

class KeptAlive {
 public:
  /// `choices` may be null. All must outlive it.
  KeptAlive(const Groups& groups, Choices* choices);

  /// Why the node had better not be in one kernel with what the group computes. Another operand is made later, and more bytes wait
  /// for it than needn't be stored; or the group runs early, and the node's result would be kept while the most memory is in use,
  /// where its operands are kept anyway. Empty if it may be.
  std::string refusal(int n, int group);
  /// The node has just become a member of the group.
  void joined(int n, int group);
  /// The group has taken over the other one.
  void absorbed(int other, int group);

  /// Bytes of values that these nodes, a kernel's, read from elsewhere, and nothing else later.
  int64_t last_reads(const std::vector<int>& nodes) const;
  /// Asks `choices`.
  bool choose(bool now) const { return choices_ ? choices_->choose(now) : now; }

  /// What a kernel may keep alive for the sake of a launch less: at most, and a small part of what is in use anyway.
  static constexpr int64_t kMayKeep = 64 << 10;

 private:
  /// When the value is there: the last node of the kernel that makes it.
  int made_at(int maker) const;
  void grow(int group);
  /// Bytes that wait if the group waits for node `n`.
  int64_t waiting(int group, int n);
  /// Bytes that the node's result would take from the group's time to its own, if the most memory is in use between them.
  int64_t kept_early(int n, int group) const;
  bool crosses_peak(int from, int to) const { return at(high_, to) > at(high_, from); }

  const Groups& groups_;
  Choices* choices_;
  const Profile profile_;
  std::vector<int> high_;         ///< of each node: how many up to it see about the most memory in use
  std::vector<int> last_member_;  ///< of each group
  /// Of each group: values from elsewhere that it reads, by the node that reads them last, and the bytes of those that nothing
  /// reads any more but the group.
  struct Reads {
    std::priority_queue<std::pair<int, int64_t>, std::vector<std::pair<int, int64_t>>, std::greater<>> later;
    int64_t ended = 0;
  };
  std::vector<Reads> reads_;
  std::vector<int> counted_in_;  ///< of each value: the group that reads it
  int64_t may_keep_;
};

}  // namespace tandem::graph
