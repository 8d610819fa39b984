// Samples of ctc_loss, its gradient and that one's, against all paths through time, one by one.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// Calls f(path, its log-probability) for each path of sequence n that gives its labels.
template <class F>
void each_path(const Numbers& x, const Numbers& targets, const Numbers& times, const Numbers& lengths, int64_t n,
               int64_t blank, F&& f) {
  const int64_t time = static_cast<int64_t>(times[n]), batch = x.shape[1], classes = x.shape[2];
  std::vector<int64_t> path(static_cast<size_t>(time), 0), wanted;
  int64_t first = n * targets.shape.back();
  if (targets.shape.size() == 1) {
    first = 0;
    for (int64_t i = 0; i < n; ++i) first += static_cast<int64_t>(lengths[i]);
  }
  for (int64_t i = 0; i < static_cast<int64_t>(lengths[n]); ++i)
    wanted.push_back(static_cast<int64_t>(targets[first + i]));
  while (true) {
    std::vector<int64_t> labels;
    double log_p = 0;
    for (int64_t t = 0; t < time; ++t) {
      const int64_t k = path[static_cast<size_t>(t)];
      log_p += x[(t * batch + n) * classes + k];
      if (k != blank && (t == 0 || k != path[static_cast<size_t>(t - 1)])) labels.push_back(k);
    }
    if (labels == wanted) f(path, log_p);
    int64_t t = time - 1;
    while (t >= 0 && ++path[static_cast<size_t>(t)] == classes) path[static_cast<size_t>(t--)] = 0;
    if (t < 0) return;
  }
}

void add(Samples& samples, const Shape& shape, const Shape& targets, std::vector<double> labels,
         std::vector<double> times, std::vector<double> lengths, int64_t blank, bool zero_infinity = false) {
  const int64_t batch = shape[1];
  const Attributes attributes = {{"blank", blank}, {"zero_infinity", zero_infinity}};
  const Operand x{shape, spread(-3, -0.1)}, to{targets, repeat(std::move(labels)), int64, false, true},
      from{{batch}, repeat(std::move(times)), int64, false, true},
      count{{batch}, repeat(std::move(lengths)), int64, false, true}, g{{batch}, spread(0.5, 2)};
  const auto loss_of = [=](const Numbers& p, const Numbers& to, const Numbers& from, const Numbers& count, int64_t n) {
    Real total = 0;
    each_path(p, to, from, count, n, blank, [&](const auto&, double log_p) { total += std::exp(log_p); });
    return static_cast<double>(-std::log(total));
  };
  Sample sample{.op = "ctc_loss",
                .label = detail::str(shape, " ", targets, " blank ", blank),
                .operands = {x, to, from, count},
                .dtypes = kFloats,
                .call = call_op("ctc_loss", attributes),
                .reference =
                    [=](const NumberLists& in) {
                      Numbers out({batch}, in[0].dtype);
                      for (int64_t n = 0; n < batch; ++n) {
                        out[n] = loss_of(in[0], in[1], in[2], in[3], n);
                        if (zero_infinity && std::isinf(out[n])) out[n] = 0;
                        out.scale.push_back(1 + std::fabs(out[n]));
                      }
                      return NumberLists{out};
                    },
                .ulps = 8,
                .gradients = Gradients::second};
  samples.push_back(sample);
  sample.op = "ctc_loss_grad";
  sample.operands.insert(sample.operands.begin(), g);
  sample.call = call_op("ctc_loss_grad", attributes);
  sample.gradients = Gradients::first;
  sample.ulps = 64;  // of exponentials, whose errors are as many as the exponent is great
  sample.reference = [=](const NumberLists& in) {
    Numbers out(shape, in[0].dtype);
    out.make_scale();
    for (int64_t n = 0; n < batch; ++n) {
      const double loss = loss_of(in[1], in[2], in[3], in[4], n);
      each_path(in[1], in[2], in[3], in[4], n, blank, [&](const std::vector<int64_t>& path, double log_p) {
        for (size_t t = 0; t < path.size(); ++t) {
          const int64_t at = (static_cast<int64_t>(t) * batch + n) * shape[2] + path[t];
          const double term = in[0][n] * std::exp(log_p + loss);
          out[at] -= term;
          out.scale[static_cast<size_t>(at)] += term;
        }
      });
    }
    return NumberLists{out};
  };
  samples.push_back(sample);

  // With S_p = sum over the path of the direction u, and the mean over paths by their probability: of log-probability tk
  // -g mean((S_p - mean(S)) [p passes tk]), and of g -mean(S).
  sample.op = "ctc_loss_second";
  sample.operands.push_back({shape, spread(-1, 2)});
  sample.call = call_op("ctc_loss_second", attributes);
  sample.gradients = Gradients::none;
  sample.reference = [=](const NumberLists& in) {
    Numbers dx(shape, in[0].dtype), dg({batch}, in[0].dtype);
    dx.make_scale();
    dg.make_scale();
    for (int64_t n = 0; n < batch; ++n) {
      const double loss = loss_of(in[1], in[2], in[3], in[4], n);
      const auto place = [&](const std::vector<int64_t>& path, size_t t) {
        return (static_cast<int64_t>(t) * batch + n) * shape[2] + path[t];
      };
      const auto along = [&](const std::vector<int64_t>& path) {
        double total = 0;
        for (size_t t = 0; t < path.size(); ++t) total += in[5][place(path, t)];
        return total;
      };
      double mean = 0;
      each_path(in[1], in[2], in[3], in[4], n, blank,
                [&](const std::vector<int64_t>& path, double log_p) { mean += std::exp(log_p + loss) * along(path); });
      dg[n] = -mean;
      dg.scale[static_cast<size_t>(n)] = 4 + std::fabs(mean);
      each_path(in[1], in[2], in[3], in[4], n, blank, [&](const std::vector<int64_t>& path, double log_p) {
        for (size_t t = 0; t < path.size(); ++t) {
          const double term = in[0][n] * std::exp(log_p + loss);
          dx[place(path, t)] -= term * (along(path) - mean);
          dx.scale[static_cast<size_t>(place(path, t))] += term * 8;
        }
      });
    }
    return NumberLists{dx, dg};
  };
  samples.push_back(sample);
}

}  // namespace

void add_ctc_samples(Samples& samples) {
  add(samples, {4, 2, 3}, {2, 2}, {1, 2, 2, 2}, {4, 3}, {2, 1}, 0);
  add(samples, {5, 1, 4}, {1, 3}, {2, 2, 0}, {5}, {3}, 1);
  add(samples, {5, 3, 3}, {5}, {1, 1, 0, 0, 1}, {5, 0, 4}, {3, 0, 2}, 2);
  add(samples, {3, 2, 3}, {2, 2}, {1, 1, 2, 1}, {2, 3}, {2, 2}, 0, true);  // the first is too short
  add(samples, {1, 1, 1}, {1, 0}, {0}, {1}, {0}, 0);
  add(samples, {3, 0, 2}, {0, 2}, {0}, {0}, {0}, 0);
}

}  // namespace tandem::samples
