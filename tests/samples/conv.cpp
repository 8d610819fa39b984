// Samples of the 2-d convolution and its gradients: seven nested loops, read three ways.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

struct Convolution {
  Shape x, w;
  Shape stride{1, 1}, padding{0, 0}, dilation{1, 1};
  int64_t groups = 1;

  Shape y() const {
    Shape shape{x[0], w[0], 0, 0};
    for (int d = 0; d < 2; ++d)
      shape[d + 2] = (x[d + 2] + 2 * padding[d] - dilation[d] * (w[d + 2] - 1) - 1) / stride[d] + 1;
    return shape;
  }
  Attributes attributes() const {
    return {{"stride", stride}, {"padding", padding}, {"dilation", dilation}, {"groups", groups}};
  }
  std::string label() const {
    return detail::str(x, " * ", w, " stride ", stride, " padding ", padding, " dilation ", dilation, " groups ",
                       groups);
  }
  /// Calls f(position in x, in w, in y) for every product of the convolution.
  template <class F> void each(F&& f) const {
    const Shape out = y();
    const int64_t inputs = w[1], outputs = w[0] / groups;
    for (int64_t n = 0; n < out[0]; ++n)
      for (int64_t o = 0; o < out[1]; ++o)
        for (int64_t i = 0; i < out[2]; ++i)
          for (int64_t j = 0; j < out[3]; ++j)
            for (int64_t c = 0; c < inputs; ++c)
              for (int64_t a = 0; a < w[2]; ++a)
                for (int64_t b = 0; b < w[3]; ++b) {
                  const int64_t h = i * stride[0] - padding[0] + a * dilation[0],
                                v = j * stride[1] - padding[1] + b * dilation[1];
                  if (h < 0 || h >= x[2] || v < 0 || v >= x[3]) continue;
                  f(ravel({n, o / outputs * inputs + c, h, v}, x), ravel({o, c, a, b}, w), ravel({n, o, i, j}, out));
                }
  }
};

/// Sums `term` at the positions that the walk names.
Numbers zeros_with_scale(const Shape& shape, DType dtype) {
  Numbers out(shape, dtype);
  out.make_scale();
  return out;
}
void accumulate(Numbers& out, int64_t at, double term) {
  out[at] += term;
  out.scale[static_cast<size_t>(at)] += std::fabs(term);
}

void add(Samples& samples, const Convolution& c, bool large = false) {
  const Gradients gradients = large ? Gradients::none : Gradients::second;
  const Operand x{c.x, spread(-2, 2)}, w{c.w, spread(-1, 1, 1)}, bias{{c.w[0]}, spread(-1, 1, 2)},
      g{c.y(), spread(-2, 2, 3)};
  const double window = static_cast<double>(c.w[1] * c.w[2] * c.w[3]),
               positions = static_cast<double>(c.x[0] * c.y()[2] * c.y()[3]);
  const auto push = [&](const char* op, const char* note, std::vector<Operand> operands, Call call,
                        Reference reference) {
    samples.push_back({.op = op,
                       .label = c.label() + note,
                       .operands = std::move(operands),
                       .dtypes = kFloats,
                       .call = std::move(call),
                       .reference = std::move(reference),
                       .ulps = 8 + std::max(window, positions) / 8,
                       .gradients = gradients,
                       .agreement = Agreement::close,
                       .large = large});
  };
  const Conv2dOptions options{.stride = {c.stride[0], c.stride[1]},
                              .padding = {c.padding[0], c.padding[1]},
                              .dilation = {c.dilation[0], c.dilation[1]},
                              .groups = c.groups};
  const Reference forward = [c](const NumberLists& in) {
    Numbers out = zeros_with_scale(c.y(), in[0].dtype);
    c.each([&](int64_t i, int64_t k, int64_t o) { accumulate(out, o, in[0][i] * in[1][k]); });
    if (in.size() > 2)
      for (int64_t o = 0; o < out.numel(); ++o) accumulate(out, o, in[2][unravel(o, out.shape)[1]]);
    return NumberLists{out};
  };
  push(
      "conv2d", "", {x, w}, [options](const Tensors& in) { return Tensors{conv2d(in[0], in[1], {}, options)}; },
      forward);
  push(
      "conv2d", ", bias", {x, w, bias},
      [options](const Tensors& in) { return Tensors{conv2d(in[0], in[1], in[2], options)}; }, forward);

  Attributes attributes = c.attributes();
  attributes.set({"shape", c.x});
  push("conv2d_input_grad", "", {g, w}, call_op("conv2d_input_grad", attributes), [c](const NumberLists& in) {
    Numbers out = zeros_with_scale(c.x, in[0].dtype);
    c.each([&](int64_t i, int64_t k, int64_t o) { accumulate(out, i, in[0][o] * in[1][k]); });
    return NumberLists{out};
  });
  attributes.set({"shape", c.w});
  push("conv2d_weight_grad", "", {g, x}, call_op("conv2d_weight_grad", attributes), [c](const NumberLists& in) {
    Numbers out = zeros_with_scale(c.w, in[0].dtype);
    c.each([&](int64_t i, int64_t k, int64_t o) { accumulate(out, k, in[0][o] * in[1][i]); });
    return NumberLists{out};
  });
}

/// The public functions that are made of the ops: one dim, and the gradient as a layer of its own.
void add_variants(Samples& samples) {
  const auto push = [&](const char* op, const char* label, std::vector<Operand> operands, Call call,
                        Reference reference) {
    samples.push_back({.op = op,
                       .label = label,
                       .operands = std::move(operands),
                       .dtypes = kFloats,
                       .call = std::move(call),
                       .reference = std::move(reference),
                       .ulps = 16,
                       .gradients = Gradients::second,
                       .agreement = Agreement::close});
  };
  const Convolution line{
      .x = {2, 2, 1, 7}, .w = {4, 1, 1, 3}, .stride = {1, 2}, .padding = {0, 2}, .dilation = {1, 2}, .groups = 2};
  push(
      "conv2d", "conv1d", {{{2, 2, 7}, spread(-2, 2)}, {{4, 1, 3}, spread(-1, 1, 1)}, {{4}, spread(-1, 1, 2)}},
      [](const Tensors& in) {
        return Tensors{conv1d(in[0], in[1], in[2], {.stride = 2, .padding = 2, .dilation = 2, .groups = 2})};
      },
      [line](const NumberLists& in) {
        const Shape y = line.y();
        Numbers out = zeros_with_scale({y[0], y[1], y[3]}, in[0].dtype);
        line.each([&](int64_t i, int64_t k, int64_t o) { accumulate(out, o, in[0][i] * in[1][k]); });
        for (int64_t o = 0; o < out.numel(); ++o) accumulate(out, o, in[2][unravel(o, out.shape)[1]]);
        return NumberLists{out};
      });
  // The convolution that it transposes maps [.., 7, 6] to [.., 3, 3]; output_padding adds the last row.
  const Convolution spreads{
      .x = {2, 4, 6, 5}, .w = {2, 2, 3, 2}, .stride = {2, 2}, .padding = {1, 0}, .dilation = {1, 1}, .groups = 2};
  push(
      "conv2d_input_grad", "conv_transpose2d",
      {{spreads.y(), spread(-2, 2)}, {spreads.w, spread(-1, 1, 1)}, {{4}, spread(-1, 1, 2)}},
      [](const Tensors& in) {
        return Tensors{conv_transpose2d(in[0], in[1], in[2],
                                        {.stride = 2, .padding = {1, 0}, .output_padding = {1, 1}, .groups = 2})};
      },
      [spreads](const NumberLists& in) {
        Numbers out = zeros_with_scale(spreads.x, in[0].dtype);
        spreads.each([&](int64_t i, int64_t k, int64_t o) { accumulate(out, i, in[0][o] * in[1][k]); });
        for (int64_t i = 0; i < out.numel(); ++i) accumulate(out, i, in[2][unravel(i, out.shape)[1]]);
        return NumberLists{out};
      });
  const Convolution back{.x = {2, 2, 1, 9}, .w = {3, 2, 1, 3}, .stride = {1, 3}, .padding = {0, 1}, .dilation = {1, 2}};
  push(
      "conv2d_input_grad", "conv_transpose1d", {{{2, 3, back.y()[3]}, spread(-2, 2)}, {{3, 2, 3}, spread(-1, 1, 1)}},
      [](const Tensors& in) {
        return Tensors{
            conv_transpose1d(in[0], in[1], {}, {.stride = 3, .padding = 1, .output_padding = 0, .dilation = 2})};
      },
      [back](const NumberLists& in) {
        Numbers out = zeros_with_scale({2, 2, 9}, in[0].dtype);
        back.each([&](int64_t i, int64_t k, int64_t o) { accumulate(out, i, in[0][o] * in[1][k]); });
        return NumberLists{out};
      });
}

/// conv3d, summed tap by tap.
void add_volumes(Samples& samples) {
  struct Volume {
    Shape x, w, stride{1, 1, 1}, padding{0, 0, 0}, dilation{1, 1, 1};
    int64_t groups = 1;
  };
  const auto add = [&](const Volume& v) {
    Shape y{v.x[0], v.w[0], 0, 0, 0};
    for (int i = 0; i < 3; ++i)
      y[i + 2] = (v.x[i + 2] + 2 * v.padding[i] - v.dilation[i] * (v.w[i + 2] - 1) - 1) / v.stride[i] + 1;
    samples.push_back({.op = "conv2d",
                       .label = detail::str("conv3d ", v.x, " * ", v.w, " stride ", v.stride),
                       .operands = {{v.x, spread(-2, 2)}, {v.w, spread(-1, 1, 1)}, {{v.w[0]}, spread(-1, 1, 2)}},
                       .dtypes = kFloats,
                       .call =
                           [v](const Tensors& in) {
                             return Tensors{conv3d(in[0], in[1], in[2],
                                                   {.stride = {v.stride[0], v.stride[1], v.stride[2]},
                                                    .padding = {v.padding[0], v.padding[1], v.padding[2]},
                                                    .dilation = {v.dilation[0], v.dilation[1], v.dilation[2]},
                                                    .groups = v.groups})};
                           },
                       .reference =
                           [v, y](const NumberLists& in) {
                             Numbers out = zeros_with_scale(y, in[0].dtype);
                             for (int64_t o = 0; o < out.numel(); ++o) {
                               const Shape at = unravel(o, y);
                               accumulate(out, o, in[2][at[1]]);
                               for (int64_t k = 0; k < v.w.numel() / v.w[0]; ++k) {
                                 Shape tap = unravel(at[1] * (v.w.numel() / v.w[0]) + k, v.w), from = at;
                                 bool inside = true;
                                 from[1] = at[1] / (v.w[0] / v.groups) * v.w[1] + tap[1];
                                 for (int i = 0; i < 3; ++i) {
                                   from[i + 2] = at[i + 2] * v.stride[i] - v.padding[i] + tap[i + 2] * v.dilation[i];
                                   inside = inside && from[i + 2] >= 0 && from[i + 2] < v.x[i + 2];
                                 }
                                 if (inside) accumulate(out, o, in[0][ravel(from, v.x)] * in[1][ravel(tap, v.w)]);
                               }
                             }
                             return NumberLists{out};
                           },
                       .ulps = 8 + static_cast<double>(v.w.numel()) / 8,
                       .gradients = Gradients::second,
                       .agreement = Agreement::close});
  };
  add({.x = {1, 2, 3, 3, 2}, .w = {2, 2, 2, 2, 1}});
  add({.x = {2, 2, 3, 2, 3}, .w = {2, 1, 2, 1, 2}, .stride = {1, 2, 1}, .padding = {1, 0, 1}, .groups = 2});
  add({.x = {1, 1, 5, 3, 2}, .w = {1, 1, 2, 2, 2}, .stride = {2, 1, 1}, .dilation = {2, 1, 1}});
  add({.x = {1, 2, 2, 2, 2}, .w = {3, 2, 1, 1, 1}});
}

}  // namespace

void add_conv_samples(Samples& samples) {
  add_volumes(samples);
  add_variants(samples);
  add(samples, {.x = {1, 1, 3, 3}, .w = {1, 1, 2, 2}});
  add(samples, {.x = {2, 2, 4, 3}, .w = {3, 2, 3, 3}, .padding = {1, 1}});
  add(samples, {.x = {1, 2, 5, 4}, .w = {2, 2, 3, 2}, .stride = {2, 1}, .padding = {1, 0}});
  add(samples, {.x = {2, 3, 3, 3}, .w = {2, 3, 1, 1}});
  add(samples, {.x = {1, 1, 5, 6}, .w = {2, 1, 2, 3}, .padding = {2, 1}, .dilation = {2, 2}});
  add(samples, {.x = {1, 4, 3, 3}, .w = {4, 2, 2, 2}, .groups = 2});
  add(samples, {.x = {2, 3, 3, 2}, .w = {3, 1, 2, 2}, .padding = {1, 1}, .groups = 3});
  add(samples, {.x = {1, 1, 4, 7}, .w = {1, 1, 2, 2}, .stride = {3, 3}});  // the last rows are never read
  add(samples,
      {.x = {1, 2, 5, 4}, .w = {4, 1, 3, 2}, .stride = {2, 1}, .padding = {2, 1}, .dilation = {1, 2}, .groups = 2});
  add(samples, {.x = {0, 2, 4, 4}, .w = {3, 2, 3, 3}});
  add(samples, {.x = {3, 1, 17, 17}, .w = {6, 1, 5, 5}, .padding = {2, 2}}, true);
  add(samples, {.x = {2, 32, 9, 9}, .w = {32, 1, 3, 3}, .padding = {2, 2}, .dilation = {2, 2}, .groups = 32}, true);
  add(samples, {.x = {2, 16, 9, 11}, .w = {32, 16, 3, 3}, .stride = {2, 2}, .padding = {1, 1}}, true);
}

}  // namespace tandem::samples
