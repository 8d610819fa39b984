// Registers of one type: how many values each holds, a fused multiply-add, and the height of the tile of results
// (two registers wide) that fills them.
#pragma once

#include "kernels/cpu/vector/prelude.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

TANDEM_BEGIN_VECTOR

template <class T> struct Registers;

#if defined(__AVX512F__)
template <> struct Registers<float> {
  using V = __m512;
  static constexpr int64_t lanes = 16, height = 12;
  TANDEM_INLINE V multiply_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  TANDEM_INLINE V spread(float x) { return _mm512_set1_ps(x); }
};
template <> struct Registers<double> {
  using V = __m512d;
  static constexpr int64_t lanes = 8, height = 12;
  TANDEM_INLINE V multiply_add(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
  TANDEM_INLINE V spread(double x) { return _mm512_set1_pd(x); }
};
#elif defined(__AVX2__)
template <> struct Registers<float> {
  using V = __m256;
  static constexpr int64_t lanes = 8, height = 6;
  TANDEM_INLINE V multiply_add(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  TANDEM_INLINE V spread(float x) { return _mm256_set1_ps(x); }
};
template <> struct Registers<double> {
  using V = __m256d;
  static constexpr int64_t lanes = 4, height = 6;
  TANDEM_INLINE V multiply_add(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
  TANDEM_INLINE V spread(double x) { return _mm256_set1_pd(x); }
};
#else
typedef float Floats __attribute__((vector_size(16)));
typedef double Doubles __attribute__((vector_size(16)));
template <> struct Registers<float> {
  using V = Floats;
  static constexpr int64_t lanes = 4, height = 4;
  TANDEM_INLINE V multiply_add(V a, V b, V c) { return a * b + c; }
  TANDEM_INLINE V spread(float x) { return V{x, x, x, x}; }
};
template <> struct Registers<double> {
  using V = Doubles;
  static constexpr int64_t lanes = 2, height = 4;
  TANDEM_INLINE V multiply_add(V a, V b, V c) { return a * b + c; }
  TANDEM_INLINE V spread(double x) { return V{x, x}; }
};
#endif

TANDEM_END_VECTOR
