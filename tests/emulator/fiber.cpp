// Fibers by a hand-written switch on x86-64 (a few ns), by ucontext elsewhere (two system calls).
#include "tests/emulator/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#ifdef TANDEM_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
extern "C" void tandem_fiber_switch(void** save_stack_pointer, void* load_stack_pointer);

// Only what the System V ABI calls callee-saved has to survive; the call has saved the rest.
asm(R"(
.text
.p2align 4
.globl tandem_fiber_switch
.hidden tandem_fiber_switch
.type tandem_fiber_switch, @function
tandem_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tandem_fiber_switch, .-tandem_fiber_switch
)");
#endif

namespace tandem_emulator {
namespace {

thread_local Fiber* starting = nullptr;  // which fiber `start` is to run: its first switch sets it

#ifdef TANDEM_EMULATOR_ASAN
constexpr std::size_t stack_size = 512 * 1024;
thread_local const void* thread_stack = nullptr;  // learned from the first switch away from the thread
thread_local std::size_t thread_stack_bytes = 0;
#else
constexpr std::size_t stack_size = 256 * 1024;
#endif

}  // namespace

Fiber::Fiber(void (*entry)(void*), void* argument) : entry_(entry), argument_(argument) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  stack_bytes_ = stack_size + page;  // pages are touched lazily: a lane uses one or two of them
  stack_ = mmap(nullptr, stack_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(stack_, page, PROT_NONE);  // an overflowing lane faults instead of writing into its neighbour
#if defined(__x86_64__)
  auto* top = reinterpret_cast<std::uintptr_t*>(static_cast<char*>(stack_) + stack_bytes_);
  *--top = 0;  // keeps the stack aligned as at a function's entry, and ends backtraces
  *--top = reinterpret_cast<std::uintptr_t>(&Fiber::start);
  for (int saved = 0; saved < 6; ++saved) *--top = 0;
  stack_pointer_ = top;
#else
  auto* context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack_;
  context->uc_stack.ss_size = stack_bytes_;
  context->uc_link = nullptr;
  makecontext(context, &Fiber::start, 0);
  stack_pointer_ = context;
#endif
}

Fiber::~Fiber() {
  if (stack_ != nullptr) {
#ifdef TANDEM_EMULATOR_ASAN
    __asan_unpoison_memory_region(stack_, stack_bytes_);  // frames that were abandoned left their red zones
#endif
    munmap(stack_, stack_bytes_);
  }
#if !defined(__x86_64__)
  delete static_cast<ucontext_t*>(stack_pointer_);
#endif
}

void Fiber::start() {
  Fiber* self = starting;
#ifdef TANDEM_EMULATOR_ASAN
  const void* from = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &from, &bytes);
  if (thread_stack == nullptr) {
    thread_stack = from;
    thread_stack_bytes = bytes;
  }
#endif
  self->entry_(self->argument_);
  std::abort();  // entries never return
}

void Fiber::switch_to(Fiber& next) {
  starting = &next;
#ifdef TANDEM_EMULATOR_ASAN
  const bool is_thread = next.stack_ == nullptr;
  __sanitizer_start_switch_fiber(&fake_stack_, is_thread ? thread_stack : next.stack_,
                                 is_thread ? thread_stack_bytes : next.stack_bytes_);
#endif
#if defined(__x86_64__)
  tandem_fiber_switch(&stack_pointer_, next.stack_pointer_);
#else
  if (stack_pointer_ == nullptr) stack_pointer_ = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(stack_pointer_), static_cast<ucontext_t*>(next.stack_pointer_));
#endif
#ifdef TANDEM_EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
}

}  // namespace tandem_emulator
