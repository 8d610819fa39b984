// parallel_for: a range split over OpenMP's threads, and nothing at all where it is small.
#pragma once

#include <omp.h>

#include <cstdint>
#include <exception>

#include "core/threads.h"

namespace tandem {

/// Elements of a pointwise loop below which waking a thread costs more than it gains (about 5 µs).
inline constexpr int64_t kPointwiseGrain = 32 * 1024;

/// Threads worth using for `n` units of work with at least `grain` for each.
inline int threads_for(int64_t n, int64_t grain) {
  if (n < 2 * grain) return 1;
  if (omp_in_parallel()) return 1;
  const int64_t most = num_threads(), pieces = n / grain;
  return static_cast<int>(most < pieces ? most : pieces);
}

/// Calls f(begin, end) on pieces of [0, n), each of at least `grain` and beginning at a multiple of `align`.
/// What f computes for an index must not depend on the piece. The first that f throws is thrown to the caller, once all
/// threads are done.
template <class F> void parallel_for(int64_t n, int64_t grain, F&& f, int64_t align = 1) {
  if (n <= 0) return;
  const int threads = threads_for(n, grain);
  if (threads <= 1) {
    f(int64_t{0}, n);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel num_threads(threads)
  {
    const int64_t count = omp_get_num_threads(), me = omp_get_thread_num();
    int64_t piece = (n + count - 1) / count;
    piece = (piece + align - 1) / align * align;
    const int64_t begin = me * piece, end = begin + piece < n ? begin + piece : n;
    try {
      if (begin < end) f(begin, end);
    } catch (...) {
#pragma omp critical(tandem_parallel_for)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace tandem
