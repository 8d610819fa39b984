// Threads of jobs, and their end: with the job, with the program, and in a child of fork.
#include "graph/native/background.h"

#include <pthread.h>

#include <mutex>
#include <set>
#include <system_error>
#include <thread>

#include "graph/native/disk_cache.h"
#include "graph/native/process.h"

namespace tandem::graph {

/// Those that have a thread. Never destroyed: jobs of static objects end after all else.
struct BackgroundJob::Jobs {
  std::mutex mutex;
  std::set<std::shared_ptr<State>> running;
  bool closed = false;                ///< the program is about to end
  std::atomic<uint64_t> process = 0;  ///< another number in a child of fork

  static Jobs& all() {
    static auto* const all = new Jobs;
    return *all;
  }
  /// Before a job begins. What it may use is made before what ends it, and so destroyed after that.
  static void prepare() {
    all();
    prepare_private_directories();
    static const int forks = pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); }, forget_in_child);
    (void)forks;
    struct AtExit {
      ~AtExit() { all().end(); }
    };
    static const AtExit at_exit;
  }
  void end();
  /// For ever.
  static void keep(std::shared_ptr<State> state);
  /// Their threads are not here: nothing that they had may be freed.
  static void forget_in_child() {
    for (const std::shared_ptr<State>& each : all().running) keep(each);
    all().running.clear();
    ++all().process;
    all().mutex.unlock();
  }
};

struct BackgroundJob::State {
  std::function<void()> work;
  std::atomic<bool> done = false, stop = false;
  uint64_t process = 0;  ///< in which it was begun
  std::mutex joining;    ///< of `thread`: its owner and the end of the program may both wait for it
  std::thread thread;
  std::shared_ptr<State> self;  ///< of one that is never freed

  void run() {
    try {
      const StopScope scope(stop);
      work();
    } catch (...) {}  // what it has written says how far it came
    done.store(true, std::memory_order_release);
    done.notify_all();
  }
  void end() {
    stop.store(true, std::memory_order_relaxed);
    const std::lock_guard lock(joining);
    if (thread.joinable()) thread.join();
  }
  bool is_of_parent() const { return process != Jobs::all().process; }
};

void BackgroundJob::Jobs::keep(std::shared_ptr<State> state) {
  State& kept = *state;
  kept.self = std::move(state);
}

void BackgroundJob::Jobs::end() {
  std::set<std::shared_ptr<State>> last;
  {
    const std::lock_guard lock(mutex);
    closed = true;
    last.swap(running);
  }
  for (const std::shared_ptr<State>& each : last) each->end();
}

BackgroundJob::BackgroundJob(std::function<void()> work) : state_(std::make_shared<State>()) {
  Jobs::prepare();
  Jobs& all = Jobs::all();
  state_->work = std::move(work);
  {
    const std::lock_guard lock(all.mutex);
    state_->process = all.process;
    if (!all.closed) {
      all.running.insert(state_);
      try {
        state_->thread = std::thread([state = state_.get()] { state->run(); });
        return;
      } catch (const std::system_error&) { all.running.erase(state_); }
    }
  }
  state_->run();
}

BackgroundJob::~BackgroundJob() {
  if (state_->is_of_parent()) {
    Jobs::keep(std::move(state_));
    return;
  }
  state_->end();
  const std::lock_guard lock(Jobs::all().mutex);
  Jobs::all().running.erase(state_);
}

bool BackgroundJob::done() const { return state_->done.load(std::memory_order_acquire); }
bool BackgroundJob::lost() const { return state_->is_of_parent() && !done(); }
void BackgroundJob::wait() const {
  if (!lost()) state_->done.wait(false, std::memory_order_acquire);
}

}  // namespace tandem::graph
