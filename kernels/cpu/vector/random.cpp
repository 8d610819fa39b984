// Random numbers and dropout: Philox blocks of four elements, many blocks side by side.
#include "core/scalar/philox.h"
#include "kernels/cpu/vector/prelude.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

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

#if defined(__AVX512F__) || defined(__AVX2__)
// A word lies in the lower half of a 64-bit lane, where the multiplication of 32 by 32 bits reads it; what is above it is
// never looked at. So a round takes two products, two shifts and the exclusive ors, and nothing is packed between rounds.
#if defined(__AVX512F__)
using Lanes = __m512i;
// With masks of ones: gcc 12 warns of the register that the others leave undefined.
TANDEM_INLINE Lanes spread(uint64_t x) { return _mm512_set1_epi64((long long)x); }
TANDEM_INLINE Lanes count_from(uint64_t x) {
  return _mm512_add_epi64(spread(x), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
}
TANDEM_INLINE Lanes product(Lanes a, Lanes b) { return _mm512_maskz_mul_epu32((__mmask8)-1, a, b); }
TANDEM_INLINE Lanes upper(Lanes a) { return _mm512_maskz_srli_epi64((__mmask8)-1, a, 32); }
/// a ^ b ^ c
TANDEM_INLINE Lanes mixed(Lanes a, Lanes b, Lanes c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
/// Words 0 and 1 of each block in one lane, 2 and 3 in the other: one block after another.
TANDEM_INLINE void store_blocks(const Lanes* word, uint32_t* out) {
  const Lanes first = _mm512_mask_shuffle_epi32(word[0], 0xaaaa, word[1], _MM_PERM_CCAA),
              second = _mm512_mask_shuffle_epi32(word[2], 0xaaaa, word[3], _MM_PERM_CCAA);
  const Lanes low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(first, low, second));
  _mm512_storeu_si512(out + 16, _mm512_permutex2var_epi64(first, high, second));
}
#else
using Lanes = __m256i;
TANDEM_INLINE Lanes spread(uint64_t x) { return _mm256_set1_epi64x((long long)x); }
TANDEM_INLINE Lanes count_from(uint64_t x) { return _mm256_add_epi64(spread(x), _mm256_setr_epi64x(0, 1, 2, 3)); }
TANDEM_INLINE Lanes product(Lanes a, Lanes b) { return _mm256_mul_epu32(a, b); }
TANDEM_INLINE Lanes upper(Lanes a) { return _mm256_srli_epi64(a, 32); }
TANDEM_INLINE Lanes mixed(Lanes a, Lanes b, Lanes c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
TANDEM_INLINE void store_blocks(const Lanes* word, uint32_t* out) {
  const Lanes first = _mm256_blend_epi32(word[0], _mm256_slli_epi64(word[1], 32), 0xaa),
              second = _mm256_blend_epi32(word[2], _mm256_slli_epi64(word[3], 32), 0xaa);
  const Lanes even = _mm256_unpacklo_epi64(first, second), odd = _mm256_unpackhi_epi64(first, second);
  _mm256_storeu_si256((__m256i*)out, _mm256_permute2x128_si256(even, odd, 0x20));
  _mm256_storeu_si256((__m256i*)(out + 8), _mm256_permute2x128_si256(even, odd, 0x31));
}
#endif
constexpr int64_t kBlocks = sizeof(Lanes) / 8;

/// The words of kBlocks blocks from `first` on, in the order of their elements: td_philox.
TANDEM_INLINE void philox_blocks(RandomKey key, uint64_t first, uint32_t* out) {
  Lanes c0 = count_from(first), c1 = upper(c0), c2 = spread(key.draw), c3 = upper(c2);
  uint32_t k0 = (uint32_t)key.seed, k1 = (uint32_t)(key.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const Lanes a = product(c0, spread(0xD2511F53u)), b = product(c2, spread(0xCD9E8D57u));
    c0 = mixed(upper(b), c1, spread(k0)), c1 = b;
    c2 = mixed(upper(a), c3, spread(k1)), c3 = a;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  const Lanes word[] = {c0, c1, c2, c3};
  store_blocks(word, out);
}
#else
constexpr int64_t kBlocks = 4;
TANDEM_INLINE void philox_blocks(RandomKey key, uint64_t first, uint32_t* out) {
  for (int64_t b = 0; b < kBlocks; ++b) {
    const td_philox_block block = td_philox_words(key.seed, key.draw, first + (uint64_t)b);
    memcpy(out + 4 * b, block.word, sizeof block.word);
  }
}
#endif

/// f(begin, count, words) on [0, n) by parts: the words of elements first + begin … of a draw; `first` a multiple of 4.
template <class F> TANDEM_INLINE void by_words(RandomKey key, int64_t first, int64_t n, F f) {
  constexpr int64_t size = 4 * kSide, step = 4 * kBlocks;
  uint32_t words[size];
  for (int64_t i = 0; i < n; i += size) {
    const int64_t count = least(size, n - i);
    for (int64_t at = 0; at < count; at += step) philox_blocks(key, (uint64_t)(first + i + at) / 4, words + at);
    f(i, count, words);
  }
}

void uniform_f32(RandomKey key, int64_t first, int64_t n, float* out) {
  by_words(key, first, n, [out](int64_t begin, int64_t count, const uint32_t* words) {
    TANDEM_SIMD
    for (int64_t i = 0; i < count; ++i) out[begin + i] = td_uniform_from_word(words[i]);
  });
}
void words(RandomKey key, int64_t first, int64_t n, uint32_t* out) {
  by_words(key, first, n, [out](int64_t begin, int64_t count, const uint32_t* words) {
    memcpy(out + begin, words, (size_t)count * sizeof(uint32_t));
  });
}
// As td_normal_from_block: two words are the radius and angle of a pair.
void normal_f32(RandomKey key, int64_t first, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 4 * kSide) {
    uint32_t words[4][kSide];
    float values[4][kSide];
    philox_words(key, (uint64_t)(first + i) / 4, words);
    for (int64_t j = 0; j < 4; j += 2) {
      TANDEM_SIMD
      for (int64_t b = 0; b < kSide; ++b) {
        const float radius = td_normal_radius(words[j][b]);
        values[j][b] = radius * td_normal_angle(words[j + 1][b], 0);
        values[j + 1][b] = radius * td_normal_angle(words[j + 1][b], 1);
      }
    }
    if (i + 4 * kSide <= n) {
      for (int64_t b = 0; b < kSide; ++b)
        for (int64_t j = 0; j < 4; ++j) out[i + 4 * b + j] = values[j][b];
    } else {
      for (int64_t k = i; k < n; ++k) out[k] = values[k % 4][(k - i) / 4];
    }
  }
}
void uniform_f64(RandomKey key, int64_t first, int64_t n, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = td_uniform_f64(key.seed, key.draw, (uint64_t)(first + i));
}
void normal_f64(RandomKey key, int64_t first, int64_t n, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = td_normal_f64(key.seed, key.draw, (uint64_t)(first + i));
}

template <class T> void dropout(RandomKey key, int64_t first, int64_t n, const T* x, float p, T scale, T* out) {
  by_words(key, first, n, [=](int64_t begin, int64_t count, const uint32_t* words) {
    TANDEM_SIMD
    for (int64_t i = 0; i < count; ++i)
      out[begin + i] = td_uniform_from_word(words[i]) >= p ? x[begin + i] * scale : (T)0;
  });
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
extern const RandomLoops random_loops;
const RandomLoops random_loops = {uniform_f32, normal_f32,     uniform_f64,    normal_f64,
                                  words,       dropout<float>, dropout<double>};
}  // namespace tandem::TANDEM_ISA
