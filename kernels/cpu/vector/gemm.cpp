// Our own matrix product: c = a b, or c += a b, for operands of any strides, in float, double and int64.
//
// After Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): b is packed in blocks
// of kDepth rows into strips of kWidth columns, a in strips of kHeight rows; the innermost kernel keeps a
// kHeight x kWidth tile of c in registers. Packing takes any strides, and widens 16-bit floats on the way. The
// order in which an element's products are summed depends on k alone, so a product may be cut up at will.
#include "kernels/cpu/vector/registers.h"

TANDEM_BEGIN_VECTOR

template <> struct Registers<int64_t> {  // the compiler's own vectors will do
  struct V {
    int64_t value;
  };
  static constexpr int64_t lanes = 1, height = 4;
  TANDEM_INLINE V multiply_add(V a, V b, V c) {
    return V{(int64_t)((uint64_t)a.value * (uint64_t)b.value + (uint64_t)c.value)};  // wraps
  }
  TANDEM_INLINE V spread(int64_t x) { return V{x}; }
};

template <class T> struct Tile {
  using R = Registers<T>;
  using V = typename R::V;
  static constexpr int64_t height = R::height, width = 2 * R::lanes;

  /// c's rows x columns (at most a full tile), from packed strips of depth k.
  static void run(int64_t k, const T* a, const T* b, T* c, int64_t c_stride, int64_t rows, int64_t columns,
                  bool accumulate) {
    V sums[height][2];
    for (int64_t i = 0; i < height; ++i) sums[i][0] = sums[i][1] = R::spread((T)0);
    for (int64_t p = 0; p < k; ++p, a += height, b += width) {
      V left, right;
      memcpy(&left, b, sizeof left);
      memcpy(&right, b + R::lanes, sizeof right);
#pragma GCC unroll 12
      for (int64_t i = 0; i < height; ++i) {
        const V each = R::spread(a[i]);
        sums[i][0] = R::multiply_add(each, left, sums[i][0]);
        sums[i][1] = R::multiply_add(each, right, sums[i][1]);
      }
    }
    if (rows == height && columns == width) {
#pragma GCC unroll 12
      for (int64_t i = 0; i < height; ++i) {
        T* to = c + i * c_stride;
        if (accumulate) {
          V left, right;
          memcpy(&left, to, sizeof left);
          memcpy(&right, to + R::lanes, sizeof right);
          sums[i][0] = R::multiply_add(R::spread((T)1), left, sums[i][0]);
          sums[i][1] = R::multiply_add(R::spread((T)1), right, sums[i][1]);
        }
        memcpy(to, &sums[i][0], sizeof(V));
        memcpy(to + R::lanes, &sums[i][1], sizeof(V));
      }
      return;
    }
    T values[height][width];
    memcpy(values, sums, sizeof values);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) {
        T& to = c[i * c_stride + j];
        to = accumulate ? to + values[i][j] : values[i][j];
      }
  }
};

/// Strips of `side` lines of a matrix: to[strip][p][line], lines beyond the last as zeros.
template <class T, class S>
void pack(int64_t lines, int64_t k, const S* from, int64_t line_stride, int64_t k_stride, int64_t side, T* to) {
  for (int64_t strip = 0; strip < lines; strip += side) {
    const int64_t count = least(side, lines - strip);
    const S* base = from + strip * line_stride;
    if (count == side && line_stride == 1) {
      for (int64_t p = 0; p < k; ++p, to += side)
        for (int64_t i = 0; i < side; ++i) to[i] = Convert<T>::from(base[p * k_stride + i]);
      continue;
    }
    if (count < side) memset(to, 0, (size_t)(side * k) * sizeof(T));
    for (int64_t i = 0; i < count; ++i) {
      const S* line = base + i * line_stride;
      for (int64_t p = 0; p < k; ++p) to[p * side + i] = Convert<T>::from(line[p * k_stride]);
    }
    to += side * k;
  }
}

template <class T, class S> void product(const GemmArguments& g) {
  using Kernel = Tile<T>;
  constexpr int64_t height = Kernel::height, width = Kernel::width;
  const S *a = (const S*)g.a, *b = (const S*)g.b;
  T* c = (T*)g.c;
  T* packed_b = (T*)g.scratch;
  T* packed_a = packed_b + kGemmDepth * kGemmColumns;
  for (int64_t column = 0; column < g.n; column += kGemmColumns) {
    const int64_t columns = least(kGemmColumns, g.n - column);
    for (int64_t depth = 0; depth < g.k; depth += kGemmDepth) {
      const int64_t k = least(kGemmDepth, g.k - depth);
      const bool accumulate = g.accumulate || depth > 0;
      pack(columns, k, b + depth * g.b_row + column * g.b_column, g.b_column, g.b_row, width, packed_b);
      for (int64_t row = 0; row < g.m; row += kGemmRows) {
        const int64_t rows = least(kGemmRows, g.m - row);
        pack(rows, k, a + row * g.a_row + depth * g.a_column, g.a_row, g.a_column, height, packed_a);
        for (int64_t j = 0; j < columns; j += width)
          for (int64_t i = 0; i < rows; i += height)
            Kernel::run(k, packed_a + i * k, packed_b + j * k, c + (row + i) * g.c_row + column + j, g.c_row,
                        least(height, rows - i), least(width, columns - j), accumulate);
      }
    }
  }
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {

void gemm(int type, const GemmArguments& g) {
  switch (type) {
    case 0: return product<float, float>(g);
    case 1: return product<double, double>(g);
    case 2: return product<float, F16>(g);
    case 3: return product<float, BF16>(g);
    case 4: return product<int64_t, int32_t>(g);
    case 5: return product<int64_t, int64_t>(g);
    case 6: return product<int64_t, int16_t>(g);
    case 7: return product<int64_t, int8_t>(g);
    case 8: return product<int64_t, uint8_t>(g);
    default: return product<int64_t, Bool>(g);
  }
}

}  // namespace tandem::TANDEM_ISA
