// What ops on this thread depend on beside their operands: one struct, and the one scope that changes it.
#pragma once

#include <optional>
#include <utility>

#include "dtype.h"
#include "error.h"

namespace tandem {

class DrawScope;
class Interceptor;
struct CheckpointFrame;

/// What Autocast has set. Part of the key that compiled functions are specialised by.
struct AutocastState {
  bool enabled = false;
  DType dtype = DType::bfloat16;
  bool operator==(const AutocastState&) const = default;
};

struct ThreadState {
  Interceptor* interceptor = nullptr;  ///< runs ops in place of the eager kernels (dispatch.h)
  bool grad_enabled = true;            ///< whether ops are recorded
  bool finds_anomalies = false;        ///< AnomalyMode
  bool runs_alone = false;             ///< kernels use this thread alone (threads.h)
  AutocastState autocast = {};
  std::optional<Where> line = {};         ///< the user's, that ops called by library code are put down to
  const char* caller = nullptr;           ///< the function that the user called there, for errors
  DrawScope* draws = nullptr;             ///< the innermost
  CheckpointFrame* checkpoint = nullptr;  ///< notes what a checkpointed function reads (autograd/tape.h)
};
extern constinit thread_local ThreadState thread_state;

/// Sets a member of thread_state, and puts it back at the end of the scope, also if that ends by an exception.
template <auto member> class ThreadScope {
  using Value = std::remove_reference_t<decltype(std::declval<ThreadState&>().*member)>;

 public:
  explicit ThreadScope(Value next) : previous_(std::exchange(thread_state.*member, next)) {}
  ~ThreadScope() { thread_state.*member = previous_; }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;
  const Value& previous() const { return previous_; }

 private:
  Value previous_;
};

/// Installs an interceptor, or none: `const InterceptorScope eager(nullptr)`.
using InterceptorScope = ThreadScope<&ThreadState::interceptor>;
using GradScope = ThreadScope<&ThreadState::grad_enabled>;
using AutocastScope = ThreadScope<&ThreadState::autocast>;

/// No op in its scope is recorded.
class NoGrad : GradScope {
 public:
  NoGrad() : GradScope(false) {}
};

/// Ops in its scope are recorded, also inside a NoGrad.
class EnableGrad : GradScope {
 public:
  EnableGrad() : GradScope(true) {}
};

/// While alive, ops called by library code on this thread are put down to the user's line `where`: the outermost counts.
class WhereScope : ThreadScope<&ThreadState::line> {
 public:
  explicit WhereScope(Where where) : ThreadScope(thread_state.line ? thread_state.line : where) {}
};

/// The same in a function made of ops: what they find wrong is said in its name, the outermost's.
class CallScope : WhereScope, ThreadScope<&ThreadState::caller> {
 public:
  CallScope(const char* name, Where where)
      : WhereScope(where), ThreadScope<&ThreadState::caller>(thread_state.caller ? thread_state.caller : name) {}
};

}  // namespace tandem
