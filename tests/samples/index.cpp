// Samples of embedding, gather, and their gradients.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

void add_embeddings(Samples& samples) {
  const std::tuple<Shape, int64_t, int64_t> cases[] = {{{3}, 5, 4}, {{}, 5, 4}, {{2, 3}, 17, 5}, {{33}, 3, 1}, {{0}, 4, 3}, {{4}, 3, 0}, {{100}, 17, 33}};
  for (const auto& [ids, count, width] : cases) {
    const bool large = ids.numel() * width > 1000;
    const Operand positions{ids, integers(0, count), int64};
    Shape shape = ids;
    shape.push_back(width);
    const std::string label = detail::str(ids, " of [", count, ", ", width, "]");
    samples.push_back({.op = "embedding", .label = label, .operands = {positions, {{count, width}, spread(-2, 2)}}, .dtypes = kFloats,
                       .call = [](const Tensors& in) { return Tensors{embedding(in[0], in[1])}; },
                       .reference = [shape = shape, width = width](const NumberLists& in) {
                         Numbers out(shape, in[1].dtype);
                         for (int64_t i = 0; i < out.numel(); ++i) out[i] = in[1][static_cast<int64_t>(in[0][i / width]) * width + i % width];
                         return NumberLists{out};
                       },
                       .ulps = 0, .gradients = Gradients::second, .large = large});
    samples.push_back({.op = "embedding_grad", .label = label, .operands = {{shape, spread(-2, 2)}, positions}, .dtypes = kFloats,
                       .call = call_op("embedding_grad", {{"count", count}}),
                       .reference = [count = count, width = width](const NumberLists& in) {
                         Numbers out({count, width}, in[0].dtype);
                         out.make_scale();
                         for (int64_t i = 0; i < in[0].numel(); ++i) {
                           const int64_t to = static_cast<int64_t>(in[1][i / width]) * width + i % width;
                           out[to] += in[0][i];
                           out.scale[static_cast<size_t>(to)] += std::fabs(in[0][i]);
                         }
                         return NumberLists{out};
                       },
                       .ulps = 16, .gradients = Gradients::second, .agreement = Agreement::close, .large = large});
  }
}

/// The position in a tensor of shape `whole` that place i of the index points at.
int64_t indexed(int64_t i, const Numbers& index, int dim, const Shape& whole) {
  Shape at = unravel(i, index.shape);
  at[dim] = static_cast<int64_t>(index[i]);
  return ravel(at, whole);
}

void add_gathers(Samples& samples) {
  const std::tuple<Shape, Shape, int> cases[] = {{{5}, {3}, 0}, {{3, 4}, {2, 4}, 0}, {{3, 4}, {3, 7}, 1}, {{3, 4}, {2, 3}, 1}, {{2, 3, 4}, {2, 5, 3}, 1},
                                                 {{33, 17}, {33, 2}, 1}, {{17, 3}, {33, 3}, 0}, {{3, 4}, {0, 4}, 0}, {{70, 33}, {70, 33}, 1}};
  for (const auto& [x, index, d] : cases) {
    const int dim = d;
    const bool large = x.numel() > 1000;
    const Operand positions{index, integers(0, x[dim]), int64};
    const std::string label = detail::str(x, " at ", index, " dim ", dim);
    samples.push_back({.op = "gather", .label = label, .operands = {{x, spread(-2, 2)}, positions}, .dtypes = kAll,
                       .call = [dim](const Tensors& in) { return Tensors{gather(in[0], dim, in[1])}; },
                       .reference = [dim](const NumberLists& in) {
                         Numbers out(in[1].shape, in[0].dtype);
                         for (int64_t i = 0; i < out.numel(); ++i) out[i] = in[0][indexed(i, in[1], dim, in[0].shape)];
                         return NumberLists{out};
                       },
                       .ulps = 0, .gradients = Gradients::second, .large = large});
    const Call call = [dim, x = x](const Tensors& in) { return Tensors{scatter_add(in[0], dim, in[1], x)}; };
    const Reference reference = [dim, x = x](const NumberLists& in) {
      Numbers out(x, in[0].dtype);
      out.make_scale();
      for (int64_t i = 0; i < in[0].numel(); ++i) {
        const int64_t to = indexed(i, in[1], dim, x);
        out[to] += in[0][i];
        out.scale[static_cast<size_t>(to)] += std::fabs(in[0][i]);
      }
      return NumberLists{out};
    };
    samples.push_back({.op = "scatter_add", .label = label, .operands = {{index, spread(-2, 2)}, positions}, .dtypes = kFloats, .call = call,
                       .reference = reference, .gradients = Gradients::second, .agreement = Agreement::close, .large = large});
    samples.push_back({.op = "scatter_add", .label = label, .operands = {{index, integers(-5, 6)}, positions}, .dtypes = {int32, int64}, .call = call,
                       .reference = reference, .large = large});
  }
}

}  // namespace

void add_index_samples(Samples& samples) {
  add_embeddings(samples);
  add_gathers(samples);
}

}  // namespace tandem::samples
