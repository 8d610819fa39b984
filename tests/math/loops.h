// Defines math_table_<MATH_NAME>: plain loops over the shared mathematics, in C or C++.
#include "core/scalar/math.h"

#include "core/scalar/half.h"
#include "core/scalar/philox.h"
#include "tests/math/tables.h"

#define MATH_LOOP(name)                                                                               \
  static void MATH_JOIN(loop, name)(const float* __restrict__ x, float* __restrict__ y, long count) { \
    for (long i = 0; i < count; ++i) y[i] = td_##name(x[i]);                                          \
  }
MATH_FUNCTIONS(MATH_LOOP)
#undef MATH_LOOP

static void loop_uniform(unsigned long seed, unsigned long draw, unsigned long first, float* y, long count) {
  for (long i = 0; i < count; ++i) y[i] = td_uniform_f32(seed, draw, first + (td_u64)i);
}
static void loop_normal(unsigned long seed, unsigned long draw, unsigned long first, float* y, long count) {
  for (long i = 0; i < count; ++i) y[i] = td_normal_f32(seed, draw, first + (td_u64)i);
}
static void loop_uniform_blocks(unsigned long seed, unsigned long draw, unsigned long first, float* y, long count) {
  for (long i = 0; i < count / 4; ++i) {
    td_philox_block block = td_philox_words(seed, draw, first / 4 + (td_u64)i);
    for (int k = 0; k < 4; ++k) y[4 * i + k] = td_uniform_from_word(block.word[k]);
  }
}
static void loop_normal_blocks(unsigned long seed, unsigned long draw, unsigned long first, float* y, long count) {
  for (long i = 0; i < count / 4; ++i) {
    td_philox_block block = td_philox_words(seed, draw, first / 4 + (td_u64)i);
    for (td_u32 k = 0; k < 4; ++k) y[4 * i + (long)k] = td_normal_from_block(block, k);
  }
}

static void loop_widen_f16(const unsigned short* __restrict__ x, float* __restrict__ y, long count) {
  for (long i = 0; i < count; ++i) y[i] = td_f16_to_f32(x[i]);
}
static void loop_widen_bf16(const unsigned short* __restrict__ x, float* __restrict__ y, long count) {
  for (long i = 0; i < count; ++i) y[i] = td_bf16_to_f32(x[i]);
}
static void loop_narrow_f16(const float* __restrict__ x, unsigned short* __restrict__ y, long count) {
  for (long i = 0; i < count; ++i) y[i] = td_f32_to_f16(x[i]);
}
static void loop_narrow_bf16(const float* __restrict__ x, unsigned short* __restrict__ y, long count) {
  for (long i = 0; i < count; ++i) y[i] = td_f32_to_bf16(x[i]);
}

#ifdef __cplusplus
extern "C"
#endif
    const struct MathTable MATH_JOIN(math_table, MATH_NAME) = {
#define MATH_ENTRY(name) MATH_JOIN(loop, name),
        MATH_FUNCTIONS(MATH_ENTRY)
#undef MATH_ENTRY
            loop_uniform,
        loop_normal,
        loop_uniform_blocks,
        loop_normal_blocks,
        loop_widen_f16,
        loop_widen_bf16,
        loop_narrow_f16,
        loop_narrow_bf16,
};
