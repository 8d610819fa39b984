// Samples of sort, topk and searchsorted.
#include <algorithm>
#include <numeric>

#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// NaN is the greatest.
bool before(double a, double b) { return b != b ? a == a : a < b; }

/// The first k in order along dim, stable: values and indices.
NumberLists ordered(const Numbers& x, int64_t dim, int64_t k, bool descending) {
  const Shape shape = x.shape.empty() ? Shape{1} : x.shape;
  const int d = static_cast<int>(dim < 0 ? dim + shape.size() : dim);
  Shape kept = shape;
  kept[d] = k;
  Numbers values(x.shape.empty() ? Shape{} : kept, x.dtype), indices(x.shape.empty() ? Shape{} : kept, int64);
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < shape.size(); ++i)
    if (i != d) (i < d ? outer : inner) *= shape[i];
  const int64_t n = shape[d];
  for (int64_t row = 0; row < outer * inner; ++row) {
    const int64_t first = row / inner * n * inner + row % inner, to = row / inner * k * inner + row % inner;
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      const double left = x[first + a * inner], right = x[first + b * inner];
      return descending ? before(right, left) : before(left, right);
    });
    for (int64_t i = 0; i < k; ++i) {
      indices[to + i * inner] = static_cast<double>(order[static_cast<size_t>(i)]);
      values[to + i * inner] = x[first + order[static_cast<size_t>(i)] * inner];
    }
  }
  return {values, indices};
}

void add_sorts(Samples& samples, const Shape& shape, int64_t dim, Generator values, std::vector<DType> dtypes,
               const char* note = "") {
  const bool large = shape.numel() > 1000, ties = note[0] != 0;
  const int64_t size = shape.empty() ? 1 : shape[static_cast<int>(dim < 0 ? dim + shape.size() : dim)];
  for (const bool descending : {false, true}) {
    const auto add = [&](const char* op, std::string label, int64_t k, Call call) {
      samples.push_back({.op = op,
                         .label = detail::str(shape, " dim ", dim, label, descending ? ", descending" : "", note),
                         .operands = {{shape, values, {}, true, false, !ties && false}},
                         .dtypes = dtypes,
                         .call = std::move(call),
                         .reference = [=](const NumberLists& in) { return ordered(in[0], dim, k, descending); },
                         .ulps = 0,
                         .gradients = large || ties ? Gradients::none : Gradients::second,
                         .large = large});
    };
    add("sort", "", size, [=](const Tensors& x) {
      const auto [sorted, indices] = sort(x[0], dim, {.descending = descending});
      return Tensors{sorted, indices};
    });
    for (const int64_t k : {int64_t{0}, int64_t{1}, size / 2 + 1})
      if (k <= size && !(shape.empty() && k == 0))
        add("topk", detail::str(", k ", k), k, [=](const Tensors& x) {
          const auto [best, indices] = topk(x[0], k, dim, {.largest = descending});
          return Tensors{best, indices};
        });
  }
}

void add_searches(Samples& samples) {
  const std::vector<double> ascending = {-3, -1, -1, 0, 0.5, 0.5, 0.5, 2, 7};
  const auto rising = [=](int64_t i) { return ascending[static_cast<size_t>(i % 9)]; };
  for (const bool right : {false, true}) {
    for (const auto& [sorted, values] : {std::pair<Shape, Shape>{{9}, {5}},
                                         {{9}, {}},
                                         {{9}, {2, 3}},
                                         {{3, 9}, {3, 4}},
                                         {{2, 2, 9}, {2, 2, 5}},
                                         {{0}, {3}},
                                         {{9}, {0}}}) {
      samples.push_back(
          {.op = "searchsorted",
           .label = detail::str(sorted, " ", values, right ? ", right" : ""),
           .operands = {{sorted, rising, {}, false, true}, {values, repeat({0, 0.5, -1, -4, 9, 2, 0.25})}},
           .dtypes = {float32, float64, bfloat16, int32, int64, int8},
           .call = [=](const Tensors& in) { return Tensors{searchsorted(in[0], in[1], {.right = right})}; },
           .reference =
               [=, values = values](const NumberLists& in) {
                 Numbers out(values, int64);
                 const int64_t n = in[0].shape.back(), per_row = values.empty() ? 1 : values.back();
                 for (int64_t i = 0; i < out.numel(); ++i) {
                   const int64_t first = in[0].shape.size() == 1 ? 0 : i / per_row * n;
                   int64_t place = 0;
                   while (place < n && (right ? in[0][first + place] <= in[1][i] : in[0][first + place] < in[1][i]))
                     ++place;
                   out[i] = static_cast<double>(place);
                 }
                 return NumberLists{out};
               }});
    }
  }
}

}  // namespace

void add_sort_samples(Samples& samples) {
  const Generator any = spread(-9, 9);
  add_sorts(samples, {}, 0, any, kFloats);
  add_sorts(samples, {7}, 0, any, kFloats);
  add_sorts(samples, {3, 5}, 1, any, kFloats);
  add_sorts(samples, {3, 5}, 0, any, kFloats);
  add_sorts(samples, {2, 3, 4}, -2, any, kFloats);
  add_sorts(samples, {2, 5000}, 1, any, kFloats);  // long rows are sorted by digits
  add_sorts(samples, {5000, 2}, 0, integers(-300, 300), kNumbers, ", ties");
  add_sorts(samples, {4, 9}, 1, repeat({1, 3, 3, 2, 0, -0.0, 3}), kAll, ", ties");
  add_sorts(samples, {3, 5}, 1, repeat({1, 0, NAN, 2, NAN, INFINITY, 3, -INFINITY}), kFloats, ", NaN");
  add_sorts(samples, {0, 4}, 1, any, kFloats);
  add_searches(samples);
}

}  // namespace tandem::samples
