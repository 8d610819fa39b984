// What generated C does with strips of memory rather than element by element, since compilers make no such vectors of
// plain loops: float16 to float and back, random numbers, sums in double,
// transposes. The same bits as by element
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

#if defined(__AVX__)
typedef float td_floats8 __attribute__((vector_size(32)));
#endif
#if defined(__F16C__)
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

#ifdef __has_builtin  // gcc has it since 12
#if __has_builtin(__builtin_shufflevector)
#define TD_SHUFFLES
#endif
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
#ifdef TD_SHUFFLES
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

// ---- Sums --------------------------------------------------------------------------------------------------

// 32 running sums in double, in registers while a strip is added.
#if defined(__AVX512F__)
typedef double td_doubles8 __attribute__((vector_size(64)));
typedef struct td_eight {
  td_doubles8 all;
} td_eight;
TD_STRIP_INLINE void td_add_eight(td_eight* to, const float* x) {
  td_floats8 narrow;
  td_doubles8 wide;
  __builtin_memcpy(&narrow, x, sizeof narrow);
  __asm__("vcvtps2pd %1, %0" : "=v"(wide) : "v"(narrow));  // gcc 12 makes two halves of the plain conversion
  to->all += wide;
}
#elif defined(__AVX2__)
typedef double td_doubles4 __attribute__((vector_size(32)));
typedef float td_floats4 __attribute__((vector_size(16)));
typedef struct td_eight {
  td_doubles4 low, high;
} td_eight;
TD_STRIP_INLINE void td_add_eight(td_eight* to, const float* x) {
  td_floats4 low, high;
  __builtin_memcpy(&low, x, sizeof low);
  __builtin_memcpy(&high, x + 4, sizeof high);
  to->low += __builtin_convertvector(low, td_doubles4);
  to->high += __builtin_convertvector(high, td_doubles4);
}
#else
typedef struct td_eight {
  double all[8];
} td_eight;
TD_STRIP_INLINE void td_add_eight(td_eight* to, const float* x) {
  for (int i = 0; i < 8; ++i) to->all[i] += (double)x[i];
}
#endif
typedef struct td_sums {
  td_eight a, b, c, d;
  double rest;
} td_sums;

TD_STRIP_INLINE void td_sums_plus(td_sums* sums, long n, const float* x) {
  td_eight a = sums->a, b = sums->b, c = sums->c, d = sums->d;
  double rest = sums->rest;
  long i = 0;
  for (; i + 32 <= n; i += 32) {
    td_add_eight(&a, x + i);
    td_add_eight(&b, x + i + 8);
    td_add_eight(&c, x + i + 16);
    td_add_eight(&d, x + i + 24);
  }
  for (; i + 8 <= n; i += 8) td_add_eight(&a, x + i);
  for (; i < n; ++i) rest += (double)x[i];
  sums->a = a, sums->b = b, sums->c = c, sums->d = d;
  sums->rest = rest;
}
TD_STRIP_INLINE double td_sums_of(const td_sums* sums) {
#if defined(__AVX512F__)
  const td_doubles8 all = (sums->a.all + sums->b.all) + (sums->c.all + sums->d.all);
  return ((all[0] + all[4]) + (all[2] + all[6])) + ((all[1] + all[5]) + (all[3] + all[7])) + sums->rest;
#elif defined(__AVX2__)
  const td_doubles4 all = ((sums->a.low + sums->b.low) + (sums->c.low + sums->d.low)) +
                          ((sums->a.high + sums->b.high) + (sums->c.high + sums->d.high));
  return ((all[0] + all[2]) + (all[1] + all[3])) + sums->rest;
#else
  double total = sums->rest;
  for (int i = 0; i < 8; ++i) total += (sums->a.all[i] + sums->b.all[i]) + (sums->c.all[i] + sums->d.all[i]);
  return total;
#endif
}
TD_STRIP_FN void td_sums_add(td_sums* sums, long n, const float* x) { td_sums_plus(sums, n, x); }
TD_STRIP_FN double td_sums_total(const td_sums* sums) { return td_sums_of(sums); }
TD_STRIP_FN double td_sum(long n, const float* x) {
  td_sums sums;
  __builtin_memset(&sums, 0, sizeof sums);
  td_sums_plus(&sums, n, x);
  return td_sums_of(&sums);
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
