// Samples of embedding, gather, scatter, index_select, index_add, one_hot, and their gradients.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

void add_embeddings(Samples& samples) {
  const std::tuple<Shape, int64_t, int64_t> cases[] = {{{3}, 5, 4}, {{}, 5, 4},  {{2, 3}, 17, 5}, {{33}, 3, 1},
                                                       {{0}, 4, 3}, {{4}, 3, 0}, {{100}, 17, 33}};
  for (const auto& [ids, count, width] : cases) {
    const bool large = ids.numel() * width > 1000;
    const Operand positions{ids, integers(0, count), int64};
    Shape shape = ids;
    shape.push_back(width);
    const std::string label = detail::str(ids, " of [", count, ", ", width, "]");
    samples.push_back({.op = "embedding",
                       .label = label,
                       .operands = {positions, {{count, width}, spread(-2, 2)}},
                       .dtypes = kFloats,
                       .call = [](const Tensors& in) { return Tensors{embedding(in[0], in[1])}; },
                       .reference =
                           [shape = shape, width = width](const NumberLists& in) {
                             Numbers out(shape, in[1].dtype);
                             for (int64_t i = 0; i < out.numel(); ++i)
                               out[i] = in[1][static_cast<int64_t>(in[0][i / width]) * width + i % width];
                             return NumberLists{out};
                           },
                       .ulps = 0,
                       .gradients = Gradients::second,
                       .large = large});
    samples.push_back({.op = "embedding_grad",
                       .label = label,
                       .operands = {{shape, spread(-2, 2)}, positions},
                       .dtypes = kFloats,
                       .call = call_op("embedding_grad", {{"count", count}}),
                       .reference =
                           [count = count, width = width](const NumberLists& in) {
                             Numbers out({count, width}, in[0].dtype);
                             out.make_scale();
                             for (int64_t i = 0; i < in[0].numel(); ++i) {
                               const int64_t to = static_cast<int64_t>(in[1][i / width]) * width + i % width;
                               out[to] += in[0][i];
                               out.scale[static_cast<size_t>(to)] += std::fabs(in[0][i]);
                             }
                             return NumberLists{out};
                           },
                       .ulps = 16,
                       .gradients = Gradients::second,
                       .agreement = Agreement::close,
                       .large = large});
  }
}

/// The position in a tensor of shape `whole` that place i of the index points at.
int64_t indexed(int64_t i, const Numbers& index, int dim, const Shape& whole) {
  Shape at = unravel(i, index.shape);
  at[dim] = static_cast<int64_t>(index[i]);
  return ravel(at, whole);
}

void add_gathers(Samples& samples) {
  const std::tuple<Shape, Shape, int> cases[] = {
      {{5}, {3}, 0},         {{3, 4}, {2, 4}, 0},       {{3, 4}, {3, 7}, 1},
      {{3, 4}, {2, 3}, 1},   {{2, 3, 4}, {2, 5, 3}, 1}, {{33, 17}, {33, 2}, 1},
      {{17, 3}, {33, 3}, 0}, {{3, 4}, {0, 4}, 0},       {{70, 33}, {70, 33}, 1}};
  for (const auto& [x, index, d] : cases) {
    const int dim = d;
    const bool large = x.numel() > 1000;
    const Operand positions{index, integers(0, x[dim]), int64};
    const std::string label = detail::str(x, " at ", index, " dim ", dim);
    samples.push_back({.op = "gather",
                       .label = label,
                       .operands = {{x, spread(-2, 2)}, positions},
                       .dtypes = kAll,
                       .call = [dim](const Tensors& in) { return Tensors{gather(in[0], dim, in[1])}; },
                       .reference =
                           [dim](const NumberLists& in) {
                             Numbers out(in[1].shape, in[0].dtype);
                             for (int64_t i = 0; i < out.numel(); ++i)
                               out[i] = in[0][indexed(i, in[1], dim, in[0].shape)];
                             return NumberLists{out};
                           },
                       .ulps = 0,
                       .gradients = Gradients::second,
                       .large = large});
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
    samples.push_back({.op = "scatter_add",
                       .label = label,
                       .operands = {{index, spread(-2, 2)}, positions},
                       .dtypes = kFloats,
                       .call = call,
                       .reference = reference,
                       .gradients = Gradients::second,
                       .agreement = Agreement::close,
                       .large = large});
    samples.push_back({.op = "scatter_add",
                       .label = label,
                       .operands = {{index, integers(-5, 6)}, positions},
                       .dtypes = {int32, int64, int16},
                       .call = call,
                       .reference = reference,
                       .large = large});
  }
}

/// x with f(element of the result, element of src) wherever the index points, in its order.
Reference scattered(int dim, double (*f)(double, double)) {
  return [dim, f](const NumberLists& in) {
    Numbers out = in[0];
    std::vector<double>& scale = out.make_scale();
    for (int64_t i = 0; i < out.numel(); ++i) scale[static_cast<size_t>(i)] = std::fabs(out[i]);
    for (int64_t i = 0; i < in[1].numel(); ++i) {
      const int64_t to = indexed(i, in[1], dim, in[0].shape);
      const double value = in.size() > 2 ? in[2][i] : 3;
      out[to] = f(out[to], value);
      scale[static_cast<size_t>(to)] += std::fabs(value);
    }
    return NumberLists{out};
  };
}

void add_scatters(Samples& samples) {
  const auto last = [](double, double value) { return value; };
  const auto added = [](double before, double value) { return before + value; };
  const std::tuple<Shape, Shape, int> cases[] = {
      {{5}, {3}, 0},          {{3, 4}, {2, 4}, 0}, {{3, 4}, {3, 7}, 1},     {{2, 3, 4}, {2, 5, 3}, 1},
      {{33, 17}, {33, 2}, 1}, {{3, 4}, {0, 4}, 0}, {{70, 33}, {70, 330}, 1}};
  for (const auto& [x, index, d] : cases) {
    const int dim = d;
    const bool large = index.numel() > 1000;
    const Operand base{x, spread(-2, 2)}, positions{index, integers(0, x[dim]), int64}, source{index, spread(-2, 2, 1)};
    const std::string label = detail::str(x, " at ", index, " dim ", dim);
    samples.push_back({.op = "scatter",
                       .label = label,
                       .operands = {base, positions, source},
                       .dtypes = kAll,
                       .call = [dim](const Tensors& in) { return Tensors{scatter(in[0], dim, in[1], in[2])}; },
                       .reference = scattered(dim, last),
                       .ulps = 0,
                       .gradients = Gradients::second,
                       .large = large});
    samples.push_back({.op = "scatter",
                       .label = label + ", a number",
                       .operands = {base, positions},
                       .dtypes = kNumbers,
                       .call = [dim](const Tensors& in) { return Tensors{scatter(in[0], dim, in[1], 3)}; },
                       .reference = scattered(dim, last),
                       .ulps = 0,
                       .gradients = Gradients::second,
                       .large = large});
    samples.push_back({.op = "scatter",
                       .label = label + ", added",
                       .operands = {base, positions, source},
                       .dtypes = kFloats,
                       .call = [dim](const Tensors& in) { return Tensors{scatter_add(in[0], dim, in[1], in[2])}; },
                       .reference = scattered(dim, added),
                       .ulps = large ? 256.0 : 16.0,
                       .gradients = Gradients::second,
                       .large = large});
    samples.push_back({.op = "scatter",
                       .label = label + ", integers added",
                       .operands = {{x, integers(-5, 6)}, positions, {index, integers(-5, 6, 1)}},
                       .dtypes = {int32, int64, int16},
                       .call = [dim](const Tensors& in) { return Tensors{scatter_add(in[0], dim, in[1], in[2])}; },
                       .reference = scattered(dim, added),
                       .large = large});
  }
  const auto multiplied = [](double before, double value) { return before * value; };
  for (const auto& [x, index, d] : {std::tuple<Shape, Shape, int>{{5}, {3}, 0},
                                    {{3, 4}, {2, 4}, 0},
                                    {{3, 4}, {3, 7}, 1},
                                    {{2, 3, 4}, {2, 5, 3}, 1},
                                    {{3, 4}, {0, 4}, 0}}) {
    const int dim = d;
    const Call call = [dim](const Tensors& in) {
      return Tensors{scatter_reduce(in[0], dim, in[1], in[2], ScatterReduce::prod)};
    };
    const Operand positions{index, integers(0, x[dim]), int64};
    Sample sample{.op = "scatter_prod",
                  .label = detail::str(x, " at ", index, " dim ", dim),
                  .operands = {{x, away_from_zero(0.5, 2)}, positions, {index, away_from_zero(0.5, 2, 1)}},
                  .dtypes = kFloats,
                  .call = call,
                  .reference = scattered(dim, multiplied),
                  .ulps = 16,
                  .gradients = Gradients::second};
    samples.push_back(sample);
    sample.label += ", zeros";
    sample.operands[0].value = repeat({2, 0, -1, 0.5});
    sample.operands[2].value = repeat({1, 0, 3, -2, 1, 1, 1});
    sample.gradients = Gradients::first;
    samples.push_back(sample);
    sample.label += ", integers";
    sample.operands[2].value = integers(-2, 3);
    sample.operands[0].value = integers(-5, 6);
    sample.dtypes = {int32, int64};
    sample.gradients = Gradients::none;
    samples.push_back(sample);
  }
  // A larger src is read as far as the index goes.
  samples.push_back({.op = "scatter",
                     .label = "a larger src",
                     .operands = {{{3, 4}, spread(-2, 2)}, {{2, 3}, integers(0, 4), int64}, {{3, 5}, spread(-2, 2, 1)}},
                     .dtypes = {float32, float64},
                     .call = [](const Tensors& in) { return Tensors{scatter(in[0], 1, in[1], in[2])}; },
                     .reference =
                         [](const NumberLists& in) {
                           Numbers out = in[0];
                           for (int64_t i = 0; i < 6; ++i)
                             out[indexed(i, in[1], 1, in[0].shape)] = in[2][i / 3 * 5 + i % 3];
                           return NumberLists{out};
                         },
                     .ulps = 0,
                     .gradients = Gradients::second});
}

/// The position in [.., count, ..] of slice `at` along dim.
int64_t in_slice(int64_t i, const Shape& shape, int dim, int64_t at, const Shape& whole) {
  Shape index = unravel(i, shape);
  index[dim] = at;
  return ravel(index, whole);
}

void add_selections(Samples& samples) {
  const std::tuple<Shape, int64_t, int> cases[] = {{{5}, 3, 0},       {{3, 4}, 5, 0},    {{3, 4}, 5, 1},
                                                   {{2, 3, 4}, 2, 1}, {{2, 3, 4}, 7, 2}, {{3, 4}, 0, 0},
                                                   {{3, 0}, 2, 0},    {{17, 33}, 40, 0}, {{40, 70, 3}, 150, 1}};
  for (const auto& [x, count, d] : cases) {
    const int dim = d;
    Shape picked = x;
    picked[dim] = count;
    const bool large = picked.numel() > 1000;
    const Operand positions{{count}, integers(0, x[dim]), int64};
    const std::string label = detail::str(count, " of ", x, " dim ", dim);
    samples.push_back(
        {.op = "index_select",
         .label = label,
         .operands = {{x, spread(-2, 2)}, positions},
         .dtypes = kAll,
         .call = [dim](const Tensors& in) { return Tensors{index_select(in[0], dim, in[1])}; },
         .reference =
             [dim, picked](const NumberLists& in) {
               Numbers out(picked, in[0].dtype);
               for (int64_t i = 0; i < out.numel(); ++i)
                 out[i] =
                     in[0][in_slice(i, picked, dim, static_cast<int64_t>(in[1][unravel(i, picked)[dim]]), in[0].shape)];
               return NumberLists{out};
             },
         .ulps = 0,
         .gradients = Gradients::second,
         .large = large});
    const auto add = [&](Operand base, Operand source, std::vector<DType> dtypes) {
      samples.push_back({.op = "index_add",
                         .label = label,
                         .operands = {std::move(base), positions, std::move(source)},
                         .dtypes = std::move(dtypes),
                         .call = [dim](const Tensors& in) { return Tensors{index_add(in[0], dim, in[1], in[2])}; },
                         .reference =
                             [dim](const NumberLists& in) {
                               Numbers out = in[0];
                               std::vector<double>& scale = out.make_scale();
                               for (int64_t i = 0; i < out.numel(); ++i)
                                 scale[static_cast<size_t>(i)] = std::fabs(out[i]);
                               for (int64_t i = 0; i < in[2].numel(); ++i) {
                                 const int64_t at = static_cast<int64_t>(in[1][unravel(i, in[2].shape)[dim]]),
                                               to = in_slice(i, in[2].shape, dim, at, out.shape);
                                 out[to] += in[2][i];
                                 scale[static_cast<size_t>(to)] += std::fabs(in[2][i]);
                               }
                               return NumberLists{out};
                             },
                         .ulps = 16,
                         .gradients = Gradients::second,
                         .large = large});
    };
    add({x, spread(-2, 2)}, {picked, spread(-2, 2, 1)}, kFloats);
    add({x, integers(-5, 6)}, {picked, integers(-5, 6, 1)}, {int32, int64, int16});
  }
  for (const auto& [index, dim] : {std::pair<Shape, int>{{2, 3}, 0}, {{}, 1}, {{4}, 2}, {{0, 2}, 1}}) {
    Shape picked{2, 3, 4};
    picked.erase(dim);
    for (int i = 0; i < index.size(); ++i) picked.insert(dim + i, index[i]);
    samples.push_back({.op = "index_select",
                       .label = detail::str("take ", index, " dim ", dim),
                       .operands = {{{2, 3, 4}, spread(-2, 2)}, {index, integers(0, 2), int64}},
                       .dtypes = kAll,
                       .call = [dim = dim](const Tensors& in) { return Tensors{take(in[0], in[1], dim)}; },
                       .reference =
                           [dim = dim, picked](const NumberLists& in) {
                             Numbers out(picked, in[0].dtype);
                             const int rank = in[1].shape.size();
                             for (int64_t i = 0; i < out.numel(); ++i) {
                               const Shape at = unravel(i, picked);
                               Shape from, place;
                               for (int k = 0; k < rank; ++k) place.push_back(at[dim + k]);
                               for (int k = 0; k < 3; ++k)
                                 from.push_back(k < dim    ? at[k]
                                                : k == dim ? static_cast<int64_t>(in[1][ravel(place, in[1].shape)])
                                                           : at[k + rank - 1]);
                               out[i] = in[0][ravel(from, in[0].shape)];
                             }
                             return NumberLists{out};
                           },
                       .ulps = 0,
                       .gradients = Gradients::second});
  }
}

void add_one_hots(Samples& samples) {
  for (const auto& [shape, classes] :
       {std::pair<Shape, int64_t>{{}, 3}, {{4}, 5}, {{2, 3}, 1}, {{2, 3}, 7}, {{0}, 2}, {{33}, 17}})
    samples.push_back({.op = "one_hot",
                       .label = detail::str(shape, " of ", classes),
                       .operands = {{shape, integers(0, classes)}},
                       .dtypes = {int64},
                       .call = [classes = classes](const Tensors& in) { return Tensors{one_hot(in[0], classes)}; },
                       .reference =
                           [classes = classes](const NumberLists& in) {
                             Shape result = in[0].shape;
                             result.push_back(classes);
                             Numbers out(result, int64);
                             for (int64_t i = 0; i < out.numel(); ++i)
                               out[i] = in[0][i / classes] == static_cast<double>(i % classes);
                             return NumberLists{out};
                           }});
}

/// The view that decompositions make: its elements are checked by generated kernels that read them.
void add_range_checks(Samples& samples) {
  for (const Shape& shape : {Shape{}, Shape{4}, Shape{2, 3}, Shape{0}})
    samples.push_back({.op = "range_checked",
                       .label = detail::str(shape),
                       .operands = {{shape, integers(0, 5)}},
                       .dtypes = {int64},
                       .call = call_op("range_checked", {{"op", std::string("a \"test\"")},
                                                         {"what", std::string("label")},
                                                         {"bound", int64_t{5}},
                                                         {"classes", int64_t{0}}}),
                       .reference = [](const NumberLists& in) { return in; }});
}

}  // namespace

void add_index_samples(Samples& samples) {
  add_embeddings(samples);
  add_gathers(samples);
  add_scatters(samples);
  add_selections(samples);
  add_one_hots(samples);
  add_range_checks(samples);
}

}  // namespace tandem::samples
