// Floats rounded to float16 and bfloat16 that stay floats, as generated code keeps them between one op and the next. Needs
// half.h before it, includes nothing.
#ifndef TANDEM_CORE_SCALAR_ROUNDED_H
#define TANDEM_CORE_SCALAR_ROUNDED_H

#ifndef TANDEM_CORE_SCALAR_HALF_H  // generated sources hold the text of half.h before this one
#include "half.h"
#endif

// The nearest float16, as a float: td_f16_to_f32(td_f32_to_f16(x)), bit for bit, in fewer steps.
TD_FN float td_f16_rounded(float x) {
#if defined(__CUDA_ARCH__)
  return td_f16_to_f32(td_f32_to_f16(x));
#else
  td_u32 bits = td_bits(x), magnitude = bits & 0x7fffffffu;
  // 2^13 (1 + 1/2) times the power of two below: beside it, ten bits of the significand are left, or fewer where the
  // result is denormal. What is too large for float16 may become anything here.
  td_u32 exponent = magnitude & 0x7f800000u;
  exponent = exponent < 113u << 23 ? 113u << 23 : exponent;
  float size = td_from_bits(magnitude), beside = td_from_bits(exponent + ((13u << 23) | 0x00400000u));
  float rounded = (size + beside) - beside;
  rounded = size >= 65520.0f ? TD_INF : rounded;
  return td_from_bits((td_bits(rounded) & 0xffffe000u) | (bits & 0x80000000u));  // the mask is for NaN
#endif
}

TD_FN float td_bf16_rounded(float x) {
#if defined(__CUDA_ARCH__)
  return td_bf16_to_f32(td_f32_to_bf16(x));
#else
  td_u32 bits = td_bits(x);
  td_u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  td_u32 quiet = (bits & 0xffff0000u) | 0x00400000u;
  return td_from_bits(x != x ? quiet : rounded);
#endif
}

#endif
