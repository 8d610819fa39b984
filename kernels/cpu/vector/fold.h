// Folds of contiguous rows, the same to the last bit for every instruction set.
#pragma once

#include "kernels/cpu/vector/prelude.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

TANDEM_BEGIN_VECTOR

struct Sum {
  template <class T> TANDEM_INLINE T identity() { return (T)0; }
  template <class T> TANDEM_INLINE T fold(T a, T b) { return td_add(a, b); }
};
struct Product {
  template <class T> TANDEM_INLINE T identity() { return (T)1; }
  template <class T> TANDEM_INLINE T fold(T a, T b) { return td_multiply(a, b); }
};
struct Greatest {
  template <class T> TANDEM_INLINE T identity();
  template <class T> TANDEM_INLINE T fold(T a, T b) { return td_maximum(a, b); }
};
struct Least {
  template <class T> TANDEM_INLINE T identity();
  template <class T> TANDEM_INLINE T fold(T a, T b) { return td_minimum(a, b); }
};
template <> TANDEM_SPECIAL float Greatest::identity<float>() { return -TD_INF; }
template <> TANDEM_SPECIAL double Greatest::identity<double>() { return -(double)TD_INF; }
template <> TANDEM_SPECIAL int64_t Greatest::identity<int64_t>() { return INT64_MIN; }
template <> TANDEM_SPECIAL float Least::identity<float>() { return TD_INF; }
template <> TANDEM_SPECIAL double Least::identity<double>() { return (double)TD_INF; }
template <> TANDEM_SPECIAL int64_t Least::identity<int64_t>() { return INT64_MAX; }

// Sums of float, which means, softmax and norms wait for. 32 running sums in double stay in registers, where compilers
// put no array, and no vector longer than the machine's: so they are structs of structs of the machine's vectors.
#if defined(__AVX512F__)
struct EightDoubles {
  __m512d all;
};
// gcc 12 makes two halves of the plain conversion, and warns of the unmasked intrinsic.
TANDEM_INLINE void add_eight(EightDoubles* to, __m256 x) { to->all += _mm512_maskz_cvtps_pd((__mmask8)-1, x); }
TANDEM_INLINE void add_eight(EightDoubles* to, const float* x) { add_eight(to, _mm256_loadu_ps(x)); }
TANDEM_INLINE EightDoubles operator+(EightDoubles a, EightDoubles b) { return {a.all + b.all}; }
TANDEM_INLINE double sum_of(EightDoubles x) {
  const __m512d a = x.all;
  return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}
#elif defined(__AVX2__)
struct EightDoubles {
  __m256d low, high;
};
TANDEM_INLINE void add_eight(EightDoubles* to, const float* x) {
  to->low += _mm256_cvtps_pd(_mm_loadu_ps(x));
  to->high += _mm256_cvtps_pd(_mm_loadu_ps(x + 4));
}
TANDEM_INLINE void add_eight(EightDoubles* to, __m256 x) {
  to->low += _mm256_cvtps_pd(_mm256_castps256_ps128(x));
  to->high += _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
}
TANDEM_INLINE EightDoubles operator+(EightDoubles a, EightDoubles b) { return {a.low + b.low, a.high + b.high}; }
TANDEM_INLINE double sum_of(EightDoubles x) {
  const __m256d a = x.low + x.high;
  return (a[0] + a[2]) + (a[1] + a[3]);
}
#else
typedef float TwoFloats __attribute__((vector_size(8)));
typedef double TwoDoubles __attribute__((vector_size(16)));
struct EightDoubles {
  TwoDoubles a, b, c, d;
};
TANDEM_INLINE TwoDoubles two_doubles(const float* x) {
  TwoFloats two;
  memcpy(&two, x, sizeof two);
  return __builtin_convertvector(two, TwoDoubles);
}
TANDEM_INLINE void add_eight(EightDoubles* to, const float* x) {
  to->a += two_doubles(x);
  to->b += two_doubles(x + 2);
  to->c += two_doubles(x + 4);
  to->d += two_doubles(x + 6);
}
TANDEM_INLINE EightDoubles operator+(EightDoubles x, EightDoubles y) {
  return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d};
}
TANDEM_INLINE double sum_of(EightDoubles x) {
  const TwoDoubles sum = (x.a + x.c) + (x.b + x.d);
  return sum[0] + sum[1];
}
#endif
TANDEM_INLINE void add_eight(EightDoubles* to, const BF16* x) {
#if defined(__AVX2__)
  const __m128i bits = _mm_loadu_si128((const __m128i*)x);
  add_eight(to, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)));
#else
  float wide[8];
  for (int i = 0; i < 8; ++i) wide[i] = widen(x[i]);
  add_eight(to, wide);
#endif
}
TANDEM_INLINE float one_float(float x) { return x; }
TANDEM_INLINE float one_float(BF16 x) { return widen(x); }

struct RunningSums {
  EightDoubles a = {}, b = {}, c = {}, d = {};
  template <class T> __attribute__((always_inline)) void add(const T* x) {  // 32 of them
    add_eight(&a, x);
    add_eight(&b, x + 8);
    add_eight(&c, x + 16);
    add_eight(&d, x + 24);
  }
  __attribute__((always_inline)) double total() const { return sum_of((a + b) + (c + d)); }
};

/// Sums of get(i) and of other(i), in one pass: *second gets the other.
template <class Get, class Other> TANDEM_INLINE double sum_both(int64_t n, Get get, Other other, double* second) {
  RunningSums sums, other_sums;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    float values[32], others[32];
    TANDEM_SIMD
    for (int64_t j = 0; j < 32; ++j) {
      values[j] = get(i + j);
      others[j] = other(i + j);
    }
    sums.add(values);
    other_sums.add(others);
  }
  double sum = sums.total();
  *second = other_sums.total();
  for (; i < n; ++i) {
    sum += (double)get(i);
    *second += (double)other(i);
  }
  return sum;
}
template <class Get> TANDEM_INLINE double sum_each(int64_t n, Get get) {
  RunningSums sums;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    float values[32];
    TANDEM_SIMD
    for (int64_t j = 0; j < 32; ++j) values[j] = get(i + j);
    sums.add(values);
  }
  double sum = sums.total();
  for (; i < n; ++i) sum += (double)get(i);
  return sum;
}

template <class F, class T, class A> struct IsFloatSum { static constexpr bool value = false; };
template <> struct IsFloatSum<Sum, float, double> { static constexpr bool value = true; };

// A row goes through 64 running folds of type A, then a tree. For float sums A is double: a sum rounded to
// float only once is, but for ties of one in some hundred millions, the same in whatever order it is made, so
// that eager and fused kernels agree bit for bit.
template <class F, class T, class A, class Get> TANDEM_INLINE A fold_each(int64_t n, Get get) {
  if constexpr (IsFloatSum<F, T, A>::value) return sum_each(n, get);
  constexpr int64_t lanes = 64;
  A total = F::template identity<A>();
  int64_t i = 0;
  while (n - i >= lanes) {
    const int64_t end = i + (n - i) / lanes * lanes;
    A running[lanes];
    TANDEM_SIMD
    for (int64_t j = 0; j < lanes; ++j) running[j] = (A)get(i + j);
    for (i += lanes; i < end; i += lanes) {
      TANDEM_SIMD
      for (int64_t j = 0; j < lanes; ++j) running[j] = F::fold(running[j], (A)get(i + j));
    }
    A some[16];
    TANDEM_SIMD
    for (int64_t j = 0; j < 16; ++j)
      some[j] = F::fold(F::fold(running[j], running[j + 16]), F::fold(running[j + 32], running[j + 48]));
    A few[4];
    for (int64_t j = 0; j < 4; ++j) few[j] = F::fold(F::fold(some[j], some[j + 4]), F::fold(some[j + 8], some[j + 12]));
    total = F::fold(total, F::fold(F::fold(few[0], few[1]), F::fold(few[2], few[3])));
  }
  for (; i < n; ++i) total = F::fold(total, (A)get(i));
  return total;
}

template <class F, class T, class A> __attribute__((unused)) A row(int64_t n, const T* x) {
  return fold_each<F, T, A>(n, [=](int64_t i) { return x[i]; });
}

template <class T> __attribute__((unused)) double sum_row(int64_t n, const T* x) {
  RunningSums sums;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) sums.add(x + i);
  for (; i + 8 <= n; i += 8) add_eight(&sums.a, x + i);
  double sum = sums.total();
  for (; i < n; ++i) sum += (double)one_float(x[i]);
  return sum;
}
template <> __attribute__((unused)) double row<Sum, float, double>(int64_t n, const float* x) { return sum_row(n, x); }

TANDEM_END_VECTOR
