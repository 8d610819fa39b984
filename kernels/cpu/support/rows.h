// What softmax, norm and loss share: the loops over rows for T, and rows spread over threads.
#pragma once

#include <type_traits>

#include "core/op.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

template <class T> const RowLoops<T>& row_loops() {
  if constexpr (std::is_same_v<T, float>) return *loops().rows_f32;
  else return *loops().rows_f64;
}

/// Calls f(row) for all rows of `width` elements, in parallel where they are many.
template <class F> void for_rows(int64_t rows, int64_t width, F&& f) {
  parallel_for(rows, std::max<int64_t>(1, 8 * 1024 / std::max<int64_t>(width, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r);
  });
}

/// kernel<T>(context) in the type that x is computed in: double for float64, else float.
#define TANDEM_WIDE_KERNEL(kernel)                          \
  [](KernelContext& c) {                                    \
    if (c.out().dtype == DType::float64) kernel<double>(c); \
    else kernel<float>(c);                                  \
  }

}  // namespace tandem
