// Batch normalisation over rows of channels (channels-last, or [batch, channels]) or over planes.
//
// The elements are cut into pieces by the shape alone, and the pieces' totals are joined in order: the same bits
// whatever the number of threads.
#include <algorithm>

#include "core/scalar/math.h"
#include "kernels/cpu/support/channels.h"

namespace tandem {

namespace {

constexpr int64_t kPiece = 64 * 1024;  // elements

/// Where the elements of a channel are.
struct Channels {
  int64_t batch, channels, plane, count;  ///< count: elements of a channel
  bool in_rows;

  explicit Channels(const TensorImpl& x) : batch(x.shape[0]), channels(x.shape[1]), plane(1) {
    for (int d = 2; d < x.shape.size(); ++d) plane *= x.shape[d];
    count = batch * plane;
    in_rows = plane == 1 || is_channels_last(x);
  }
  int64_t rows_in_piece() const { return std::max<int64_t>(64, kPiece / std::max<int64_t>(channels, 1)); }
  int64_t pieces() const { return in_rows ? (count + rows_in_piece() - 1) / rows_in_piece() : batch; }

  /// Calls f(first row, rows) for rows spread over threads, or f(plane's begin, channel) for planes.
  template <class Rows, class Planes> void each(Rows&& rows, Planes&& planes) const {
    if (count == 0 || channels == 0) return;
    if (in_rows) {
      parallel_for(
          count, std::max<int64_t>(1, kPointwiseGrain / std::max<int64_t>(channels, 1)),
          [&](int64_t begin, int64_t end) { rows(begin, end - begin); }, 16);
      return;
    }
    parallel_for(batch * channels, std::max<int64_t>(1, kPointwiseGrain / plane), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) planes(i * plane, i % channels);
    });
  }
  /// Two totals of each channel in each piece, [pieces, 2, channels] at `totals`: rows(first, rows, totals), planes(begin, channel, totals).
  template <class Rows, class Planes> void each_piece(double* totals, Rows&& rows, Planes&& planes) const {
    if (count == 0 || channels == 0) return;
    if (in_rows) {
      const int64_t piece = rows_in_piece();
      parallel_for(pieces(), std::max<int64_t>(1, kPiece / std::max<int64_t>(piece * channels, 1)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t p = begin; p < end; ++p)
                       rows(p * piece, std::min(piece, count - p * piece), totals + p * 2 * channels);
                   });
      return;
    }
    parallel_for(batch * channels, std::max<int64_t>(1, kPointwiseGrain / plane), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) planes(i * plane, i % channels, totals + i / channels * 2 * channels);
    });
  }
};

template <class T> void find_statistics(const Channels& c, const T* x, T* mean, T* variance) {
  if (c.count == 0) {
    std::fill_n(mean, c.channels, T(0));
    std::fill_n(variance, c.channels, T(0));
    return;
  }
  const auto& loop = channel_loops<T>();
  const int64_t pieces = c.pieces();
  const Scratch scratch(pieces * 2 * c.channels * static_cast<int64_t>(sizeof(double)));
  double* const totals = scratch.as<double>();
  c.each_piece(
      totals,
      [&](int64_t first, int64_t rows, double* out) {
        loop.statistics_rows(rows, c.channels, x + first * c.channels, out, out + c.channels);
      },
      [&](int64_t begin, int64_t channel, double* out) {
        loop.statistics_plane(c.plane, x + begin, out + channel, out + c.channels + channel);
      });
  for (int64_t j = 0; j < c.channels; ++j) {
    double m = 0, squares = 0, before = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      const double n =
          static_cast<double>(c.in_rows ? std::min(c.rows_in_piece(), c.count - p * c.rows_in_piece()) : c.plane);
      const double* const of = totals + p * 2 * c.channels;
      const double delta = of[j] - m, share = n / (before + n);
      squares += of[c.channels + j] + delta * delta * before * share;
      m += delta * share;
      before += n;
    }
    mean[j] = static_cast<T>(m);
    variance[j] = static_cast<T>(squares / before);
  }
}

/// The reciprocal deviations times the weights, as the decomposed op computes them.
template <class T> void find_scale(int64_t channels, const T* variance, const T* weight, double epsilon, T* scale) {
  for (int64_t j = 0; j < channels; ++j) scale[j] = td_rsqrt(variance[j] + static_cast<T>(epsilon)) * weight[j];
}

template <class T> void apply(const Channels& c, const T* x, const T* mean, const T* scale, const T* bias, T* y) {
  const auto& loop = channel_loops<T>();
  c.each(
      [&](int64_t first, int64_t rows) {
        loop.apply_rows(rows, c.channels, x + first * c.channels, mean, scale, bias, y + first * c.channels);
      },
      [&](int64_t begin, int64_t channel) {
        loop.apply_plane(c.plane, x + begin, mean[channel], scale[channel], bias[channel], y + begin);
      });
}

template <class T> void batch_norm(KernelContext& op) {
  const Channels c(op.out());
  const LaidInput<T> x(op.in(0), c.in_rows);
  const WideInput<T> weight(op.in(1)), bias(op.in(2));
  const LaidOutput<T> y(op.out(0), c.in_rows);
  const WideOutput<T> mean(op.out(1)), variance(op.out(2));
  const ChannelNumbers<T> scale(c.channels);
  find_statistics(c, x.data(), mean.data(), variance.data());
  find_scale(c.channels, variance.data(), weight.data(), op.attributes.number("epsilon"), scale.data());
  apply(c, x.data(), mean.data(), scale.data(), bias.data(), y.data());
  y.write_back(op.out(0));
}

template <class T> void batch_norm_statistics(KernelContext& op) {
  const Channels c(op.in(0));
  const LaidInput<T> x(op.in(0), c.in_rows);
  const WideOutput<T> mean(op.out(0)), variance(op.out(1));
  find_statistics(c, x.data(), mean.data(), variance.data());
}

template <class T> void batch_norm_apply(KernelContext& op) {
  const Channels c(op.out());
  const LaidInput<T> x(op.in(0), c.in_rows);
  const WideInput<T> weight(op.in(1)), bias(op.in(2)), mean(op.in(3)), variance(op.in(4));
  const LaidOutput<T> y(op.out(), c.in_rows);
  const ChannelNumbers<T> scale(c.channels);
  find_scale(c.channels, variance.data(), weight.data(), op.attributes.number("epsilon"), scale.data());
  apply(c, x.data(), mean.data(), scale.data(), bias.data(), y.data());
  y.write_back(op.out());
}

// With n = (x - mean) rstd: dx = rstd w (g - mean(g) - n mean(g n)), dw = sum(g n), db = sum(g).
template <class T> void batch_norm_grad(KernelContext& op) {
  const Channels c(op.out());
  const auto& loop = channel_loops<T>();
  const LaidInput<T> g(op.in(0), c.in_rows), x(op.in(1), c.in_rows);
  const WideInput<T> weight(op.in(2)), mean(op.in(3)), variance(op.in(4));
  const LaidOutput<T> dx(op.out(0), c.in_rows);
  const WideOutput<T> dw(op.out(1)), db(op.out(2));
  const int64_t pieces = c.pieces();
  const Scratch scratch(pieces * 2 * c.channels * static_cast<int64_t>(sizeof(double)));
  double* const totals = scratch.as<double>();
  const T *const gs = g.data(), *const xs = x.data(), *const means = mean.data();
  c.each_piece(
      totals,
      [&](int64_t first, int64_t rows, double* out) {
        loop.grad_sums_rows(rows, c.channels, gs + first * c.channels, xs + first * c.channels, means, out,
                            out + c.channels);
      },
      [&](int64_t begin, int64_t channel, double* out) {
        loop.grad_sums_plane(c.plane, gs + begin, xs + begin, means[channel], out + channel,
                             out + c.channels + channel);
      });
  const ChannelNumbers<T> scale(c.channels), shift(c.channels), slope(c.channels);
  const double n = static_cast<double>(std::max<int64_t>(c.count, 1));
  const T epsilon = static_cast<T>(op.attributes.number("epsilon"));
  for (int64_t j = 0; j < c.channels; ++j) {
    double g_sum = 0, gx_sum = 0;
    for (int64_t p = 0; p < (c.count ? pieces : 0); ++p) {
      g_sum += totals[p * 2 * c.channels + j];
      gx_sum += totals[(p * 2 + 1) * c.channels + j];
    }
    const T rstd = td_rsqrt(variance.data()[j] + epsilon);
    dw.data()[j] = static_cast<T>(gx_sum * rstd);
    db.data()[j] = static_cast<T>(g_sum);
    scale[j] = rstd * weight.data()[j];
    shift[j] = static_cast<T>(g_sum / n * scale[j]);
    slope[j] = static_cast<T>(gx_sum / n * rstd * rstd * scale[j]);
  }
  c.each(
      [&](int64_t first, int64_t rows) {
        const int64_t at = first * c.channels;
        loop.grad_rows(rows, c.channels, gs + at, xs + at, means, scale.data(), shift.data(), slope.data(),
                       dx.data() + at);
      },
      [&](int64_t at, int64_t channel) {
        loop.grad_plane(c.plane, gs + at, xs + at, means[channel], scale[channel], shift[channel], slope[channel],
                        dx.data() + at);
      });
  dx.write_back(op.out(0)), dw.finish(), db.finish();
}

}  // namespace

void add_cpu_batch_norm(Kernels kernels) {
  kernels["batch_norm"] = TANDEM_WIDE_KERNEL(batch_norm);
  kernels["batch_norm_apply"] = TANDEM_WIDE_KERNEL(batch_norm_apply);
  kernels["batch_norm_grad"] = TANDEM_WIDE_KERNEL(batch_norm_grad);
  kernels["batch_norm_statistics"] = TANDEM_WIDE_KERNEL(batch_norm_statistics);
}

}  // namespace tandem
