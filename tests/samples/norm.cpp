// Samples of layer and RMS normalisation and their gradients; those of batch and group normalisation have files of their own.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

constexpr double kEpsilon = 1e-5;

struct Statistics {
  double mean = 0, rstd = 0;
  Statistics(const Numbers& x, int64_t begin, int64_t width) {
    Real sum = 0, squares = 0;
    for (int64_t i = begin; i < begin + width; ++i) sum += x[i];
    mean = static_cast<double>(sum / static_cast<Real>(width));
    for (int64_t i = begin; i < begin + width; ++i)
      squares += (x[i] - sum / static_cast<Real>(width)) * (x[i] - sum / static_cast<Real>(width));
    rstd = 1 / std::sqrt(static_cast<double>(squares) / static_cast<double>(width) + kEpsilon);
  }
};

NumberLists forward(const NumberLists& in) {
  const Numbers &x = in[0], &w = in[1], &b = in[2];
  const int64_t width = x.shape.back();
  Shape rows = x.shape;
  rows.erase(rows.size() - 1);
  const DType wide = x.dtype == float64 ? float64 : float32;
  Numbers y(x.shape, x.dtype), mean(rows, wide), rstd(rows, wide);
  y.make_scale(), mean.make_scale();
  for (int64_t row = 0; row < rows.numel(); ++row) {
    const Statistics s(x, row * width, width);
    double largest = 0;
    for (int64_t i = 0; i < width; ++i) largest = std::max(largest, std::fabs(x[row * width + i]));
    mean[row] = s.mean;
    mean.scale[static_cast<size_t>(row)] = largest;
    rstd[row] = s.rstd;
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = row * width + i;
      y[at] = (x[at] - s.mean) * s.rstd * w[i] + b[i];
      y.scale[static_cast<size_t>(at)] = (std::fabs(x[at]) + largest) * s.rstd * std::fabs(w[i]) + std::fabs(b[i]);
    }
  }
  return {y, mean, rstd};
}

/// From g, x and w: the gradients of x, w and b.
NumberLists backward(const NumberLists& in) {
  const Numbers &g = in[0], &x = in[1], &w = in[2];
  const int64_t width = x.shape.back(), rows = width ? x.numel() / width : 0;
  const auto n = static_cast<double>(width);
  Numbers dx(x.shape, x.dtype), dw(w.shape, x.dtype), db(w.shape, x.dtype);
  dx.make_scale(), dw.make_scale(), db.make_scale();
  for (int64_t row = 0; row < rows; ++row) {
    const Statistics s(x, row * width, width);
    double mean_h = 0, mean_hn = 0, magnitude = 0;
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = row * width + i;
      const double normal = (x[at] - s.mean) * s.rstd, h = g[at] * w[i];
      mean_h += h / n;
      mean_hn += h * normal / n;
      magnitude += std::fabs(h) * (1 + std::fabs(normal)) / n;
      dw[i] += g[at] * normal;
      dw.scale[static_cast<size_t>(i)] += std::fabs(g[at]) * (1 + std::fabs(normal));
      db[i] += g[at];
      db.scale[static_cast<size_t>(i)] += std::fabs(g[at]);
    }
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = row * width + i;
      const double normal = (x[at] - s.mean) * s.rstd, h = g[at] * w[i];
      dx[at] = s.rstd * (h - mean_h - normal * mean_hn);
      dx.scale[static_cast<size_t>(at)] = s.rstd * (std::fabs(h) + magnitude * (1 + std::fabs(normal)));
    }
  }
  return {dx, dw, db};
}

NumberLists rms_forward(const NumberLists& in) {
  const Numbers &x = in[0], &w = in[1];
  const int64_t width = x.shape.back();
  Shape rows = x.shape;
  rows.erase(rows.size() - 1);
  Numbers y(x.shape, x.dtype), rstd(rows, x.dtype == float64 ? float64 : float32);
  for (int64_t row = 0; row < rows.numel(); ++row) {
    Real squares = 0;
    for (int64_t i = row * width; i < (row + 1) * width; ++i) squares += Real(x[i]) * x[i];
    rstd[row] = 1 / std::sqrt(static_cast<double>(squares) / static_cast<double>(width) + kEpsilon);
    for (int64_t i = 0; i < width; ++i) y[row * width + i] = x[row * width + i] * rstd[row] * w[i];
  }
  return {y, rstd};
}

/// From g, x and w: the gradients of x and w.
NumberLists rms_backward(const NumberLists& in) {
  const Numbers &g = in[0], &x = in[1], &w = in[2];
  const Numbers rstd = rms_forward({x, w})[1];
  const int64_t width = x.shape.back();
  Numbers dx(x.shape, x.dtype), dw(w.shape, x.dtype);
  dx.make_scale(), dw.make_scale();
  for (int64_t row = 0; row < rstd.numel(); ++row) {
    double mean = 0, magnitude = 0;
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = row * width + i;
      const double normal = x[at] * rstd[row], h = g[at] * w[i];
      mean += h * normal / static_cast<double>(width);
      magnitude += std::fabs(h * normal) / static_cast<double>(width);
      dw[i] += g[at] * normal;
      dw.scale[static_cast<size_t>(i)] += std::fabs(g[at] * normal);
    }
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = row * width + i;
      const double normal = x[at] * rstd[row], h = g[at] * w[i];
      dx[at] = rstd[row] * (h - normal * mean);
      dx.scale[static_cast<size_t>(at)] = rstd[row] * (std::fabs(h) + std::fabs(normal) * magnitude);
    }
  }
  return {dx, dw};
}

void add_rms_norm(Samples& samples) {
  for (const Shape& x : {Shape{5}, {3, 4}, {2, 3, 5}, {33, 17}, {4, 1}, {0, 4}, {40, 1031}}) {
    const Shape row{x.back()};
    const bool large = x.numel() > 1000;
    const Gradients gradients = large ? Gradients::none : Gradients::second;
    const Operand data{x, away_from_zero(0.5, 3), {}, true, false, false}, w{row, spread(0.5, 1.5, 1)};
    samples.push_back({.op = "rms_norm",
                       .label = to_string(x),
                       .operands = {data, w},
                       .dtypes = kFloats,
                       .call = call_op("rms_norm", {{"epsilon", kEpsilon}}),
                       .reference = rms_forward,
                       .ulps = 8,
                       .gradients = gradients,
                       .agreement = Agreement::close,
                       .large = large});
    // The gradient's own rule takes rstd as a function of x: it is made from x here.
    samples.push_back({.op = "rms_norm_grad",
                       .label = to_string(x),
                       .operands = {{x, spread(-2, 2, 3)}, data, w},
                       .dtypes = kFloats,
                       .call =
                           [](const Tensors& in) {
                             const Tensors made = call_op("rms_norm", {{"epsilon", kEpsilon}})({in[1], in[2]});
                             return call_op("rms_norm_grad")({in[0], in[1], in[2], made[1]});
                           },
                       .reference = rms_backward,
                       .ulps = 16,
                       .gradients = gradients,
                       .agreement = Agreement::close,
                       .large = large});
  }
}

}  // namespace

void add_batch_norm_samples(Samples& samples);
void add_group_norm_samples(Samples& samples);

void add_norm_samples(Samples& samples) {
  add_batch_norm_samples(samples);
  add_group_norm_samples(samples);
  add_rms_norm(samples);
  for (const Shape& x : {Shape{5}, {3, 4}, {2, 3, 5}, {33, 17}, {4, 1}, {0, 4}, {40, 1031}}) {
    const Shape row{x.back()};
    const bool large = x.numel() > 1000;
    const std::vector<Operand> operands = {{x, spread(-2, 3)}, {row, spread(0.5, 1.5, 1)}, {row, spread(-1, 1, 2)}};
    // The two statistics are results too, but have no gradient: mode and value only.
    Sample sample{.op = "layer_norm",
                  .label = to_string(x) + ", with statistics",
                  .operands = operands,
                  .dtypes = kFloats,
                  .call = call_op("layer_norm", {{"epsilon", kEpsilon}}),
                  .reference = forward,
                  .ulps = 8,
                  .agreement = Agreement::close,
                  .large = large};
    samples.push_back(sample);
    sample.label = to_string(x);
    sample.call = [](const Tensors& in) { return Tensors{layer_norm(in[0], in[1], in[2], kEpsilon)}; };
    sample.reference = [](const NumberLists& in) { return NumberLists{forward(in)[0]}; };
    sample.gradients = large ? Gradients::none : Gradients::second;
    sample.operands[0].may_repeat = false;  // rows of no variance: differences of their derivatives are all error
    samples.push_back(sample);
    // The gradient's own rule takes mean and rstd as functions of x: they are made from x here.
    samples.push_back(
        {.op = "layer_norm_grad",
         .label = to_string(x),
         .operands = {{x, spread(-2, 2, 3)}, {x, spread(-2, 3), {}, true, false, false}, {row, spread(0.5, 1.5, 1)}},
         .dtypes = kFloats,
         .call =
             [](const Tensors& in) {
               const Tensor normal[] = {in[1], in[2], in[2]};
               const Tensors made =
                   dispatch_all(find_op("layer_norm"), normal, {{"epsilon", kEpsilon}}, Where::current());
               const Tensor inputs[] = {in[0], in[1], in[2], made[1], made[2]};
               return dispatch_all(find_op("layer_norm_grad"), inputs, {}, Where::current());
             },
         .reference = backward,
         .ulps = 16,
         .gradients = large ? Gradients::none : Gradients::second,
         .agreement = Agreement::close,
         .large = large});
  }
  samples.push_back({.op = "layer_norm",
                     .label = "[3, 8] far from zero",
                     .operands = {{{3, 8}, spread(1000, 1001)}, {{8}, spread(0.5, 1.5, 1)}, {{8}, spread(-1, 1, 2)}},
                     .dtypes = {float32, float64},
                     .call = call_op("layer_norm", {{"epsilon", kEpsilon}}),
                     .reference = forward,
                     .ulps = 8,
                     .agreement = Agreement::close});
}

}  // namespace tandem::samples
