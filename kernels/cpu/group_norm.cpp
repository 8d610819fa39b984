// Group normalisation: image by image, channels-last (rows of all channels) or in planes. An image's totals are taken and
// used while it is in the cache; the images go to the threads.
#include <algorithm>

#include "core/scalar/math.h"
#include "kernels/cpu/support/channels.h"

namespace tandem {

namespace {

struct Groups {
  int64_t batch, channels, plane, groups, members;  ///< members: channels of a group
  bool in_rows;

  Groups(const TensorImpl& x, const Attributes& attributes)
      : batch(x.shape[0]), channels(x.shape[1]), plane(1), groups(attributes.integer("groups")) {
    for (int d = 2; d < x.shape.size(); ++d) plane *= x.shape[d];
    members = channels / groups;
    in_rows = plane == 1 || is_channels_last(x);
  }
  int64_t image() const { return channels * plane; }
  double elements() const { return static_cast<double>(members * plane); }
  template <class F> void each_image(F&& f) const {
    parallel_for(batch, std::max<int64_t>(1, kPointwiseGrain / std::max<int64_t>(image(), 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t n = begin; n < end; ++n) f(n);
                 });
  }
};

template <class T> void group_norm(KernelContext& op) {
  const TensorImpl& out = op.out(0);
  const Groups c(out, op.attributes);
  const WideOutput<T> mean(op.out(1)), variance(op.out(2));
  if (out.shape.numel() == 0) {
    std::fill_n(mean.data(), c.batch * c.groups, T(0));
    std::fill_n(variance.data(), c.batch * c.groups, T(0));
    return;
  }
  const auto& loop = channel_loops<T>();
  const LaidInput<T> x(op.in(0), c.in_rows);
  const WideInput<T> weight(op.in(1)), bias(op.in(2));
  const LaidOutput<T> y(out, c.in_rows);
  const T epsilon = static_cast<T>(op.attributes.number("epsilon"));
  const ChannelNumbers<double> totals(c.batch * 2 * c.channels);
  const ChannelNumbers<T> numbers(c.batch * 2 * c.channels);
  c.each_image([&](int64_t n) {
    const T* const from = x.data() + n * c.image();
    T* const to = y.data() + n * c.image();
    double *const means = totals.data() + n * 2 * c.channels, *const squares = means + c.channels;
    T *const centre = numbers.data() + n * 2 * c.channels, *const scale = centre + c.channels;
    if (c.in_rows) loop.statistics_rows(c.plane, c.channels, from, means, squares);
    else
      for (int64_t j = 0; j < c.channels; ++j)
        loop.statistics_plane(c.plane, from + j * c.plane, means + j, squares + j);
    for (int64_t group = 0; group < c.groups; ++group) {
      const int64_t first = group * c.members, end = first + c.members;
      double m = 0, total = 0;
      for (int64_t j = first; j < end; ++j) m += means[j];
      m /= static_cast<double>(c.members);
      for (int64_t j = first; j < end; ++j)
        total += squares[j] + (means[j] - m) * (means[j] - m) * static_cast<double>(c.plane);
      mean.data()[n * c.groups + group] = static_cast<T>(m);
      const T v = variance.data()[n * c.groups + group] = static_cast<T>(total / c.elements());
      for (int64_t j = first; j < end; ++j)
        centre[j] = static_cast<T>(m), scale[j] = td_rsqrt(v + epsilon) * weight.data()[j];
    }
    if (c.in_rows) loop.apply_rows(c.plane, c.channels, from, centre, scale, bias.data(), to);
    else
      for (int64_t j = 0; j < c.channels; ++j)
        loop.apply_plane(c.plane, from + j * c.plane, centre[j], scale[j], bias.data()[j], to + j * c.plane);
  });
  y.write_back(out);
}

// With n = (x - mean) rstd: dx = rstd (g w - mean(g w) - n mean(g w n)), dw = sum(g n), db = sum(g).
template <class T> void group_norm_grad(KernelContext& op) {
  const TensorImpl& out = op.out(0);
  const Groups c(out, op.attributes);
  const WideOutput<T> dw(op.out(1)), db(op.out(2));
  if (out.shape.numel() == 0) {
    std::fill_n(dw.data(), c.channels, T(0));
    std::fill_n(db.data(), c.channels, T(0));
    return dw.finish(), db.finish();
  }
  const auto& loop = channel_loops<T>();
  const LaidInput<T> g(op.in(0), c.in_rows), x(op.in(1), c.in_rows);
  const WideInput<T> weight(op.in(2)), mean(op.in(3)), variance(op.in(4));
  const LaidOutput<T> dx(out, c.in_rows);
  const T epsilon = static_cast<T>(op.attributes.number("epsilon"));
  const ChannelNumbers<double> totals(c.batch * 2 * c.channels);  // sums of g and of g n, image by image
  const ChannelNumbers<T> numbers(c.batch * 4 * c.channels);
  c.each_image([&](int64_t n) {
    const T *const gs = g.data() + n * c.image(), *const xs = x.data() + n * c.image();
    T* const to = dx.data() + n * c.image();
    double *const g_sum = totals.data() + n * 2 * c.channels, *const gx_sum = g_sum + c.channels;
    T *const centre = numbers.data() + n * 4 * c.channels, *const scale = centre + c.channels,
             *const shift = scale + c.channels, *const slope = shift + c.channels;
    for (int64_t j = 0; j < c.channels; ++j) centre[j] = mean.data()[n * c.groups + j / c.members];
    if (c.in_rows) loop.grad_sums_rows(c.plane, c.channels, gs, xs, centre, g_sum, gx_sum);
    else
      for (int64_t j = 0; j < c.channels; ++j)
        loop.grad_sums_plane(c.plane, gs + j * c.plane, xs + j * c.plane, centre[j], g_sum + j, gx_sum + j);
    for (int64_t group = 0; group < c.groups; ++group) {
      const int64_t first = group * c.members, end = first + c.members;
      const T rstd = td_rsqrt(variance.data()[n * c.groups + group] + epsilon);
      double h = 0, hx = 0;
      for (int64_t j = first; j < end; ++j) h += g_sum[j] * weight.data()[j], hx += gx_sum[j] * weight.data()[j];
      for (int64_t j = first; j < end; ++j) {
        scale[j] = rstd * weight.data()[j];
        shift[j] = static_cast<T>(h / c.elements() * rstd);
        slope[j] = static_cast<T>(hx / c.elements() * rstd * rstd * rstd);
        gx_sum[j] *= rstd;
      }
    }
    if (c.in_rows) loop.grad_rows(c.plane, c.channels, gs, xs, centre, scale, shift, slope, to);
    else
      for (int64_t j = 0; j < c.channels; ++j)
        loop.grad_plane(c.plane, gs + j * c.plane, xs + j * c.plane, centre[j], scale[j], shift[j], slope[j],
                        to + j * c.plane);
  });
  for (int64_t j = 0; j < c.channels; ++j) {
    double g_sum = 0, gn_sum = 0;
    for (int64_t n = 0; n < c.batch; ++n) {
      g_sum += totals[n * 2 * c.channels + j];
      gn_sum += totals[(n * 2 + 1) * c.channels + j];
    }
    dw.data()[j] = static_cast<T>(gn_sum);
    db.data()[j] = static_cast<T>(g_sum);
  }
  dx.write_back(out), dw.finish(), db.finish();
}

}  // namespace

void add_cpu_group_norm(Kernels kernels) {
  kernels["group_norm"] = TANDEM_WIDE_KERNEL(group_norm);
  kernels["group_norm_grad"] = TANDEM_WIDE_KERNEL(group_norm_grad);
}

}  // namespace tandem
