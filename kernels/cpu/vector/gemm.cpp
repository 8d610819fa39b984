// Our own matrix product: c = a b, or c += a b, for operands of any strides, in float, double and int64.
//
// After Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): b is packed in blocks
// of kGemmDepth rows into strips of two registers, for all rows of a; the innermost kernel keeps a tile of c in registers.
// Rows of a that lie together are read where they are, others are packed. Packing takes any strides, and widens 16-bit floats
// on the way. The order in which an element's products are summed depends on k alone, so a product may be cut up at will.
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

#if defined(__AVX512F__) || defined(__AVX2__)
/// to[p * to_step + i] = from[i * from_row + p] for eight rows i.
TANDEM_INLINE void transpose_eight(int64_t k, const float* from, int64_t from_row, float* to, int64_t to_step) {
  typedef float Eight __attribute__((vector_size(32)));
  int64_t p = 0;
  for (; p + 8 <= k; p += 8) {
    Eight x[8], y[8];
#pragma GCC unroll 8
    for (int64_t i = 0; i < 8; ++i) memcpy(&x[i], from + i * from_row + p, sizeof(Eight));
#pragma GCC unroll 4
    for (int64_t i = 0; i < 8; i += 2) {
      y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
      y[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
#pragma GCC unroll 2
    for (int64_t i = 0; i < 8; i += 4) {
      x[i] = __builtin_shufflevector(y[i], y[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      x[i + 1] = __builtin_shufflevector(y[i], y[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
      x[i + 2] = __builtin_shufflevector(y[i + 1], y[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
      x[i + 3] = __builtin_shufflevector(y[i + 1], y[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; ++i) {
      const Eight low = __builtin_shufflevector(x[i], x[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
      const Eight high = __builtin_shufflevector(x[i], x[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
      memcpy(to + (p + i) * to_step, &low, sizeof low);
      memcpy(to + (p + i + 4) * to_step, &high, sizeof high);
    }
  }
  for (; p < k; ++p)
    for (int64_t i = 0; i < 8; ++i) to[p * to_step + i] = from[i * from_row + p];
}
#endif

/// A tile of c in registers: rows x (vectors of a strip of b), from rows of a and a packed strip of b.
template <class T> struct Tile {
  using R = Registers<T>;
  using V = typename R::V;
  static constexpr int64_t lanes = R::lanes, height = R::height, width = 2 * lanes;

  /// a's element (i, p) is a[i * a_row + p * a_step]; the rows of c hold at least `columns` elements.
  template <int64_t rows, int64_t vectors>
  static void run(int64_t k, const T* a, int64_t a_row, int64_t a_step, const T* b, T* c, int64_t c_row,
                  int64_t columns, bool accumulate) {
    V sums[rows][vectors];
#pragma GCC unroll 12
    for (int64_t i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int64_t v = 0; v < vectors; ++v) sums[i][v] = R::spread((T)0);
#pragma GCC unroll 12
    for (int64_t i = 0; i < rows; ++i) {
      __builtin_prefetch(c + i * c_row, 1);
      __builtin_prefetch(c + i * c_row + columns - 1, 1);
    }
    // Three rows from each pointer: x86 adds a register once or twice to an address.
    constexpr int64_t groups = (rows + 2) / 3;
    const T* from[groups];
#pragma GCC unroll 4
    for (int64_t g = 0; g < groups; ++g) from[g] = a + 3 * g * a_row;
    for (int64_t p = 0; p < k; ++p, b += vectors * lanes) {
      V right[vectors];
#pragma GCC unroll 2
      for (int64_t v = 0; v < vectors; ++v) memcpy(&right[v], b + v * lanes, sizeof(V));
#pragma GCC unroll 12
      for (int64_t i = 0; i < rows; ++i) {
        const V each = R::spread(from[i / 3][i % 3 * a_row]);
#pragma GCC unroll 2
        for (int64_t v = 0; v < vectors; ++v) sums[i][v] = R::multiply_add(each, right[v], sums[i][v]);
      }
#pragma GCC unroll 4
      for (int64_t g = 0; g < groups; ++g) from[g] += a_step;
    }
    if (columns == vectors * lanes) {
#pragma GCC unroll 12
      for (int64_t i = 0; i < rows; ++i)
#pragma GCC unroll 2
        for (int64_t v = 0; v < vectors; ++v) {
          T* to = c + i * c_row + v * lanes;
          if (accumulate) {
            V before;
            memcpy(&before, to, sizeof before);
            sums[i][v] = R::multiply_add(R::spread((T)1), before, sums[i][v]);
          }
          memcpy(to, &sums[i][v], sizeof(V));
        }
      return;
    }
    T values[rows][vectors * lanes];
    memcpy(values, sums, sizeof values);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) {
        T& to = c[i * c_row + j];
        to = accumulate ? to + values[i][j] : values[i][j];
      }
  }

  using Run = void (*)(int64_t, const T*, int64_t, int64_t, const T*, T*, int64_t, int64_t, bool);
  /// By rows: of powers of two where a whole tile no longer fits.
  template <int64_t vectors> static Run of(int64_t rows) {
    return rows >= height ? run<height, vectors>
           : rows >= 8    ? run<(height < 8 ? height : 8), vectors>
           : rows >= 4    ? run<4, vectors>
           : rows >= 2    ? run<2, vectors>
                          : run<1, vectors>;
  }
  static int64_t rows_of(int64_t rest) {
    return rest >= height ? height : rest >= 8 ? 8 : rest >= 4 ? 4 : rest >= 2 ? 2 : 1;
  }
};

/// Lines of a matrix side by side: to[p * side + i] = line i, element p; `count` lines of at most `side`, the others zero.
template <int64_t side, class T, class S>
void pack_strip(int64_t count, int64_t k, const S* from, int64_t line_stride, int64_t k_stride, T* to) {
  if (count == side && line_stride == 1) {
    for (int64_t p = 0; p < k; ++p, to += side)
      for (int64_t i = 0; i < side; ++i) to[i] = Convert<T>::from(from[p * k_stride + i]);
    return;
  }
  if (count < side) memset(to, 0, (size_t)(side * k) * sizeof(T));
  int64_t begin = 0;
#if defined(__AVX512F__) || defined(__AVX2__)
  if constexpr (__is_same(T, float) && __is_same(S, float)) {
    if (k_stride == 1)
      for (; begin + 8 <= count; begin += 8)
        transpose_eight(k, from + begin * line_stride, line_stride, to + begin, side);
  }
#endif
  for (int64_t i = begin; i < count; ++i) {
    const S* line = from + i * line_stride;
    for (int64_t p = 0; p < k; ++p) to[p * side + i] = Convert<T>::from(line[p * k_stride]);
  }
}

/// Rows of a, for tiles to read: element (i, p) of them is data[i * row + p * step].
template <class T> struct Rows {
  const T* data;
  int64_t row, step;
};

/// Where a's lines lie across its rows, each is copied whole; else strips of a tile's height are made, and where a whole
/// one no longer fits, the last serves several tiles of fewer rows. Neither at distances at which lines compete for one place
/// of the first-level cache.
template <class T, class S> class PackedRows {
  static constexpr int64_t height = Tile<T>::height, line = 64 / sizeof(T);

 public:
  PackedRows(const GemmArguments& g, T* memory) : g_(g), memory_(memory) {}
  void pack(int64_t row, int64_t count, int64_t depth, int64_t k) {
    first_ = row;
    const S* from = (const S*)g_.a + row * g_.a_row + depth * g_.a_column;
    if (g_.a_row == 1) {
      stride_ = ((count + line - 1) / line | 1) * line;
      for (int64_t p = 0; p < k; ++p) {
        const S* each = from + p * g_.a_column;
        T* to = memory_ + p * stride_;
        if constexpr (__is_same(T, S)) memcpy(to, each, (size_t)count * sizeof(T));
        else
          for (int64_t i = 0; i < count; ++i) to[i] = Convert<T>::from(each[i]);
      }
      return;
    }
    stride_ = height * k + line;
    for (int64_t i = 0; i < count; i += height)
      pack_strip<height>(least(height, count - i), k, from + i * g_.a_row, g_.a_row, g_.a_column,
                         memory_ + i / height * stride_);
  }
  Rows<T> at(int64_t row) const {
    const int64_t i = row - first_;
    if (g_.a_row == 1) return {memory_ + i, 1, stride_};
    return {memory_ + i / height * stride_ + i % height, 1, height};
  }

 private:
  const GemmArguments& g_;
  T* const memory_;
  int64_t first_ = 0, stride_ = 0;
};

template <class T, class S> void product(const GemmArguments& g) {
  using Kernel = Tile<T>;
  constexpr int64_t width = Kernel::width, lanes = Kernel::lanes;
  const S* b = (const S*)g.b;
  T* c = (T*)g.c;
  T* packed_b = (T*)g.scratch;
  PackedRows<T, S> packed_rows(g, packed_b + kGemmDepth * kGemmColumns);
  // Rows of a are read where they are, unless they would compete for the same lines of the first-level cache.
  const bool as_it_is = __is_same(T, S) && g.a_column == 1 && g.a_row * (int64_t)sizeof(T) % 4096 != 0;
  for (int64_t column = 0; column < g.n; column += kGemmColumns) {
    const int64_t columns = least(kGemmColumns, g.n - column);
    for (int64_t depth = 0; depth < g.k; depth += kGemmDepth) {
      const int64_t k = least(kGemmDepth, g.k - depth);
      const bool accumulate = g.accumulate || depth > 0;
      const S* from = b + depth * g.b_row + column * g.b_column;
      for (int64_t j = 0; j < columns; j += width) {
        const int64_t count = least(width, columns - j);
        if (count > lanes) pack_strip<width>(count, k, from + j * g.b_column, g.b_column, g.b_row, packed_b + j * k);
        else pack_strip<lanes>(count, k, from + j * g.b_column, g.b_column, g.b_row, packed_b + j * k);
      }
      for (int64_t row = 0, rows, packed = 0; row < g.m; row += rows) {
        rows = Kernel::rows_of(g.m - row);
        if (!as_it_is && row == packed) {
          const int64_t count = least(kGemmRows, g.m - row);
          packed_rows.pack(row, count, depth, k);
          packed += count;
        }
        const Rows<T> left =
            as_it_is ? Rows<T>{(const T*)g.a + row * g.a_row + depth, g.a_row, 1} : packed_rows.at(row);
        T* to = c + row * g.c_row + column;
        const auto wide = Kernel::template of<2>(rows);
        int64_t j = 0;
        for (; columns - j > lanes; j += width)
          wide(k, left.data, left.row, left.step, packed_b + j * k, to + j, g.c_row, least(width, columns - j),
               accumulate);
        if (j < columns)
          Kernel::template of<1>(rows)(k, left.data, left.row, left.step, packed_b + j * k, to + j, g.c_row,
                                       columns - j, accumulate);
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
