// What generated C does with strips of memory rather than element by element, since compilers make no such vectors of
// plain loops: float16 to float and back, random numbers, transposes. The same bits as by element
// (half.h, philox.h), for every number. Needs math.h, half.h and philox.h before it, includes nothing. C only.
//
// Inline assembly in place of intrinsics: their header would take the compiler longer than most kernels, and
// compilers name their builtins differently.
#ifndef TANDEM_CORE_SCALAR_STRIPS_H
#define TANDEM_CORE_SCALAR_STRIPS_H

#ifndef TANDEM_CORE_SCALAR_PHILOX_H  // generated sources hold the text of these before this one
#include "half.h"
#include "philox.h"
#endif

#define TD_STRIP_FN static __attribute__((noinline, unused))
#define TD_STRIP_INLINE static inline __attribute__((always_inline, unused))

// ---- float16 -----------------------------------------------------------------------------------------------

#if defined(__F16C__)
typedef float td_floats8 __attribute__((vector_size(32)));
typedef td_u16 td_halves8 __attribute__((vector_size(16)));
#endif

TD_STRIP_FN void td_widen_f16(long n, const td_u16* x, float* out) {
  long i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    td_halves8 half;
    td_floats8 wide;
    __builtin_memcpy(&half, x + i, sizeof half);
    __asm__("vcvtph2ps %1, %0" : "=x"(wide) : "x"(half));
    __builtin_memcpy(out + i, &wide, sizeof wide);
  }
#endif
  for (; i < n; ++i) out[i] = td_f16_to_f32(x[i]);
}

TD_STRIP_FN void td_narrow_f16(long n, const float* x, td_u16* out) {
  long i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    td_halves8 half;
    td_floats8 wide;
    __builtin_memcpy(&wide, x + i, sizeof wide);
    __asm__("vcvtps2ph $0, %1, %0" : "=x"(half) : "x"(wide));
    __builtin_memcpy(out + i, &half, sizeof half);
  }
#endif
  for (; i < n; ++i) out[i] = td_f32_to_f16(x[i]);
}

// ---- Random numbers ----------------------------------------------------------------------------------------

// A word lies in the lower half of a 64-bit lane, where the multiplication of 32 by 32 bits reads it; what is above
// it is never looked at. So nothing is packed between rounds.
#if defined(__AVX512F__)
#define TD_LANES 8
#elif defined(__AVX2__)
#define TD_LANES 4
#endif

#ifdef TD_LANES
typedef td_u64 td_lanes __attribute__((vector_size(8 * TD_LANES)));

TD_STRIP_INLINE td_lanes td_product(td_lanes a, td_lanes b) {
  td_lanes result;
#if TD_LANES == 8
  __asm__("vpmuludq %2, %1, %0" : "=v"(result) : "v"(a), "v"(b));
#else
  __asm__("vpmuludq %2, %1, %0" : "=x"(result) : "x"(a), "x"(b));
#endif
  return result;
}
#else
#define TD_LANES 4
#endif

// The words of TD_LANES blocks from `block` on, in the order of their elements.
TD_STRIP_INLINE void td_philox_blocks(td_u64 seed, td_u64 draw, td_u64 block, td_u32* out) {
#if defined(__AVX2__)
  td_lanes zero = {0}, count, c0, c1, c2 = zero + draw, c3 = c2 >> 32, a, b;
  td_u64 low[2 * TD_LANES];
  td_u32 k0 = (td_u32)seed, k1 = (td_u32)(seed >> 32);
  const td_lanes first = zero + 0xD2511F53u, second = zero + 0xCD9E8D57u;
#if TD_LANES == 8
  count = (td_lanes){0, 1, 2, 3, 4, 5, 6, 7};
#else
  count = (td_lanes){0, 1, 2, 3};
#endif
  c0 = count + block, c1 = c0 >> 32;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    a = td_product(c0, first), b = td_product(c2, second);
    c0 = (b >> 32) ^ c1 ^ (zero + k0), c1 = b;
    c2 = (a >> 32) ^ c3 ^ (zero + k1), c3 = a;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  const td_lanes mask = zero + 0xffffffffu;
  a = (c0 & mask) | (c1 << 32), b = (c2 & mask) | (c3 << 32);  // words 0 and 1 of each block, 2 and 3
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
#if TD_LANES == 8
  td_lanes lower = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11),
           upper = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  td_lanes lower = __builtin_shufflevector(a, b, 0, 4, 1, 5), upper = __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
  __builtin_memcpy(out, &lower, sizeof lower);
  __builtin_memcpy(out + 2 * TD_LANES, &upper, sizeof upper);
  (void)low;
#else
  for (int i = 0; i < TD_LANES; ++i) low[2 * i] = a[i], low[2 * i + 1] = b[i];
  __builtin_memcpy(out, low, sizeof low);
#endif
#else
  for (int b = 0; b < TD_LANES; ++b) {
    td_philox_block words = td_philox_words(seed, draw, block + (td_u64)b);
    __builtin_memcpy(out + 4 * b, words.word, sizeof words.word);
  }
#endif
}

// td_uniform_f32 of the elements index … index + n - 1.
TD_STRIP_FN void td_uniforms(long n, td_u64 seed, td_u64 draw, td_u64 index, float* out) {
  td_u32 words[128 + 8 * TD_LANES];
  const long before = (long)(index & 3u);  // of the first block
  for (long i = 0; i < n; i += 128) {
    const long count = n - i < 128 ? n - i : 128;
    for (long at = 0; at < count + before; at += 4 * TD_LANES)
      td_philox_blocks(seed, draw, (index + (td_u64)(i + at)) >> 2, words + at);
    for (long k = 0; k < count; ++k) out[i + k] = td_uniform_from_word(words[k + before]);
  }
}

// ---- Transposes --------------------------------------------------------------------------------------------

// out[c * out_stride + r] = x[r * stride + c], by squares: of each a cache line of each row is read, and one of each
// column written, while both are in the first cache.
#define TD_TRANSPOSE(type, bits, side)                                                                             \
  TD_STRIP_FN void td_transpose##bits(long rows, long columns, const type* x, long stride, type* out, long step) { \
    for (long r = 0; r < rows; r += side)                                                                          \
      for (long c = 0; c < columns; c += side) {                                                                   \
        if (r + side <= rows && c + side <= columns) {                                                             \
          type square[side][side], line[side];                                                                     \
          for (long i = 0; i < side; ++i) __builtin_memcpy(square[i], x + (r + i) * stride + c, sizeof square[i]); \
          for (long j = 0; j < side; ++j) {                                                                        \
            for (long i = 0; i < side; ++i) line[i] = square[i][j];                                                \
            __builtin_memcpy(out + (c + j) * step + r, line, sizeof line);                                         \
          }                                                                                                        \
          continue;                                                                                                \
        }                                                                                                          \
        for (long j = c; j < c + side && j < columns; ++j)                                                         \
          for (long i = r; i < r + side && i < rows; ++i) out[j * step + i] = x[i * stride + j];                   \
      }                                                                                                            \
  }
TD_TRANSPOSE(td_u8, 8, 16)
TD_TRANSPOSE(td_u16, 16, 16)
TD_TRANSPOSE(td_u32, 32, 16)
TD_TRANSPOSE(td_u64, 64, 8)

#endif
