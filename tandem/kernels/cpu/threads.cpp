// How many threads the CPU kernels use.
#include <algorithm>

#include "tandem/kernels/cpu/parallel.h"

namespace tandem {

int detail::thread_limit = 0;

int num_threads() {
  return detail::thread_limit > 0 ? detail::thread_limit : detail::thread_limit = std::max(1, omp_get_max_threads());
}

void set_num_threads(int count) {
  detail::thread_limit = std::max(1, count);
  omp_set_num_threads(detail::thread_limit);  // what oneDNN and Eigen read
}

}  // namespace tandem
