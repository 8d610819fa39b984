// Samples of cumsum, cumprod, cummax, cummin and linear_recurrence.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

const std::vector<std::pair<Shape, int64_t>> kCases = {
    {{}, 0},       {{1}, 0},    {{17}, 0},   {{3, 4}, 0}, {{3, 4}, -1},     {{2, 3, 4}, 1}, {{33, 17}, 1},
    {{33, 17}, 0}, {{0, 3}, 1}, {{3, 0}, 1}, {{0}, 0},    {{100, 1031}, 1}, {{103, 200}, 0}};

/// Calls step(position, position of the one before or -1) along dim.
template <class Step> void along(const Shape& shape, int64_t dim, bool reverse, Step&& step) {
  if (shape.empty()) return step(int64_t{0}, int64_t{-1});
  const int d = static_cast<int>(dim < 0 ? dim + shape.size() : dim);
  int64_t inner = 1;
  for (int k = d + 1; k < shape.size(); ++k) inner *= shape[k];
  for (int64_t k = 0; k < shape.numel(); ++k) {
    const int64_t i = reverse ? shape.numel() - 1 - k : k, place = i / inner % shape[d];
    const bool first = place == (reverse ? shape[d] - 1 : 0);
    step(i, first ? -1 : reverse ? i + inner : i - inner);
  }
}

void add_running(Samples& samples, const char* op, const Shape& shape, int64_t dim, bool reverse, Generator floats,
                 Generator whole, const char* note = "") {
  const bool product = op == std::string("cumprod");
  const Call call = [=](const Tensors& x) {
    if (!reverse) return Tensors{product ? cumprod(x[0], dim) : cumsum(x[0], dim)};
    return Tensors{dispatch(find_op(op), {x[0]}, {{"dim", dim < 0 ? dim + shape.size() : dim}, {"reverse", true}},
                            Where::current())};
  };
  const Reference reference = [=](const NumberLists& in) {
    Numbers out(in[0].shape, is_floating(in[0].dtype) ? in[0].dtype : int64);
    out.make_scale();
    along(in[0].shape, dim, reverse, [&](int64_t i, int64_t before) {
      const auto at = static_cast<size_t>(i);
      out[i] = before < 0 ? in[0][i] : product ? out[before] * in[0][i] : out[before] + in[0][i];
      out.scale[at] =
          product ? std::fabs(out[i]) : std::fabs(in[0][i]) + (before < 0 ? 0 : out.scale[static_cast<size_t>(before)]);
    });
    return NumberLists{out};
  };
  const bool large = shape.numel() > 1000;
  Sample sample{.op = op,
                .label = detail::str(shape, " dim ", dim, reverse ? ", reverse" : "", note),
                .operands = {{shape, floats}},
                .dtypes = kFloats,
                .call = call,
                .reference = reference,
                .ulps = product ? 8.0 : 4.0,
                .gradients = large ? Gradients::none : Gradients::second,
                .large = large};
  samples.push_back(sample);
  sample.operands = {{shape, whole}};
  sample.dtypes = {int32, int64, int8, uint8, bool_};
  sample.gradients = Gradients::none;
  samples.push_back(sample);
}

void add_recurrence(Samples& samples, const Shape& shape, int64_t dim, bool reverse) {
  const bool large = shape.numel() > 1000;
  samples.push_back({.op = "linear_recurrence",
                     .label = detail::str(shape, " dim ", dim, reverse ? ", reverse" : ""),
                     .operands = {{shape, spread(-0.9, 0.9)}, {shape, spread(-2, 2, 1)}},
                     .dtypes = kFloats,
                     .call =
                         [=](const Tensors& x) {
                           if (!reverse) return Tensors{linear_recurrence(x[0], x[1], dim)};
                           return Tensors{dispatch(find_op("linear_recurrence"), {x[0], x[1]},
                                                   {{"dim", dim < 0 ? dim + shape.size() : dim}, {"reverse", true}},
                                                   Where::current())};
                         },
                     .reference =
                         [=](const NumberLists& in) {
                           Numbers out(shape, in[0].dtype);
                           out.make_scale();
                           along(shape, dim, reverse, [&](int64_t i, int64_t before) {
                             out[i] = in[1][i] + (before < 0 ? 0 : in[0][i] * out[before]);
                             out.scale[static_cast<size_t>(i)] =
                                 std::fabs(in[1][i]) +
                                 (before < 0 ? 0 : std::fabs(in[0][i]) * out.scale[static_cast<size_t>(before)]);
                           });
                           return NumberLists{out};
                         },
                     .gradients = large ? Gradients::none : Gradients::second,
                     .large = large});
}

void add_running_extreme(Samples& samples, bool greatest, const Shape& shape, int64_t dim, Generator values,
                         std::vector<DType> dtypes, const char* note = "") {
  const bool large = shape.numel() > 1000, ties = note[0] != 0;
  samples.push_back({.op = greatest ? "cummax" : "cummin",
                     .label = detail::str(shape, " dim ", dim, note),
                     .operands = {{shape, values, {}, true, false, ties}},
                     .dtypes = std::move(dtypes),
                     .call =
                         [=](const Tensors& x) {
                           const ValuesAndIndices both = greatest ? cummax(x[0], dim) : cummin(x[0], dim);
                           return Tensors{both.values, both.indices};
                         },
                     .reference =
                         [=](const NumberLists& in) {
                           Numbers best(shape, in[0].dtype), place(shape, int64), count(shape, int64);
                           along(shape, dim, false, [&](int64_t i, int64_t before) {
                             count[i] = before < 0 ? 0 : count[before] + 1;
                             const bool stays =
                                 before >= 0 && (best[before] != best[before] ||
                                                 (greatest ? in[0][i] < best[before] : in[0][i] > best[before]));
                             best[i] = stays && in[0][i] == in[0][i] ? best[before] : in[0][i];
                             place[i] = stays && in[0][i] == in[0][i] ? place[before] : count[i];
                           });
                           return NumberLists{best, place};
                         },
                     .ulps = 0,
                     .gradients = large || ties ? Gradients::none : Gradients::second,
                     .large = large});
}

}  // namespace

void add_scan_samples(Samples& samples) {
  const Generator any = spread(-3, 3), small = integers(-5, 6), near_one = away_from_zero(0.7, 1.3),
                  few = integers(1, 3);
  for (const bool greatest : {true, false}) {
    for (const auto& [shape, dim] : kCases) add_running_extreme(samples, greatest, shape, dim, any, kFloats);
    for (const int64_t dim : {0, 1}) {
      add_running_extreme(samples, greatest, {5, 7}, dim, integers(-3, 4), kAll, ", ties");
      add_running_extreme(samples, greatest, {5, 7}, dim, repeat({1, NAN, -INFINITY, INFINITY, 0, -2, 1}),
                          {float32, float64, bfloat16}, ", not numbers");
    }
  }
  for (const auto& [shape, dim] : kCases) {
    add_running(samples, "cumsum", shape, dim, false, any, small);
    if (shape.numel() <= 60) add_running(samples, "cumprod", shape, dim, false, near_one, few);
    add_recurrence(samples, shape, dim, false);
    if (shape.empty()) continue;
    add_running(samples, "cumsum", shape, dim, true, any, small);
    if (shape.numel() <= 60) add_running(samples, "cumprod", shape, dim, true, near_one, few);
    add_recurrence(samples, shape, dim, true);
  }
  for (const int64_t dim : {0, 1})
    add_running(samples, "cumprod", {3, 4}, dim, dim == 0, repeat({2, 0, 3, 4, 5, 0, 0}), integers(0, 3), ", zeros");
}

}  // namespace tandem::samples
