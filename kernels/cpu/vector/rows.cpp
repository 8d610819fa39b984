// Row by row: softmax and its relatives, layer norm, cross-entropy. A row stays in the cache between passes.
#include "kernels/cpu/vector/fold.h"

TANDEM_BEGIN_VECTOR

template <class T> double sum_of(int64_t n, const T* x) { return row<Sum, T, double>(n, x); }

TANDEM_INLINE float greater_of(float a, float b) { return a > b ? a : b; }
TANDEM_INLINE double greater_of(double a, double b) { return a > b ? a : b; }
/// The greatest of whole groups of `lanes`, from x[*i] on: as many running ones, then a tree.
template <int64_t lanes, class T> TANDEM_INLINE T greatest_in_groups(int64_t n, const T* x, int64_t* i, T best) {
  if (n - *i < lanes) return best;
  T running[lanes];
  for (int64_t j = 0; j < lanes; ++j) running[j] = x[*i + j];
  for (*i += lanes; *i + lanes <= n; *i += lanes) {
    TANDEM_SIMD
    for (int64_t j = 0; j < lanes; ++j) running[j] = greater_of(running[j], x[*i + j]);
  }
#pragma GCC unroll 8
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    TANDEM_SIMD
    for (int64_t j = 0; j < half; ++j) running[j] = greater_of(running[j], running[j + half]);
  }
  return greater_of(best, running[0]);
}
/// The greatest, leaving NaN to show up in the sum that follows.
template <class T> T greatest_of(int64_t n, const T* x) {
  int64_t i = 0;
  T best = greatest_in_groups<64>(n, x, &i, x[0]);
  best = greatest_in_groups<16>(n, x, &i, best);
  for (; i < n; ++i) best = greater_of(best, x[i]);
  return best;
}

template <class T> T natural_log(T x) { return td_log(x); }

// Softmax shifted by the greatest, so that exp doesn't overflow. A row of -inf gives NaN, as in PyTorch.
template <class T> void softmax(int64_t n, const T* x, T* out) {
  if (n == 0) return;
  const T greatest = greatest_of(n, x);
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) out[i] = td_exp(x[i] - greatest);
  const T total = (T)sum_of(n, out);
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) out[i] /= total;
}

/// log sum exp, by way of exp(x - greatest) in 256-element pieces.
template <class T> T log_sum_exp(int64_t n, const T* x, T* greatest) {
  *greatest = greatest_of(n, x);
  double total = 0;
  T piece[256];
  for (int64_t at = 0; at < n; at += 256) {
    const int64_t count = least(256, n - at);
    TANDEM_SIMD
    for (int64_t i = 0; i < count; ++i) piece[i] = td_exp(x[at + i] - *greatest);
    total += sum_of(count, piece);
  }
  return natural_log((T)total);
}

template <class T> void log_softmax(int64_t n, const T* x, T* out) {
  if (n == 0) return;
  T greatest;
  const T log_sum = log_sum_exp(n, x, &greatest);
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - greatest) - log_sum;
}

template <class T> void softmax_grad(int64_t n, const T* g, const T* y, T* out) {
  const T dot = (T)fold_each<Sum, T, double>(n, [=](int64_t i) { return g[i] * y[i]; });
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) out[i] = y[i] * (g[i] - dot);
}

template <class T> void log_softmax_grad(int64_t n, const T* g, const T* y, T* out) {
  const T total = (T)sum_of(n, g);
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) out[i] = g[i] - td_exp(y[i]) * total;
}

template <class T> T whole_log_sum_exp(int64_t n, const T* x) {
  T greatest;
  const T log_sum = log_sum_exp(n, x, &greatest);
  return log_sum + greatest;
}

template <class T> void softmax_minus(int64_t n, const T* x, T log_sum_exp, int64_t label, T scale, T* out) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) out[i] = td_exp(x[i] - log_sum_exp) * scale;
  out[label] = (td_exp(x[label] - log_sum_exp) - (T)1) * scale;
}

// Ba, Kiros, Hinton 2016. The variance is that of the deviations, in a second pass, not E x^2 - (E x)^2.
template <class T>
void layer_norm(int64_t n, const T* x, const T* weight, const T* bias, double epsilon, T* y, T* mean, T* rstd) {
  const T m = (T)sum_of(n, x) / (T)n;
  const T variance = (T)fold_each<Sum, T, double>(n, [=](int64_t i) { return (x[i] - m) * (x[i] - m); }) / (T)n;
  const T r = td_rsqrt(variance + (T)epsilon);
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - m) * r * weight[i] + bias[i];
  *mean = m;
  *rstd = r;
}

/// Sums of get(i) and other(i).
template <class Get, class Other>
TANDEM_INLINE void two_sums(int64_t n, float, Get get, Other other, double* first, double* second) {
  *first = sum_both(n, get, other, second);
}
template <class Get, class Other>
TANDEM_INLINE void two_sums(int64_t n, double, Get get, Other other, double* first, double* second) {
  *first = fold_each<Sum, double, double>(n, get);
  *second = fold_each<Sum, double, double>(n, other);
}

// With n = (x - mean) rstd and h = g w: dx = rstd (h - mean(h) - n mean(h n)); dw and db are added to. Two rows pass
// together, so that dw and db are read and written once for both; four would be more lines of a width of 1024 than
// a set of the first cache holds.
template <int64_t rows, class T>
void layer_norm_grad_rows(int64_t n, const T* g, const T* x, const T* weight, const T* mean, const T* rstd, T* dx,
                          T* dw, T* db) {
  T h_mean[rows], hn_mean[rows];
  for (int64_t r = 0; r < rows; ++r) {
    const T *gr = g + r * n, *xr = x + r * n;
    const T m = mean[r], s = rstd[r];
    double h, hn;
    two_sums(
        n, T(0), [=](int64_t i) { return gr[i] * weight[i]; },
        [=](int64_t i) { return gr[i] * weight[i] * ((xr[i] - m) * s); }, &h, &hn);
    h_mean[r] = (T)(h / (double)n);
    hn_mean[r] = (T)(hn / (double)n);
  }
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) {
    T w_sum = dw[i], b_sum = db[i];
#pragma GCC unroll 2
    for (int64_t r = 0; r < rows; ++r) {
      const T normal = (x[r * n + i] - mean[r]) * rstd[r], gi = g[r * n + i];
      dx[r * n + i] = rstd[r] * (gi * weight[i] - h_mean[r] - normal * hn_mean[r]);
      w_sum += gi * normal;
      b_sum += gi;
    }
    dw[i] = w_sum;
    db[i] = b_sum;
  }
}
template <class T>
void layer_norm_grad(int64_t rows, int64_t n, const T* g, const T* x, const T* weight, const T* mean, const T* rstd,
                     T* dx, T* dw, T* db) {
  int64_t r = 0;
  for (; r + 2 <= rows; r += 2)
    layer_norm_grad_rows<2>(n, g + r * n, x + r * n, weight, mean + r, rstd + r, dx + r * n, dw, db);
  for (; r < rows; ++r)
    layer_norm_grad_rows<1>(n, g + r * n, x + r * n, weight, mean + r, rstd + r, dx + r * n, dw, db);
}

// Zhang & Sennrich 2019 (arXiv:1910.07467): y = x / sqrt(mean(x^2) + epsilon) * weight.
template <class T> void rms_norm(int64_t n, const T* x, const T* weight, double epsilon, T* y, T* rstd) {
  const T mean = (T)fold_each<Sum, T, double>(n, [=](int64_t i) { return x[i] * x[i]; }) / (T)n;
  const T r = td_rsqrt(mean + (T)epsilon);
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * r * weight[i];
  *rstd = r;
}

// With n = x rstd and h = g w: dx = rstd (h - n mean(h n)); dw is added to.
template <class T> void rms_norm_grad(int64_t n, const T* g, const T* x, const T* weight, T rstd, T* dx, T* dw) {
  const T hn_mean =
      (T)(fold_each<Sum, T, double>(n, [=](int64_t i) { return g[i] * weight[i] * (x[i] * rstd); }) / (double)n);
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) {
    const T normal = x[i] * rstd;
    dx[i] = rstd * (g[i] * weight[i] - normal * hn_mean);
    dw[i] += g[i] * normal;
  }
}

template <class T>
constexpr RowLoops<T> kRows = {softmax<T>,           log_softmax<T>,   softmax_grad<T>, log_softmax_grad<T>,
                               whole_log_sum_exp<T>, softmax_minus<T>, layer_norm<T>,   layer_norm_grad<T>,
                               rms_norm<T>,          rms_norm_grad<T>};

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
const RowLoops<float>* rows_f32() { return &kRows<float>; }
const RowLoops<double>* rows_f64() { return &kRows<double>; }
}  // namespace tandem::TANDEM_ISA
