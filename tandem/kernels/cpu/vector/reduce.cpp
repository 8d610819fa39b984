// Folds of contiguous rows and of columns: sum, product, greatest, least, in float, double and int64.
#include "tandem/kernels/cpu/vector/fold.h"

TANDEM_BEGIN_VECTOR

// Eight rows at a time are folded as a tree before they meet the accumulators, which stay in the first cache.
template <class F, class T> void columns(int64_t rows, int64_t n, const T* x, int64_t stride, T* accumulators) {
  constexpr int64_t strip = 1024;
  for (int64_t at = 0; at < n; at += strip) {
    const int64_t width = least(strip, n - at);
    T* to = accumulators + at;
    int64_t r = 0;
    for (; r + 8 <= rows; r += 8) {
      const T* a = x + r * stride + at;
      const T *b = a + stride, *c = b + stride, *d = c + stride, *e = d + stride, *f = e + stride,
              *g = f + stride, *h = g + stride;
      TANDEM_SIMD
      for (int64_t j = 0; j < width; ++j) {
        const T first = F::fold(F::fold(a[j], b[j]), F::fold(c[j], d[j]));
        const T second = F::fold(F::fold(e[j], f[j]), F::fold(g[j], h[j]));
        to[j] = F::fold(to[j], F::fold(first, second));
      }
    }
    for (; r < rows; ++r) {
      const T* a = x + r * stride + at;
      TANDEM_SIMD
      for (int64_t j = 0; j < width; ++j) to[j] = F::fold(to[j], a[j]);
    }
  }
}

/// Extremes are exact in T already.
template <class F, class T, class A> A extreme(int64_t n, const T* x) {
  return (A)fold_each<F, T, T>(n, [=](int64_t i) { return x[i]; });
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {

#define TANDEM_FOLDS(T, A)                                                                         \
  {                                                                                                \
    {row<Sum, T, A>, columns<Sum, T>}, {row<Product, T, A>, columns<Product, T>},                  \
        {extreme<Greatest, T, A>, columns<Greatest, T>}, { extreme<Least, T, A>, columns<Least, T> } \
  }
extern const ReduceLoops reduce_loops;
const ReduceLoops reduce_loops = {TANDEM_FOLDS(float, double), TANDEM_FOLDS(double, double),
                                  TANDEM_FOLDS(int64_t, int64_t)};

}  // namespace tandem::TANDEM_ISA
