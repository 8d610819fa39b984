// How many threads the CPU kernels use.
#include "core/threads.h"

#include <dirent.h>
#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>

#include "core/thread_state.h"

namespace tandem {

namespace {

std::atomic<int> thread_limit{0};  // 0: OpenMP's own default

// OpenMP's threads don't live on in a child process, and it would wait for them for ever: the thread that goes on there runs
// kernels alone, if there were others.
bool had_threads = true;
void before_fork() {
  int threads = 0;
  if (DIR* const tasks = opendir("/proc/self/task")) {
    while (const dirent* task = readdir(tasks)) threads += task->d_name[0] != '.';
    closedir(tasks);
  }
  had_threads = threads != 1;
}
void in_child() {
  if (!had_threads) return;
#ifdef __clang__  // its OpenMP begins anew in the child, by a handler that runs after this one, and can't be called yet
  thread_state.runs_alone = true;
#else
  run_kernels_on_this_thread_alone();
#endif
}
[[maybe_unused]] const int registered = pthread_atfork(before_fork, nullptr, in_child);

}  // namespace

int num_threads() {
  if (thread_state.runs_alone) return 1;
  if (const int limit = thread_limit.load(std::memory_order_relaxed); limit > 0) return limit;
  const int limit = std::max(1, omp_get_max_threads());
  thread_limit.store(limit, std::memory_order_relaxed);
  return limit;
}

void set_num_threads(int count) {
  const int limit = std::max(1, count);
  thread_limit.store(limit, std::memory_order_relaxed);
  omp_set_num_threads(limit);  // what oneDNN and Eigen read
}

void run_kernels_on_this_thread_alone() {
  thread_state.runs_alone = true;
  omp_set_num_threads(1);  // of this thread: likewise
}

}  // namespace tandem
