// Random numbers and dropout: Philox blocks of four elements, many blocks side by side.
#include "core/scalar/philox.h"
#include "kernels/cpu/vector/prelude.h"

TANDEM_BEGIN_VECTOR

constexpr int64_t kSide = 64;  // blocks at a time

/// The words of blocks first … first + kSide - 1, word by word: a plain loop that becomes vectors.
__attribute__((noinline)) void philox_words(RandomKey key, uint64_t first, uint32_t (*out)[kSide]) {
  const uint64_t seed = key.seed, draw = key.draw;
  TANDEM_SIMD
  for (int64_t b = 0; b < kSide; ++b) {
    const td_philox_block block = td_philox_words(seed, draw, first + (uint64_t)b);
    out[0][b] = block.word[0];
    out[1][b] = block.word[1];
    out[2][b] = block.word[2];
    out[3][b] = block.word[3];
  }
}

// Elements [first, first + n) of a draw, `first` a multiple of 4; f(words, values) makes their values.
template <class T, class F> TANDEM_INLINE void by_blocks(RandomKey key, int64_t first, int64_t n, T* out, F f) {
  for (int64_t i = 0; i < n; i += 4 * kSide) {
    uint32_t words[4][kSide];
    T values[4][kSide];
    philox_words(key, (uint64_t)(first + i) / 4, words);
    f(words, values);
    if (i + 4 * kSide <= n) {
      for (int64_t b = 0; b < kSide; ++b)
        for (int64_t j = 0; j < 4; ++j) out[i + 4 * b + j] = values[j][b];
    } else {
      for (int64_t k = i; k < n; ++k) out[k] = values[k % 4][(k - i) / 4];
    }
  }
}

void uniform_f32(RandomKey key, int64_t first, int64_t n, float* out) {
  by_blocks(key, first, n, out, [](const uint32_t(*words)[kSide], float(*values)[kSide]) {
    for (int64_t j = 0; j < 4; ++j) {
      TANDEM_SIMD
      for (int64_t b = 0; b < kSide; ++b) values[j][b] = td_uniform_from_word(words[j][b]);
    }
  });
}
// As td_normal_from_block: two words are the radius and angle of a pair.
void normal_f32(RandomKey key, int64_t first, int64_t n, float* out) {
  by_blocks(key, first, n, out, [](const uint32_t(*words)[kSide], float(*values)[kSide]) {
    for (int64_t j = 0; j < 4; j += 2) {
      TANDEM_SIMD
      for (int64_t b = 0; b < kSide; ++b) {
        const float radius = td_normal_radius(words[j][b]);
        values[j][b] = radius * td_normal_angle(words[j + 1][b], 0);
        values[j + 1][b] = radius * td_normal_angle(words[j + 1][b], 1);
      }
    }
  });
}
void words(RandomKey key, int64_t first, int64_t n, uint32_t* out) {
  by_blocks(key, first, n, out, [](const uint32_t(*words)[kSide], uint32_t(*values)[kSide]) {
    memcpy(values, words, sizeof(uint32_t) * 4 * kSide);
  });
}
void uniform_f64(RandomKey key, int64_t first, int64_t n, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = td_uniform_f64(key.seed, key.draw, (uint64_t)(first + i));
}
void normal_f64(RandomKey key, int64_t first, int64_t n, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = td_normal_f64(key.seed, key.draw, (uint64_t)(first + i));
}

template <class T> void dropout(RandomKey key, int64_t first, int64_t n, const T* x, float p, T scale, T* out) {
  float u[512];
  for (int64_t at = 0; at < n; at += 512) {
    const int64_t count = least(512, n - at);
    uniform_f32(key, first + at, count, u);
    TANDEM_SIMD
    for (int64_t i = 0; i < count; ++i) out[at + i] = u[i] >= p ? x[at + i] * scale : (T)0;
  }
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
extern const RandomLoops random_loops;
const RandomLoops random_loops = {uniform_f32, normal_f32,     uniform_f64,    normal_f64,
                                  words,       dropout<float>, dropout<double>};
}  // namespace tandem::TANDEM_ISA
