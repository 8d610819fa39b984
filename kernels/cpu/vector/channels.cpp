// The loops of batch and group normalisation over channels: rows of all channels at a time, lanes being channels; or planes of one.
//
// Few channels leave lanes empty, so several of their rows count as one ("side" of them lie side by side), with the
// channels' numbers repeated. Rows are summed in T over blocks that stay in the first cache, and blocks in double.
#include "kernels/cpu/vector/fold.h"

TANDEM_BEGIN_VECTOR

constexpr int64_t kStrip = 512;   // channels at a time
constexpr int64_t kBlock = 4096;  // elements whose sums are taken in T
constexpr int64_t kNarrow = 16;   // fewer channels lie side by side

struct Sides {
  int64_t side, width;
  explicit Sides(int64_t channels)
      : side(channels < kNarrow ? (2 * kNarrow - 1) / channels + 1 : 1), width(side * channels) {}
};

template <class T, class From> TANDEM_INLINE void repeat(const Sides& s, int64_t channels, const From* from, T* to) {
  for (int64_t k = 0; k < s.side; ++k)
    for (int64_t j = 0; j < channels; ++j) to[k * channels + j] = (T)from[j];
}
/// total[j] = the sum of what stands for channel j.
template <class T> TANDEM_INLINE void gather_sides(const Sides& s, int64_t channels, const T* sums, double* total) {
  for (int64_t j = 0; j < channels; ++j) total[j] = (double)sums[j];
  for (int64_t k = 1; k < s.side; ++k)
    for (int64_t j = 0; j < channels; ++j) total[j] += (double)sums[k * channels + j];
}

template <class T> TANDEM_INLINE void clear(int64_t n, T* x) {
  for (int64_t j = 0; j < n; ++j) x[j] = (T)0;
}

/// sums[j] += f(i, j) over the rows, four of them as a tree.
template <class T, class F> TANDEM_INLINE void add_rows(int64_t rows, int64_t width, T* sums, F f) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    TANDEM_SIMD
    for (int64_t j = 0; j < width; ++j) sums[j] += (f(r, j) + f(r + 1, j)) + (f(r + 2, j) + f(r + 3, j));
  }
  for (; r < rows; ++r) {
    TANDEM_SIMD
    for (int64_t j = 0; j < width; ++j) sums[j] += f(r, j);
  }
}

// The mean of a block, then the deviations from it (it is still in the first cache), then both joined with what came
// before (Chan, Golub, LeVeque 1979, eq. 2.1): no E x^2 - (E x)^2, and x is read from memory once.
template <class T>
void statistics_strip(int64_t rows, int64_t channels, int64_t stride, const T* x, double* mean, double* squares) {
  const Sides s(stride == channels ? channels : kNarrow);
  T sums[kStrip], centre[kStrip];
  double block_mean[kStrip], block_squares[kStrip];
  const int64_t width = s.side == 1 ? channels : s.width;
  const int64_t block = most(8 * s.side, kBlock / channels / s.side * s.side);
  clear(channels, mean), clear(channels, squares);
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t count = least(block, rows - begin), groups = count / s.side, rest = count - groups * s.side;
    const T *from = x + begin * stride, *tail = from + groups * s.side * stride;
    const int64_t step = s.side * stride;
    clear(width, sums);
    add_rows(groups, width, sums, [=](int64_t i, int64_t j) { return from[i * step + j]; });
    add_rows(rest, channels, sums, [=](int64_t i, int64_t j) { return tail[i * stride + j]; });
    gather_sides(s, channels, sums, block_mean);
    for (int64_t j = 0; j < channels; ++j) block_mean[j] /= (double)count;
    repeat(s, channels, block_mean, centre);
    clear(width, sums);
    const auto squared = [](T d) { return d * d; };
    add_rows(groups, width, sums,
             [=, &centre](int64_t i, int64_t j) { return squared(from[i * step + j] - centre[j]); });
    add_rows(rest, channels, sums,
             [=, &centre](int64_t i, int64_t j) { return squared(tail[i * stride + j] - centre[j]); });
    gather_sides(s, channels, sums, block_squares);
    const double share = (double)count / (double)(begin + count), weight = (double)begin * share, n = (double)count;
    TANDEM_SIMD
    for (int64_t j = 0; j < channels; ++j) {
      const double off = block_mean[j] - (double)centre[j], delta = block_mean[j] - mean[j];
      squares[j] += block_squares[j] - n * off * off + delta * delta * weight;
      mean[j] += delta * share;
    }
  }
}

template <class T> void statistics_rows(int64_t rows, int64_t channels, const T* x, double* mean, double* squares) {
  for (int64_t at = 0; at < channels; at += kStrip)
    statistics_strip(rows, least(kStrip, channels - at), channels, x + at, mean + at, squares + at);
}

template <class T> void statistics_plane(int64_t n, const T* x, double* mean, double* squares) {
  const double m = row<Sum, T, double>(n, x) / (double)n, off = m - (double)(T)m;
  const T centre = (T)m;
  *mean = m;
  *squares = fold_each<Sum, T, double>(n, [=](int64_t i) { return (x[i] - centre) * (x[i] - centre); }) -
             (double)n * off * off;
}

template <class T>
void grad_sums_strip(int64_t rows, int64_t channels, int64_t stride, const T* g, const T* x, const T* mean,
                     double* g_sum, double* gx_sum) {
  const Sides s(stride == channels ? channels : kNarrow);
  T g_part[kStrip], gx_part[kStrip], centre[kStrip];
  double part[kStrip];
  const int64_t width = s.side == 1 ? channels : s.width, step = s.side * stride;
  const int64_t block = most(8 * s.side, kBlock / channels / s.side * s.side);
  repeat(s, channels, mean, centre);
  clear(channels, g_sum), clear(channels, gx_sum);
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t count = least(block, rows - begin), groups = count / s.side, rest = count - groups * s.side;
    const auto add = [&](int64_t many, int64_t wide, int64_t pitch, const T* gs, const T* xs) {
      int64_t r = 0;
      for (; r + 2 <= many; r += 2, gs += 2 * pitch, xs += 2 * pitch) {
        TANDEM_SIMD
        for (int64_t j = 0; j < wide; ++j) {
          const T g0 = gs[j], g1 = gs[pitch + j];
          g_part[j] += g0 + g1;
          gx_part[j] += g0 * (xs[j] - centre[j]) + g1 * (xs[pitch + j] - centre[j]);
        }
      }
      if (r == many) return;
      TANDEM_SIMD
      for (int64_t j = 0; j < wide; ++j) {
        g_part[j] += gs[j];
        gx_part[j] += gs[j] * (xs[j] - centre[j]);
      }
    };
    clear(width, g_part), clear(width, gx_part);
    add(groups, width, step, g + begin * stride, x + begin * stride);
    const int64_t tail = (begin + groups * s.side) * stride;
    add(rest, channels, stride, g + tail, x + tail);
    gather_sides(s, channels, g_part, part);
    for (int64_t j = 0; j < channels; ++j) g_sum[j] += part[j];
    gather_sides(s, channels, gx_part, part);
    for (int64_t j = 0; j < channels; ++j) gx_sum[j] += part[j];
  }
}

template <class T>
void grad_sums_rows(int64_t rows, int64_t channels, const T* g, const T* x, const T* mean, double* g_sum,
                    double* gx_sum) {
  for (int64_t at = 0; at < channels; at += kStrip)
    grad_sums_strip(rows, least(kStrip, channels - at), channels, g + at, x + at, mean + at, g_sum + at, gx_sum + at);
}

template <class T> void grad_sums_plane(int64_t n, const T* g, const T* x, T mean, double* g_sum, double* gx_sum) {
  *g_sum = row<Sum, T, double>(n, g);
  *gx_sum = fold_each<Sum, T, double>(n, [=](int64_t i) { return g[i] * (x[i] - mean); });
}

/// Calls f(rows, width, offset, the numbers of `width` lanes) for all of the rows.
template <class T, int kNumbers, class F>
TANDEM_INLINE void each_row(int64_t rows, int64_t channels, const T* const (&numbers)[kNumbers], F f) {
  const Sides s(channels);
  if (s.side == 1) return f(rows, channels, (int64_t)0, numbers);
  T wide[kNumbers][2 * kNarrow + kNarrow];
  const T* repeated[kNumbers];
  for (int k = 0; k < kNumbers; ++k) {
    repeat(s, channels, numbers[k], wide[k]);
    repeated[k] = wide[k];
  }
  const int64_t groups = rows / s.side;
  f(groups, s.width, (int64_t)0, repeated);
  f(rows - groups * s.side, channels, groups * s.width, repeated);
}

template <class T>
void apply_rows(int64_t rows, int64_t channels, const T* x, const T* mean, const T* scale, const T* bias, T* y) {
  each_row<T, 3>(rows, channels, {mean, scale, bias},
                 [=](int64_t count, int64_t width, int64_t offset, const T* const* of) {
                   const T *m = of[0], *a = of[1], *b = of[2], *from = x + offset;
                   T* to = y + offset;
                   for (int64_t r = 0; r < count; ++r, from += width, to += width) {
                     TANDEM_SIMD
                     for (int64_t j = 0; j < width; ++j) to[j] = (from[j] - m[j]) * a[j] + b[j];
                   }
                 });
}
template <class T> void apply_plane(int64_t n, const T* x, T mean, T scale, T bias, T* y) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * scale + bias;
}

template <class T>
void grad_rows(int64_t rows, int64_t channels, const T* g, const T* x, const T* mean, const T* scale, const T* shift,
               const T* slope, T* dx) {
  each_row<T, 4>(rows, channels, {mean, scale, shift, slope},
                 [=](int64_t count, int64_t width, int64_t offset, const T* const* of) {
                   const T *m = of[0], *a = of[1], *b = of[2], *c = of[3], *gs = g + offset, *xs = x + offset;
                   T* to = dx + offset;
                   for (int64_t r = 0; r < count; ++r, gs += width, xs += width, to += width) {
                     TANDEM_SIMD
                     for (int64_t j = 0; j < width; ++j) to[j] = a[j] * gs[j] - b[j] - (xs[j] - m[j]) * c[j];
                   }
                 });
}
template <class T> void grad_plane(int64_t n, const T* g, const T* x, T mean, T scale, T shift, T slope, T* dx) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) dx[i] = scale * g[i] - shift - (x[i] - mean) * slope;
}

template <class T>
constexpr ChannelLoops<T> kChannels = {statistics_rows<T>, statistics_plane<T>, apply_rows<T>, apply_plane<T>,
                                       grad_sums_rows<T>,  grad_sums_plane<T>,  grad_rows<T>,  grad_plane<T>};

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
const ChannelLoops<float>* channels_f32() { return &kChannels<float>; }
const ChannelLoops<double>* channels_f64() { return &kChannels<double>; }
}  // namespace tandem::TANDEM_ISA
