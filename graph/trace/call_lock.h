// CallLock: calls of one compiled function side by side, or one alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace tandem::graph {

/// Calls that change nothing enter together, at the price of one atomic addition on each side. What changes the function
/// or the state that it reads (a trace, a step of training) is alone: it waits until those inside have left. Who comes
/// meanwhile is told so, and asks to be alone as well, so that calls without end can't keep it waiting.
class CallLock {
 public:
  /// False while another is alone, or for ever after stay_alone().
  bool try_enter() {
    if (state_.load(std::memory_order_relaxed) & kAlone) return false;
    if (!(state_.fetch_add(1, std::memory_order_acquire) & kAlone)) return true;
    leave();
    return false;
  }
  void leave() {
    if (state_.fetch_sub(1, std::memory_order_release) == (kAlone | 1)) state_.notify_all();
  }

  /// Alone until unlock(). Who is alone may lock again.
  void lock() {
    mutex_.lock();
    if (depth_++ || stays_alone_) return;
    state_.fetch_or(kAlone, std::memory_order_acquire);
    for (uint32_t now; (now = state_.load(std::memory_order_acquire)) != kAlone;) state_.wait(now);
  }
  void unlock() {
    if (!--depth_ && !stays_alone_) state_.fetch_and(~kAlone, std::memory_order_release);
    mutex_.unlock();
  }
  /// From now on every call is alone, which is cheaper than asking each time. To be called by who is.
  void stay_alone() { stays_alone_ = true; }

  /// Keeps others from being alone, but not from entering: enough to read what only they change.
  std::unique_lock<std::recursive_mutex> hold() { return std::unique_lock(mutex_); }

 private:
  static constexpr uint32_t kAlone = 1u << 31;
  std::atomic<uint32_t> state_ = 0;  ///< how many are inside; kAlone: somebody is, or waits to be, alone
  std::recursive_mutex mutex_;       ///< of who is alone
  int depth_ = 0;
  bool stays_alone_ = false;
};

}  // namespace tandem::graph
