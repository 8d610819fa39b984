// bfloat16 and float16 as raw 16-bit patterns, to and from float32. Needs math.h before it, includes nothing.
//
// Rounds to nearest, ties to even; overflow gives infinity; NaN stays NaN (quiet, its upper payload kept,
// except on CUDA devices, whose instructions give the canonical NaN). Branch-free integer code, which
// compilers vectorise; no float operation here sees a denormal, so flushing modes do no harm.
#ifndef TANDEM_CORE_SCALAR_HALF_H
#define TANDEM_CORE_SCALAR_HALF_H

#ifndef TANDEM_CORE_SCALAR_MATH_H  // generated sources hold the text of math.h before this one
#include "math.h"
#endif

TD_FN float td_bf16_to_f32(td_u16 half) { return td_from_bits((td_u32)half << 16); }

TD_FN td_u16 td_f32_to_bf16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  td_u16 half;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(x));
  return half;
#else
  td_u32 bits = td_bits(x);
  td_u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  td_u32 quiet = (bits >> 16) | 0x40u;
  return (td_u16)(x != x ? quiet : rounded);
#endif
}

TD_FN float td_f16_to_f32(td_u16 half) {
#if defined(__CUDA_ARCH__)
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
  return x;
#else
  td_u32 all = half, magnitude = all & 0x7fffu;
  float denormal = (float)(td_i32)magnitude * 0x1p-24f;
  // 112 = 127 - 15 is the difference of the exponents' biases; twice that takes infinity to infinity.
  td_u32 bias = magnitude < 0x7c00u ? 112u << 23 : 224u << 23;
  td_u32 quiet = magnitude <= 0x7c00u ? 0u : 0x00400000u;
  float normal = td_from_bits(((magnitude << 13) + bias) | quiet);
  float x = magnitude < 0x0400u ? denormal : normal;
  return td_from_bits(td_bits(x) | (all & 0x8000u) << 16);
#endif
}

TD_FN td_u16 td_f32_to_f16(float x) {
#if defined(__CUDA_ARCH__)
  td_u16 half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
  return half;
#else
  td_u32 all = td_bits(x);
  td_u32 bits = all & 0x7fffffffu, sign = (all >> 16) & 0x8000u;
  // Normal: change the bias, round the 13 bits that go. A carry into the exponent is what it should be.
  td_u32 normal = (bits - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  // Below 2^-14: added to 1/2 the value sits at the end of the significand, in units of 2^-24, rounded.
  td_u32 denormal = td_bits(td_from_bits(bits) + 0.5f) - 0x3f000000u;
  td_u32 half = bits < 0x38800000u ? denormal : normal;
  half = bits >= 0x477ff000u ? 0x7c00u : half;  // 65520 and above
  half = bits > 0x7f800000u ? (0x7e00u | ((bits >> 13) & 0x3ffu)) : half;
  return (td_u16)(half | sign);
#endif
}

#endif
