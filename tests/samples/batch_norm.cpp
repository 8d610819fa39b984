// Samples of batch normalisation, its parts and its gradient.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

constexpr double kEpsilon = 1e-5;

int64_t channel_of(int64_t position, const Shape& x) { return unravel(position, x)[1]; }

/// Of each channel: count, mean, biased variance, greatest size of an element.
struct Statistics {
  std::vector<double> mean, variance, largest;
  double n = 0;

  explicit Statistics(const Numbers& x) {
    const auto channels = static_cast<size_t>(x.shape[1]);
    std::vector<Real> sums(channels), squares(channels);
    mean.resize(channels), variance.resize(channels), largest.resize(channels);
    n = channels ? static_cast<double>(x.numel()) / static_cast<double>(channels) : 0;
    if (n == 0) return;
    const auto at = [&](int64_t i) { return static_cast<size_t>(channel_of(i, x.shape)); };
    for (int64_t i = 0; i < x.numel(); ++i) {
      sums[at(i)] += x[i];
      largest[at(i)] = std::max(largest[at(i)], std::fabs(x[i]));
    }
    for (int64_t i = 0; i < x.numel(); ++i) {
      const Real off = x[i] - sums[at(i)] / static_cast<Real>(n);
      squares[at(i)] += off * off;
    }
    for (size_t c = 0; c < channels; ++c) {
      mean[c] = static_cast<double>(sums[c] / static_cast<Real>(n));
      variance[c] = static_cast<double>(squares[c] / static_cast<Real>(n));
    }
  }
};

NumberLists statistics(const NumberLists& in) {
  const Statistics s(in[0]);
  const DType wide = in[0].dtype == float64 ? float64 : float32;
  Numbers mean({in[0].shape[1]}, wide), variance({in[0].shape[1]}, wide);
  mean.values = s.mean, variance.values = s.variance;
  mean.scale = s.largest;
  for (size_t c = 0; c < s.mean.size(); ++c)
    variance.scale.push_back(s.variance[c] + std::sqrt(s.variance[c]) * s.largest[c]);
  return {mean, variance};
}

Numbers apply(const Numbers& x, const Numbers& w, const Numbers& b, const Numbers& mean, const Numbers& variance) {
  Numbers y(x.shape, x.dtype);
  y.make_scale();
  for (int64_t i = 0; i < x.numel(); ++i) {
    const int64_t c = channel_of(i, x.shape);
    const double scale = w[c] / std::sqrt(variance[c] + kEpsilon);
    y[i] = (x[i] - mean[c]) * scale + b[c];
    y.scale[static_cast<size_t>(i)] = (std::fabs(x[i]) + std::fabs(mean[c])) * std::fabs(scale) + std::fabs(b[c]);
  }
  return y;
}

NumberLists forward(const NumberLists& in) {
  const NumberLists s = statistics(in);
  return {apply(in[0], in[1], in[2], s[0], s[1]), s[0], s[1]};
}

/// From g, x and w: the gradients of x, w and b.
NumberLists backward(const NumberLists& in) {
  const Numbers &g = in[0], &x = in[1], &w = in[2];
  const Statistics s(x);
  Numbers dx(x.shape, x.dtype), dw(w.shape, w.dtype), db(w.shape, w.dtype);
  dx.make_scale(), dw.make_scale(), db.make_scale();
  const auto normal = [&](int64_t i, size_t c) { return (x[i] - s.mean[c]) / std::sqrt(s.variance[c] + kEpsilon); };
  std::vector<Real> g_sums(s.mean.size()), gn_sums(s.mean.size());
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto c = static_cast<size_t>(channel_of(i, x.shape));
    gn_sums[c] += g[i] * Real(normal(i, c));
    dw.scale[c] += std::fabs(g[i]) * (1 + std::fabs(normal(i, c)));
    g_sums[c] += g[i];
    db.scale[c] += std::fabs(g[i]);
  }
  for (size_t c = 0; c < s.mean.size(); ++c) {
    dw.values[c] = static_cast<double>(gn_sums[c]);
    db.values[c] = static_cast<double>(g_sums[c]);
  }
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto c = static_cast<size_t>(channel_of(i, x.shape));
    const double scale = w.values[c] / std::sqrt(s.variance[c] + kEpsilon);
    dx[i] = scale * (g[i] - db.values[c] / s.n - normal(i, c) * dw.values[c] / s.n);
    dx.scale[static_cast<size_t>(i)] =
        std::fabs(scale) * (std::fabs(g[i]) + db.scale[c] / s.n + (1 + std::fabs(normal(i, c))) * dw.scale[c] / s.n);
  }
  return {dx, dw, db};
}

void add(Samples& samples, const Shape& x, bool large) {
  const Shape numbers{x[1]};
  const Gradients gradients = large ? Gradients::none : Gradients::second;
  const Attributes attributes{{"epsilon", kEpsilon}};
  const Operand data{x, spread(-2, 3), {}, true, false, false}, w{numbers, spread(0.5, 1.5, 1)},
      b{numbers, spread(-1, 1, 2)};
  const auto push = [&](const char* op, std::vector<Operand> operands, Call call, Reference reference) {
    samples.push_back({.op = op,
                       .label = to_string(x),
                       .operands = std::move(operands),
                       .dtypes = kFloats,
                       .call = std::move(call),
                       .reference = std::move(reference),
                       .ulps = 16,
                       .gradients = gradients,
                       .agreement = Agreement::close,
                       .large = large});
  };
  push("batch_norm", {data, w, b}, call_op("batch_norm", attributes), forward);
  push("batch_norm_statistics", {data}, call_op("batch_norm_statistics"), statistics);
  push(
      "batch_norm_apply", {data, w, b, {numbers, spread(-1, 1, 3)}, {numbers, spread(0.5, 2, 4)}},
      [](const Tensors& in) { return Tensors{batch_norm(in[0], in[3], in[4], in[1], in[2], {.epsilon = kEpsilon})}; },
      [](const NumberLists& in) { return NumberLists{apply(in[0], in[1], in[2], in[3], in[4])}; });
  // The gradient's own rule takes mean and variance as functions of x: they are made from x here.
  push(
      "batch_norm_grad", {{x, spread(-2, 2, 3)}, data, w},
      [attributes](const Tensors& in) {
        const Tensors made = call_op("batch_norm_statistics")({in[1]});
        return call_op("batch_norm_grad", attributes)({in[0], in[1], in[2], made[0], made[1]});
      },
      backward);
}

}  // namespace

void add_batch_norm_samples(Samples& samples) {
  for (const Shape& x :
       {Shape{4, 3}, {2, 2, 5}, {2, 2, 2, 3}, {3, 1, 2, 2}, {5, 17}, {0, 3}, {2, 3, 0, 2}, {2, 3, 2, 1, 2}})
    add(samples, x, false);
  for (const Shape& x : {Shape{3000, 5}, {5, 19, 33, 41}, {3, 600, 5, 7}, {2, 3, 1500}, {4, 64, 40, 40}})
    add(samples, x, true);
  samples.push_back(
      {.op = "batch_norm",
       .label = "far from zero",
       .operands = {{{40, 3, 2, 2}, spread(1000, 1001)}, {{3}, spread(0.5, 1.5, 1)}, {{3}, spread(-1, 1, 2)}},
       .dtypes = {float32, float64},
       .call = call_op("batch_norm", {{"epsilon", kEpsilon}}),
       .reference = forward,
       .ulps = 16,
       .agreement = Agreement::close});
}

}  // namespace tandem::samples
