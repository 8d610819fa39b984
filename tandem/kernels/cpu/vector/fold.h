// Folds of contiguous rows, the same to the last bit for every instruction set.
#pragma once

#include "tandem/kernels/cpu/vector/prelude.h"

TANDEM_BEGIN_VECTOR

struct Sum {
  template <class T> TANDEM_INLINE T identity() { return (T)0; }
  template <class T> TANDEM_INLINE T fold(T a, T b) { return a + b; }
};
struct Product {
  template <class T> TANDEM_INLINE T identity() { return (T)1; }
  template <class T> TANDEM_INLINE T fold(T a, T b) { return a * b; }
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

// Sums of float, which means, softmax and norms wait for: the running sums stay in registers, where compilers put no
// array.
typedef float EightFloats __attribute__((vector_size(32)));
typedef double EightDoubles __attribute__((vector_size(64)));
TANDEM_INLINE void load_eight(const float* x, EightFloats* to) { memcpy(to, x, sizeof *to); }
TANDEM_INLINE void load_eight(const BF16* x, EightFloats* to) {
  typedef uint16_t Halves __attribute__((vector_size(16)));
  typedef uint32_t Words __attribute__((vector_size(32)));
  Halves bits;
  memcpy(&bits, x, sizeof bits);
  const Words words = __builtin_convertvector(bits, Words) << 16;
  memcpy(to, &words, sizeof words);
}
// gcc 12 makes two halves of this conversion; and the unmasked intrinsic makes it warn.
#if defined(__AVX512F__)
#define TANDEM_WIDEN_EIGHT(x) ((EightDoubles)_mm512_maskz_cvtps_pd((__mmask8)-1, (__m256)(x)))
#else
#define TANDEM_WIDEN_EIGHT(x) __builtin_convertvector(x, EightDoubles)
#endif
TANDEM_INLINE float one_float(float x) { return x; }
TANDEM_INLINE float one_float(BF16 x) { return widen(x); }

TANDEM_INLINE double sum_lanes(const EightDoubles* total) {
  const EightDoubles a = (total[0] + total[1]) + (total[2] + total[3]);
  return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

/// Sums of get(i) and of other(i), in one pass: *second gets the other.
template <class Get, class Other> TANDEM_INLINE double sum_both(int64_t n, Get get, Other other, double* second) {
  EightDoubles total[4] = {}, other_total[4] = {};
  EightFloats each;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    float values[32], others[32];
    TANDEM_SIMD
    for (int64_t j = 0; j < 32; ++j) {
      values[j] = get(i + j);
      others[j] = other(i + j);
    }
    for (int k = 0; k < 4; ++k) {
      load_eight(values + 8 * k, &each);
      total[k] += TANDEM_WIDEN_EIGHT(each);
      load_eight(others + 8 * k, &each);
      other_total[k] += TANDEM_WIDEN_EIGHT(each);
    }
  }
  double sum = sum_lanes(total);
  *second = sum_lanes(other_total);
  for (; i < n; ++i) {
    sum += (double)get(i);
    *second += (double)other(i);
  }
  return sum;
}
template <class Get> TANDEM_INLINE double sum_each(int64_t n, Get get) {
  EightDoubles total[4] = {};
  EightFloats each;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    float values[32];
    TANDEM_SIMD
    for (int64_t j = 0; j < 32; ++j) values[j] = get(i + j);
    for (int k = 0; k < 4; ++k) {
      load_eight(values + 8 * k, &each);
      total[k] += TANDEM_WIDEN_EIGHT(each);
    }
  }
  double sum = sum_lanes(total);
  for (; i < n; ++i) sum += (double)get(i);
  return sum;
}

template <class F, class T, class A> struct IsFloatSum {
  static constexpr bool value = false;
};
template <> struct IsFloatSum<Sum, float, double> {
  static constexpr bool value = true;
};

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
    for (int64_t j = 0; j < 4; ++j)
      few[j] = F::fold(F::fold(some[j], some[j + 4]), F::fold(some[j + 8], some[j + 12]));
    total = F::fold(total, F::fold(F::fold(few[0], few[1]), F::fold(few[2], few[3])));
  }
  for (; i < n; ++i) total = F::fold(total, (A)get(i));
  return total;
}

template <class F, class T, class A> __attribute__((unused)) A row(int64_t n, const T* x) {
  return fold_each<F, T, A>(n, [=](int64_t i) { return x[i]; });
}

template <class T> __attribute__((unused)) double sum_row(int64_t n, const T* x) {
  EightDoubles p = {}, q = {}, r = {}, s = {};
  EightFloats each, second, third, fourth;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    load_eight(x + i, &each);
    load_eight(x + i + 8, &second);
    load_eight(x + i + 16, &third);
    load_eight(x + i + 24, &fourth);
    p += TANDEM_WIDEN_EIGHT(each);
    q += TANDEM_WIDEN_EIGHT(second);
    r += TANDEM_WIDEN_EIGHT(third);
    s += TANDEM_WIDEN_EIGHT(fourth);
  }
  for (; i + 8 <= n; i += 8) {
    load_eight(x + i, &each);
    p += TANDEM_WIDEN_EIGHT(each);
  }
  const EightDoubles a = (p + q) + (r + s);
  double sum = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
  for (; i < n; ++i) sum += (double)one_float(x[i]);
  return sum;
}
template <> __attribute__((unused)) double row<Sum, float, double>(int64_t n, const float* x) { return sum_row(n, x); }

TANDEM_END_VECTOR
