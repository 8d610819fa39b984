// __half for the emulator: storage and conversions; arithmetic is done in float, as our kernels do it.
#pragma once

#include "cuda_runtime.h"

struct __half {
  unsigned short bits;
  __half() = default;
  __half(float value) : bits(from_float(value)) {}
  operator float() const { return to_float(bits); }

  static float to_float(unsigned short h) {
    const unsigned sign = unsigned(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 1023u;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) {
      const float magnitude = float(mantissa) * 5.9604644775390625e-8f;  // 2^-24
      return sign != 0 ? -magnitude : magnitude;
    }
    return __uint_as_float(sign | (exponent + 112u) << 23 | mantissa << 13);
  }

  static unsigned short from_float(float value) {  // rounds to nearest, ties to even
    const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<unsigned short>(sign | 0x7fffu);
    if (magnitude >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {  // subnormal: let the float adder round at 2^-24
      const float shifted = __uint_as_float(magnitude) + 0.5f;
      return static_cast<unsigned short>(sign | (__float_as_uint(shifted) - 0x3f000000u));
    }
    const unsigned rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return static_cast<unsigned short>(sign | ((rounded - 0x38000000u) >> 13));
  }
};

struct alignas(4) __half2 {
  __half x, y;
};
using half = __half;
using half2 = __half2;

inline float __half2float(__half h) { return float(h); }
inline __half __float2half(float f) { return __half(f); }
inline __half __float2half_rn(float f) { return __half(f); }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline __half __ushort_as_half(unsigned short bits) {
  __half h;
  h.bits = bits;
  return h;
}
inline float2 __half22float2(__half2 h) { return {float(h.x), float(h.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
