// Runs the lanes of a block: who is next, who waits for whom, and what a deadlock looks like.
#include "tests/emulator/emulator.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <vector>

#include "tests/emulator/error.h"
#include "tests/emulator/fiber.h"

namespace tandem_emulator {
namespace {

constexpr unsigned warp_size = 32;

enum class State : std::uint8_t { fresh, ready, at_collective, at_barrier, done };

struct Lane {
  State state = State::fresh;
  Index3 thread_index;
  unsigned warp = 0, lane = 0;
  Fiber* fiber = nullptr;  // only once it has waited
  unsigned mask = 0;
  void* frame = nullptr;
  Resolve resolve = nullptr;
  Site site{nullptr, 0};
  bool predicate = false;
};

struct Warp {
  unsigned runnable = 0;  // fresh or ready
  unsigned waiting = 0;   // at a collective
  unsigned live = 0;
};

std::string describe(const Lane& lane) {
  std::ostringstream text;
  text << "thread (" << lane.thread_index.x << ", " << lane.thread_index.y << ", " << lane.thread_index.z << ")";
  return text.str();
}

std::string describe(const Site& site) {
  return std::string(site.file ? site.file : "?") + ":" + std::to_string(site.line);
}

class Scheduler {
 public:
  Scheduler() {
    if (const char* value = std::getenv("TANDEM_EMULATOR_ORDER")) {
      const std::string text = value;
      if (text == "forward") {
        order = Order::forward;
      } else if (text == "reverse") {
        order = Order::reverse;
      } else if (text.rfind("random", 0) == 0) {
        order = Order::random;
        if (text.size() > 7) random_state = std::strtoull(text.c_str() + 7, nullptr, 10) | 1;
      } else {
        throw Error("TANDEM_EMULATOR_ORDER is \"" + text + "\": say forward, reverse, random or random:SEED");
      }
    }
  }

  void run(const Launch& launch, void (*entry)(void*), void* argument) {
    entry_ = entry;
    argument_ = argument;
    context_.block_size = launch.block;
    context_.grid_size = launch.grid;
    // One guard line behind the dynamic shared memory: a write past its end is found after the block.
    dynamic_.resize(launch.dynamic_shared_bytes + 2 * guard_bytes);
    auto address = reinterpret_cast<std::uintptr_t>(dynamic_.data());
    context_.dynamic_shared = reinterpret_cast<void*>((address + guard_bytes - 1) & ~std::uintptr_t(guard_bytes - 1));

    const std::uint64_t blocks = std::uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    for (std::uint64_t turn = 0; turn < blocks; ++turn) {
      // A random order of blocks only has to differ from the others: a stride that is odd and a rotation.
      std::uint64_t block = turn;
      if (order == Order::reverse) block = blocks - 1 - turn;
      if (order == Order::random) block = (turn + random_start_) % blocks;
      context_.block_index = {unsigned(block % launch.grid.x), unsigned(block / launch.grid.x % launch.grid.y),
                              unsigned(block / launch.grid.x / launch.grid.y)};
      run_block(launch);
    }
    if (order == Order::random) random_start_ = next_random();
  }

  void collective(unsigned mask, void* frame, Resolve resolve, Site site) {
    Lane& lane = *current_;
    Warp& warp = warps_[lane.warp];
    if ((mask >> lane.lane & 1u) == 0) {
      error_ = describe(lane) + " calls a warp collective at " + describe(site) + " whose mask leaves it out";
      fail();
    }
    lane.state = State::at_collective;
    lane.mask = mask;
    lane.frame = frame;
    lane.resolve = resolve;
    lane.site = site;
    warp.waiting |= 1u << lane.lane;
    set_runnable(warp, lane.warp, lane.lane, false);
    complete(lane);
    wait();
  }

  int barrier(bool predicate, int* live, Site site) {
    Lane& lane = *current_;
    lane.state = State::at_barrier;
    lane.site = site;
    lane.predicate = predicate;
    set_runnable(warps_[lane.warp], lane.warp, lane.lane, false);
    ++at_barrier_;
    release_barrier();
    wait();
    *live = barrier_live_;
    return barrier_true_;
  }

  unsigned live_lanes() const { return warps_[current_->warp].live; }

  Order order = Order::forward;
  std::uint64_t random_state = 0x9E3779B97F4A7C15ull;
  std::uint64_t launches = 0;
  std::mutex mutex;
  Context context_;

 private:
  static constexpr std::size_t guard_bytes = 128;

  std::uint64_t next_random() {  // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717ull;
  }

  void run_block(const Launch& launch) {
    const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
    lanes_.resize(threads);
    warps_.assign((threads + warp_size - 1) / warp_size, Warp{});
    Index3 index;
    for (unsigned i = 0; i < threads; ++i) {
      Lane& lane = lanes_[i];
      lane.state = State::fresh;
      lane.thread_index = index;
      lane.warp = i / warp_size;
      lane.lane = i % warp_size;
      lane.fiber = nullptr;
      if (++index.x == launch.block.x) {
        index.x = 0;
        if (++index.y == launch.block.y) {
          index.y = 0;
          ++index.z;
        }
      }
      warps_[lane.warp].live |= 1u << lane.lane;
    }
    runnable_warps_ = 0;
    for (unsigned w = 0; w < warps_.size(); ++w) {
      warps_[w].runnable = warps_[w].live;
      runnable_warps_ |= 1u << w;
    }
    live_ = int(threads);
    at_barrier_ = 0;
    warp_ = 0;
    char* dynamic = static_cast<char*>(context_.dynamic_shared);
    std::memset(dynamic, 0xFF, launch.dynamic_shared_bytes);
    std::memset(dynamic + launch.dynamic_shared_bytes, 0xA5, guard_bytes);
    ++context_.block_serial;

    error_.clear();
    exception_ = nullptr;
    make_current(*pick());
    Fiber* fiber = take_fiber();
    thread_.switch_to(*fiber);

    if (exception_ == nullptr && error_.empty()) {
      for (std::size_t i = 0; i < guard_bytes; ++i) {
        if (static_cast<unsigned char>(dynamic[launch.dynamic_shared_bytes + i]) != 0xA5) {
          error_ = "the kernel wrote " + std::to_string(i) + " bytes past the end of its " +
                   std::to_string(launch.dynamic_shared_bytes) + " bytes of dynamic shared memory";
          break;
        }
      }
    }
    if (exception_ != nullptr || !error_.empty()) {
      fibers_.clear();  // lanes that were left in the middle are never resumed
      free_fibers_.clear();
      if (exception_ != nullptr) std::rethrow_exception(exception_);
      std::ostringstream text;
      text << "CUDA emulator: " << error_ << "\n  in block (" << context_.block_index.x << ", "
           << context_.block_index.y << ", " << context_.block_index.z << ") of " << threads << " threads";
      throw Error(text.str());
    }
  }

  void set_runnable(Warp& warp, unsigned warp_index, unsigned lane, bool value) {
    if (value) {
      warp.runnable |= 1u << lane;
      runnable_warps_ |= 1u << warp_index;
    } else {
      warp.runnable &= ~(1u << lane);
      if (warp.runnable == 0) runnable_warps_ &= ~(1u << warp_index);
    }
  }

  unsigned choose(unsigned set) {
    if (order == Order::forward) return unsigned(__builtin_ctz(set));
    if (order == Order::reverse) return 31u - unsigned(__builtin_clz(set));
    unsigned skip = unsigned(next_random() >> 33) % unsigned(__builtin_popcount(set));
    while (skip-- > 0) set &= set - 1;
    return unsigned(__builtin_ctz(set));
  }

  // A warp runs as far as it can before the next one starts: the largest skew between warps that a barrier
  // allows, which is what exposes a missing one. In random order warps also interleave.
  Lane* pick() {
    if (runnable_warps_ == 0) return nullptr;
    const bool stay = (runnable_warps_ >> warp_ & 1u) != 0 && (order != Order::random || (next_random() >> 62) != 0);
    if (!stay) warp_ = choose(runnable_warps_);
    return &lanes_[warp_ * warp_size + choose(warps_[warp_].runnable)];
  }

  void make_current(Lane& lane) {
    current_ = &lane;
    context_.thread_index = lane.thread_index;
    context_.lane = lane.lane;
  }

  Fiber* take_fiber() {
    if (free_fibers_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>([](void* self) { static_cast<Scheduler*>(self)->run_lanes(); }, this));
      free_fibers_.push_back(fibers_.back().get());
    }
    Fiber* fiber = free_fibers_.back();
    free_fibers_.pop_back();
    return running_ = fiber;
  }

  // The body of every fiber: runs `current_`, which is fresh, to its end, then whatever is next.
  void run_lanes() {
    for (;;) {
      try {
        entry_(argument_);
      } catch (...) { exception_ = std::current_exception(); }
      if (exception_ != nullptr) {
        running_->switch_to(thread_);
        continue;
      }
      finish();
      Lane* next = pick();
      if (next != nullptr && next->state == State::fresh) {  // the plain loop: no switch at all
        make_current(*next);
        continue;
      }
      Fiber* self = running_;
      if (next == nullptr) {
        if (live_ > 0) error_ = deadlock();
        free_fibers_.push_back(self);
        self->switch_to(thread_);
      } else {
        free_fibers_.push_back(self);
        make_current(*next);
        running_ = next->fiber;
        self->switch_to(*next->fiber);
      }
    }
  }

  // Gives the processor away until `current_` is ready again.
  void wait() {
    Lane* self = current_;
    Lane* next = self->state == State::ready && order != Order::random ? self : pick();
    if (next == self) {
      make_current(*self);
      return;
    }
    self->fiber = running_;
    if (next == nullptr) {
      error_ = deadlock();
      fail();
    }
    make_current(*next);
    if (next->state == State::fresh) {
      take_fiber();
    } else {
      running_ = next->fiber;
    }
    self->fiber->switch_to(*running_);
  }

  // Ends the launch with `error_`. What the lanes had on their stacks is never destroyed.
  [[noreturn]] void fail() {
    running_->switch_to(thread_);
    std::abort();
  }

  void finish() {
    Lane& lane = *current_;
    Warp& warp = warps_[lane.warp];
    lane.state = State::done;
    set_runnable(warp, lane.warp, lane.lane, false);
    warp.live &= ~(1u << lane.lane);
    --live_;
    if (warp.waiting != 0) {  // those who wait may have waited for this one only
      for (unsigned set = warp.waiting; set != 0; set &= set - 1) {
        Lane& waiting = lanes_[lane.warp * warp_size + unsigned(__builtin_ctz(set))];
        if (waiting.state == State::at_collective) complete(waiting);
      }
    }
    if (at_barrier_ > 0) release_barrier();
  }

  // Lets the lanes of `lane`'s collective go on if all of them have arrived.
  void complete(Lane& lane) {
    Warp& warp = warps_[lane.warp];
    const unsigned group = lane.mask & warp.live;
    if ((warp.waiting & group) != group) return;
    std::array<void*, warp_size> frames{};
    for (unsigned set = group; set != 0; set &= set - 1) {
      const unsigned i = unsigned(__builtin_ctz(set));
      const Lane& other = lanes_[lane.warp * warp_size + i];
      if (other.mask != lane.mask || other.site.line != lane.site.line ||
          std::strcmp(other.site.file, lane.site.file) != 0) {
        error_ = disagreement("warp meet at different collectives", lane, other);
        fail();
      }
      frames[i] = other.frame;
    }
    if (lane.resolve != nullptr) lane.resolve(frames.data(), group, lane.mask);
    warp.waiting &= ~group;
    for (unsigned set = group; set != 0; set &= set - 1) {
      const unsigned i = unsigned(__builtin_ctz(set));
      lanes_[lane.warp * warp_size + i].state = State::ready;
      set_runnable(warp, lane.warp, i, true);
    }
  }

  void release_barrier() {
    if (at_barrier_ != live_) return;
    barrier_live_ = live_;
    barrier_true_ = 0;
    const Lane* first = nullptr;
    for (Lane& lane : lanes_) {
      if (lane.state != State::at_barrier) continue;
      if (first == nullptr) first = &lane;
      if (lane.site.line != first->site.line || std::strcmp(lane.site.file, first->site.file) != 0) {
        error_ = disagreement("block meet at different barriers", *first, lane);
        fail();
      }
      barrier_true_ += lane.predicate ? 1 : 0;
      lane.state = State::ready;
      set_runnable(warps_[lane.warp], lane.warp, lane.lane, true);
    }
    at_barrier_ = 0;
  }

  static std::string disagreement(const char* what, const Lane& one, const Lane& other) {
    std::ostringstream text;
    text << "lanes of one " << what << std::hex;
    for (const Lane* lane : {&one, &other}) {
      text << "\n  " << describe(*lane) << " at " << describe(lane->site);
      if (lane->state == State::at_collective) text << " with mask 0x" << lane->mask;
    }
    return text.str();
  }

  std::string deadlock() const {
    std::map<std::string, int> groups;
    for (const Lane& lane : lanes_) {
      if (lane.state == State::at_barrier) ++groups["at the barrier at " + describe(lane.site)];
      if (lane.state == State::at_collective) ++groups["at the warp collective at " + describe(lane.site)];
    }
    std::string text = "deadlock, no lane can go on:";
    for (const auto& [where, count] : groups) text += "\n  " + std::to_string(count) + " " + where;
    const int ended = int(lanes_.size()) - live_;
    if (ended > 0) text += "\n  " + std::to_string(ended) + " have ended";
    return text;
  }

  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  std::vector<Lane> lanes_;
  std::vector<Warp> warps_;
  unsigned runnable_warps_ = 0;
  unsigned warp_ = 0;
  int live_ = 0, at_barrier_ = 0, barrier_live_ = 0, barrier_true_ = 0;
  Lane* current_ = nullptr;
  Fiber thread_;
  Fiber* running_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_fibers_;
  std::vector<char> dynamic_;
  std::string error_;
  std::exception_ptr exception_;
  std::uint64_t random_start_ = 1;
};

Scheduler& scheduler() {
  static Scheduler* instance = new Scheduler;  // lives as long as kernels may be launched, also at exit
  return *instance;
}

}  // namespace

void set_order(Order order, std::uint64_t seed) {
  Scheduler& s = scheduler();
  std::lock_guard lock(s.mutex);
  s.order = order;
  s.random_state = (seed * 0x9E3779B97F4A7C15ull) | 1;
}

Order order() { return scheduler().order; }

std::uint64_t launches() { return scheduler().launches; }

Context* process_context() {
  Context& c = scheduler().context_;
  if (c.collective == nullptr) {
    c.collective = [](unsigned mask, void* frame, Resolve resolve, Site site) {
      scheduler().collective(mask, frame, resolve, site);
    };
    c.barrier = [](bool predicate, int* live, Site site) { return scheduler().barrier(predicate, live, site); };
    c.live_lanes = [] { return scheduler().live_lanes(); };
    c.trap = [] { throw Error("CUDA emulator: __trap()"); };
  }
  return &c;
}

void run(const Launch& launch, void (*lane)(void* argument), void* argument) {
  Scheduler& s = scheduler();
  std::lock_guard lock(s.mutex);
  ++s.launches;
  s.run(launch, lane, argument);
}

}  // namespace tandem_emulator
