// Samples of the losses that are written with public functions, and of cross-entropy with options: each under the op that does
// most of it.
#include "samples/samples.h"

namespace tandem::samples {

namespace {

/// Losses of single terms, with the sizes of what they are made of, as the reduction wants them.
NumberLists reduced(const Numbers& terms, const std::vector<double>& sizes, Reduction reduction, double divisor,
                    DType dtype) {
  if (reduction == Reduction::none) {
    Numbers out = terms;
    out.dtype = dtype;
    out.scale = sizes;
    return {out};
  }
  Numbers out(Shape{}, dtype);
  out.make_scale();
  Real total = 0;
  for (int64_t i = 0; i < terms.numel(); ++i) total += terms[i], out.scale[0] += sizes[static_cast<size_t>(i)];
  out[0] = static_cast<double>(total);
  if (reduction != Reduction::sum) out[0] /= divisor, out.scale[0] /= divisor;
  return {out};
}

const std::pair<const char*, Reduction> kReductions[] = {
    {"mean", Reduction::mean}, {"sum", Reduction::sum}, {"none", Reduction::none}};

using Term = std::function<double(double x, double target)>;
using ElementLoss = std::function<Tensor(const Tensor& x, const Tensor& target, Reduction reduction)>;

/// `size` bounds what the term's parts come to, against which its error is measured.
void add_elementwise(Samples& samples, const char* op, const std::string& label, Generator x, Generator target,
                     Term term, Term size, ElementLoss loss) {
  for (const auto& [name, reduction] : kReductions)
    for (const Shape& shape : {Shape{}, {5}, {3, 7}, {2, 3, 4}, {0, 3}, {33, 17}}) {
      const bool large = shape.numel() > 500;
      samples.push_back(
          {.op = op,
           .label = detail::str(label, " ", name, " ", shape),
           .operands = {{shape, x}, {shape, target}},
           .dtypes = kFloats,
           .call = [loss, reduction = reduction](const Tensors& in) { return Tensors{loss(in[0], in[1], reduction)}; },
           .reference =
               [term, size, reduction = reduction](const NumberLists& in) {
                 Numbers terms(in[0].shape, in[0].dtype);
                 std::vector<double> sizes;
                 for (int64_t i = 0; i < terms.numel(); ++i) {
                   terms[i] = term(in[0][i], in[1][i]);
                   sizes.push_back(size(in[0][i], in[1][i]));
                 }
                 return reduced(terms, sizes, reduction, static_cast<double>(terms.numel()), in[0].dtype);
               },
           .ulps = 8,
           .gradients = large || shape.numel() == 0 ? Gradients::none : Gradients::second,
           .agreement = Agreement::close,
           .large = large});
    }
}

void add_elementwise_losses(Samples& samples) {
  const Generator x = spread(-2, 2), target = spread(-2, 2, 1), positive = spread(0.05, 0.95, 1),
                  probability = spread(0.05, 0.95);
  const Term square_size = [](double a, double b) {
    return (std::fabs(a) + std::fabs(b)) * (std::fabs(a) + std::fabs(b));
  };
  const Term size = [](double a, double b) { return 2 + std::fabs(a) + std::fabs(b); };
  add_elementwise(
      samples, "square", "mse_loss", x, target, [](double a, double b) { return (a - b) * (a - b); }, square_size,
      [](const Tensor& a, const Tensor& b, Reduction r) { return mse_loss(a, b, {.reduction = r}); });
  add_elementwise(
      samples, "abs", "l1_loss", x, target, [](double a, double b) { return std::fabs(a - b); }, size,
      [](const Tensor& a, const Tensor& b, Reduction r) { return l1_loss(a, b, {.reduction = r}); });
  for (const double delta : {1.0, 0.3})
    add_elementwise(
        samples, "abs", detail::str("huber_loss ", delta), x, target,
        [delta](double a, double b) {
          const double d = std::fabs(a - b);
          return d < delta ? d * d / 2 : delta * (d - delta / 2);
        },
        square_size,
        [delta](const Tensor& a, const Tensor& b, Reduction r) {
          return huber_loss(a, b, {.delta = delta, .reduction = r});
        });
  for (const double beta : {1.0, 0.5, 0.0})
    add_elementwise(
        samples, "abs", detail::str("smooth_l1_loss ", beta), x, target,
        [beta](double a, double b) {
          const double d = std::fabs(a - b);
          return d < beta ? d * d / 2 / beta : d - beta / 2;
        },
        size,
        [beta](const Tensor& a, const Tensor& b, Reduction r) {
          return smooth_l1_loss(a, b, {.beta = beta, .reduction = r});
        });
  const Term bce = [](double p, double y) { return -(y * std::log(p) + (1 - y) * std::log1p(-p)); };
  add_elementwise(
      samples, "log", "binary_cross_entropy", probability, positive, bce,
      [bce](double p, double y) { return 2 / p / (1 - p) + bce(p, y); },
      [](const Tensor& a, const Tensor& b, Reduction r) { return binary_cross_entropy(a, b, {.reduction = r}); });
  const auto softplus = [](double v) { return std::fmax(v, 0) + std::log1p(std::exp(-std::fabs(v))); };
  for (const double weight : {1.0, 3.0}) {
    const Term term = [=](double v, double y) { return weight * y * softplus(-v) + (1 - y) * softplus(v); };
    add_elementwise(
        samples, "exp", detail::str("binary_cross_entropy_with_logits, pos_weight ", weight), spread(-3, 3), positive,
        term, [=](double v, double y) { return term(v, y) + std::fabs(v); },
        [weight](const Tensor& a, const Tensor& b, Reduction r) {
          return bce_with_logits(
              a, b,
              {.pos_weight = weight == 1 ? Tensor() : full({}, weight, {.dtype = a.dtype(), .device = a.device()}),
               .reduction = r});
        });
  }
  add_elementwise(
      samples, "log", "kl_div", spread(-3, 0), positive, [](double a, double t) { return t * (std::log(t) - a); },
      [](double a, double t) { return t * (1 + std::fabs(std::log(t)) + std::fabs(a)); },
      [](const Tensor& a, const Tensor& b, Reduction r) { return kl_div(a, b, {.reduction = r}); });
  add_elementwise(
      samples, "exp", "kl_div of logs", spread(-3, 0), spread(-3, 0, 1),
      [](double a, double t) { return std::exp(t) * (t - a); },
      [](double a, double t) { return std::exp(t) * (2 + 2 * std::fabs(t) + std::fabs(a)); },
      [](const Tensor& a, const Tensor& b, Reduction r) { return kl_div(a, b, {.log_target = true, .reduction = r}); });
}

/// What cross_entropy and nll_loss are asked for.
struct Wanted {
  const char* label;
  bool weighted = false, ignores = false;
  double smoothing = 0;
};
constexpr int64_t kIgnored = 2;

/// Position of class c in row n of [batch, classes, d1..] (or [classes]).
int64_t class_position(int64_t n, int64_t c, const Shape& shape) {
  if (shape.size() == 1) return c;
  int64_t inner = 1;
  for (int d = 2; d < shape.size(); ++d) inner *= shape[d];
  return (n / inner * shape[1] + c) * inner + n % inner;
}

/// -sum_c q_c w_c log p_c for each row, q being the labels. `ids`: labels are class ids; `logits`: log p is log softmax(x).
NumberLists class_losses(const NumberLists& in, const Wanted& wanted, Reduction reduction, bool ids, bool logits) {
  const Numbers &x = in[0], &labels = in[1];
  const Shape& shape = x.shape;
  const int64_t classes = shape[shape.size() > 1 ? 1 : 0], rows = classes ? x.numel() / classes : 0;
  Shape row_shape = shape;
  row_shape.erase(shape.size() > 1 ? 1 : 0);
  Numbers losses(row_shape, x.dtype);
  std::vector<double> sizes(static_cast<size_t>(rows));
  double divisor = 0;
  for (int64_t n = 0; n < rows; ++n) {
    double largest = -INFINITY, total = 0, log_sum = 0;
    for (int64_t c = 0; c < classes; ++c) largest = std::fmax(largest, x[class_position(n, c, shape)]);
    for (int64_t c = 0; c < classes; ++c) total += std::exp(x[class_position(n, c, shape)] - largest);
    if (logits) log_sum = largest + std::log(total);
    const int64_t label = ids ? static_cast<int64_t>(labels[n]) : -1;
    if (wanted.ignores && label == kIgnored) continue;
    const auto weight = [&](int64_t c) { return wanted.weighted ? in[2][c] : 1.0; };
    for (int64_t c = 0; c < classes; ++c) {
      const int64_t at = class_position(n, c, shape);
      const double given = ids ? (c == label ? 1.0 : 0.0) : labels[at];
      const double q = given * (1 - wanted.smoothing) + wanted.smoothing / static_cast<double>(classes);
      losses[n] -= q * weight(c) * (x[at] - log_sum);
      sizes[static_cast<size_t>(n)] += q * weight(c) * (std::fabs(x[at]) + std::fabs(log_sum) + 1);
    }
    divisor += ids ? weight(label) : 1;
  }
  return reduced(losses, sizes, reduction, divisor, x.dtype);
}

void add_class_losses(Samples& samples) {
  const Wanted all[] = {{"plain"},
                        {"weighted", true},
                        {"ignoring", false, true},
                        {"smoothed", false, false, 0.1},
                        {"all", true, true, 0.2}};
  for (const Shape& shape : {Shape{4, 5}, {5}, {2, 3, 4}, {2, 3, 2, 2}, {17, 33}}) {
    Shape rows = shape;
    rows.erase(shape.size() > 1 ? 1 : 0);
    const int64_t classes = shape[shape.size() > 1 ? 1 : 0];
    const bool large = shape.numel() > 500;
    for (const Wanted& wanted : all) {
      for (const auto& [name, reduction] : kReductions) {
        const auto options = [wanted = wanted, reduction = reduction](const Tensors& in) {
          return CrossEntropyOptions{.weight = wanted.weighted ? in[2] : Tensor(),
                                     .ignore_index = wanted.ignores ? std::optional<int64_t>(kIgnored) : std::nullopt,
                                     .label_smoothing = wanted.smoothing,
                                     .reduction = reduction};
        };
        // The first label is one that counts: the mean of nothing is NaN.
        const Generator some = [classes](int64_t i) { return i == 0 ? 0.0 : integers(0, classes)(i); };
        std::vector<Operand> operands = {{shape, spread(-3, 3)}, {rows, some, int64, true, true}};
        if (wanted.weighted) operands.push_back({{classes}, spread(0.5, 2), {}, false});
        Sample sample{
            .op = "cross_entropy",
            .label = detail::str("options: ", wanted.label, " ", name, " ", shape),
            .operands = operands,
            .dtypes = kFloats,
            .call = [options](const Tensors& in) { return Tensors{cross_entropy(in[0], in[1], options(in))}; },
            .reference = [wanted = wanted, reduction = reduction](
                             const NumberLists& in) { return class_losses(in, wanted, reduction, true, true); },
            .ulps = 16,
            .gradients = large ? Gradients::none : Gradients::second,
            .agreement = Agreement::close,
            .large = large};
        samples.push_back(sample);
        if (wanted.smoothing == 0) {
          sample.op = "gather";
          sample.label = detail::str("nll_loss ", wanted.label, " ", name, " ", shape);
          sample.operands[0].value = spread(-4, -0.1);
          sample.call = [options](const Tensors& in) {
            const CrossEntropyOptions o = options(in);
            return Tensors{
                nll_loss(in[0], in[1], {.weight = o.weight, .ignore_index = o.ignore_index, .reduction = o.reduction})};
          };
          sample.reference = [wanted = wanted, reduction = reduction](const NumberLists& in) {
            return class_losses(in, wanted, reduction, true, false);
          };
          samples.push_back(sample);
        }
        if (wanted.ignores) continue;
        sample.op = "log_softmax";
        sample.label = detail::str("cross_entropy of probabilities, ", wanted.label, " ", name, " ", shape);
        operands[0].value = spread(-3, 3);
        operands[1] = {shape, spread(0, 1, 1)};
        sample.operands = operands;
        sample.call = [options](const Tensors& in) { return Tensors{cross_entropy(in[0], in[1], options(in))}; };
        sample.reference = [wanted = wanted, reduction = reduction](const NumberLists& in) {
          return class_losses(in, wanted, reduction, false, true);
        };
        samples.push_back(sample);
      }
    }
  }
}

void add_similarities(Samples& samples) {
  for (const auto& [shape, dim] : {std::pair<Shape, int>{{3, 5}, 1}, {{4, 3}, 0}, {{2, 3, 4}, 1}, {{17, 33}, 1}}) {
    const bool large = shape.numel() > 500;
    samples.push_back({.op = "sum",
                       .label = detail::str("cosine_similarity ", shape, " dim ", dim),
                       .operands = {{shape, spread(-2, 2)}, {shape, spread(-2, 2, 1)}},
                       .dtypes = kFloats,
                       .call = [dim = dim](const Tensors& in) { return Tensors{cosine_similarity(in[0], in[1], dim)}; },
                       .reference =
                           [dim = dim](const NumberLists& in) {
                             Shape rows = in[0].shape;
                             rows[dim] = 1;
                             Numbers out(rows, in[0].dtype);
                             out.make_scale();
                             for (int64_t n = 0; n < out.numel(); ++n) {
                               double xy = 0, xx = 0, yy = 0, size = 0;
                               for (int64_t i = 0; i < in[0].shape[dim]; ++i) {
                                 Shape index = unravel(n, rows);
                                 index[dim] = i;
                                 const double x = in[0][ravel(index, in[0].shape)],
                                              y = in[1][ravel(index, in[0].shape)];
                                 xy += x * y, xx += x * x, yy += y * y, size += std::fabs(x * y);
                               }
                               const double norms = std::fmax(std::sqrt(xx), 1e-8) * std::fmax(std::sqrt(yy), 1e-8);
                               out[n] = xy / norms;
                               out.scale[static_cast<size_t>(n)] = size / norms;
                             }
                             out.shape.erase(dim);
                             return NumberLists{out};
                           },
                       .ulps = 8,
                       .gradients = large ? Gradients::none : Gradients::second,
                       .agreement = Agreement::close,
                       .large = large});
  }
}

}  // namespace

void add_composed_losses(Samples& samples) {
  add_elementwise_losses(samples);
  add_class_losses(samples);
  add_similarities(samples);
}

}  // namespace tandem::samples
