// The random generator: Philox, keyed on (seed, draw, element index), so that the same program
// draws the same numbers in every mode and on every device.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor.h"
#include "thread_state.h"

namespace tandem {

/// A seed and the number of draws made so far. A draw is one call of a random op; element i of
/// draw d is Philox(seed, d, i). In a compiled function the state is read at each call and
/// advanced by the number of draws in the trace.
class Generator {
 public:
  explicit Generator(uint64_t seed = 0);
  void seed(uint64_t seed);  ///< restarts at draw 0
  uint64_t seed() const;
  uint64_t draws() const;
  void set_draws(uint64_t draws);
  /// int64[2] = {seed, draws}: what a trace captures.
  const Tensor& state() const { return state_; }

 private:
  int64_t* words() const { return static_cast<int64_t*>(state_.impl()->data); }
  Tensor state_;
};

Generator& default_generator();
/// Seeds the default generator.
void manual_seed(uint64_t seed, Where where = Where::current());

/// The next draw: `key` is int64[2] = {seed, draw}, and `site` is added to draw by the kernel.
/// Eagerly the key is a host scalar of its own; in a trace it is the generator's state.
struct Draw {
  Tensor key;
  int64_t site;
};
Draw next_draw();

/// Where a piece of program starts that draws by itself (a compiled function). While alive, the generator stands at the next
/// draw, and goes on from there at the end, unless a DrawScope makes remembered draws once more: then at the remembered one,
/// and back at the end.
class DrawsOfAPiece {
 public:
  DrawsOfAPiece();
  ~DrawsOfAPiece();
  DrawsOfAPiece(const DrawsOfAPiece&) = delete;
  DrawsOfAPiece& operator=(const DrawsOfAPiece&) = delete;

 private:
  uint64_t seed_, draws_;  ///< where it was before
  bool again_ = false;
};

/// While alive on this thread, remembers the draws that are made, or makes the remembered ones once more: what a
/// function drew that is run a second time (checkpoint). Scopes nest.
class DrawScope {
 public:
  enum class Use { record, replay };
  DrawScope(std::vector<Draw>& draws, Use use);

 private:
  friend Draw next_draw();
  Draw next();
  Draw outer();  ///< the next draw of the scope around this one
  std::vector<Draw>& draws_;
  Use use_;
  size_t at_ = 0;
  ThreadScope<&ThreadState::draws> installed_;
};

}  // namespace tandem
