// Scalar mathematics that C11, C++20 and CUDA all compile: td_exp(x), td_tanh(x), td_maximum(a, b), …
//
// No #include: this text is also pasted in front of generated C and CUDA sources. (Hence an include guard
// instead of `#pragma once`, which warns in a main file.) Every name is generic over float and double, some
// over integers: overloads in C++ and CUDA, _Generic in C. gamma.h, half.h and philox.h build on this file.
//
// Float32 exp, expm1, log, log1p, log2, tanh, sinh, cosh, sigmoid and erf are branch-free (selects only), so that
// compilers vectorise loops over them; compile with -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math. Each is
// within 2 ULP of the true value for every float, denormals, infinities and NaN included (tests/math_test.cpp
// tries them all). Without -ffp-contract=off they may round differently, and gcc and clang may disagree.
// On a CUDA device the toolkit's own functions serve, within 2 ULP too. Float64 is the C library's.
//
// Coefficients: minimax fits by scripts/fit_minimax.py.
#ifndef TANDEM_CORE_SCALAR_MATH_H
#define TANDEM_CORE_SCALAR_MATH_H

// ---- Types and keywords ------------------------------------------------------------------------------------

typedef signed char td_i8;
typedef signed char td_i8;
typedef short td_i16;
typedef unsigned char td_u8;
typedef unsigned short td_u16;
#if defined(__INT64_TYPE__)  // gcc, clang: the same types as <stdint.h>, so that overloads accept int64_t
typedef __INT32_TYPE__ td_i32;
typedef __UINT32_TYPE__ td_u32;
typedef __INT64_TYPE__ td_i64;
typedef __UINT64_TYPE__ td_u64;
#else  // NVRTC
typedef int td_i32;
typedef unsigned int td_u32;
typedef long long td_i64;
typedef unsigned long long td_u64;
#endif

#if defined(__CUDACC_RTC__)  // not static: NVRTC warns of static functions that nobody calls
#define TD_FN __device__ __forceinline__
#define TD_LIBM(name) name
#elif defined(__CUDACC__)
#define TD_FN static __host__ __device__ __forceinline__
#define TD_LIBM(name) name
#else
#define TD_FN static inline __attribute__((always_inline))
#define TD_LIBM(name) __builtin_##name
#endif

// Of what is too large to stand in every loop that calls it.
#if defined(__CUDACC_RTC__)
#define TD_LARGE_FN __device__ __noinline__
#elif defined(__CUDACC__)
#define TD_LARGE_FN static __host__ __device__ __noinline__ __attribute__((unused))
#else
#define TD_LARGE_FN static __attribute__((noinline, unused))
#endif

#ifdef __cplusplus
#define TD_BOOL bool
#else
#define TD_BOOL _Bool
#endif

// a*b + c, rounded once where the machine can; twice elsewhere (never by the slow C library routine).
#if defined(__CUDA_ARCH__)
#define TD_FMA(a, b, c) __fmaf_rn(a, b, c)
#elif defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_FEATURE_FMA)
#define TD_FMA(a, b, c) __builtin_fmaf(a, b, c)
#else
#define TD_FMA(a, b, c) ((a) * (b) + (c))
#endif

#define TD_FLOAT_MAX 0x1.fffffep127f
#define TD_DOUBLE_MAX 0x1.fffffffffffffp1023

TD_FN td_u32 td_bits(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  td_u32 bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}

TD_FN float td_from_bits(td_u32 bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
#endif
}

#define TD_INF td_from_bits(0x7f800000u)

// ---- Float32, by hand --------------------------------------------------------------------------------------

#if defined(__CUDA_ARCH__) && !defined(TD_PORTABLE_DEVICE_MATH)

TD_FN float td_exp_f32(float x) { return expf(x); }
TD_FN float td_expm1_f32(float x) { return expm1f(x); }
TD_FN float td_log_f32(float x) { return logf(x); }
TD_FN float td_log1p_f32(float x) { return log1pf(x); }
TD_FN float td_log2_f32(float x) { return log2f(x); }
TD_FN float td_tanh_f32(float x) { return tanhf(x); }
TD_FN float td_sinh_f32(float x) { return sinhf(x); }
TD_FN float td_cosh_f32(float x) { return coshf(x); }
TD_FN float td_erf_f32(float x) { return erff(x); }
TD_FN float td_exp_minus_abs(float x) { return expf(-fabsf(x)); }
TD_FN float td_normal_tail(float t, float) { return 0.5f * erfcf(t * 0.70710678118654752440f); }
TD_FN float td_log1p_in_range(float x, float) { return log1pf(x); }

#else

// x = n ln2 + r with |r| <= ln2/2, n = round(x/ln2). Adding 1.5*2^23 rounds to an integer and leaves n in the
// low bits of the sum; the 254 added on top is twice the exponent bias, for the scale by 2^n. ln2 comes in two
// parts, the first with 9 trailing zero bits so that n times it is exact without FMA too (|n| < 2^9).
#define TD_EXP_MAGIC 12583166.0f  // 1.5*2^23 + 254
#define TD_LN2_HIGH 0x1.62e4p-1f
#define TD_LN2_LOW 0x1.7f7d1cp-20f

TD_FN float td_exp_magic_sum(float x) { return TD_FMA(x, 0x1.715476p+0f, TD_EXP_MAGIC); }

TD_FN float td_exp_remainder(float x, float magic_sum) {
  float n = magic_sum - TD_EXP_MAGIC;
  return TD_FMA(n, -TD_LN2_LOW, TD_FMA(n, -TD_LN2_HIGH, x));
}

// (e^r - 1 - r) / r^2, so that e^r is off by at most 2^-28 in relative terms.
TD_FN float td_exp_tail(float r) {
  float p = TD_FMA(r, 0x1.6ab6acp-10f, 0x1.123d5cp-7f);
  p = TD_FMA(r, p, 0x1.55585ap-5f);
  p = TD_FMA(r, p, 0x1.55548cp-3f);
  return TD_FMA(r, p, 0x1.fffffcp-2f);
}

// e^r - 1
TD_FN float td_exp_fraction(float r) { return TD_FMA(r * r, td_exp_tail(r), r); }

// e^x for -104 <= x <= 89. The factor 2^n is applied in two halves: the first product is exact and the second
// rounds once, also where the result is denormal or overflows.
TD_FN float td_exp_in_range(float x) {
  float sum = td_exp_magic_sum(x);
  float r = td_exp_remainder(x, sum);
  float p = TD_FMA(r, TD_FMA(r, td_exp_tail(r), 1.0f), 1.0f);
  td_u32 twice_biased = td_bits(sum);
  td_u32 half = twice_biased >> 1;
  return p * td_from_bits(half << 23) * td_from_bits((twice_biased - half) << 23);
}

TD_FN float td_exp_f32(float x) {
  float y = x > 89.0f ? 89.0f : x;  // NaN passes both
  y = y < -104.0f ? -104.0f : y;
  return td_exp_in_range(y);
}

TD_FN float td_exp_minus_abs(float x) {
  float y = -TD_LIBM(fabsf)(x);
  return td_exp_in_range(y < -104.0f ? -104.0f : y);
}

// e^x - 1 = 2^n (e^r - 1) + (2^n - 1), computed with 2^(n-1) since 2^128 is no float.
TD_FN float td_expm1_f32(float x) {
  float y = x > 89.0f ? 89.0f : x;
  y = y < -18.0f ? -18.0f : y;
  float sum = td_exp_magic_sum(y);
  float p = td_exp_fraction(td_exp_remainder(y, sum));
  float half_scale = td_from_bits((td_bits(sum) - 128u) << 23);
  float result = 2.0f * TD_FMA(p, half_scale, half_scale - 0.5f);
  return TD_LIBM(fabsf)(x) < 0x1p-25f ? x : result;
}

// e ln2 + log(1 + f) for sqrt(1/2) - 1 <= f < sqrt(2) - 1, log(1 + f) = f - f^2/2 + f^3 P(f).
TD_FN float td_log_sum(float e, float f) {
  float p = TD_FMA(f, -0x1.38f5b8p-4f, 0x1.0571fp-3f);
  p = TD_FMA(f, p, -0x1.0d81e2p-3f);
  p = TD_FMA(f, p, 0x1.22d5dep-3f);
  p = TD_FMA(f, p, -0x1.54721ap-3f);
  p = TD_FMA(f, p, 0x1.99a036p-3f);
  p = TD_FMA(f, p, -0x1.000228p-2f);
  p = TD_FMA(f, p, 0x1.555554p-2f);
  float f2 = f * f;
  float low = TD_FMA(f2 * f, p, e * TD_LN2_LOW);
  return TD_FMA(e, TD_LN2_HIGH, f - TD_FMA(f2, 0.5f, -low));
}

#define TD_SQRT_HALF_BITS 0x3f3504f3u  // subtracting them leaves floor(log2(x / sqrt(1/2))) in the exponent

// x = 2^e (1 + f): gives f.
TD_FN float td_log_split(float x, float* e) {
  TD_BOOL denormal = x < 0x1p-126f;
  float y = denormal ? x * 0x1p23f : x;
  td_u32 shifted = td_bits(y) - TD_SQRT_HALF_BITS;
  *e = (float)((td_i32)shifted >> 23) - (denormal ? 23.0f : 0.0f);
  return td_from_bits(td_bits(y) - (shifted & 0xff800000u)) - 1.0f;
}

// The logarithm's limits put in where x is not a positive number.
TD_FN float td_log_limits(float x, float result) {
  result = x < TD_INF ? result : x;  // +inf, NaN
  result = x == 0.0f ? -TD_INF : result;
  return x < 0.0f ? TD_INF - TD_INF : result;
}

TD_FN float td_log_f32(float x) {
  float e, f = td_log_split(x, &e);
  return td_log_limits(x, td_log_sum(e, f));
}

// e + log(1 + f) / ln2: exact where x is a power of two.
TD_FN float td_log2_f32(float x) {
  float e, f = td_log_split(x, &e);
  return td_log_limits(x, TD_FMA(td_log_sum(0.0f, f), 0x1.715476p+0f, e));
}

// log(1 + x) + scale ln2 for -1 < x < 2^100. 1 + x = 2^e (1 + f): with s = 2^-e, f = x s + (s - 1) rounds once,
// however small x is beside 1.
TD_FN float td_log1p_in_range(float x, float scale) {
  td_u32 shifted = td_bits(1.0f + x) - TD_SQRT_HALF_BITS;
  float s = td_from_bits(0x3f800000u - (shifted & 0xff800000u));
  return td_log_sum((float)((td_i32)shifted >> 23) + scale, TD_FMA(x, s, s - 1.0f));
}

TD_FN float td_log1p_f32(float x) {
  TD_BOOL large = x > 0x1p60f;
  float y = large ? x * 0x1p-60f - 1.0f : x;
  float result = td_log1p_in_range(y, large ? 60.0f : 0.0f);
  result = x < TD_INF ? result : x;
  result = x == 0.0f ? x : result;  // the sign of zero
  result = x == -1.0f ? -TD_INF : result;
  return x < -1.0f ? TD_INF - TD_INF : result;
}

// H / (1 + H) with H = (e^2|x| - 1) / 2, up to where tanh rounds to 1. For small H the quotient Q would carry
// the rounding of 1 + H and its own; H - H Q, which is the same, hardly feels them.
TD_FN float td_tanh_f32(float x) {
  float a = 2.0f * TD_LIBM(fabsf)(x);
  a = a > 18.1f ? 18.1f : a;
  float sum = td_exp_magic_sum(a);
  float scale = td_from_bits((td_bits(sum) - 128u) << 23);
  float h = TD_FMA(td_exp_fraction(td_exp_remainder(a, sum)), scale, scale - 0.5f);
  float q = h / (1.0f + h);
  return TD_LIBM(copysignf)(h < 0.5f ? TD_FMA(-h, q, h) : q, x);
}

// With H = (e^|x| - 1) / 2: (e^|x| - e^-|x|) / 2 = H + H / (1 + 2H). 89.5 is beyond where the result overflows.
TD_FN float td_sinh_f32(float x) {
  float a = TD_LIBM(fabsf)(x);
  a = a > 89.5f ? 89.5f : a;
  float sum = td_exp_magic_sum(a);
  float scale = td_from_bits((td_bits(sum) - 129u) << 23);  // 2^(n-2): 2^n may be no float
  float h = 2.0f * TD_FMA(td_exp_fraction(td_exp_remainder(a, sum)), scale, scale - 0.25f);
  float b = h > 0x1p100f ? 0x1p100f : h;
  float result = a < 0x1p-13f ? a : h + b / (1.0f + 2.0f * b);
  return TD_LIBM(copysignf)(result, x);
}

// E + 1 / (4 E) with E = e^|x| / 2, scaled in two halves as exp is.
TD_FN float td_cosh_f32(float x) {
  float a = TD_LIBM(fabsf)(x);
  a = a > 89.5f ? 89.5f : a;
  float sum = td_exp_magic_sum(a);
  float r = td_exp_remainder(a, sum);
  float p = TD_FMA(r, TD_FMA(r, td_exp_tail(r), 1.0f), 1.0f);
  td_u32 twice_biased = td_bits(sum) - 1u;
  td_u32 half = twice_biased >> 1;
  float e = p * td_from_bits(half << 23) * td_from_bits((twice_biased - half) << 23);
  return e + 0.25f / e;
}

// x + x P(x^2) for |x| <= 0.92, 1 - exp(-R(|x|)) beyond; both are computed and one is selected.
TD_FN float td_erf_f32(float x) {
  float a = TD_LIBM(fabsf)(x);
  float s = a * a;
  float near = TD_FMA(s, -0x1.3c756ep-11f, 0x1.47e69cp-8f);
  near = TD_FMA(s, near, -0x1.b6ae56p-6f);
  near = TD_FMA(s, near, 0x1.ce1d8ap-4f);
  near = TD_FMA(s, near, -0x1.812702p-2f);
  near = TD_FMA(s, near, 0x1.06eba8p-3f);
  near = TD_FMA(a, near, a);
  float b = a > 4.0f ? 4.0f : a;
  float r = TD_FMA(b, -0x1.9aed72p-13f, 0x1.8ee35ep-9f);
  r = TD_FMA(b, r, -0x1.6c2b2p-6f);
  r = TD_FMA(b, r, 0x1.a9b466p-4f);
  r = TD_FMA(b, r, 0x1.463cbcp-1f);
  r = TD_FMA(b, r, 0x1.20af5ap+0f);
  r = TD_FMA(b, r, 0x1.9a5e6ap-13f);
  float sum = td_exp_magic_sum(-r);
  float scale = td_from_bits((td_bits(sum) - 127u) << 23);
  float far = 1.0f - (1.0f + td_exp_fraction(td_exp_remainder(-r, sum))) * scale;
  return TD_LIBM(copysignf)(a <= 0.92f ? near : far, x);
}

// The normal distribution beyond t >= 0, (1 - erf(t / sqrt 2)) / 2 = e u P(u) with u = 1 / (1 + 0.26 t), where the
// caller has e = exp(-t^2 / 2): one branch where erf has two, and the tail is not what 1 - erf leaves of it.
TD_FN float td_normal_tail(float t, float e) {
  float u = 1.0f / TD_FMA(t, 0.26f, 1.0f);
  float p = TD_FMA(u, 0x1.f85bd2p-6f, -0x1.3bc7a2p-3f);
  p = TD_FMA(u, p, 0x1.046be6p-2f);
  p = TD_FMA(u, p, -0x1.3bd078p-3f);
  p = TD_FMA(u, p, 0x1.4e465ap-3f);
  p = TD_FMA(u, p, 0x1.99fc8p-5f);
  p = TD_FMA(u, p, 0x1.a70e8ap-4f);
  p = TD_FMA(u, p, 0x1.a5ce96p-4f);
  p = TD_FMA(u, p, 0x1.a90190p-4f);
  return e * (u * p);
}

#endif

// sigmoid and softplus are built on e^-|x|, which never overflows: they keep their relative precision down to
// the smallest denormals.
TD_FN float td_sigmoid_f32(float x) {
  float e = td_exp_minus_abs(x);
  float q = (x < 0.0f ? e : 1.0f) / (1.0f + e);
  return x < -0.7f ? TD_FMA(-e, q, e) : q;  // the same, less rounding: see tanh
}

TD_FN float td_softplus_f32(float x) { return (x < 0.0f ? 0.0f : x) + td_log1p_in_range(td_exp_minus_abs(x), 0.0f); }

TD_FN float td_exp_minus_abs_f32(float x) { return td_exp_minus_abs(x); }
TD_FN double td_exp_minus_abs_f64(double x) { return TD_LIBM(exp)(-TD_LIBM(fabs)(x)); }

// gelu(x) = x Phi(x), and its derivative Phi(x) + x phi(x).
TD_FN float td_gelu_f32(float x) {
  float tail = td_normal_tail(TD_LIBM(fabsf)(x), td_exp_minus_abs(0.5f * x * x));
  return x * (x < 0.0f ? tail : 1.0f - tail);
}
TD_FN float td_gelu_slope_f32(float x) {
  float e = td_exp_minus_abs(0.5f * x * x);
  float tail = td_normal_tail(TD_LIBM(fabsf)(x), e);
  return (x < 0.0f ? tail : 1.0f - tail) + x * e * 0.39894228040143267794f;
}
TD_FN double td_gelu_f64(double x) { return 0.5 * x * TD_LIBM(erfc)(x * -0.70710678118654752440); }
TD_FN double td_gelu_slope_f64(double x) {
  return 0.5 * TD_LIBM(erfc)(x * -0.70710678118654752440) + x * TD_LIBM(exp)(-0.5 * x * x) * 0.39894228040143267794;
}

TD_FN double td_sigmoid_f64(double x) {
  double e = td_exp_minus_abs_f64(x);
  return (x < 0.0 ? e : 1.0) / (1.0 + e);
}

TD_FN double td_softplus_f64(double x) { return (x < 0.0 ? 0.0 : x) + TD_LIBM(log1p)(td_exp_minus_abs_f64(x)); }

// ---- From the C library ------------------------------------------------------------------------------------

#define TD_FROM_LIBM_F64(name, function) \
  TD_FN double td_##name##_f64(double x) { return TD_LIBM(function)(x); }
#define TD_FROM_LIBM(name, function)                                       \
  TD_FN float td_##name##_f32(float x) { return TD_LIBM(function##f)(x); } \
  TD_FROM_LIBM_F64(name, function)
#define TD_FROM_LIBM_2(name, function)                                                 \
  TD_FN float td_##name##_f32(float a, float b) { return TD_LIBM(function##f)(a, b); } \
  TD_FN double td_##name##_f64(double a, double b) { return TD_LIBM(function)(a, b); }

TD_FROM_LIBM_F64(exp, exp)
TD_FROM_LIBM_F64(expm1, expm1)
TD_FROM_LIBM_F64(log, log)
TD_FROM_LIBM_F64(log1p, log1p)
TD_FROM_LIBM_F64(tanh, tanh)
TD_FROM_LIBM_F64(erf, erf)
TD_FROM_LIBM_F64(log2, log2)
TD_FROM_LIBM(sqrt, sqrt)
TD_FROM_LIBM(sin, sin)
TD_FROM_LIBM(cos, cos)
TD_FROM_LIBM(tan, tan)
TD_FROM_LIBM(asin, asin)
TD_FROM_LIBM(acos, acos)
TD_FROM_LIBM(atan, atan)
TD_FROM_LIBM(exp2, exp2)
TD_FROM_LIBM(erfc, erfc)
TD_FROM_LIBM(log10, log10)
TD_FROM_LIBM(asinh, asinh)
TD_FROM_LIBM(acosh, acosh)
TD_FROM_LIBM(atanh, atanh)
TD_FROM_LIBM_F64(sinh, sinh)
TD_FROM_LIBM_F64(cosh, cosh)
TD_FROM_LIBM(floor, floor)
TD_FROM_LIBM(ceil, ceil)
TD_FROM_LIBM(round, rint)  // half to even, like PyTorch's round
TD_FROM_LIBM(trunc, trunc)
TD_FROM_LIBM(abs, fabs)
TD_FROM_LIBM_2(pow, pow)
TD_FROM_LIBM_2(atan2, atan2)
TD_FROM_LIBM_2(hypot, hypot)
TD_FROM_LIBM_2(fmod, fmod)

// ---- Composed, the same text for both widths ---------------------------------------------------------------

// maximum and minimum return NaN if either operand is NaN; relu passes NaN on, and sign has 0 for it.
// floor_divide and remainder are Python's: the remainder has the divisor's sign, x // 0 = x / 0.
#define TD_COMPOSED(T, s, ss, MAX)                                                                         \
  TD_FN T td_negate_##s(T x) { return -x; }                                                                \
  TD_FN T td_add_##s(T a, T b) { return a + b; }                                                           \
  TD_FN T td_subtract_##s(T a, T b) { return a - b; }                                                      \
  TD_FN T td_multiply_##s(T a, T b) { return a * b; }                                                      \
  TD_FN T td_rsqrt_##s(T x) { return (T)1 / td_sqrt_##s(x); }                                              \
  TD_FN T td_square_##s(T x) { return x * x; }                                                             \
  TD_FN T td_relu_##s(T x) { return x < (T)0 ? (T)0 : x; }                                                 \
  TD_FN T td_silu_##s(T x) { return x * td_sigmoid_##s(x); }                                               \
  /* 0.5 x (1 + tanh u) = x sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3), without cancellation */       \
  TD_FN T td_gelu_tanh_##s(T x) {                                                                          \
    return x * td_sigmoid_##s((T)1.59576912160573071176 * (x + (T)0.044715 * (x * x * x)));                \
  }                                                                                                        \
  /* Of sigmoid(v) = (v < 0 ? w : 1) / (1 + w) with w = e^-|v|, the derivative w / (1 + w)^2 */            \
  TD_FN T td_sigmoid_slope_##s(T v) {                                                                      \
    T w = td_exp_minus_abs_##s(v);                                                                         \
    return w / (((T)1 + w) * ((T)1 + w));                                                                  \
  }                                                                                                        \
  TD_FN T td_silu_slope_##s(T x) { return td_sigmoid_##s(x) + x * td_sigmoid_slope_##s(x); }               \
  TD_FN T td_gelu_tanh_slope_##s(T x) {                                                                    \
    T v = (T)1.59576912160573071176 * (x + (T)0.044715 * (x * x * x));                                     \
    T dv = (T)1.59576912160573071176 * ((T)1 + (T)0.134145 * (x * x));                                     \
    return td_sigmoid_##s(v) + x * td_sigmoid_slope_##s(v) * dv;                                           \
  }                                                                                                        \
  /* mish: tanh(softplus x) = n / (n + m) with n = w^2 + 2w, m = 2 for x < 0, n = 1 + 2w, m = 2w^2 else */ \
  TD_FN T td_mish_##s(T x) {                                                                               \
    T w = td_exp_minus_abs_##s(x);                                                                         \
    T n = x < (T)0 ? w * (w + (T)2) : (T)1 + (T)2 * w;                                                     \
    T m = x < (T)0 ? (T)2 : (T)2 * w * w;                                                                  \
    return x * (n / (n + m));                                                                              \
  }                                                                                                        \
  TD_FN T td_mish_slope_##s(T x) { /* t + x (1 - t^2) sigmoid(x), 1 - t^2 = m (2n + m) / (n + m)^2 */      \
    T w = td_exp_minus_abs_##s(x);                                                                         \
    T n = x < (T)0 ? w * (w + (T)2) : (T)1 + (T)2 * w;                                                     \
    T m = x < (T)0 ? (T)2 : (T)2 * w * w;                                                                  \
    T d = n + m;                                                                                           \
    return (n + x * (x < (T)0 ? w : (T)1) * m * (n + d) / (d * ((T)1 + w))) / d;                           \
  }                                                                                                        \
  TD_FN T td_hardswish_##s(T x) {                                                                          \
    T six = x + (T)3;                                                                                      \
    six = six < (T)0 ? (T)0 : six;                                                                         \
    six = six > (T)6 ? (T)6 : six;                                                                         \
    return x * six / (T)6;                                                                                 \
  }                                                                                                        \
  TD_FN T td_sign_##s(T x) { return x > (T)0 ? (T)1 : x < (T)0 ? (T)-1 : (T)0; }                           \
  TD_FN T td_maximum_##s(T a, T b) {                                                                       \
    T larger = a > b ? a : b; /* b if either is NaN */                                                     \
    return a != a ? a : larger;                                                                            \
  }                                                                                                        \
  TD_FN T td_minimum_##s(T a, T b) {                                                                       \
    T smaller = a < b ? a : b;                                                                             \
    return a != a ? a : smaller;                                                                           \
  }                                                                                                        \
  TD_FN TD_BOOL td_isnan_##s(T x) { return x != x; }                                                       \
  TD_FN TD_BOOL td_isinf_##s(T x) { return td_abs_##s(x) > (T)MAX; }                                       \
  TD_FN TD_BOOL td_isfinite_##s(T x) { return td_abs_##s(x) <= (T)MAX; }                                   \
  TD_FN T td_remainder_##s(T a, T b) {                                                                     \
    T r = TD_LIBM(fmod##ss)(a, b);                                                                         \
    return r != (T)0 && (r < (T)0) != (b < (T)0) ? r + b : r;                                              \
  }                                                                                                        \
  TD_FN T td_floor_divide_##s(T a, T b) {                                                                  \
    T r = TD_LIBM(fmod##ss)(a, b);                                                                         \
    T quotient = (a - r) / b; /* an integer, but for its rounding */                                       \
    quotient = r != (T)0 && (r < (T)0) != (b < (T)0) ? quotient - (T)1 : quotient;                         \
    T whole = td_floor_##s(quotient);                                                                      \
    whole = quotient - whole > (T)0.5 ? whole + (T)1 : whole;                                              \
    whole = whole == (T)0 ? TD_LIBM(copysign##ss)((T)0, a / b) : whole;                                    \
    return b == (T)0 ? a / b : whole;                                                                      \
  }

TD_COMPOSED(float, f32, f, TD_FLOAT_MAX)
TD_COMPOSED(double, f64, , TD_DOUBLE_MAX)

// ---- Integers ----------------------------------------------------------------------------------------------

// Overflow wraps: no expression of core/pointwise.def adds integers with a plain +, which C leaves open. Division by zero gives 0 (the caller checks and reports; a trap would kill the process).
// Shifts by less than 0 or by the width or more are by all bits: 0, or copies of the sign.
// U is an unsigned type at least as wide as unsigned int, so that its products wrap and never promote.
#define TD_INTEGER(T, U, s)                                                \
  TD_FN T td_negate_##s(T x) { return (T)((U)0 - (U)x); }                  \
  TD_FN T td_add_##s(T a, T b) { return (T)((U)a + (U)b); }                \
  TD_FN T td_subtract_##s(T a, T b) { return (T)((U)a - (U)b); }           \
  TD_FN T td_multiply_##s(T a, T b) { return (T)((U)a * (U)b); }           \
  TD_FN T td_square_##s(T x) { return (T)((U)x * (U)x); }                  \
  TD_FN T td_relu_##s(T x) { return x > (T)0 ? x : (T)0; }                 \
  TD_FN T td_floor_##s(T x) { return x; }                                  \
  TD_FN T td_ceil_##s(T x) { return x; }                                   \
  TD_FN T td_round_##s(T x) { return x; }                                  \
  TD_FN T td_trunc_##s(T x) { return x; }                                  \
  TD_FN TD_BOOL td_isnan_##s(T x) { return (void)x, 0; }                   \
  TD_FN TD_BOOL td_isinf_##s(T x) { return (void)x, 0; }                   \
  TD_FN TD_BOOL td_isfinite_##s(T x) { return (void)x, 1; }                \
  TD_FN T td_maximum_##s(T a, T b) { return a > b ? a : b; }               \
  TD_FN T td_minimum_##s(T a, T b) { return a < b ? a : b; }               \
  TD_FN T td_left_shift_##s(T a, T b) {                                    \
    TD_BOOL inside = (U)b < sizeof(T) * 8;                                 \
    return inside ? (T)((U)a << (U)b) : (T)0;                              \
  }                                                                        \
  TD_FN T td_right_shift_##s(T a, T b) {                                   \
    U width = sizeof(T) * 8;                                               \
    /* in two steps, as one by the width is left open */                   \
    return (U)b < width ? (T)(a >> b) : (T)(a >> (width - 1) >> 1);        \
  }                                                                        \
  TD_FN T td_integer_power_##s(T a, T b) {                                 \
    U base = (U)a, result = 1;                                             \
    for (U exponent = (U)b; exponent != 0; exponent >>= 1, base *= base) { \
      if (exponent & 1) result *= base;                                    \
    }                                                                      \
    return (T)result;                                                      \
  }

// -1 is set apart: the smallest integer divided by -1 would trap. a^b with b < 0 is 1/a^|b| truncated.
#define TD_SIGNED_INTEGER(T, U, s)                                        \
  TD_INTEGER(T, U, s)                                                     \
  TD_FN T td_abs_##s(T x) { return x < 0 ? (T)((U)0 - (U)x) : x; }        \
  TD_FN T td_sign_##s(T x) { return (T)((x > 0) - (x < 0)); }             \
  TD_FN T td_remainder_##s(T a, T b) {                                    \
    if (b == 0 || b == -1) return 0;                                      \
    T r = a % b;                                                          \
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;                      \
  }                                                                       \
  TD_FN T td_fmod_##s(T a, T b) { return b == 0 || b == -1 ? 0 : a % b; } \
  TD_FN T td_floor_divide_##s(T a, T b) {                                 \
    if (b == 0) return 0;                                                 \
    if (b == -1) return (T)((U)0 - (U)a);                                 \
    T q = a / b;                                                          \
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;                  \
  }                                                                       \
  TD_FN T td_pow_##s(T a, T b) {                                          \
    if (b >= 0) return td_integer_power_##s(a, b);                        \
    return a == 1 ? 1 : a == -1 ? ((b & 1) ? -1 : 1) : 0;                 \
  }

TD_SIGNED_INTEGER(td_i32, td_u32, i32)
TD_SIGNED_INTEGER(td_i64, td_u64, i64)
TD_INTEGER(td_u8, td_u32, u8)
TD_FN td_u8 td_abs_u8(td_u8 x) { return x; }
TD_FN td_u8 td_sign_u8(td_u8 x) { return x != 0; }
TD_FN td_u8 td_remainder_u8(td_u8 a, td_u8 b) { return b == 0 ? 0 : (td_u8)(a % b); }
TD_FN td_u8 td_fmod_u8(td_u8 a, td_u8 b) { return td_remainder_u8(a, b); }
TD_FN td_u8 td_floor_divide_u8(td_u8 a, td_u8 b) { return b == 0 ? 0 : (td_u8)(a / b); }
TD_FN td_u8 td_pow_u8(td_u8 a, td_u8 b) { return td_integer_power_u8(a, b); }

// ---- Floats to integers ------------------------------------------------------------------------------------

// Towards zero, as PyTorch does on x86: what int32 or int64 can't hold, NaN included, is their least number, uint8
// is the low byte of int64, int8 and int16 the low bytes of int32. C leaves all of that open, and compilers use it.
#define TD_TO_INTEGER(F, f, T, t, LEAST, END) \
  TD_FN T td_##f##_to_##t(F x) { return x >= (F)(LEAST) && x < (F)(END) ? (T)x : (T)(LEAST); }
TD_TO_INTEGER(float, f32, td_i32, i32, -0x1p31, 0x1p31)
TD_TO_INTEGER(double, f64, td_i32, i32, -0x1p31, 0x1p31)
#if defined(__x86_64__) && !defined(__AVX512DQ__) && !defined(__CUDACC__)
// No vectors of int64 to be had: the instruction gives just that, and needs no comparisons. (Compilers work the intrinsic out
// for constants, as they like.)
#ifdef __AVX__
#define TD_VEX "v"
#else
#define TD_VEX ""
#endif
TD_FN td_i64 td_f32_to_i64(float x) {
  td_i64 result;
  __asm__(TD_VEX "cvttss2si %1, %0" : "=r"(result) : "x"(x));
  return result;
}
TD_FN td_i64 td_f64_to_i64(double x) {
  td_i64 result;
  __asm__(TD_VEX "cvttsd2si %1, %0" : "=r"(result) : "x"(x));
  return result;
}
#else
TD_TO_INTEGER(float, f32, td_i64, i64, -0x1p63, 0x1p63)
TD_TO_INTEGER(double, f64, td_i64, i64, -0x1p63, 0x1p63)
#endif
TD_FN td_u8 td_f32_to_u8(float x) { return (td_u8)td_f32_to_i32(x); }  // floats from 2^31 on have a low byte of 0
TD_FN td_u8 td_f64_to_u8(double x) { return (td_u8)td_f64_to_i64(x); }
TD_FN td_i8 td_f32_to_i8(float x) { return (td_i8)td_f32_to_i32(x); }
TD_FN td_i8 td_f64_to_i8(double x) { return (td_i8)td_f64_to_i32(x); }
TD_FN td_i16 td_f32_to_i16(float x) { return (td_i16)td_f32_to_i32(x); }
TD_FN td_i16 td_f64_to_i16(double x) { return (td_i16)td_f64_to_i32(x); }

// ---- Generic names -----------------------------------------------------------------------------------------

#ifdef __cplusplus

#define TD_NAME_1(R, T, s, name) \
  TD_FN R td_##name(T x) { return td_##name##_##s(x); }
#define TD_NAME_2(T, s, name) \
  TD_FN T td_##name(T a, T b) { return td_##name##_##s(a, b); }
#define TD_FLOAT_1(name)             \
  TD_NAME_1(float, float, f32, name) \
  TD_NAME_1(double, double, f64, name)
#define TD_TEST_1(name)              \
  TD_NAME_1(bool, float, f32, name)  \
  TD_NAME_1(bool, double, f64, name) \
  TD_NAME_1(bool, td_i32, i32, name) \
  TD_NAME_1(bool, td_i64, i64, name) \
  TD_NAME_1(bool, td_u8, u8, name)
#define TD_FLOAT_2(name)      \
  TD_NAME_2(float, f32, name) \
  TD_NAME_2(double, f64, name)
#define TD_WHOLE_2(name)       \
  TD_NAME_2(td_i32, i32, name) \
  TD_NAME_2(td_i64, i64, name) \
  TD_NAME_2(td_u8, u8, name)
#define TD_ANY_1(name)                 \
  TD_FLOAT_1(name)                     \
  TD_NAME_1(td_i32, td_i32, i32, name) \
  TD_NAME_1(td_i64, td_i64, i64, name) \
  TD_NAME_1(td_u8, td_u8, u8, name)
#define TD_ANY_2(name)         \
  TD_FLOAT_2(name)             \
  TD_NAME_2(td_i32, i32, name) \
  TD_NAME_2(td_i64, i64, name) \
  TD_NAME_2(td_u8, u8, name)

TD_FLOAT_1(exp)
TD_FLOAT_1(expm1)
TD_FLOAT_1(log)
TD_FLOAT_1(log1p)
TD_FLOAT_1(log2)
TD_FLOAT_1(sqrt)
TD_FLOAT_1(rsqrt)
TD_FLOAT_1(sin)
TD_FLOAT_1(cos)
TD_FLOAT_1(tan)
TD_FLOAT_1(asin)
TD_FLOAT_1(acos)
TD_FLOAT_1(atan)
TD_FLOAT_1(exp2)
TD_FLOAT_1(erfc)
TD_FLOAT_1(log10)
TD_FLOAT_1(asinh)
TD_FLOAT_1(acosh)
TD_FLOAT_1(atanh)
TD_FLOAT_1(sinh)
TD_FLOAT_1(cosh)
TD_FLOAT_1(tanh)
TD_FLOAT_1(sigmoid)
TD_FLOAT_1(erf)
TD_FLOAT_1(gelu)
TD_FLOAT_1(gelu_slope)
TD_FLOAT_1(gelu_tanh)
TD_FLOAT_1(silu)
TD_FLOAT_1(softplus)
TD_FLOAT_1(mish)
TD_FLOAT_1(hardswish)
TD_FLOAT_1(silu_slope)
TD_FLOAT_1(mish_slope)
TD_FLOAT_1(gelu_tanh_slope)
TD_TEST_1(isnan)
TD_TEST_1(isinf)
TD_TEST_1(isfinite)
TD_FLOAT_2(atan2)
TD_FLOAT_2(hypot)
TD_WHOLE_2(left_shift)
TD_WHOLE_2(right_shift)
TD_ANY_1(negate)
TD_ANY_1(abs)
TD_ANY_1(square)
TD_ANY_1(sign)
TD_ANY_1(relu)
TD_ANY_1(floor)
TD_ANY_1(ceil)
TD_ANY_1(round)
TD_ANY_1(trunc)
TD_ANY_2(add)
TD_ANY_2(subtract)
TD_ANY_2(multiply)
TD_ANY_2(maximum)
TD_ANY_2(minimum)
TD_ANY_2(floor_divide)
TD_ANY_2(remainder)
TD_ANY_2(fmod)
TD_ANY_2(pow)

#else

// The type of the first operand decides; write b in the same type (1.0f beside a float).
#define TD_FLOAT_OF(name, x) _Generic((x), float : name##_f32, double : name##_f64)
#define TD_ANY_OF(name, x) \
  _Generic((x), float : name##_f32, double : name##_f64, td_i32 : name##_i32, td_i64 : name##_i64, td_u8 : name##_u8)

#define TD_WHOLE_OF(name, x) _Generic((x), td_i32 : name##_i32, td_i64 : name##_i64, td_u8 : name##_u8)

#define td_exp(x) TD_FLOAT_OF(td_exp, x)(x)
#define td_expm1(x) TD_FLOAT_OF(td_expm1, x)(x)
#define td_log(x) TD_FLOAT_OF(td_log, x)(x)
#define td_log1p(x) TD_FLOAT_OF(td_log1p, x)(x)
#define td_log2(x) TD_FLOAT_OF(td_log2, x)(x)
#define td_sqrt(x) TD_FLOAT_OF(td_sqrt, x)(x)
#define td_rsqrt(x) TD_FLOAT_OF(td_rsqrt, x)(x)
#define td_sin(x) TD_FLOAT_OF(td_sin, x)(x)
#define td_cos(x) TD_FLOAT_OF(td_cos, x)(x)
#define td_tan(x) TD_FLOAT_OF(td_tan, x)(x)
#define td_asin(x) TD_FLOAT_OF(td_asin, x)(x)
#define td_acos(x) TD_FLOAT_OF(td_acos, x)(x)
#define td_atan(x) TD_FLOAT_OF(td_atan, x)(x)
#define td_exp2(x) TD_FLOAT_OF(td_exp2, x)(x)
#define td_erfc(x) TD_FLOAT_OF(td_erfc, x)(x)
#define td_log10(x) TD_FLOAT_OF(td_log10, x)(x)
#define td_asinh(x) TD_FLOAT_OF(td_asinh, x)(x)
#define td_acosh(x) TD_FLOAT_OF(td_acosh, x)(x)
#define td_atanh(x) TD_FLOAT_OF(td_atanh, x)(x)
#define td_sinh(x) TD_FLOAT_OF(td_sinh, x)(x)
#define td_cosh(x) TD_FLOAT_OF(td_cosh, x)(x)
#define td_tanh(x) TD_FLOAT_OF(td_tanh, x)(x)
#define td_sigmoid(x) TD_FLOAT_OF(td_sigmoid, x)(x)
#define td_erf(x) TD_FLOAT_OF(td_erf, x)(x)
#define td_gelu_slope(x) TD_FLOAT_OF(td_gelu_slope, x)(x)
#define td_gelu(x) TD_FLOAT_OF(td_gelu, x)(x)
#define td_gelu_tanh(x) TD_FLOAT_OF(td_gelu_tanh, x)(x)
#define td_silu(x) TD_FLOAT_OF(td_silu, x)(x)
#define td_mish(x) TD_FLOAT_OF(td_mish, x)(x)
#define td_hardswish(x) TD_FLOAT_OF(td_hardswish, x)(x)
#define td_silu_slope(x) TD_FLOAT_OF(td_silu_slope, x)(x)
#define td_mish_slope(x) TD_FLOAT_OF(td_mish_slope, x)(x)
#define td_gelu_tanh_slope(x) TD_FLOAT_OF(td_gelu_tanh_slope, x)(x)
#define td_softplus(x) TD_FLOAT_OF(td_softplus, x)(x)
#define td_floor(x) TD_ANY_OF(td_floor, x)(x)
#define td_ceil(x) TD_ANY_OF(td_ceil, x)(x)
#define td_round(x) TD_ANY_OF(td_round, x)(x)
#define td_trunc(x) TD_ANY_OF(td_trunc, x)(x)
#define td_isnan(x) TD_ANY_OF(td_isnan, x)(x)
#define td_isinf(x) TD_ANY_OF(td_isinf, x)(x)
#define td_isfinite(x) TD_ANY_OF(td_isfinite, x)(x)
#define td_atan2(a, b) TD_FLOAT_OF(td_atan2, a)(a, b)
#define td_hypot(a, b) TD_FLOAT_OF(td_hypot, a)(a, b)
#define td_left_shift(a, b) TD_WHOLE_OF(td_left_shift, a)(a, b)
#define td_right_shift(a, b) TD_WHOLE_OF(td_right_shift, a)(a, b)
#define td_negate(x) TD_ANY_OF(td_negate, x)(x)
#define td_abs(x) TD_ANY_OF(td_abs, x)(x)
#define td_square(x) TD_ANY_OF(td_square, x)(x)
#define td_sign(x) TD_ANY_OF(td_sign, x)(x)
#define td_relu(x) TD_ANY_OF(td_relu, x)(x)
#define td_add(a, b) TD_ANY_OF(td_add, a)(a, b)
#define td_subtract(a, b) TD_ANY_OF(td_subtract, a)(a, b)
#define td_multiply(a, b) TD_ANY_OF(td_multiply, a)(a, b)
#define td_maximum(a, b) TD_ANY_OF(td_maximum, a)(a, b)
#define td_minimum(a, b) TD_ANY_OF(td_minimum, a)(a, b)
#define td_floor_divide(a, b) TD_ANY_OF(td_floor_divide, a)(a, b)
#define td_remainder(a, b) TD_ANY_OF(td_remainder, a)(a, b)
#define td_fmod(a, b) TD_ANY_OF(td_fmod, a)(a, b)
#define td_pow(a, b) TD_ANY_OF(td_pow, a)(a, b)

#endif

#endif
