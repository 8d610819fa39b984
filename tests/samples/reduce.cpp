// Samples of reductions over any dims, argmax and argmin.
#include "samples/folds.h"

namespace tandem::samples {

namespace {

const std::vector<Reduced> kCases = {
    {{}, {}},        {{5}, {0}},       {{17}, {}},          {{3, 4}, {0}},      {{3, 4}, {1}},
    {{3, 4}, {}},    {{2, 3, 4}, {1}}, {{2, 3, 4}, {0, 2}}, {{2, 3, 4}, {-1}},  {{2, 3, 2, 3}, {1, 2}},
    {{33, 17}, {1}}, {{33, 17}, {0}},  {{1, 5, 1}, {0, 2}}, {{100, 1031}, {1}}, {{1031, 100}, {0}},
    {{100003}, {0}}};
const std::vector<Reduced> kEmpty = {{{0}, {0}}, {{0, 3}, {0}}, {{3, 0}, {}}};  // sum 0, product 1, mean NaN
const std::vector<Reduced> kEmptyResults = {{{0, 3}, {1}}, {{2, 0, 3}, {2}}};

using Fold = double (*)(const Numbers&, const std::vector<int64_t>& members);

struct Kind {
  const char* op;
  Tensor (*call)(const Arg&, const Dims&, ReduceOptions);
  Fold fold;
  Fold scale;   ///< what errors are measured against; none: the result
  bool widens;  ///< integers give int64
  Generator floats, whole;
  std::vector<DType> dtypes;
  Agreement agreement;
};

void add(Samples& samples, const Kind& kind, const Reduced& reduced, ReduceOptions options, const char* note = "",
         Gradients gradients = Gradients::second, std::optional<Generator> values = {}) {
  const Shape shape = reduced.shape;
  const Dims dims = reduced.dims;
  const Reference reference = [=, fold = kind.fold, scale = kind.scale, widens = kind.widens](const NumberLists& in) {
    const Folds folds(in[0].shape, dims, options.keepdim);
    Numbers out(folds.shape, widens && !is_floating(in[0].dtype) ? int64 : in[0].dtype);
    for (size_t i = 0; i < folds.members.size(); ++i) {
      out.values[i] = fold(in[0], folds.members[i]);
      if (scale) out.scale.push_back(scale(in[0], folds.members[i]));
    }
    return NumberLists{out};
  };
  const Call call = [call = kind.call, dims, options](const Tensors& x) { return Tensors{call(x[0], dims, options)}; };
  std::vector<DType> floating, whole;
  for (DType type : kind.dtypes) (is_floating(type) ? floating : whole).push_back(type);
  const double length = static_cast<double>(shape.numel());
  Sample sample{.op = kind.op,
                .label = detail::str(shape, " over ", dims, options.keepdim ? ", keepdim" : "", note),
                .operands = {{shape, values.value_or(kind.floats)}},
                .dtypes = floating,
                .call = call,
                .reference = reference,
                .ulps = kind.op == std::string("prod") ? std::max(4.0, length) : 4,
                .gradients = gradients,
                .agreement = kind.agreement,
                .large = length > 1000};
  if (length > 1000) sample.gradients = Gradients::none;
  samples.push_back(sample);
  sample.operands = {{shape, values.value_or(kind.whole)}};
  sample.dtypes = whole;
  sample.gradients = Gradients::none;
  if (!whole.empty()) samples.push_back(sample);
}

double sum_of(const Numbers& x, const std::vector<int64_t>& members) {
  Real total = 0;
  for (int64_t m : members) total += x[m];
  return static_cast<double>(total);
}
double magnitude_of(const Numbers& x, const std::vector<int64_t>& members) {
  double total = 0;
  for (int64_t m : members) total += std::fabs(x[m]);
  return total;
}
double mean_of(const Numbers& x, const std::vector<int64_t>& members) {
  return sum_of(x, members) / static_cast<double>(members.size());
}
double mean_magnitude_of(const Numbers& x, const std::vector<int64_t>& members) {
  return magnitude_of(x, members) / static_cast<double>(members.size());
}
double product_of(const Numbers& x, const std::vector<int64_t>& members) {
  double total = 1;
  for (int64_t m : members) total *= x[m];
  return total;
}
double greatest_of(const Numbers& x, const std::vector<int64_t>& members) {
  double best = -INFINITY;
  for (int64_t m : members) {
    if (x[m] != x[m]) return NAN;
    best = std::max(best, x[m]);
  }
  return best;
}
double least_of(const Numbers& x, const std::vector<int64_t>& members) {
  double best = INFINITY;
  for (int64_t m : members) {
    if (x[m] != x[m]) return NAN;
    best = std::min(best, x[m]);
  }
  return best;
}

/// argmax or argmin, and the value there.
void add_positions(Samples& samples, const char* op, bool greatest) {
  const auto argmaxes = [&](const Shape& shape, int64_t dim, Generator values, const char* note) {
    const bool special = values(2) != values(2);
    for (const bool keepdim : {false, true}) {
      samples.push_back(
          {.op = op,
           .label = detail::str(shape, " dim ", dim, keepdim ? ", keepdim" : "", note),
           .operands = {{shape, values}},
           .dtypes = special ? kFloats : kAll,
           .call =
               [=](const Tensors& x) {
                 const ReduceOptions options{.keepdim = keepdim};
                 const auto [value, index] =
                     greatest ? max_with_index(x[0], dim, options) : min_with_index(x[0], dim, options);
                 return Tensors{greatest ? argmax(x[0], dim, options) : argmin(x[0], dim, options), value, index};
               },
           .reference =
               [=](const NumberLists& in) {
                 const Folds folds(in[0].shape, Dims(dim), keepdim);
                 Numbers out(folds.shape, int64), value(folds.shape, in[0].dtype);
                 for (size_t i = 0; i < folds.members.size(); ++i) {
                   const std::vector<int64_t>& row = folds.members[i];
                   size_t best = 0;
                   for (size_t k = 1; k < row.size(); ++k) {
                     const double now = in[0][row[best]], next = in[0][row[k]];
                     if (now == now && (greatest ? next > now : next < now)) best = k;
                     if (now == now && next != next) best = k;
                   }
                   out.values[i] = static_cast<double>(best);
                   value.values[i] = in[0][row[best]];
                 }
                 return NumberLists{out, value, out};
               },
           .gradients = note[0] || shape.numel() > 1000 ? Gradients::none : Gradients::second,
           .large = shape.numel() > 1000});
    }
  };
  argmaxes({}, 0, spread(-9, 9), "");
  argmaxes({7}, 0, spread(-9, 9), "");
  argmaxes({3, 5}, 1, spread(-9, 9), "");
  argmaxes({33, 17}, 0, spread(-9, 9), "");
  argmaxes({2, 3, 4}, -2, spread(-9, 9), "");
  argmaxes({100, 1031}, 1, spread(-9, 9), "");
  argmaxes({4, 9}, 1, repeat({1, 3, 3, 2, 3}), ", ties");
  argmaxes({0, 4}, 1, spread(-9, 9), "");
  argmaxes({3, 5}, 1, repeat({1, 0, NAN, 2, NAN, INFINITY, 3, -INFINITY}), ", NaN");
}

}  // namespace

void add_reduce_samples(Samples& samples) {
  const Generator any = spread(-3, 3), small = integers(-5, 6), near_one = away_from_zero(0.7, 1.3),
                  few = integers(1, 3);
  const Kind kinds[] = {{"sum", sum, sum_of, magnitude_of, true, any, small, kAll, Agreement::close},
                        {"mean", mean, mean_of, mean_magnitude_of, true, any, small, kFloats, Agreement::close},
                        {"prod", prod, product_of, nullptr, true, near_one, few, kAll, Agreement::close},
                        {"max", max, greatest_of, nullptr, false, any, small, kAll, Agreement::exact},
                        {"min", min, least_of, nullptr, false, any, small, kAll, Agreement::exact}};
  for (const Kind& kind : kinds) {
    const bool product = kind.op == std::string("prod"), extreme = !kind.widens;
    for (const Reduced& reduced : kCases) {
      if (product && reduced.shape.numel() > 100) continue;
      for (const bool keepdim : {false, true}) add(samples, kind, reduced, {.keepdim = keepdim});
    }
    if (!extreme)
      for (const Reduced& reduced : kEmpty)
        add(samples, kind, reduced, {}, "", kind.op == std::string("mean") ? Gradients::none : Gradients::second);
    for (const Reduced& reduced : kEmptyResults) add(samples, kind, reduced, {});
    Kind floats = kind;
    floats.dtypes = kFloats;
    add(samples, floats, {{4, 5}, {1}}, {}, ", special values", Gradients::none,
        repeat({1, 2, 3, NAN, 5, INFINITY, 7}));
    if (product) {
      floats.dtypes = {float64};
      add(samples, floats, {{3, 4}, {1}}, {}, ", a zero in some rows", Gradients::second,
          repeat({2, 0, 3, 4, 5, 0, 0}));
    }
    if (extreme) {
      floats.dtypes = {float64, float32};
      add(samples, floats, {{3, 4}, {1}}, {}, ", ties", Gradients::none, repeat({2, 5, 5, 1, 1}));
    }
  }
  // The terms cancel: what is left over is the error.
  Kind sums = kinds[0];
  sums.dtypes = {float32, float64};
  add(samples, sums, {{99991}, {0}}, {}, ", cancelling", Gradients::none, repeat({1e6, 1, -1e6, 0.25}));
  add_positions(samples, "argmax", true);
  add_positions(samples, "argmin", false);
  add_statistics_samples(samples);
}

}  // namespace tandem::samples
