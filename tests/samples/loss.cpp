// Samples of cross-entropy and its gradient. What other losses are made of is in losses.cpp.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

double log_sum_exp(const Numbers& x, int64_t begin, int64_t classes) {
  double largest = -INFINITY, total = 0;
  for (int64_t c = 0; c < classes; ++c) largest = std::max(largest, x[begin + c]);
  for (int64_t c = 0; c < classes; ++c) total += std::exp(x[begin + c] - largest);
  return largest + std::log(total);
}

NumberLists forward(const NumberLists& in) {
  const Numbers &x = in[0], &labels = in[1];
  const int64_t batch = x.shape[0], classes = x.shape[1];
  Numbers loss(Shape{}, x.dtype), sums({batch}, x.dtype == float64 ? float64 : float32);
  loss.make_scale(), sums.make_scale();
  for (int64_t n = 0; n < batch; ++n) {
    sums[n] = log_sum_exp(x, n * classes, classes);
    const double picked = x[n * classes + static_cast<int64_t>(labels[n])], count = static_cast<double>(batch);
    loss[0] += (sums[n] - picked) / count;
    loss.scale[0] += (std::fabs(sums[n]) + std::fabs(picked)) / count;
    sums.scale[static_cast<size_t>(n)] = 4 + std::fabs(sums[n]);
  }
  if (batch == 0) loss[0] = NAN;  // the mean of nothing
  return {loss, sums};
}

NumberLists backward(const NumberLists& in) {
  const Numbers &g = in[0], &x = in[1], &labels = in[2];
  const int64_t batch = x.shape[0], classes = x.shape[1];
  Numbers out(x.shape, x.dtype);
  out.make_scale();
  for (int64_t n = 0; n < batch; ++n) {
    const double sum = log_sum_exp(x, n * classes, classes);
    for (int64_t c = 0; c < classes; ++c) {
      const int64_t at = n * classes + c;
      const double p = std::exp(x[at] - sum), hit = static_cast<int64_t>(labels[n]) == c ? 1 : 0,
                   factor = g[0] / static_cast<double>(batch);
      out[at] = (p - hit) * factor;
      out.scale[static_cast<size_t>(at)] = (p * (1 + std::fabs(x[at]) + std::fabs(sum)) + hit) * std::fabs(factor);
    }
  }
  return {out};
}

}  // namespace

void add_composed_losses(Samples& samples);
void add_ctc_samples(Samples& samples);

void add_loss_samples(Samples& samples) {
  add_composed_losses(samples);
  add_ctc_samples(samples);
  for (const Shape& x : {Shape{1, 1}, {1, 3}, {4, 5}, {17, 33}, {5, 2}, {0, 3}, {40, 1031}}) {
    const bool large = x.numel() > 1000;
    const Gradients gradients = large || x[0] == 0 ? Gradients::none : Gradients::second;
    const Operand logits{x, spread(-4, 4)}, labels{{x[0]}, integers(0, x[1]), int64};
    Sample sample{.op = "cross_entropy",
                  .label = to_string(x) + ", with log-sum-exp",
                  .operands = {logits, labels},
                  .dtypes = kFloats,
                  .call = call_op("cross_entropy"),
                  .reference = forward,
                  .ulps = 8,
                  .agreement = Agreement::close,
                  .large = large};
    samples.push_back(sample);
    sample.label = to_string(x);
    sample.call = [](const Tensors& in) { return Tensors{cross_entropy(in[0], in[1])}; };
    sample.gradients = gradients;
    sample.reference = [](const NumberLists& in) { return NumberLists{forward(in)[0]}; };
    samples.push_back(sample);
    samples.push_back({.op = "cross_entropy_grad",
                       .label = to_string(x),
                       .operands = {{{}, spread(0.5, 2)}, logits, labels},
                       .dtypes = kFloats,
                       .call =
                           [](const Tensors& in) {
                             const Tensors made =
                                 dispatch_all(find_op("cross_entropy"), std::span(in).subspan(1), {}, Where::current());
                             return Tensors{dispatch(find_op("cross_entropy_grad"), {in[0], in[1], in[2], made[1]}, {},
                                                     Where::current())};
                           },
                       .reference = backward,
                       .ulps = 8,
                       .gradients = gradients,
                       .agreement = Agreement::close,
                       .large = large});
  }
  samples.push_back({.op = "cross_entropy",
                     .label = "large logits",
                     .operands = {{{2, 3}, repeat({1000, -1000, 999, 0, 500, -500})}, {{2}, repeat({1, 0}), int64}},
                     .dtypes = {float32, float64},
                     .call = call_op("cross_entropy"),
                     .reference = forward,
                     .agreement = Agreement::close});
}

}  // namespace tandem::samples
