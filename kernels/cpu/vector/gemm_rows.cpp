// The product of two matrices by their rows: c = a bᵀ, or c += a bᵀ, in float, where the rows of both lie
// together.
//
// A layer's forward pass is of this kind: x [batch, in] times weight [out, in] transposed. Each element of c
// is a dot product of two contiguous rows, so nothing needs packing, which for a batch of 64 costs a library
// a quarter of its time: each packed weight is used only 64 times. A tile of c keeps one register of partial
// sums per element, and they are folded at the tile's end. The order in which an element's products are
// summed depends on k alone.
#include "kernels/cpu/vector/prelude.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

TANDEM_BEGIN_VECTOR

// A register of floats, and how many rows of a fit a tile beside 4 rows of b: with AVX2, 12 sums, 3 of a and 1 of b are
// its 16 registers.
typedef float Four __attribute__((vector_size(16)));
#if defined(__AVX512F__)
typedef float Eight __attribute__((vector_size(32)));
typedef __m512 Floats;
constexpr int64_t kTileRows = 4;
TANDEM_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__AVX2__)
typedef __m256 Floats;
constexpr int64_t kTileRows = 3;
TANDEM_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
#else
typedef Four Floats;
constexpr int64_t kTileRows = 2;
TANDEM_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
#endif

// {x0, y0, x1, y1} + {x2, y2, x3, y3}, and {x0, x1, y0, y1} + {x2, x3, y2, y3}, in each four lanes; then the
// sum of all fours.
#if defined(__AVX512F__)
TANDEM_INLINE Floats fold_pair(Floats x, Floats y) {
  return __builtin_shufflevector(x, y, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
         __builtin_shufflevector(x, y, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
}
TANDEM_INLINE Floats fold_pairs(Floats x, Floats y) {
  return __builtin_shufflevector(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
         __builtin_shufflevector(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
TANDEM_INLINE Four fold_fours(Floats x) {
  const Eight half = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
                     __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
}
#elif defined(__AVX2__)
TANDEM_INLINE Floats fold_pair(Floats x, Floats y) {
  return __builtin_shufflevector(x, y, 0, 8, 1, 9, 4, 12, 5, 13) +
         __builtin_shufflevector(x, y, 2, 10, 3, 11, 6, 14, 7, 15);
}
TANDEM_INLINE Floats fold_pairs(Floats x, Floats y) {
  return __builtin_shufflevector(x, y, 0, 1, 8, 9, 4, 5, 12, 13) +
         __builtin_shufflevector(x, y, 2, 3, 10, 11, 6, 7, 14, 15);
}
TANDEM_INLINE Four fold_fours(Floats x) {
  return __builtin_shufflevector(x, x, 0, 1, 2, 3) + __builtin_shufflevector(x, x, 4, 5, 6, 7);
}
#else
TANDEM_INLINE Floats fold_pair(Floats x, Floats y) {
  return __builtin_shufflevector(x, y, 0, 4, 1, 5) + __builtin_shufflevector(x, y, 2, 6, 3, 7);
}
TANDEM_INLINE Floats fold_pairs(Floats x, Floats y) {
  return __builtin_shufflevector(x, y, 0, 1, 4, 5) + __builtin_shufflevector(x, y, 2, 3, 6, 7);
}
TANDEM_INLINE Four fold_fours(Floats x) { return x; }
#endif

/// The sums of four registers.
TANDEM_INLINE Four fold(const Floats* s) {
  return fold_fours(fold_pairs(fold_pair(s[0], s[1]), fold_pair(s[2], s[3])));
}

constexpr int64_t kLanes = sizeof(Floats) / sizeof(float);
constexpr int64_t kTileColumns = 4;
constexpr int64_t kDepth = 1536;           // four rows so long fill most of the first-level cache
constexpr int64_t kStreamed = 512 * 1024;  // bytes of rows that stay in the second-level cache

TANDEM_INLINE Floats load(const float* from) {
  Floats x;
  memcpy(&x, from, sizeof x);
  return x;
}
TANDEM_INLINE Floats load_some(const float* from, int64_t count) {
  Floats x = {};
  memcpy(&x, from, (size_t)count * sizeof(float));
  return x;
}

/// rows x columns (at most 4) of c, from as many rows of a and b.
template <int64_t rows>
void tile(int64_t k, const float* a, int64_t a_row, const float* b, int64_t b_row, float* c, int64_t c_row,
          int64_t columns, bool accumulate) {
  const float* lines[kTileColumns];  // beyond the last: the last again, for sums that nobody reads
  for (int64_t j = 0; j < kTileColumns; ++j) lines[j] = b + least(j, columns - 1) * b_row;
  Floats sums[rows][kTileColumns] = {};
  const auto step = [&](int64_t p, auto&& get) __attribute__((always_inline)) {
    Floats left[rows];
#pragma GCC unroll 4
    for (int64_t i = 0; i < rows; ++i) left[i] = get(a + i * a_row + p);
#pragma GCC unroll 4
    for (int64_t j = 0; j < kTileColumns; ++j) {
      const Floats right = get(lines[j] + p);
#pragma GCC unroll 4
      for (int64_t i = 0; i < rows; ++i) sums[i][j] = multiply_add(left[i], right, sums[i][j]);
    }
  };
  int64_t p = 0;
  for (; p + kLanes <= k; p += kLanes)
    step(
        p, [](const float* x) __attribute__((always_inline)) { return load(x); });
  if (p < k)
    step(
        p, [count = k - p](const float* x) __attribute__((always_inline)) { return load_some(x, count); });
#pragma GCC unroll 4
  for (int64_t i = 0; i < rows; ++i) {
    float* to = c + i * c_row;
    Four folded = fold(sums[i]);
    if (columns == kTileColumns) {
      Four before = {};
      if (accumulate) memcpy(&before, to, sizeof before);
      folded += before;
      memcpy(to, &folded, sizeof folded);
    } else {
      for (int64_t j = 0; j < columns; ++j) to[j] = accumulate ? to[j] + folded[j] : folded[j];
    }
  }
}

/// How many of the `rest` rows that are left make the next tile: four are two and two, not three and a slow one.
TANDEM_INLINE int64_t tile_height(int64_t rest) {
  if (rest >= kTileRows && !(kTileRows == 3 && rest == 4)) return kTileRows;
  return rest >= 2 ? 2 : 1;
}

/// Rows [i, end) of c in a tile's four columns, from `right`.
TANDEM_INLINE void tiles(const GemmArguments& g, int64_t depth, int64_t k, int64_t i, int64_t end, int64_t j,
                         bool accumulate) {
  const float* right = (const float*)g.b + j * g.b_column + depth;
  const int64_t columns = least(kTileColumns, g.n - j);
  for (int64_t height; i < end; i += height) {
    height = tile_height(end - i);
    const auto of_rows = height == kTileRows ? tile<kTileRows> : height == 2 ? tile<2> : tile<1>;
    of_rows(k, (const float*)g.a + i * g.a_row + depth, g.a_row, right, g.b_column, (float*)g.c + i * g.c_row + j,
            g.c_row, columns, accumulate);
  }
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {

/// Needs a_column = 1 and b_row = 1. The rows of the larger operand stay in the first-level cache, a tile's
/// at a time, while those of the smaller pass from the second-level cache.
void gemm_rows(const GemmArguments& g) {
  for (int64_t depth = 0; depth < g.k; depth += kDepth) {
    const int64_t k = least(kDepth, g.k - depth);
    const bool accumulate = g.accumulate || depth > 0;
    const int64_t block = most(kTileColumns, kStreamed / (k * (int64_t)sizeof(float)) / kTileColumns * kTileColumns);
    if (g.m <= g.n) {
      for (int64_t top = 0; top < g.m; top += block)
        for (int64_t j = 0; j < g.n; j += kTileColumns) tiles(g, depth, k, top, least(g.m, top + block), j, accumulate);
    } else {
      for (int64_t left = 0; left < g.n; left += block)
        for (int64_t i = 0, height; i < g.m; i += height) {
          height = tile_height(g.m - i);
          for (int64_t j = left; j < least(g.n, left + block); j += kTileColumns)
            tiles(g, depth, k, i, i + height, j, accumulate);
        }
    }
  }
}

}  // namespace tandem::TANDEM_ISA
