// What every vector file begins with. These files are compiled once per instruction set, into a namespace of
// that name. Everything here and in them is static or in that namespace: were an inline function shared with
// the rest of the library, the linker could keep the copy compiled for AVX-512. Hence also no std:: templates.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "core/scalar/gamma.h"
#include "core/scalar/half.h"
#include "core/scalar/math.h"
#include "kernels/cpu/vector/loops.h"

#ifndef TANDEM_ISA
#define TANDEM_ISA portable
#endif

#define TANDEM_BEGIN_VECTOR \
  namespace tandem {        \
  namespace TANDEM_ISA {    \
  namespace {
#define TANDEM_END_VECTOR \
  }                       \
  }                       \
  }

TANDEM_BEGIN_VECTOR

#define TANDEM_INLINE static inline __attribute__((always_inline, unused))
#define TANDEM_SPECIAL inline __attribute__((always_inline, unused))  // specialisations take no static
/// The loop's iterations are independent, also where the output is one of the inputs.
#define TANDEM_SIMD _Pragma("omp simd")

/// The two 16-bit floats and bool as types of their own. float16 and bfloat16 are computed on as float.
struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};
struct Bool {
  uint8_t value;
};

TANDEM_INLINE float widen(F16 h) { return td_f16_to_f32(h.bits); }
TANDEM_INLINE float widen(BF16 h) { return td_bf16_to_f32(h.bits); }
TANDEM_INLINE F16 narrow_f16(float x) { return F16{td_f32_to_f16(x)}; }
TANDEM_INLINE BF16 narrow_bf16(float x) { return BF16{td_f32_to_bf16(x)}; }

// Conversion of one element, any type to any.
template <class To> struct Convert {
  template <class From> TANDEM_INLINE To from(From x) { return (To)x; }
  TANDEM_INLINE To from(F16 x) { return (To)widen(x); }
  TANDEM_INLINE To from(BF16 x) { return (To)widen(x); }
  TANDEM_INLINE To from(Bool x) { return (To)(x.value != 0); }
};
// Floats become integers by the functions of core/scalar, as in generated code.
#define TANDEM_CONVERT_TO_INTEGER(T, t)                                 \
  template <> struct Convert<T> {                                       \
    template <class From> TANDEM_INLINE T from(From x) { return (T)x; } \
    TANDEM_INLINE T from(float x) { return td_f32_to_##t(x); }          \
    TANDEM_INLINE T from(double x) { return td_f64_to_##t(x); }         \
    TANDEM_INLINE T from(F16 x) { return td_f32_to_##t(widen(x)); }     \
    TANDEM_INLINE T from(BF16 x) { return td_f32_to_##t(widen(x)); }    \
    TANDEM_INLINE T from(Bool x) { return x.value != 0; }               \
  };
TANDEM_CONVERT_TO_INTEGER(int32_t, i32)
TANDEM_CONVERT_TO_INTEGER(int64_t, i64)
TANDEM_CONVERT_TO_INTEGER(int16_t, i16)
TANDEM_CONVERT_TO_INTEGER(int8_t, i8)
TANDEM_CONVERT_TO_INTEGER(uint8_t, u8)
template <> struct Convert<Bool> {
  template <class From> TANDEM_INLINE Bool from(From x) { return Bool{(uint8_t)(x != (From)0)}; }
  TANDEM_INLINE Bool from(F16 x) { return Bool{(uint8_t)((x.bits & 0x7fffu) != 0)}; }
  TANDEM_INLINE Bool from(BF16 x) { return Bool{(uint8_t)((x.bits & 0x7fffu) != 0)}; }
  TANDEM_INLINE Bool from(Bool x) { return Bool{(uint8_t)(x.value != 0)}; }
};
template <> struct Convert<F16> {
  template <class From> TANDEM_INLINE F16 from(From x) { return narrow_f16((float)x); }
  TANDEM_INLINE F16 from(F16 x) { return x; }
  TANDEM_INLINE F16 from(BF16 x) { return narrow_f16(widen(x)); }
  TANDEM_INLINE F16 from(Bool x) { return narrow_f16(x.value ? 1.0f : 0.0f); }
};
template <> struct Convert<BF16> {
  template <class From> TANDEM_INLINE BF16 from(From x) { return narrow_bf16((float)x); }
  TANDEM_INLINE BF16 from(F16 x) { return narrow_bf16(widen(x)); }
  TANDEM_INLINE BF16 from(BF16 x) { return x; }
  TANDEM_INLINE BF16 from(Bool x) { return narrow_bf16(x.value ? 1.0f : 0.0f); }
};

/// `n` elements to float and back, contiguous.
TANDEM_INLINE void widen_block(int64_t n, const BF16* from, float* to) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) to[i] = widen(from[i]);
}
TANDEM_INLINE void narrow_block(int64_t n, const float* from, BF16* to) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) to[i] = narrow_bf16(from[i]);
}
TANDEM_INLINE void widen_block(int64_t n, const F16* from, float* to) {
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + i))));
#endif
  for (; i < n; ++i) to[i] = widen(from[i]);
}
TANDEM_INLINE void narrow_block(int64_t n, const float* from, F16* to) {
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128((__m128i*)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; i < n; ++i) to[i] = narrow_f16(from[i]);
}
TANDEM_INLINE void widen_block(int64_t n, const float* from, float* to) { memcpy(to, from, (size_t)n * sizeof(float)); }
TANDEM_INLINE void narrow_block(int64_t n, const float* from, float* to) {
  memcpy(to, from, (size_t)n * sizeof(float));
}

TANDEM_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
TANDEM_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

TANDEM_END_VECTOR
