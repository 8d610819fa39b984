// Recurrent layers. The weight of a layer is multiplied with a few rows at every time step, so it is packed once, and
// the product reads the rows where they are. A thread takes its rows of the batch through all steps on its own.
#include "kernels/cpu/vector/recurrent.h"
#include "kernels/cpu/vector/registers.h"

TANDEM_BEGIN_VECTOR

template <class T> struct Strip {
  using R = Registers<T>;
  using V = typename R::V;
  static constexpr int64_t width = kRecurrentStrip<T>;
#if defined(__AVX512F__)
  static constexpr int64_t vectors = 4, height = 6;  // 24 sums, 4 of b and one of a in 32 registers
#elif defined(__AVX2__)
  static constexpr int64_t vectors = 2, height = 6;
#else
  static constexpr int64_t vectors = 2, height = 4;
#endif
  static constexpr int64_t columns = vectors * R::lanes;  // of a tile; a strip holds one or more

  /// A tile of `rows` rows, its columns beginning at b of a packed strip.
  template <int64_t rows>
  static void tile(int64_t k, const T* a, int64_t a_row, const T* b, const T* from, int64_t from_row, const T* bias,
                   T* to, int64_t to_row, int64_t n) {
    // Each register is named by constants alone, once the loops are unrolled: the sums then never go to memory.
    V sums[rows][vectors];
#pragma GCC unroll 6
    for (int64_t i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (int64_t j = 0; j < vectors; ++j) sums[i][j] = R::spread((T)0);
    for (int64_t p = 0; p < k; ++p, b += width) {
      V strip[vectors];
#pragma GCC unroll 4
      for (int64_t j = 0; j < vectors; ++j) strip[j] = load(b + j * R::lanes);
#pragma GCC unroll 6
      for (int64_t i = 0; i < rows; ++i) {
        const V each = R::spread(a[i * a_row + p]);
#pragma GCC unroll 4
        for (int64_t j = 0; j < vectors; ++j) sums[i][j] = R::multiply_add(each, strip[j], sums[i][j]);
      }
    }
    const V one = R::spread((T)1);
    T tail[columns];
    const bool whole = n >= columns;
#pragma GCC unroll 6
    for (int64_t i = 0; i < rows; ++i) {
      T* const out = whole ? to + i * to_row : tail;
#pragma GCC unroll 4
      for (int64_t j = 0; j < vectors; ++j) {
        V sum = sums[i][j];
        if (whole) {
          V base = load(from + i * from_row + j * R::lanes);
          if (bias) base = R::multiply_add(one, base, load(bias + j * R::lanes));
          sum = R::multiply_add(one, base, sum);
        }
        memcpy(out + j * R::lanes, &sum, sizeof sum);
      }
      if (!whole)
        for (int64_t j = 0; j < n; ++j) to[i * to_row + j] = from[i * from_row + j] + (bias ? bias[j] : (T)0) + tail[j];
    }
  }

  TANDEM_INLINE V load(const T* from) {
    V result;
    memcpy(&result, from, sizeof result);
    return result;
  }

  static void run(int64_t rows, int64_t k, const T* a, int64_t a_row, const T* b, const T* from, int64_t from_row,
                  const T* bias, T* to, int64_t to_row, int64_t n) {
    switch (rows) {
      case 1: return tile<1>(k, a, a_row, b, from, from_row, bias, to, to_row, n);
      case 2: return tile<2>(k, a, a_row, b, from, from_row, bias, to, to_row, n);
      case 3: return tile<3>(k, a, a_row, b, from, from_row, bias, to, to_row, n);
      case 4: return tile<4>(k, a, a_row, b, from, from_row, bias, to, to_row, n);
      case 5: return tile<5>(k, a, a_row, b, from, from_row, bias, to, to_row, n);
      default: return tile<6>(k, a, a_row, b, from, from_row, bias, to, to_row, n);
    }
  }
};

template <class T>
void pack(int64_t begin, int64_t end, int64_t n, int64_t k, const T* b, int64_t b_row, int64_t b_column, T* packed) {
  constexpr int64_t width = Strip<T>::width;
  for (int64_t strip = begin; strip < end; ++strip) {
    const int64_t first = strip * width, count = least(width, n - first);
    T* to = packed + strip * width * k;
    const T* from = b + first * b_column;
    if (count < width) memset(to, 0, (size_t)(width * k) * sizeof(T));
    if (b_column == 1) {
      for (int64_t p = 0; p < k; ++p) memcpy(to + p * width, from + p * b_row, (size_t)count * sizeof(T));
      continue;
    }
    // Pieces of 16 rows, so that what is written stays in the cache from one column to the next.
    for (int64_t piece = 0; piece < k; piece += 16) {
      const int64_t last = least(k, piece + 16);
      for (int64_t j = 0; j < count; ++j)
        for (int64_t p = piece; p < last; ++p) to[p * width + j] = from[j * b_column + p * b_row];
    }
  }
}

template <class T>
void product(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, const T* packed, const T* from,
             int64_t from_row, const T* bias, T* to, int64_t to_row) {
  using S = Strip<T>;
  const int64_t blocks = (m + S::height - 1) / S::height;
  for (int64_t column = 0; column < n; column += S::columns) {
    const T* b = packed + column / S::width * S::width * k + column % S::width;
    // Blocks of about one height: 16 rows are 6, 5 and 5.
    for (int64_t block = 0, row = 0; block < blocks; ++block) {
      const int64_t rows = (m - row + blocks - block - 1) / (blocks - block);
      S::run(rows, k, a + row * a_row, a_row, b, from + row * from_row + column, from_row, bias ? bias + column : bias,
             to + row * to_row + column, to_row, n - column);
      row += rows;
    }
  }
}

// The operations and their order are those that core/ops/rnn.cpp breaks the cells into.
template <class T> void lstm(int64_t width, T* gates, const T* cell, T* hidden, T* next_cell) {
  T *input = gates, *forget = gates + width, *candidate = gates + 2 * width, *output = gates + 3 * width;
  TANDEM_SIMD
  for (int64_t j = 0; j < width; ++j) {
    const T i = td_sigmoid(input[j]), f = td_sigmoid(forget[j]), g = td_tanh(candidate[j]), o = td_sigmoid(output[j]);
    const T c = f * cell[j] + i * g;
    next_cell[j] = c;
    hidden[j] = o * td_tanh(c);
    input[j] = i, forget[j] = f, candidate[j] = g, output[j] = o;
  }
}

template <class T>
void lstm_grad(int64_t width, const T* gates, const T* cell, const T* next_cell, const T* d_hidden, T* d_cell,
               T* d_gates) {
  const T *input = gates, *forget = gates + width, *candidate = gates + 2 * width, *output = gates + 3 * width;
  T *d_input = d_gates, *d_forget = d_gates + width, *d_candidate = d_gates + 2 * width,
    *d_output = d_gates + 3 * width;
  TANDEM_SIMD
  for (int64_t j = 0; j < width; ++j) {
    const T i = input[j], f = forget[j], g = candidate[j], o = output[j], dh = d_hidden[j];
    const T bent = td_tanh(next_cell[j]);
    const T dc = d_cell[j] + dh * o * ((T)1 - bent * bent);
    d_input[j] = dc * g * i * ((T)1 - i);
    d_forget[j] = dc * cell[j] * f * ((T)1 - f);
    d_candidate[j] = dc * i * ((T)1 - g * g);
    d_output[j] = dh * bent * o * ((T)1 - o);
    d_cell[j] = dc * f;
  }
}

template <class T> void gru(int64_t width, const T* x, const T* h, const T* hidden, T* next, T* kept) {
  if (kept) {
    T *keep_r = kept, *keep_z = kept + width, *keep_n = kept + 2 * width, *keep_product = kept + 3 * width;
    TANDEM_SIMD
    for (int64_t j = 0; j < width; ++j) {
      const T r = td_sigmoid(x[j] + h[j]), z = td_sigmoid(x[width + j] + h[width + j]), product = h[2 * width + j];
      const T n = td_tanh(x[2 * width + j] + r * product);
      next[j] = n + z * (hidden[j] - n);
      keep_r[j] = r, keep_z[j] = z, keep_n[j] = n, keep_product[j] = product;
    }
    return;
  }
  TANDEM_SIMD
  for (int64_t j = 0; j < width; ++j) {
    const T r = td_sigmoid(x[j] + h[j]), z = td_sigmoid(x[width + j] + h[width + j]);
    const T n = td_tanh(x[2 * width + j] + r * h[2 * width + j]);
    next[j] = n + z * (hidden[j] - n);
  }
}

template <class T> void gru_grad(int64_t width, const T* kept, const T* hidden, T* d_hidden, T* d_x, T* d_h) {
  TANDEM_SIMD
  for (int64_t j = 0; j < width; ++j) {
    const T r = kept[j], z = kept[width + j], n = kept[2 * width + j], product = kept[3 * width + j], dh = d_hidden[j];
    const T d_new = (dh - dh * z) * ((T)1 - n * n);
    const T d_reset = d_new * product * r * ((T)1 - r);
    const T d_update = dh * (hidden[j] - n) * z * ((T)1 - z);
    d_x[j] = d_reset, d_x[width + j] = d_update, d_x[2 * width + j] = d_new;
    d_h[j] = d_reset, d_h[width + j] = d_update, d_h[2 * width + j] = d_new * r;
    d_hidden[j] = dh * z;
  }
}

template <class T> void bend(int64_t n, T* x) {
  TANDEM_SIMD
  for (int64_t j = 0; j < n; ++j) x[j] = td_tanh(x[j]);
}
template <class T> void rectify(int64_t n, T* x) {
  TANDEM_SIMD
  for (int64_t j = 0; j < n; ++j) x[j] = td_relu(x[j]);
}
template <class T> void bend_grad(int64_t n, const T* y, T* d) {
  TANDEM_SIMD
  for (int64_t j = 0; j < n; ++j) d[j] = d[j] * ((T)1 - y[j] * y[j]);
}
template <class T> void rectify_grad(int64_t n, const T* y, T* d) {
  TANDEM_SIMD
  for (int64_t j = 0; j < n; ++j) d[j] = y[j] <= (T)0 ? (T)0 : d[j];  // as relu_grad
}

template <class T>
constexpr RecurrentLoops<T> kRecurrent = {pack<T>,     product<T>, lstm<T>,    lstm_grad<T>, gru<T>,
                                          gru_grad<T>, bend<T>,    rectify<T>, bend_grad<T>, rectify_grad<T>};

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
const RecurrentLoops<float> recurrent_f32 = kRecurrent<float>;
const RecurrentLoops<double> recurrent_f64 = kRecurrent<double>;
}  // namespace tandem::TANDEM_ISA
