// Random numbers as a pure function of (seed, draw, index). Needs math.h before it, includes nothing.
//
// Philox 4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011, section 5.3; checked against the known answers that the authors publish with Random123.
//
//   seed   64 bits, the key                              {low word, high word}
//   draw   64 bits, one per random op and step           counter words 2 and 3
//   index  64 bits, the element's row-major index        counter words 0 and 1 are index / 4 (/ 2 for float64)
//
// A block of four words serves four neighbouring elements. No state is carried from element to element, so any
// split over threads, any order and any device give the same numbers: td_uniform_f32, td_normal_f32 and
// td_random_below bit for bit, since they use only operations that IEEE 754 rounds correctly and never a fused
// one. (With gcc and clang that asks for -ffp-contract=off.)
#ifndef TANDEM_CORE_SCALAR_PHILOX_H
#define TANDEM_CORE_SCALAR_PHILOX_H

#ifndef TANDEM_CORE_SCALAR_MATH_H  // generated sources hold the text of math.h before this one
#include "math.h"
#endif

typedef struct td_philox_block {
  td_u32 word[4];
} td_philox_block;

TD_FN td_philox_block td_philox(td_u64 key, td_u64 counter_low, td_u64 counter_high) {
  td_u32 c0 = (td_u32)counter_low, c1 = (td_u32)(counter_low >> 32);
  td_u32 c2 = (td_u32)counter_high, c3 = (td_u32)(counter_high >> 32);
  td_u32 k0 = (td_u32)key, k1 = (td_u32)(key >> 32);
#define TD_PHILOX_ROUND                                                \
  {                                                                    \
    td_u64 a = (td_u64)0xD2511F53u * c0, b = (td_u64)0xCD9E8D57u * c2; \
    c0 = (td_u32)(b >> 32) ^ c1 ^ k0;                                  \
    c1 = (td_u32)b;                                                    \
    c2 = (td_u32)(a >> 32) ^ c3 ^ k1;                                  \
    c3 = (td_u32)a;                                                    \
    k0 += 0x9E3779B9u; /* the golden ratio */                          \
    k1 += 0xBB67AE85u; /* sqrt(3) - 1 */                               \
  }
  // clang-format off
  TD_PHILOX_ROUND TD_PHILOX_ROUND TD_PHILOX_ROUND TD_PHILOX_ROUND TD_PHILOX_ROUND
  TD_PHILOX_ROUND TD_PHILOX_ROUND TD_PHILOX_ROUND TD_PHILOX_ROUND TD_PHILOX_ROUND
  // clang-format on
#undef TD_PHILOX_ROUND
          td_philox_block block = {{c0, c1, c2, c3}};
  return block;
}

// The block of the elements 4 block … 4 block + 3: for kernels that write four at a time.
TD_FN td_philox_block td_philox_words(td_u64 seed, td_u64 draw, td_u64 block) { return td_philox(seed, block, draw); }

// Written as selects: an index that varies would send the words through memory and stop vectorisation.
TD_FN td_u32 td_philox_pick(td_philox_block b, td_u32 i) {
  td_u32 low = (i & 1u) ? b.word[1] : b.word[0];
  td_u32 high = (i & 1u) ? b.word[3] : b.word[2];
  return (i & 2u) ? high : low;
}

TD_FN td_u32 td_philox_u32(td_u64 seed, td_u64 draw, td_u64 index) {
  return td_philox_pick(td_philox_words(seed, draw, index >> 2), (td_u32)index & 3u);
}

// [0, 1) in steps of 2^-24. The conversion is from a signed number because that is one instruction.
TD_FN float td_uniform_from_word(td_u32 word) { return (float)(td_i32)(word >> 8) * 0x1p-24f; }

TD_FN float td_uniform_f32(td_u64 seed, td_u64 draw, td_u64 index) {
  return td_uniform_from_word(td_philox_u32(seed, draw, index));
}

// [0, 1) in steps of 2^-53; two words for each element.
TD_FN double td_uniform_from_words(td_u32 high, td_u32 low) {
  return (double)(td_i64)((((td_u64)high << 32) | low) >> 11) * 0x1p-53;
}

TD_FN double td_uniform_f64(td_u64 seed, td_u64 draw, td_u64 index) {
  td_philox_block b = td_philox_words(seed, draw, index >> 1);
  return (index & 1) ? td_uniform_from_words(b.word[2], b.word[3]) : td_uniform_from_words(b.word[0], b.word[1]);
}

// 0 … bound - 1, by the upper half of the product (D. Lemire, 2019, without its rejection step: a value's
// probability is off by at most 2^-32).
TD_FN td_u32 td_random_below(td_u64 seed, td_u64 draw, td_u64 index, td_u32 bound) {
  return (td_u32)(((td_u64)td_philox_u32(seed, draw, index) * bound) >> 32);
}

// ---- Normal ------------------------------------------------------------------------------------------------

// G. E. P. Box, M. E. Muller, 1958: sqrt(-2 ln u) cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v) are independent.
// Of a block, words 0 and 1 are (u, v) of elements 0 (cosine) and 1 (sine), words 2 and 3 of elements 2 and 3.

// Rounded on its own, never fused with a neighbour.
#if defined(__CUDA_ARCH__)
#define TD_ADD(a, b) __fadd_rn(a, b)
#define TD_MUL(a, b) __fmul_rn(a, b)
#define TD_SQRT(a) __fsqrt_rn(a)
#else
#define TD_ADD(a, b) ((a) + (b))
#define TD_MUL(a, b) ((a) * (b))
#define TD_SQRT(a) TD_LIBM(sqrtf)(a)
#endif
#define TD_MUL_ADD(a, b, c) TD_ADD(TD_MUL(a, b), c)

// sqrt(-2 ln u) for u = (word / 2 + 1/2) / 2^31, so that u > 0 and normals reach 6.6 standard deviations.
TD_FN float td_normal_radius(td_u32 word) {
  float u = TD_MUL(TD_ADD((float)(td_i32)(word >> 1), 0.5f), 0x1p-31f);
  // ln u = e ln2 + ln(1 + f), as td_log_f32 has it; its own text since that one fuses where it can.
  td_u32 shifted = td_bits(u) - 0x3f3504f3u;
  float e = (float)((td_i32)shifted >> 23);
  float f = TD_ADD(td_from_bits(td_bits(u) - (shifted & 0xff800000u)), -1.0f);
  float p = TD_MUL_ADD(f, -0x1.38f5b8p-4f, 0x1.0571fp-3f);
  p = TD_MUL_ADD(f, p, -0x1.0d81e2p-3f);
  p = TD_MUL_ADD(f, p, 0x1.22d5dep-3f);
  p = TD_MUL_ADD(f, p, -0x1.54721ap-3f);
  p = TD_MUL_ADD(f, p, 0x1.99a036p-3f);
  p = TD_MUL_ADD(f, p, -0x1.000228p-2f);
  p = TD_MUL_ADD(f, p, 0x1.555554p-2f);
  p = TD_MUL_ADD(f, p, -0.5f);
  float log_u = TD_MUL_ADD(e, 0x1.62e43p-1f, TD_MUL_ADD(TD_MUL(f, f), p, f));
  return TD_SQRT(TD_MUL(-2.0f, log_u));
}

// cos(2 pi v), or sin(2 pi v), for v = (word / 2^8) / 2^24: the reduction to sin(2 pi y), |y| <= 1/4, is exact.
TD_FN float td_normal_angle(td_u32 word, TD_BOOL sine) {
  float t = TD_ADD(td_uniform_from_word(word), sine ? -0.25f : 0.0f);
  t = t > 0.5f ? TD_ADD(t, -1.0f) : t;
  float y = TD_ADD(0.25f, -(t < 0.0f ? -t : t));
  float s = TD_MUL(y, y);
  float p = TD_MUL_ADD(s, 0x1.4701dcp+5f, -0x1.32e974p+6f);
  p = TD_MUL_ADD(s, p, 0x1.466f3ep+6f);
  p = TD_MUL_ADD(s, p, -0x1.4abbfp+5f);
  p = TD_MUL_ADD(s, p, 0x1.921fb6p+2f);
  return TD_MUL(y, p);
}

// The normal of element `lane` (index % 4) of a block.
TD_FN float td_normal_from_block(td_philox_block b, td_u32 lane) {
  td_u32 u = (lane & 2u) ? b.word[2] : b.word[0];
  td_u32 v = (lane & 2u) ? b.word[3] : b.word[1];
  return TD_MUL(td_normal_radius(u), td_normal_angle(v, (lane & 1u) != 0));
}

TD_FN float td_normal_f32(td_u64 seed, td_u64 draw, td_u64 index) {
  return td_normal_from_block(td_philox_words(seed, draw, index >> 2), (td_u32)index & 3u);
}

// A block of four words serves two elements. Devices may differ in the last places (libraries' log and cos).
TD_FN double td_normal_f64(td_u64 seed, td_u64 draw, td_u64 index) {
  td_philox_block b = td_philox_words(seed, draw, index >> 1);
  double u = td_uniform_from_words(b.word[0], b.word[1]) + 0x1p-54;
  double angle = 6.283185307179586477 * td_uniform_from_words(b.word[2], b.word[3]);
  double wave = (index & 1) ? TD_LIBM(sin)(angle) : TD_LIBM(cos)(angle);
  return TD_LIBM(sqrt)(-2.0 * TD_LIBM(log)(u)) * wave;
}

#endif
