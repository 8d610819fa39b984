// Samples of max pooling, its gradient, and the gradient of that.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

struct Pooling {
  Shape x, kernel, stride, padding{0, 0};

  Shape y() const {
    Shape shape = x;
    for (int d = 0; d < 2; ++d) shape[d + 2] = (x[d + 2] + 2 * padding[d] - kernel[d]) / stride[d] + 1;
    return shape;
  }
  Attributes attributes() const { return {{"kernel", kernel}, {"stride", stride}, {"padding", padding}}; }
  std::string label() const { return detail::str(x, " kernel ", kernel, " stride ", stride, " padding ", padding); }
  /// An index into the plane of x that window `position` of y may have chosen.
  int64_t some_index(int64_t position) const {
    const Shape at = unravel(position, y());
    int64_t place[2];
    for (int d = 0; d < 2; ++d) {
      const int64_t begin = at[d + 2] * stride[d] - padding[d];
      place[d] = std::clamp<int64_t>(begin + (position * 7 + d) % kernel[d], std::max<int64_t>(begin, 0),
                                     std::min(begin + kernel[d], x[d + 2]) - 1);
    }
    return place[0] * x[3] + place[1];
  }
};

/// Of equals the first, of NaNs the last, as in PyTorch.
NumberLists pool(const Pooling& p, const Numbers& x) {
  Numbers values(p.y(), x.dtype), indices(p.y(), int32);
  for (int64_t o = 0; o < values.numel(); ++o) {
    const Shape at = unravel(o, values.shape);
    double best = -INFINITY;
    int64_t chosen = -1;
    for (int64_t a = 0; a < p.kernel[0]; ++a)
      for (int64_t b = 0; b < p.kernel[1]; ++b) {
        const int64_t h = at[2] * p.stride[0] - p.padding[0] + a, v = at[3] * p.stride[1] - p.padding[1] + b;
        if (h < 0 || h >= p.x[2] || v < 0 || v >= p.x[3]) continue;
        const double now = x[ravel({at[0], at[1], h, v}, p.x)];
        if (chosen < 0 || now > best || now != now) best = now, chosen = h * p.x[3] + v;
      }
    values[o] = best;
    indices[o] = static_cast<double>(chosen);
  }
  return {values, indices};
}

void add(Samples& samples, const Pooling& p, bool large = false) {
  const Gradients gradients = large ? Gradients::none : Gradients::second;
  samples.push_back({.op = "max_pool2d",
                     .label = p.label(),
                     .operands = {{p.x, spread(-3, 3)}},
                     .dtypes = kFloats,
                     .call = call_op("max_pool2d", p.attributes()),
                     .reference = [p](const NumberLists& in) { return pool(p, in[0]); },
                     .gradients = gradients,
                     .large = large});
  const Operand indices{p.y(), [p](int64_t i) { return static_cast<double>(p.some_index(i)); }, int32, false, true};
  const int64_t plane = p.x[2] * p.x[3], window = p.y()[2] * p.y()[3];
  Attributes attributes = p.attributes();
  attributes.set({"shape", p.x});
  samples.push_back({.op = "max_unpool2d",
                     .label = p.label(),
                     .operands = {{p.y(), spread(-3, 3)}, indices},
                     .dtypes = kFloats,
                     .call = call_op("max_unpool2d", attributes),
                     .reference =
                         [=](const NumberLists& in) {
                           Numbers out(p.x, in[0].dtype);
                           out.make_scale();
                           for (int64_t i = 0; i < in[0].numel(); ++i) {
                             const int64_t to = i / window * plane + static_cast<int64_t>(in[1][i]);
                             out[to] += in[0][i];
                             out.scale[static_cast<size_t>(to)] += std::fabs(in[0][i]);
                           }
                           return NumberLists{out};
                         },
                     .gradients = gradients,
                     .agreement = Agreement::close,
                     .large = large});
  samples.push_back({.op = "max_pool2d_select",
                     .label = p.label(),
                     .operands = {{p.x, spread(-3, 3)}, indices},
                     .dtypes = kFloats,
                     .call = call_op("max_pool2d_select", attributes),
                     .reference =
                         [=](const NumberLists& in) {
                           Numbers out(p.y(), in[0].dtype);
                           for (int64_t i = 0; i < out.numel(); ++i)
                             out[i] = in[0][i / window * plane + static_cast<int64_t>(in[1][i])];
                           return NumberLists{out};
                         },
                     .gradients = gradients,
                     .large = large});
}

}  // namespace

void add_resample_samples(Samples& samples);

void add_pool_samples(Samples& samples) {
  add_resample_samples(samples);
  add(samples, {.x = {1, 1, 4, 4}, .kernel = {2, 2}, .stride = {2, 2}});
  add(samples, {.x = {2, 3, 5, 4}, .kernel = {2, 2}, .stride = {1, 1}});  // windows overlap
  add(samples, {.x = {1, 2, 5, 5}, .kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}});
  add(samples, {.x = {2, 1, 3, 7}, .kernel = {1, 3}, .stride = {1, 2}});
  add(samples, {.x = {1, 1, 5, 6}, .kernel = {2, 2}, .stride = {3, 3}});  // and leave gaps
  add(samples, {.x = {0, 2, 4, 4}, .kernel = {2, 2}, .stride = {2, 2}});
  add(samples, {.x = {3, 17, 13, 11}, .kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}, true);
  const Pooling ties{.x = {1, 2, 4, 4}, .kernel = {2, 2}, .stride = {2, 2}};
  for (const auto& [note, values] : {std::pair<const char*, std::vector<double>>{", ties", {1, 1, 0, 2, 2}},
                                     {", NaN and infinities", {1, NAN, -INFINITY, 3, INFINITY, -INFINITY, -INFINITY}}})
    samples.push_back({.op = "max_pool2d",
                       .label = ties.label() + note,
                       .operands = {{ties.x, repeat(values)}},
                       .dtypes = kFloats,
                       .call = call_op("max_pool2d", ties.attributes()),
                       .reference = [ties](const NumberLists& in) { return pool(ties, in[0]); }});
}

}  // namespace tandem::samples
