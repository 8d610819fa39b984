// The loops of attention: small products whose operands lie in the first two caches, and rows of scores.
#include "kernels/cpu/vector/fold.h"
#include "kernels/cpu/vector/registers.h"

TANDEM_BEGIN_VECTOR

/// rows x (registers of) columns of c. A value of a is read where it lies and spread over a register, so a needs no
/// packing, whichever way it is turned.
template <class T, int64_t rows, int64_t columns>
TANDEM_INLINE void product_tile(int64_t k, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_row, T* c,
                                int64_t c_row, bool accumulate) {
  using R = Registers<T>;
  using V = typename R::V;
  V sums[rows][columns];
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      if (accumulate) memcpy(&sums[i][j], c + i * c_row + j * R::lanes, sizeof(V));
      else sums[i][j] = R::spread((T)0);
    }
  for (int64_t p = 0; p < k; ++p) {
    V right[columns];
#pragma GCC unroll 2
    for (int64_t j = 0; j < columns; ++j) memcpy(&right[j], b + p * b_row + j * R::lanes, sizeof(V));
#pragma GCC unroll 12
    for (int64_t i = 0; i < rows; ++i) {
      const V each = R::spread(a[i * a_row + p * a_column]);
#pragma GCC unroll 2
      for (int64_t j = 0; j < columns; ++j) sums[i][j] = R::multiply_add(each, right[j], sums[i][j]);
    }
  }
#pragma GCC unroll 12
  for (int64_t i = 0; i < rows; ++i)
#pragma GCC unroll 2
    for (int64_t j = 0; j < columns; ++j) memcpy(c + i * c_row + j * R::lanes, &sums[i][j], sizeof(V));
}

template <class T, int64_t rows>
__attribute__((noinline)) void product_rows(int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_column,
                                            const T* b, int64_t b_row, T* c, int64_t c_row, bool accumulate) {
  constexpr int64_t lanes = Registers<T>::lanes;
  int64_t j = 0;
  for (; j + 2 * lanes <= n; j += 2 * lanes)
    product_tile<T, rows, 2>(k, a, a_row, a_column, b + j, b_row, c + j, c_row, accumulate);
  for (; j < n; j += lanes) product_tile<T, rows, 1>(k, a, a_row, a_column, b + j, b_row, c + j, c_row, accumulate);
}

template <class T>
void product(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_row,
             T* c, int64_t c_row, bool accumulate) {
  constexpr int64_t height = Registers<T>::height;
  int64_t i = 0;
  const auto rows = [&](auto kernel, int64_t count) {
    kernel(n, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, accumulate);
    i += count;
  };
  while (i + height <= m) rows(product_rows<T, height>, height);
  if constexpr (height > 8)
    while (i + 8 <= m) rows(product_rows<T, 8>, 8);
  if constexpr (height > 4)
    while (i + 4 <= m) rows(product_rows<T, 4>, 4);
  while (i < m) rows(product_rows<T, 1>, 1);
}

constexpr int64_t kSide = 64;  // elements folded side by side

/// scale s + bias, in place, and the greatest of all. NaN is left to show up in the sum that follows.
template <class T> T scaled(int64_t n, T* s, T scale, const T* bias, T before) {
  T running[kSide];
  for (int64_t j = 0; j < kSide; ++j) running[j] = before;
  int64_t i = 0;
  for (; i + kSide <= n; i += kSide) {
    if (bias) {
      TANDEM_SIMD
      for (int64_t j = 0; j < kSide; ++j) s[i + j] = s[i + j] * scale + bias[i + j];
    } else {
      TANDEM_SIMD
      for (int64_t j = 0; j < kSide; ++j) s[i + j] = s[i + j] * scale;
    }
    TANDEM_SIMD
    for (int64_t j = 0; j < kSide; ++j) running[j] = running[j] > s[i + j] ? running[j] : s[i + j];
  }
  const int64_t rest = n - i;
  TANDEM_SIMD
  for (int64_t j = 0; j < rest; ++j) {
    s[i + j] = s[i + j] * scale + (bias ? bias[i + j] : (T)0);
    running[j] = running[j] > s[i + j] ? running[j] : s[i + j];
  }
  for (int64_t half = kSide / 2; half > 0; half /= 2)
    for (int64_t j = 0; j < half; ++j) running[j] = running[j] > running[j + half] ? running[j] : running[j + half];
  return running[0];
}

template <class T> T softmax(int64_t n, T* s, T scale, const T* bias, T before, T* sum) {
  const T greatest = scaled(n, s, scale, bias, before);
  if (greatest == -(T)TD_INF) {
    memset(s, 0, (size_t)n * sizeof(T));
    *sum = 0;
    return greatest;
  }
  T running[kSide] = {};
  int64_t i = 0;
  for (; i + kSide <= n; i += kSide) {
    TANDEM_SIMD
    for (int64_t j = 0; j < kSide; ++j) {
      s[i + j] = td_exp(s[i + j] - greatest);
      running[j] += s[i + j];
    }
  }
  const int64_t rest = n - i;
  TANDEM_SIMD
  for (int64_t j = 0; j < rest; ++j) {
    s[i + j] = td_exp(s[i + j] - greatest);
    running[j] += s[i + j];
  }
  for (int64_t half = kSide / 2; half > 0; half /= 2)
    for (int64_t j = 0; j < half; ++j) running[j] += running[j + half];
  *sum = running[0];
  return greatest;
}

template <class T> void probabilities(int64_t n, T* s, T scale, const T* bias, T log_sum_exp) {
  if (log_sum_exp == -(T)TD_INF) {
    memset(s, 0, (size_t)n * sizeof(T));
    return;
  }
  if (bias) {
    TANDEM_SIMD
    for (int64_t i = 0; i < n; ++i) s[i] = td_exp(s[i] * scale + bias[i] - log_sum_exp);
  } else {
    TANDEM_SIMD
    for (int64_t i = 0; i < n; ++i) s[i] = td_exp(s[i] * scale - log_sum_exp);
  }
}

template <class T> void score_grad(int64_t n, const T* p, T delta, T scale, T* g) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) g[i] = p[i] * (g[i] - delta) * scale;
}

template <class T> void drop(int64_t n, const float* u, float p, T scale, const T* x, T* out) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) out[i] = u[i] >= p ? x[i] * scale : (T)0;
}

template <class T> void multiply(int64_t n, T factor, T* x) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

template <class T> T dot(int64_t n, const T* x, const T* y) {
  return (T)fold_each<Sum, T, double>(n, [=](int64_t i) { return x[i] * y[i]; });
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
extern const AttentionLoops<float> attention_f32;
extern const AttentionLoops<double> attention_f64;
const AttentionLoops<float> attention_f32 = {
    product<float>, softmax<float>, probabilities<float>, score_grad<float>, drop<float>, multiply<float>, dot<float>};
const AttentionLoops<double> attention_f64 = {product<double>,    softmax<double>, probabilities<double>,
                                              score_grad<double>, drop<double>,    multiply<double>,
                                              dot<double>};
}  // namespace tandem::TANDEM_ISA
