// Samples of matmul and linear.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// The product of matrices under broadcast batch dims; vectors are rows on the left and columns on the right.
NumberLists product(const NumberLists& in) {
  Shape a = in[0].shape, b = in[1].shape;
  if (a.size() == 1) a.insert(0, 1);
  if (b.size() == 1) b.push_back(1);
  const int64_t m = a[a.size() - 2], k = a.back(), n = b.back();
  Shape batch_a = a, batch_b = b;
  batch_a.resize(a.size() - 2), batch_b.resize(b.size() - 2);
  const Shape batch = broadcast_shapes(batch_a, batch_b);
  Shape shape = batch;
  if (in[0].shape.size() > 1) shape.push_back(m);
  if (in[1].shape.size() > 1) shape.push_back(n);
  Numbers out(shape, in[0].dtype);
  out.make_scale();
  for (int64_t p = 0; p < batch.numel(); ++p) {
    const int64_t left = broadcast_position(p, batch, batch_a) * m * k, right = broadcast_position(p, batch, batch_b) * k * n;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const int64_t to = (p * m + i) * n + j;
        Real total = 0;
        for (int64_t l = 0; l < k; ++l) {
          const double term = in[0][left + i * k + l] * in[1][right + l * n + j];
          total += term;
          out.scale[static_cast<size_t>(to)] += std::fabs(term);
        }
        out[to] = static_cast<double>(total);
      }
    }
  }
  return {out};
}

NumberLists affine(const NumberLists& in) {
  const int64_t out_width = in[1].shape[0], in_width = in[1].shape[1];
  Shape shape = in[0].shape;
  shape[shape.size() - 1] = out_width;
  Numbers out(shape, in[0].dtype);
  out.make_scale();
  for (int64_t i = 0; i < out.numel(); ++i) {
    const int64_t row = i / out_width, column = i % out_width;
    Real total = in.size() > 2 ? in[2][column] : 0;
    double scale = static_cast<double>(std::fabs(total));
    for (int64_t l = 0; l < in_width; ++l) {
      const double term = in[0][row * in_width + l] * in[1][column * in_width + l];
      total += term;
      scale += std::fabs(term);
    }
    out[i] = static_cast<double>(total);
    out.scale[static_cast<size_t>(i)] = scale;
  }
  return {out};
}

/// Rounding errors of a product grow with its length, at worst where all terms are equal.
double ulps(int64_t length) { return 8 + static_cast<double>(length) / 8; }

}  // namespace

void add_matmul_samples(Samples& samples) {
  const std::pair<Shape, Shape> shapes[] = {
      {{3, 4}, {4, 5}}, {{1, 1}, {1, 1}}, {{17, 33}, {33, 9}}, {{1, 17}, {17, 1}}, {{5, 1}, {1, 6}}, {{2, 3, 4}, {2, 4, 5}}, {{2, 1, 3, 4}, {3, 4, 2}},
      {{3, 4}, {2, 4, 2}}, {{2, 3, 4}, {4, 2}}, {{4}, {4}}, {{3, 4}, {4}}, {{4}, {4, 3}}, {{2, 3, 4}, {4}}, {{4}, {2, 4, 3}}, {{0, 4}, {4, 3}},
      {{3, 0}, {0, 2}}, {{0, 2, 3}, {3, 2}}, {{65, 130}, {130, 71}}, {{128, 257}, {257, 64}}};
  for (const auto& [a, b] : shapes) {
    Sample sample{.op = "matmul", .label = detail::str(a, " x ", b), .operands = {{a, spread(-2, 2)}, {b, spread(-2, 2, 1)}}, .dtypes = kFloats,
                  .call = [](const Tensors& x) { return Tensors{matmul(x[0], x[1])}; }, .reference = product, .ulps = ulps(a.back()), .gradients = Gradients::second,
                  .agreement = Agreement::close, .large = a.numel() > 1000};
    samples.push_back(sample);
    sample.operands = {{a, integers(-5, 6)}, {b, integers(-5, 6, 1)}};
    sample.dtypes = {int32, int64};
    sample.gradients = Gradients::none;
    samples.push_back(sample);
  }
  const std::tuple<Shape, int64_t> layers[] = {{{4}, 3}, {{2, 4}, 3}, {{17, 33}, 9}, {{1, 5}, 1}, {{2, 3, 4}, 5}, {{0, 4}, 3}, {{2, 0, 4}, 3}, {{3, 0}, 4}, {{64, 130}, 71}};
  for (const auto& [x, outputs] : layers) {
    for (const bool biased : {false, true}) {
      std::vector<Operand> operands = {{x, spread(-2, 2)}, {{outputs, x.back()}, spread(-2, 2, 1)}};
      if (biased) operands.push_back({{outputs}, spread(-2, 2, 2)});
      samples.push_back({.op = "linear", .label = detail::str(x, " to ", outputs, biased ? ", bias" : ""), .operands = operands, .dtypes = kFloats,
                         .call = [](const Tensors& in) { return Tensors{in.size() > 2 ? linear(in[0], in[1], in[2]) : linear(in[0], in[1])}; },
                         .reference = affine, .ulps = ulps(x.back()), .gradients = Gradients::second, .agreement = Agreement::close, .large = x.numel() > 1000});
    }
  }
}

}  // namespace tandem::samples
