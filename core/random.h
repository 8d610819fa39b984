// The random generator: Philox, keyed on (seed, draw, element index), so that the same program
// draws the same numbers in every mode and on every device.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "tensor.h"
#include "thread_state.h"

namespace tandem {

class TurnScope;

/// A seed and the number of draws made so far. A draw is one call of a random op; element i of
/// draw d is Philox(seed, d, i). In a compiled function the state is read at each call and
/// advanced by the number of draws in the trace. A cond or a loop is one draw, whatever it does inside; see TurnScope.
class Generator {
 public:
  explicit Generator(uint64_t seed = 0);
  void seed(uint64_t seed);  ///< restarts at draw 0
  uint64_t seed() const;
  uint64_t draws() const;
  void set_draws(uint64_t draws);
  /// Takes so many draws, and returns the number of the first. Any thread may.
  uint64_t advance(uint64_t draws);
  /// int64[2] = {seed, draws}: what a trace captures.
  const Tensor& state() const { return state_; }

 private:
  int64_t* words() const { return static_cast<int64_t*>(state_.impl()->data); }
  Tensor state_;
};

Generator& default_generator();
/// Seeds the default generator.
void manual_seed(uint64_t seed, Where where = Where::current());

/// A draw: `key` is int64[2] = {seed, draw}, and `site` is added to draw by the kernel.
/// Eagerly the key is a host scalar of its own; in a trace it is the generator's state, and within a turn what TurnScope says.
struct Draw {
  Tensor key;
  int64_t site;
  /// The key where kernels of the device read it: a trace's own lies on the host.
  Tensor key_on(Device device) const;
};
/// The next draw, or the first of the next `count`.
Draw next_draw(int64_t count = 1);
/// The next draw, whose key is made when it is asked for, in the scope that is the innermost now.
class LaterDraw {
 public:
  LaterDraw();
  const Draw& operator()();

 private:
  TurnScope* turn_ = nullptr;
  Draw draw_;
};

/// Where draws come from on this thread: the innermost scope, and where there is none the generator, or the trace.
class DrawScope {
 public:
  virtual Draw next(int64_t count) = 0;
  virtual TurnScope* turn() { return nullptr; }

 protected:
  DrawScope() : installed_(this) {}
  ~DrawScope() = default;
  Draw outer(int64_t count);  ///< the next draw of the scope around this one

 private:
  ThreadScope<&ThreadState::draws> installed_;
};

/// Remembers the draws that are made, or makes the remembered ones once more: what a function drew that is run a second time
/// (checkpoint).
class RecordedDraws final : DrawScope {
 public:
  enum class Use { record, replay };
  RecordedDraws(std::vector<Draw>& draws, Use use) : draws_(draws), use_(use) {}

 private:
  Draw next(int64_t count) override;
  std::vector<Draw>& draws_;
  Use use_;
  size_t at_ = 0;
};

/// The draws of one turn of a loop, or of the branch of a cond, which are numbered by themselves from 0 on: how many there are
/// is then nobody else's business, in any mode.
class TurnScope final : DrawScope {
 public:
  /// `key` makes the turn's key (turn_key) at the first draw.
  explicit TurnScope(std::function<Tensor()> key, int64_t first = 0) : make_key_(std::move(key)), count_(first) {}
  int64_t count() const { return count_; }
  /// The place of a draw, which takes it, and the key, which is made the first time.
  int64_t take(int64_t count) { return std::exchange(count_, count_ + count); }
  const Tensor& key();

 private:
  Draw next(int64_t count) override;
  TurnScope* turn() override { return this; }
  std::function<Tensor()> make_key_;
  Tensor key_;
  int64_t count_;
};

/// The key of turn `turn` (an int64 of one element) of the op that took draw `of`: block `turn` of that draw.
Tensor turn_key(const Draw& of, const Tensor& turn);

}  // namespace tandem
