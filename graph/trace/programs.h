// What serves the calls of a compiled function: specialisations, and how they get their programs.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "call_lock.h"
#include "compile.h"
#include "joint.h"
#include "signature.h"
#include "sizes.h"
#include "upgrade.h"

namespace tandem::graph {

struct Specialisation {
  explicit Specialisation(Signature signature) : signature(std::move(signature)) {}

  Signature signature;
  Graph traced;  ///< and behind it the gradient of the results, if `gradient` has a program
  JointParts parts;
  std::shared_ptr<Program> program;
  std::shared_ptr<JointGradient> gradient;  ///< null: no result requires one. Not changed once it has served a call
  std::shared_ptr<Sizes> sizes;             ///< shared by those that differ in sizes alone; they count as one
  std::shared_ptr<const Kept> kept;         ///< of what the function returns, all but the tensors
  std::atomic<int64_t> calls = 0;
  std::atomic<uint64_t> last_used = 0;  ///< when another took its place as the newest
  bool reads_numbers = false;           ///< some constant has changed between traces: trace at each call
  int64_t traced_at = 1;                ///< the call that traced last
  // One of many sizes:
  int64_t fitted = 0;                      ///< Sizes::fitted(), by which its program was made
  std::vector<NumberPlace> number_places;  ///< of `traced`, if it has been given another size
  std::shared_ptr<Upgrade> upgrade;        ///< what is to take the place of `program`, if that is being compiled
  // Of `calls`, those that are in Stats::tiers, as they ran on programs before this one. The last of these programs was of
  // that tier, and was given up after so many calls had begun.
  int64_t calls_before = 0, changed_at = 0;
  std::string tier_before;

  bool upgrade_settled() const { return upgrade && upgrade->settled(); }

  Tensors run(const Tensors& given) const;
  /// That of backward() of its results, if there is one.
  const Program* backward() const { return gradient ? gradient->program.get() : nullptr; }
  std::string plan() const;
  /// Also what is being compiled.
  std::string source() const;
};

/// Makes programs, and counts what they cost and how often they run.
class Programs {
 public:
  CompileOptions options;
  Where where;
  CallLock lock;  ///< what follows is changed by who is alone
  Stats stats;    ///< calls: those that no specialisation counts
  std::vector<Stage> stages;
  std::vector<std::string> fused, refused, recomputed;  ///< what passes say

  /// The programs of a specialisation: of the function, and of its results' gradient.
  void make_programs(Specialisation& made);
  /// What has been compiled meanwhile takes the place of the tier below. Where that failed, the tier below stays.
  void take_upgrade(Specialisation& of);

  void note_sizes(const std::string& text);
  void one_per_size(Specialisation& made, const std::string& reason);
  /// Where ops run one by one, each that is computed again is a kernel more.
  bool recompute() const { return options.mode == Mode::compiled; }

  // Stats::tiers.
  static void count_calls(Stats& stats, const std::string& tier, int64_t calls);
  /// All calls so far ran on the program that there is now.
  void count_calls(Specialisation& of);
  /// But for this one, which had been counted when it found another program.
  void count_again(Specialisation& of, int64_t call);
  void forget(const Specialisation& of) {
    if (described_ == &of) described_ = nullptr;
  }

 private:
  struct Built;
  Built build(const Graph& traced, Specialisation* whose);
  void change_program(Specialisation& of, std::shared_ptr<Program> program);
  void describe(const Specialisation& of);

  std::set<std::string> sources_;              ///< hashes of the generated ones
  const Specialisation* described_ = nullptr;  ///< the one that stats are of
};

}  // namespace tandem::graph
