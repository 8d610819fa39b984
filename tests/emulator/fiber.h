// Fibers: functions with a stack of their own that hand control to each other by name.
#pragma once

#include <cstddef>

// Whether AddressSanitizer looks on: g++ says so by a macro, clang by a feature.
#if defined(__SANITIZE_ADDRESS__)
#define TANDEM_EMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TANDEM_EMULATOR_ASAN 1
#endif
#endif

namespace tandem_emulator {

// A fiber runs `entry(argument)`, which must never return: it hands control on with `switch_to` instead.
class Fiber {
 public:
  Fiber() = default;                            // the thread that is running now
  Fiber(void (*entry)(void*), void* argument);  // a new stack
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Suspends `this`, which must be running, and continues `next` where it was suspended.
  void switch_to(Fiber& next);

 private:
  static void start();

  void* stack_pointer_ = nullptr;  // x86-64: saved stack pointer; elsewhere: a ucontext_t
  void* stack_ = nullptr;
  std::size_t stack_bytes_ = 0;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  [[maybe_unused]] void* fake_stack_ = nullptr;  // AddressSanitizer's bookkeeping
};

}  // namespace tandem_emulator
