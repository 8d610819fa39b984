// Samples of group normalisation and its gradient.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

constexpr double kEpsilon = 1e-5;

struct Group {
  double mean = 0, variance = 0, largest = 0, rstd = 0;
};

/// The elements of x, group by group: `of` says which group and which channel an element belongs to.
struct Groups {
  Shape x;
  int64_t groups;
  int64_t channel(int64_t i) const { return unravel(i, x)[1]; }
  int64_t group(int64_t i) const {
    const Shape at = unravel(i, x);
    return at[0] * groups + at[1] / (x[1] / groups);
  }
  double elements() const {
    return static_cast<double>(x.numel()) / static_cast<double>(std::max<int64_t>(x[0] * groups, 1));
  }
  std::vector<Group> statistics(const Numbers& numbers) const {
    std::vector<Group> result(static_cast<size_t>(x[0] * groups));
    std::vector<Real> sums(result.size()), squares(result.size());
    const Real n = elements();
    for (int64_t i = 0; i < numbers.numel(); ++i) {
      const auto k = static_cast<size_t>(group(i));
      sums[k] += numbers[i];
      result[k].largest = std::max(result[k].largest, std::fabs(numbers[i]));
    }
    for (int64_t i = 0; i < numbers.numel(); ++i) {
      const auto k = static_cast<size_t>(group(i));
      squares[k] += (numbers[i] - sums[k] / n) * (numbers[i] - sums[k] / n);
    }
    for (size_t k = 0; k < result.size(); ++k) {
      if (n == 0) continue;
      result[k].mean = static_cast<double>(sums[k] / n);
      result[k].variance = static_cast<double>(squares[k] / n);
      result[k].rstd = 1 / std::sqrt(result[k].variance + kEpsilon);
    }
    return result;
  }
};

NumberLists forward(const Groups& groups, const NumberLists& in) {
  const Numbers& x = in[0];
  const std::vector<Group> statistics = groups.statistics(x);
  const DType wide = x.dtype == float64 ? float64 : float32;
  Numbers y(x.shape, x.dtype), mean({x.shape[0], groups.groups}, wide), variance(mean.shape, wide);
  y.make_scale(), mean.make_scale(), variance.make_scale();
  for (size_t k = 0; k < statistics.size(); ++k) {
    const Group& s = statistics[k];
    mean.values[k] = s.mean, mean.scale[k] = s.largest;
    variance.values[k] = s.variance, variance.scale[k] = s.variance + std::sqrt(s.variance) * s.largest;
  }
  for (int64_t i = 0; i < x.numel(); ++i) {
    const Group& s = statistics[static_cast<size_t>(groups.group(i))];
    const double w = in[1][groups.channel(i)], b = in[2][groups.channel(i)];
    y[i] = (x[i] - s.mean) * s.rstd * w + b;
    y.scale[static_cast<size_t>(i)] = (std::fabs(x[i]) + s.largest) * s.rstd * std::fabs(w) + std::fabs(b);
  }
  return {y, mean, variance};
}

/// From g, x and w: the gradients of x, w and b.
NumberLists backward(const Groups& groups, const NumberLists& in) {
  const Numbers &g = in[0], &x = in[1], &w = in[2];
  const std::vector<Group> statistics = groups.statistics(x);
  struct Sums {
    Real h = 0, hn = 0;
    double size = 0;
  };
  std::vector<Sums> sums(statistics.size());
  Numbers dx(x.shape, x.dtype), dw(w.shape, w.dtype), db(w.shape, w.dtype);
  dx.make_scale(), dw.make_scale(), db.make_scale();
  const auto normal = [&](int64_t i) {
    const Group& s = statistics[static_cast<size_t>(groups.group(i))];
    return (x[i] - s.mean) * s.rstd;
  };
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto c = static_cast<size_t>(groups.channel(i));
    Sums& s = sums[static_cast<size_t>(groups.group(i))];
    const double h = g[i] * w.values[c], n = normal(i);
    s.h += h, s.hn += Real(h) * n, s.size += std::fabs(h) * (1 + std::fabs(n));
    dw.values[c] += g[i] * n, dw.scale[c] += std::fabs(g[i]) * (1 + std::fabs(n));
    db.values[c] += g[i], db.scale[c] += std::fabs(g[i]);
  }
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto k = static_cast<size_t>(groups.group(i));
    const double h = g[i] * w[groups.channel(i)], n = normal(i), count = groups.elements();
    dx[i] =
        statistics[k].rstd * (h - static_cast<double>(sums[k].h) / count - n * static_cast<double>(sums[k].hn) / count);
    dx.scale[static_cast<size_t>(i)] = statistics[k].rstd * (std::fabs(h) + (1 + std::fabs(n)) * sums[k].size / count);
  }
  return {dx, dw, db};
}

void add(Samples& samples, const Groups& groups) {
  const Shape &x = groups.x, numbers{x[1]};
  const bool large = x.numel() > 1000;
  const Gradients gradients = large ? Gradients::none : Gradients::second;
  const Attributes attributes{{"groups", groups.groups}, {"epsilon", kEpsilon}};
  const Operand data{x, spread(-2, 3), {}, true, false, false}, w{numbers, spread(0.5, 1.5, 1)},
      b{numbers, spread(-1, 1, 2)};
  const auto push = [&](const char* op, std::vector<Operand> operands, Call call, Reference reference) {
    samples.push_back({.op = op,
                       .label = detail::str(x, " in ", groups.groups, " groups"),
                       .operands = std::move(operands),
                       .dtypes = kFloats,
                       .call = std::move(call),
                       .reference = std::move(reference),
                       .ulps = 16,
                       .gradients = gradients,
                       .agreement = Agreement::close,
                       .large = large});
  };
  push("group_norm", {data, w, b}, call_op("group_norm", attributes),
       [groups](const NumberLists& in) { return forward(groups, in); });
  // The gradient's own rule takes mean and variance as functions of x: they are made from x here.
  push(
      "group_norm_grad", {{x, spread(-2, 2, 3)}, data, w},
      [attributes](const Tensors& in) {
        const Tensors made = call_op("group_norm", attributes)({in[1], in[2], in[2]});
        return call_op("group_norm_grad", attributes)({in[0], in[1], in[2], made[1], made[2]});
      },
      [groups](const NumberLists& in) { return backward(groups, in); });
}

}  // namespace

void add_group_norm_samples(Samples& samples) {
  add(samples, {{2, 4, 2, 3}, 2});
  add(samples, {{3, 4}, 1});
  add(samples, {{2, 3, 5}, 3});
  add(samples, {{1, 6, 2, 1}, 2});
  add(samples, {{0, 4, 2}, 2});
  add(samples, {{2, 4, 0}, 2});
  add(samples, {{3, 34, 9, 11}, 2});
  add(samples, {{5, 32, 16, 16}, 8});
}

}  // namespace tandem::samples
