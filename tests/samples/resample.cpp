// Samples of average pooling, interpolation and their gradients. Each result is a sum of some elements of x by weights.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// Weights [out, in] of one direction.
using Matrix = std::vector<std::vector<double>>;

Matrix averages(int64_t in, int64_t kernel, int64_t stride, int64_t padding, bool counts_padding) {
  Matrix result;
  for (int64_t i = 0; i * stride + kernel <= in + 2 * padding; ++i) {
    std::vector<double> row(static_cast<size_t>(in));
    double inside = 0;
    for (int64_t s = i * stride - padding; s < i * stride - padding + kernel; ++s)
      if (s >= 0 && s < in) row[static_cast<size_t>(s)] = 1, ++inside;
    for (double& weight : row) weight /= counts_padding ? static_cast<double>(kernel) : inside;
    result.push_back(row);
  }
  return result;
}

Matrix interpolation(int64_t in, int64_t out, Interpolation mode, bool corners) {
  Matrix result;
  for (int64_t i = 0; i < out; ++i) {
    std::vector<double> row(static_cast<size_t>(in));
    const auto add = [&](double at, double weight) {
      row[static_cast<size_t>(std::clamp(at, 0.0, static_cast<double>(in - 1)))] += weight;
    };
    const double a = static_cast<double>(in), b = static_cast<double>(out), x = static_cast<double>(i);
    double place = corners ? (b > 1 ? x * ((a - 1) / (b - 1)) : 0) : (x + 0.5) * (a / b) - 0.5;
    switch (mode) {
      case Interpolation::nearest: add(static_cast<double>(i * in / out), 1); break;
      case Interpolation::area:
        for (int64_t s = i * in / out; s * out < (i + 1) * in; ++s) row[static_cast<size_t>(s)] = 1;
        {
          double count = 0;
          for (double weight : row) count += weight;
          for (double& weight : row) weight /= count;
        }
        break;
      case Interpolation::bilinear:
        place = std::max(place, 0.0);
        add(std::floor(place), 1 - (place - std::floor(place)));
        add(std::floor(place) + 1, place - std::floor(place));
        break;
      case Interpolation::bicubic:
        for (int k = -1; k <= 2; ++k) {
          const double t = std::fabs(place - std::floor(place) - k), c = -0.75;
          add(std::floor(place) + k,
              t <= 1 ? (c + 2) * t * t * t - (c + 3) * t * t + 1 : c * t * t * t - 5 * c * t * t + 8 * c * t - 4 * c);
        }
        break;
    }
    result.push_back(row);
  }
  return result;
}

/// y = rows x columns', or back to x's extents.
Numbers resampled(const Numbers& x, const Matrix& rows, const Matrix& columns, bool back) {
  const auto extent = [&](const Matrix& m) { return static_cast<int64_t>(back ? m[0].size() : m.size()); };
  const auto weight = [&](const Matrix& m, int64_t to, int64_t from) {
    return back ? m[static_cast<size_t>(from)][static_cast<size_t>(to)]
                : m[static_cast<size_t>(to)][static_cast<size_t>(from)];
  };
  Numbers out({x.shape[0], x.shape[1], extent(rows), extent(columns)}, x.dtype);
  out.make_scale();
  for (int64_t o = 0; o < out.numel(); ++o) {
    const Shape at = unravel(o, out.shape);
    for (int64_t i = 0; i < x.shape[2]; ++i)
      for (int64_t j = 0; j < x.shape[3]; ++j) {
        const double w = weight(rows, at[2], i) * weight(columns, at[3], j),
                     value = x[ravel({at[0], at[1], i, j}, x.shape)];
        out[o] += w * value;
        if (w != 0)
          out.scale[static_cast<size_t>(o)] += std::fabs(value);  // a small weight is as far off as a large one
      }
  }
  return out;
}

void push(Samples& samples, const char* op, const std::string& label, const Shape& x, const Shape& y,
          const Attributes& attributes, const Matrix& rows, const Matrix& columns, Call call) {
  const bool large = x.numel() > 500 || y.numel() > 500;
  const Gradients gradients = large ? Gradients::none : Gradients::second;
  samples.push_back(
      {.op = op,
       .label = label,
       .operands = {{x, spread(-2, 2)}},
       .dtypes = kFloats,
       .call = std::move(call),
       .reference = [=](const NumberLists& in) { return NumberLists{resampled(in[0], rows, columns, false)}; },
       .ulps = 16,
       .gradients = gradients,
       .agreement = Agreement::close,
       .large = large});
  Attributes back = attributes;
  back.set({"shape", x});
  static const std::string names[] = {"avg_pool2d_grad", "interpolate2d_grad"};
  const std::string& name = names[op == std::string("avg_pool2d") ? 0 : 1];
  samples.push_back(
      {.op = name,
       .label = label,
       .operands = {{y, spread(-2, 2, 3)}},
       .dtypes = kFloats,
       .call = call_op(name.c_str(), back),
       .reference = [=](const NumberLists& in) { return NumberLists{resampled(in[0], rows, columns, true)}; },
       .ulps = 16,
       .gradients = gradients,
       .agreement = Agreement::close,
       .large = large});
}

void add_pool(Samples& samples, const Shape& x, const Shape& kernel, const Shape& stride, const Shape& padding,
              bool counts_padding) {
  const Matrix rows = averages(x[2], kernel[0], stride[0], padding[0], counts_padding),
               columns = averages(x[3], kernel[1], stride[1], padding[1], counts_padding);
  push(samples, "avg_pool2d",
       detail::str(x, " kernel ", kernel, " stride ", stride, " padding ", padding, counts_padding ? "" : " left out"),
       x, {x[0], x[1], static_cast<int64_t>(rows.size()), static_cast<int64_t>(columns.size())},
       {{"kernel", kernel}, {"stride", stride}, {"padding", padding}, {"count_include_pad", counts_padding}}, rows,
       columns, [=](const Tensors& in) {
         return Tensors{avg_pool2d(in[0], {kernel[0], kernel[1]},
                                   {.stride = {stride[0], stride[1]},
                                    .padding = {padding[0], padding[1]},
                                    .count_include_pad = counts_padding})};
       });
}

void add_interpolation(Samples& samples, const Shape& x, const Shape& size, Interpolation mode, bool corners = false) {
  constexpr const char* names[] = {"nearest", "bilinear", "bicubic", "area"};
  const char* name = names[static_cast<int>(mode)];
  const auto step = [&](int d) {
    const double in = static_cast<double>(x[d + 2]), out = static_cast<double>(size[d]);
    return corners ? (out > 1 ? (in - 1) / (out - 1) : 0) : in / out;
  };
  const Shape y{x[0], x[1], size[0], size[1]};
  push(samples, "interpolate2d", detail::str(x, " to ", size, ", ", name, corners ? ", corners aligned" : ""), x, y,
       {{"size", size},
        {"mode", std::string(name)},
        {"align_corners", corners},
        {"row_step", step(0)},
        {"column_step", step(1)}},
       interpolation(x[2], size[0], mode, corners), interpolation(x[3], size[1], mode, corners),
       [=](const Tensors& in) {
         return Tensors{interpolate(in[0], {.size = {size[0], size[1]}, .mode = mode, .align_corners = corners})};
       });
}

}  // namespace

void add_resample_samples(Samples& samples) {
  add_pool(samples, {1, 2, 4, 4}, {2, 2}, {2, 2}, {0, 0}, true);
  add_pool(samples, {2, 3, 3, 4}, {3, 2}, {1, 2}, {1, 1}, true);
  add_pool(samples, {2, 1, 5, 3}, {3, 2}, {2, 1}, {1, 1}, false);
  add_pool(samples, {1, 2, 5, 7}, {2, 2}, {3, 3}, {0, 0}, true);
  add_pool(samples, {0, 2, 4, 4}, {2, 2}, {2, 2}, {0, 0}, true);
  add_pool(samples, {3, 19, 13, 11}, {3, 3}, {2, 2}, {1, 1}, false);
  for (const Interpolation mode :
       {Interpolation::nearest, Interpolation::bilinear, Interpolation::bicubic, Interpolation::area}) {
    add_interpolation(samples, {1, 2, 2, 3}, {4, 6}, mode);
    add_interpolation(samples, {2, 1, 5, 4}, {3, 7}, mode);
    add_interpolation(samples, {0, 2, 2, 3}, {4, 6}, mode);
    add_interpolation(samples, {2, 17, 9, 8}, {13, 24}, mode);
  }
  for (const Interpolation mode : {Interpolation::bilinear, Interpolation::bicubic}) {
    add_interpolation(samples, {1, 2, 2, 3}, {4, 6}, mode, true);
    add_interpolation(samples, {2, 1, 5, 4}, {1, 7}, mode, true);
  }
}

}  // namespace tandem::samples
