// Samples of the reductions that are made of others: any, all, var, std, logsumexp, norm. They stand under an op
// that they call, as they are none themselves.
#include "samples/folds.h"

namespace tandem::samples {

namespace {

using Row = std::vector<double>;

struct Statistic {
  const char* op;
  std::string label;
  std::function<Tensor(const Tensor&, const Dims&, bool keepdim)> call;
  std::function<double(const Row&)> value;
  Generator numbers;
  std::vector<DType> dtypes = kFloats;
  Gradients gradients = Gradients::second;
  bool returns_bool = false;
};

void add(Samples& samples, const Statistic& each, const Reduced& reduced, bool keepdim) {
  const Gradients gradients =
      reduced.shape.numel() > 600 || reduced.shape.numel() == 0 ? Gradients::none : each.gradients;
  samples.push_back(
      {.op = each.op,
       .label = detail::str(each.label, " ", reduced.shape, " over ", reduced.dims, keepdim ? ", keepdim" : ""),
       .operands = {{reduced.shape, each.numbers, {}, true, false, false}},
       .dtypes = each.dtypes,
       .call = [=](const Tensors& x) { return Tensors{each.call(x[0], reduced.dims, keepdim)}; },
       .reference =
           [=](const NumberLists& in) {
             const Folds folds(in[0].shape, reduced.dims, keepdim);
             Numbers out(folds.shape, each.returns_bool ? bool_ : in[0].dtype);
             for (size_t i = 0; i < folds.members.size(); ++i) {
               Row row;
               for (int64_t m : folds.members[i]) row.push_back(in[0][m]);
               out.values[i] = each.value(row);
             }
             return NumberLists{out};
           },
       .ulps = 16,
       .gradients = gradients,
       .agreement = Agreement::close,
       .large = reduced.shape.numel() > 1000});
}

double variance_of(const Row& row, double correction) {
  Real mean = 0, total = 0;
  for (double x : row) mean += x;
  mean /= static_cast<Real>(row.size());
  for (double x : row) total += (x - mean) * (x - mean);
  return static_cast<double>(total / (static_cast<Real>(row.size()) - correction));
}
double logsumexp_of(const Row& row) {
  double greatest = -INFINITY;
  Real total = 0;
  for (double x : row) greatest = std::max(greatest, x);
  if (std::isinf(greatest)) return greatest;
  for (double x : row) total += std::exp(static_cast<Real>(x) - greatest);
  return static_cast<double>(std::log(total) + greatest);
}
double norm_of(const Row& row, double p) {
  if (std::isinf(p)) {
    double best = p > 0 ? 0 : INFINITY;
    for (double x : row) best = p > 0 ? std::max(best, std::fabs(x)) : std::min(best, std::fabs(x));
    return best;
  }
  Real total = 0;
  for (double x : row) total += p == 0 ? x != 0 : std::pow(static_cast<Real>(std::fabs(x)), static_cast<Real>(p));
  return static_cast<double>(p == 0 ? total : std::pow(total, 1 / static_cast<Real>(p)));
}

}  // namespace

void add_statistics_samples(Samples& samples) {
  const std::vector<Reduced> cases = {{{5}, {0}},      {{17}, {}},       {{3, 4}, {0}},       {{3, 4}, {1}},
                                      {{3, 4}, {}},    {{2, 3, 4}, {1}}, {{2, 3, 4}, {0, 2}}, {{2, 3, 4}, {-1}},
                                      {{33, 17}, {1}}, {{33, 17}, {0}},  {{100, 1031}, {1}},  {{0, 3}, {1}}};
  const std::vector<Reduced> no_elements = {{{0}, {0}}, {{0, 3}, {0}}, {{3, 0}, {}}};
  const Generator floats = spread(-3, 3), away = away_from_zero(0.2, 3);
  std::vector<Statistic> all_kinds;
  for (const double correction : {1.0, 0.0}) {
    const VarianceOptions options{.correction = correction};
    const auto with = [=](bool keepdim) {
      VarianceOptions o = options;
      o.keepdim = keepdim;
      return o;
    };
    const std::string note = correction == 0 ? ", correction 0" : "";
    all_kinds.push_back({"mean", "var" + note,
                         [=](const Tensor& x, const Dims& d, bool k) { return var(x, d, with(k)); },
                         [=](const Row& row) { return variance_of(row, correction); }, floats});
    all_kinds.push_back({"mean", "std" + note,
                         [=](const Tensor& x, const Dims& d, bool k) { return tandem::std(x, d, with(k)); },
                         [=](const Row& row) { return std::sqrt(variance_of(row, correction)); }, floats});
  }
  all_kinds.push_back({"sum", "logsumexp",
                       [](const Tensor& x, const Dims& d, bool k) { return logsumexp(x, d, {.keepdim = k}); },
                       logsumexp_of, spread(1, 5)});
  for (const double p : {2.0, 1.0, 3.0, 0.5, 0.0, static_cast<double>(INFINITY), -static_cast<double>(INFINITY)})
    all_kinds.push_back({"sum", detail::str("norm ", p),
                         [=](const Tensor& x, const Dims& d, bool k) { return norm(x, d, {.p = p, .keepdim = k}); },
                         [=](const Row& row) { return norm_of(row, p); }, away, kFloats,
                         p == 0 ? Gradients::none : Gradients::second});
  Statistic any_of{"max",
                   "any",
                   [](const Tensor& x, const Dims& d, bool k) { return any(x, d, {.keepdim = k}); },
                   [](const Row& row) {
                     double hit = 0;
                     for (double x : row) hit = hit != 0 || x != 0;
                     return hit;
                   },
                   repeat({0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2}),
                   kAll,
                   Gradients::none,
                   true};
  Statistic all_of{"min",
                   "all",
                   [](const Tensor& x, const Dims& d, bool k) { return all(x, d, {.keepdim = k}); },
                   [](const Row& row) {
                     double hit = 1;
                     for (double x : row) hit = hit != 0 && x != 0;
                     return hit;
                   },
                   repeat({1, 1, 1, 1, 0, 1, 3, 1, 1, 1, 1, 1}),
                   kAll,
                   Gradients::none,
                   true};
  for (const Statistic& each : all_kinds)
    for (const Reduced& reduced : cases)
      for (const bool keepdim : {false, true}) add(samples, each, reduced, keepdim);
  for (const Statistic& each : {any_of, all_of}) {
    for (const Reduced& reduced : cases) add(samples, each, reduced, false);
    for (const Reduced& reduced : no_elements) add(samples, each, reduced, true);
  }
  Statistic sums = all_kinds[4];
  sums.gradients = Gradients::none;
  sums.label = "logsumexp, infinities";
  sums.numbers = repeat({-INFINITY, 1, 2, -INFINITY, -INFINITY, INFINITY, 3, -INFINITY});
  add(samples, sums, {{4, 5}, {0}}, false);
  add(samples, sums, {{3, 0}, {1}}, false);
}

}  // namespace tandem::samples
