// How many threads the CPU kernels use.
#include "core/threads.h"

#include <omp.h>

#include <algorithm>
#include <atomic>

#include "core/thread_state.h"

namespace tandem {

namespace {

std::atomic<int> thread_limit{0};  // 0: OpenMP's own default

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
