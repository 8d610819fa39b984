// Folds of contiguous rows and of columns: sum, product, greatest, least, in float, double and int64.
#include "tandem/kernels/cpu/vector/fold.h"

TANDEM_BEGIN_VECTOR

/// What eight rows of columns are folded in: extremes as they are, sums and products in the accumulators' type.
template <class F, class T, class A> struct Within {
  using Type = A;
};
template <class T, class A> struct Within<Greatest, T, A> {
  using Type = T;
};
template <class T, class A> struct Within<Least, T, A> {
  using Type = T;
};

// Eight rows at a time are folded as a tree before they meet the accumulators, which stay in the first cache.
template <class F, class T, class A> void columns(int64_t rows, int64_t n, const T* x, int64_t stride, A* accumulators) {
  using W = typename Within<F, T, A>::Type;
  constexpr int64_t strip = 1024;
  for (int64_t at = 0; at < n; at += strip) {
    const int64_t width = least(strip, n - at);
    A* to = accumulators + at;
    int64_t r = 0;
    for (; r + 8 <= rows; r += 8) {
      const T* a = x + r * stride + at;
      const T *b = a + stride, *c = b + stride, *d = c + stride, *e = d + stride, *f = e + stride,
              *g = f + stride, *h = g + stride;
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
// whether there was a NaN: one comparison each rather than three.
typedef float Sixteen __attribute__((vector_size(64)));
typedef td_i32 SixteenBits __attribute__((vector_size(64)));
#define TANDEM_BETTER(a, b) ((greatest ? (a) > (b) : (a) < (b)) ? (a) : (b))  // a function would take vectors as arguments
template <class F> double extreme_f32(int64_t n, const float* x) {
  constexpr bool greatest = __is_same(F, Greatest);
  constexpr int64_t lanes = 32;
  if (n < lanes) return extreme<F, float, double>(n, x);
  Sixteen best[2];
  SixteenBits largest[2] = {};
  memcpy(best, x, sizeof best);
  for (int64_t i = 0; i < n; i = i + lanes < n && i + 2 * lanes > n ? n - lanes : i + lanes) {  // the last step may overlap
    Sixteen each[2];
    SixteenBits bits[2];
    memcpy(each, x + i, sizeof each);
    memcpy(bits, x + i, sizeof bits);
    for (int k = 0; k < 2; ++k) {
      best[k] = TANDEM_BETTER(each[k], best[k]);
      bits[k] &= 0x7fffffff;
      largest[k] = bits[k] > largest[k] ? bits[k] : largest[k];
    }
  }
  const Sixteen one = TANDEM_BETTER(best[1], best[0]);
  const SixteenBits bits = largest[1] > largest[0] ? largest[1] : largest[0];
  float values[16];
  td_i32 sizes[16];
  memcpy(values, &one, sizeof values);
  memcpy(sizes, &bits, sizeof sizes);
  for (int width = 8; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) {
      values[j] = TANDEM_BETTER(values[j + width], values[j]);
      sizes[j] = sizes[j + width] > sizes[j] ? sizes[j + width] : sizes[j];
    }
  }
  return sizes[0] > 0x7f800000 ? (double)(TD_INF - TD_INF) : (double)values[0];
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {

#define TANDEM_FOLDS(T, A, greatest, least)                                           \
  {                                                                                   \
    {row<Sum, T, A>, columns<Sum, T, A>}, {row<Product, T, A>, columns<Product, T, A>}, \
        {greatest, columns<Greatest, T, A>}, { least, columns<Least, T, A> }          \
  }
extern const ReduceLoops reduce_loops;
const ReduceLoops reduce_loops = {TANDEM_FOLDS(float, double, extreme_f32<Greatest>, extreme_f32<Least>),
                                  TANDEM_FOLDS(double, double, (extreme<Greatest, double, double>), (extreme<Least, double, double>)),
                                  TANDEM_FOLDS(int64_t, int64_t, (extreme<Greatest, int64_t, int64_t>), (extreme<Least, int64_t, int64_t>)),
                                  [](int64_t n, const uint16_t* x) { return sum_row(n, (const BF16*)x); }};

}  // namespace tandem::TANDEM_ISA
