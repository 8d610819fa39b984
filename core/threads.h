// How many threads the CPU kernels use.
#pragma once

namespace tandem {

/// Threads that a CPU kernel may use: at first OMP_NUM_THREADS, or the CPUs that this process may run on.
///
/// Between kernels OpenMP's idle threads spin. Beside other busy processes that can cost more than it gains;
/// GOMP_SPINCOUNT=1000 in the environment (read before main) ends it and costs nothing on an idle machine.
int num_threads();
/// Results don't depend on the number. A child process that was forked where other threads were alive uses one.
void set_num_threads(int count);

/// From now on, kernels that the calling thread starts use no other: for threads that work beside others, as a
/// Loader's do.
void run_kernels_on_this_thread_alone();

}  // namespace tandem
