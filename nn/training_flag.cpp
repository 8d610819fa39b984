// TrainingFlag: storage whose addresses stay valid, and the read that a trace takes note of.
#include "nn/training_flag.h"

#include <deque>
#include <mutex>
#include <vector>

#include "core/dispatch.h"

namespace tandem::nn {
namespace {

struct Pool {
  std::mutex mutex;
  std::deque<bool> slots;  // a deque never moves its elements
  std::vector<bool*> unused;
};

// Never destroyed: models with static storage may let go of their flags after everything else.
Pool& pool() {
  static Pool* const pool = new Pool;
  return *pool;
}

bool* take() {
  std::lock_guard lock(pool().mutex);
  if (pool().unused.empty()) return &pool().slots.emplace_back();
  bool* slot = pool().unused.back();
  pool().unused.pop_back();
  return slot;
}

void give_back(bool* slot) {
  std::lock_guard lock(pool().mutex);
  pool().unused.push_back(slot);
}

}  // namespace

TrainingFlag::TrainingFlag(bool value) : value_(take(), give_back) { *value_ = value; }

TrainingFlag::operator bool() const {
  if (Interceptor* tracer = interceptor()) tracer->flag_read(*value_);
  return *value_;
}

}  // namespace tandem::nn
