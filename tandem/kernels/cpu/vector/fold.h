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

// A row goes through 64 running folds of type A, then a tree. For float sums A is double: a sum rounded to
// float only once is, but for ties of one in some hundred millions, the same in whatever order it is made, so
// that eager and fused kernels agree bit for bit.
template <class F, class T, class A, class Get> TANDEM_INLINE A fold_each(int64_t n, Get get) {
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
    T some[16];
    TANDEM_SIMD
    for (int64_t j = 0; j < 16; ++j)
      some[j] = F::fold(F::fold(running[j], running[j + 16]), F::fold(running[j + 32], running[j + 48]));
    A few[4];
    for (int64_t j = 0; j < 4; ++j)
      few[j] = F::fold(F::fold((A)some[j], (A)some[j + 4]), F::fold((A)some[j + 8], (A)some[j + 12]));
    total = F::fold(total, F::fold(F::fold(few[0], few[1]), F::fold(few[2], few[3])));
  }
  for (; i < n; ++i) total = F::fold(total, (A)get(i));
  return total;
}

template <class F, class T, class A> __attribute__((unused)) A row(int64_t n, const T* x) {
  return fold_each<F, T, A>(n, [=](int64_t i) { return x[i]; });
}

TANDEM_END_VECTOR
