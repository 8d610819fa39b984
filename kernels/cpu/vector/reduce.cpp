// Folds of contiguous rows and of columns: sum, product, greatest, least, in float, double and int64.
#include "kernels/cpu/vector/fold.h"

TANDEM_BEGIN_VECTOR

/// What eight rows of columns are folded in: extremes as they are, sums and products in the accumulators' type.
template <class F, class T, class A> struct Within { using Type = A; };
template <class T, class A> struct Within<Greatest, T, A> { using Type = T; };
template <class T, class A> struct Within<Least, T, A> { using Type = T; };

// Eight rows at a time are folded as a tree before they meet the accumulators, which stay in the first cache.
template <class F, class T, class A>
void columns(int64_t rows, int64_t n, const T* x, int64_t stride, A* accumulators) {
  using W = typename Within<F, T, A>::Type;
  constexpr int64_t strip = 1024;
  for (int64_t at = 0; at < n; at += strip) {
    const int64_t width = least(strip, n - at);
    A* to = accumulators + at;
    int64_t r = 0;
    for (; r + 8 <= rows; r += 8) {
      const T* a = x + r * stride + at;
      const T *b = a + stride, *c = b + stride, *d = c + stride, *e = d + stride, *f = e + stride, *g = f + stride,
              *h = g + stride;
      TANDEM_SIMD
      for (int64_t j = 0; j < width; ++j) {
        const W first = F::fold(F::fold((W)a[j], (W)b[j]), F::fold((W)c[j], (W)d[j]));
        const W second = F::fold(F::fold((W)e[j], (W)f[j]), F::fold((W)g[j], (W)h[j]));
        to[j] = F::fold(to[j], (A)F::fold(first, second));
      }
    }
    for (; r < rows; ++r) {
      const T* a = x + r * stride + at;
      TANDEM_SIMD
      for (int64_t j = 0; j < width; ++j) to[j] = F::fold(to[j], (A)a[j]);
    }
  }
}

/// Extremes are exact in T already.
template <class F, class T, class A> A extreme(int64_t n, const T* x) {
  return (A)fold_each<F, T, T>(n, [=](int64_t i) { return x[i]; });
}

// Of floats, the extreme of the numbers alone, and apart from it the greatest |x| as an integer, whose bits tell
// whether there was a NaN: one comparison each rather than three. Vectors longer than the machine's would go through memory.
#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
typedef float Floats __attribute__((vector_size(kBytes)));
typedef td_i32 Bits __attribute__((vector_size(kBytes)));
#define TANDEM_BETTER(a, b) \
  ((greatest ? (a) > (b) : (a) < (b)) ? (a) : (b))  // a function would take vectors as arguments
template <class F> double extreme_f32(int64_t n, const float* x) {
  constexpr bool greatest = __is_same(F, Greatest);
  constexpr int64_t width = kBytes / 4, registers = 4, lanes = registers * width;
  if (n < lanes) return extreme<F, float, double>(n, x);
  Floats best[registers];
  Bits largest[registers] = {};
  memcpy(best, x, sizeof best);
  for (int64_t i = 0; i < n;
       i = i + lanes < n && i + 2 * lanes > n ? n - lanes : i + lanes) {  // the last step may overlap
#pragma GCC unroll 4
    for (int64_t k = 0; k < registers; ++k) {
      Floats each;
      Bits bits;
      memcpy(&each, x + i + k * width, sizeof each);
      memcpy(&bits, x + i + k * width, sizeof bits);
      best[k] = TANDEM_BETTER(each, best[k]);
      bits &= 0x7fffffff;
      largest[k] = bits > largest[k] ? bits : largest[k];
    }
  }
  float values[lanes];
  td_i32 sizes[lanes];
  memcpy(values, best, sizeof values);
  memcpy(sizes, largest, sizeof sizes);
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) {
      values[j] = TANDEM_BETTER(values[j + half], values[j]);
      sizes[j] = sizes[j + half] > sizes[j] ? sizes[j + half] : sizes[j];
    }
  }
  return sizes[0] > 0x7f800000 ? (double)(TD_INF - TD_INF) : (double)values[0];
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {

#define TANDEM_FOLDS(T, A, greatest, least)                                             \
  {                                                                                     \
    {row<Sum, T, A>, columns<Sum, T, A>}, {row<Product, T, A>, columns<Product, T, A>}, \
        {greatest, columns<Greatest, T, A>}, {                                          \
      least, columns<Least, T, A>                                                       \
    }                                                                                   \
  }
extern const ReduceLoops reduce_loops;
const ReduceLoops reduce_loops = {
    TANDEM_FOLDS(float, double, extreme_f32<Greatest>, extreme_f32<Least>),
    TANDEM_FOLDS(double, double, (extreme<Greatest, double, double>), (extreme<Least, double, double>)),
    TANDEM_FOLDS(int64_t, int64_t, (extreme<Greatest, int64_t, int64_t>), (extreme<Least, int64_t, int64_t>)),
    [](int64_t n, const uint16_t* x) { return sum_row(n, (const BF16*)x); }};

}  // namespace tandem::TANDEM_ISA
