// Samples of attention, whole and packed, and of its gradients, against sums over whole matrices.
#include "core/dispatch.h"
#include "samples/samples.h"

namespace tandem::samples {

namespace {

struct Form {
  bool causal = false;
  double p = 0;
  double scale = 0.5;
  bool masked = false;
  bool packed = false;
  Attributes attributes() const {
    Attributes all{{"scale", scale}, {"causal", causal}, {"masked", masked}, {"p", p}};
    if (p > 0) all.set({"site", kSite});
    return all;
  }
  static constexpr int64_t kSite = 3;
};

/// Uniform numbers of the draw in `key`, which random.cpp's samples check.
std::vector<double> draws(const Numbers& key, int64_t count) {
  const Tensor words = tensor({static_cast<int64_t>(key[0]), static_cast<int64_t>(key[1])});
  const Tensor u =
      dispatch(find_op("random_uniform"), {words},
               {{"shape", Shape{count}}, {"dtype", float32}, {"device", std::string("cpu")}, {"site", Form::kSite}},
               Where::current());
  return u.to(float64).to_vector<double>();
}

/// One head's rows, in the operands' numbers.
struct Problem {
  const Numbers *q, *k, *v;
  const Numbers* mask = nullptr;
  Form form;
  int64_t k_offset = 0, v_offset = 0;  // of packed parts
  int64_t heads, time, source, depth, width;
  Shape scores;
  std::vector<double> keep;  // factor of each weight

  Problem(const NumberLists& in, size_t first, size_t others, Form form) : form(form) {
    q = k = v = &in[first];
    if (!form.packed) k = &in[first + 1], v = &in[first + 2];
    const Shape shape = head_shape(*q);
    const int rank = shape.size();
    time = shape[rank - 2], depth = shape[rank - 1];
    source = k->shape[k->shape.size() - 2], width = v->shape.back();
    scores = shape;
    scores[rank - 1] = source;
    heads = shape.numel() == 0 ? 1 : 0;
    int64_t count = 1;
    for (int d = 0; d < rank - 2; ++d) count *= shape[d];
    heads = count;
    if (form.packed) k_offset = heads * time * depth, v_offset = 2 * k_offset;
    if (form.masked) mask = &in[others++];
    keep.assign(static_cast<size_t>(scores.numel()), 1.0);
    if (form.p > 0) {
      const std::vector<double> u = draws(in[others], scores.numel());
      for (size_t i = 0; i < u.size(); ++i)
        keep[i] = static_cast<float>(u[i]) >= static_cast<float>(form.p) ? 1 / (1 - form.p) : 0;
    }
  }
  Shape head_shape(const Numbers& x) const {
    Shape shape = x.shape;
    if (form.packed) shape.erase(0);
    return shape;
  }
  double q_at(int64_t head, int64_t i, int64_t d) const { return (*q)[(head * time + i) * depth + d]; }
  double k_at(int64_t head, int64_t j, int64_t d) const { return (*k)[k_offset + (head * source + j) * depth + d]; }
  double v_at(int64_t head, int64_t j, int64_t d) const { return (*v)[v_offset + (head * source + j) * width + d]; }
  double keep_at(int64_t head, int64_t i, int64_t j) const {
    return keep[static_cast<size_t>((head * time + i) * source + j)];
  }
};

/// A row of weights, before dropout.
struct Row {
  std::vector<double> weights;
  double log_sum_exp = -INFINITY;
  double reach = 1;  // what rounding of the scores does to a weight, in ULPs

  Row(const Problem& x, int64_t head, int64_t i) : weights(static_cast<size_t>(x.source), -INFINITY) {
    double largest = -INFINITY;
    for (int64_t j = 0; j < x.source; ++j) {
      Real score = 0;
      double size = 0;
      for (int64_t d = 0; d < x.depth; ++d) {
        score += static_cast<Real>(x.q_at(head, i, d)) * x.k_at(head, j, d) * x.form.scale;
        size += std::fabs(x.q_at(head, i, d) * x.k_at(head, j, d) * x.form.scale);
      }
      if (x.form.causal && j > i) continue;
      if (x.mask) {
        const double m = (*x.mask)[broadcast_position((head * x.time + i) * x.source + j, x.scores, x.mask->shape)];
        if (x.mask->dtype == bool_ && m == 0) continue;
        if (x.mask->dtype != bool_) score += m, size += std::isfinite(m) ? std::fabs(m) : 0;
      }
      weights[static_cast<size_t>(j)] = static_cast<double>(score);
      largest = std::max(largest, static_cast<double>(score));
      reach = std::max(reach, 1 + 2 * size);
    }
    if (largest == -INFINITY) {
      weights.assign(weights.size(), 0.0);
      return;
    }
    Real sum = 0;
    for (double& each : weights) sum += each = std::exp(each - largest);
    for (double& each : weights) each /= static_cast<double>(sum);
    log_sum_exp = largest + std::log(static_cast<double>(sum));
  }
};

Numbers with_scale(const Shape& shape, DType type) {
  Numbers result(shape, type);
  result.make_scale();
  return result;
}

/// out and log_sum_exp.
Reference forward(Form form) {
  return [=](const NumberLists& in) {
    const Problem x(in, 0, form.packed ? 1 : 3, form);
    Shape shape = x.head_shape(*x.q), rows = shape;
    shape[shape.size() - 1] = x.width;
    rows.resize(shape.size() - 1);
    const DType type = in[0].dtype;
    Numbers out = with_scale(shape, type), log_sum_exp = with_scale(rows, type == float64 ? float64 : float32);
    for (int64_t head = 0; head < x.heads; ++head)
      for (int64_t i = 0; i < x.time; ++i) {
        const Row row(x, head, i);
        log_sum_exp[head * x.time + i] = row.log_sum_exp;
        log_sum_exp.scale[static_cast<size_t>(head * x.time + i)] =
            row.reach + std::log(static_cast<double>(x.source) + 1);
        for (int64_t d = 0; d < x.width; ++d) {
          Real sum = 0;
          double size = 0;
          for (int64_t j = 0; j < x.source; ++j) {
            const double term = row.weights[static_cast<size_t>(j)] * x.keep_at(head, i, j) * x.v_at(head, j, d);
            sum += term;
            size += std::fabs(term);
          }
          const int64_t at = (head * x.time + i) * x.width + d;
          out[at] = static_cast<double>(sum);
          out.scale[static_cast<size_t>(at)] = size * row.reach;
        }
      }
    return NumberLists{out, log_sum_exp};
  };
}

/// dq, dk and dv from g and the rest; packed as one.
Reference backward(Form form) {
  return [=](const NumberLists& in) {
    const Problem x(in, 1, form.packed ? 2 : 4, form);
    const Numbers& g = in[0];
    Numbers dq = with_scale(x.q->shape, g.dtype);
    Numbers dk_own = with_scale(x.k->shape, g.dtype), dv_own = with_scale(x.v->shape, g.dtype);
    Numbers &dk = form.packed ? dq : dk_own, &dv = form.packed ? dq : dv_own;
    const auto add = [](Numbers& to, int64_t at, double value, double size) {
      to[at] += value;
      to.scale[static_cast<size_t>(at)] += size;
    };
    for (int64_t head = 0; head < x.heads; ++head)
      for (int64_t i = 0; i < x.time; ++i) {
        const Row row(x, head, i);
        std::vector<double> dp(static_cast<size_t>(x.source)), sizes(static_cast<size_t>(x.source));
        double delta = 0, delta_size = 0;
        for (int64_t j = 0; j < x.source; ++j) {
          const size_t at = static_cast<size_t>(j);
          for (int64_t d = 0; d < x.width; ++d) {
            const double up = g[(head * x.time + i) * x.width + d];
            dp[at] += up * x.v_at(head, j, d) * x.keep_at(head, i, j);
            sizes[at] += std::fabs(up * x.v_at(head, j, d) * x.keep_at(head, i, j));
            const double weight = row.weights[at] * x.keep_at(head, i, j);
            add(dv, x.v_offset + (head * x.source + j) * x.width + d, weight * up, std::fabs(weight * up) * row.reach);
          }
          delta += dp[at] * row.weights[at];
          delta_size += sizes[at] * row.weights[at];
        }
        for (int64_t j = 0; j < x.source; ++j) {
          const size_t at = static_cast<size_t>(j);
          const double ds = row.weights[at] * (dp[at] - delta) * form.scale,
                       size = row.weights[at] * (sizes[at] + delta_size) * row.reach * form.scale;
          for (int64_t d = 0; d < x.depth; ++d) {
            add(dq, (head * x.time + i) * x.depth + d, ds * x.k_at(head, j, d), size * std::fabs(x.k_at(head, j, d)));
            add(dk, x.k_offset + (head * x.source + j) * x.depth + d, ds * x.q_at(head, i, d),
                size * std::fabs(x.q_at(head, i, d)));
          }
        }
      }
    return form.packed ? NumberLists{dq} : NumberLists{dq, dk, dv};
  };
}

struct Variant {
  std::string label;
  Shape q, k, v;
  Form form = {};
  std::optional<Operand> mask = {};
  bool large = false;
};

void add(Samples& samples, const Variant& variant) {
  const Form& form = variant.form;
  std::vector<Operand> operands;
  if (form.packed) {
    Shape shape = variant.q;
    shape.insert(0, 3);
    operands = {{shape, spread(-2, 2)}};
  } else {
    operands = {{variant.q, spread(-2, 2)}, {variant.k, spread(-2, 2, 1)}, {variant.v, spread(-1, 3, 2)}};
  }
  if (variant.mask) operands.push_back(*variant.mask);
  if (form.p > 0) operands.push_back({{2}, repeat({7, 41}), int64, false, true});
  const std::string name = form.packed ? "attention_qkv" : "attention";
  const Gradients gradients = variant.large ? Gradients::none : Gradients::second;

  Sample sample{.op = name,
                .label = variant.label + ", with log-sum-exp",
                .operands = operands,
                .dtypes = kFloats,
                .call = call_op(form.packed ? "attention_qkv" : "attention", form.attributes()),
                .reference = forward(form),
                .ulps = 8,
                .agreement = Agreement::close,
                .large = variant.large};
  samples.push_back(sample);
  // The log-sum-exp is there for backward, and has no gradient itself.
  sample.label = variant.label;
  sample.call = [name, form](const Tensors& in) {
    return Tensors{dispatch_all(find_op(name), in, form.attributes(), Where::current())[0]};
  };
  sample.reference = [of = forward(form)](const NumberLists& in) { return NumberLists{of(in)[0]}; };
  sample.gradients = gradients;
  samples.push_back(sample);

  Shape g = variant.q;
  g[g.size() - 1] = variant.v.back();
  operands.insert(operands.begin(), {g, spread(-2, 2, 5)});
  const std::string grad = name + "_grad";
  samples.push_back({.op = grad,
                     .label = variant.label,
                     .operands = operands,
                     .dtypes = kFloats,
                     .call =
                         [name, grad, form](const Tensors& in) {
                           const size_t tensors = form.packed ? 1 : 3;
                           const Tensors made = dispatch_all(find_op(name), std::span(in).subspan(1), form.attributes(),
                                                             Where::current());
                           Tensors inputs(in.begin(), in.begin() + 1 + static_cast<std::ptrdiff_t>(tensors));
                           inputs.insert(inputs.end(), made.begin(), made.end());
                           inputs.insert(inputs.end(), in.begin() + 1 + static_cast<std::ptrdiff_t>(tensors), in.end());
                           return dispatch_all(find_op(grad), inputs, form.attributes(), Where::current());
                         },
                     .reference = backward(form),
                     .ulps = 16,
                     .gradients = gradients,
                     .agreement = Agreement::close,
                     .large = variant.large});
}

}  // namespace

void add_attention_samples(Samples& samples) {
  const Operand bits{{2, 3, 4}, repeat({1, 0, 1, 1, 0, 0, 0, 0, 0, 1}), bool_, false};  // some rows see nothing
  const Operand row{{4}, repeat({1, 0, 1}), bool_, false};
  const Operand numbers{{3, 4}, spread(-1, 1, 7), {}, false};
  const double none = -INFINITY;
  const Operand walls{{2, 1, 4}, repeat({0, none, 0.5, 0, none, none, none, none}), {}, false};
  for (const Variant& variant : std::vector<Variant>{
           {"rank 2", {3, 2}, {4, 2}, {4, 2}},
           {"heads", {2, 3, 2}, {2, 4, 2}, {2, 4, 3}},
           {"batch and heads", {2, 2, 3, 2}, {2, 2, 2, 2}, {2, 2, 2, 1}},
           {"causal", {2, 3, 2}, {2, 3, 2}, {2, 3, 2}, {.causal = true}},
           {"causal, more sources", {2, 3, 2}, {2, 5, 2}, {2, 5, 2}, {.causal = true}},
           {"bool mask", {2, 3, 2}, {2, 4, 2}, {2, 4, 2}, {.masked = true}, bits},
           {"bool mask of sources, causal", {2, 3, 2}, {2, 4, 2}, {2, 4, 2}, {.causal = true, .masked = true}, row},
           {"added mask", {2, 3, 2}, {2, 4, 2}, {2, 4, 2}, {.masked = true}, numbers},
           {"added mask with -inf", {2, 3, 2}, {2, 4, 2}, {2, 4, 2}, {.masked = true}, walls},
           {"dropout", {2, 3, 2}, {2, 4, 2}, {2, 4, 2}, {.p = 0.4}},
           {"dropout, causal, mask", {2, 3, 2}, {2, 4, 2}, {2, 4, 2}, {.causal = true, .p = 0.3, .masked = true}, bits},
           {"packed", {2, 3, 2}, {2, 3, 2}, {2, 3, 2}, {.packed = true}},
           {"packed, causal, dropout",
            {2, 2, 2, 2},
            {2, 2, 2, 2},
            {2, 2, 2, 2},
            {.causal = true, .p = 0.4, .packed = true}},
           {"packed, masked",
            {2, 3, 2},
            {2, 3, 2},
            {2, 3, 2},
            {.masked = true, .packed = true},
            Operand{{3, 3}, repeat({1, 1, 0, 1}), bool_, false}},
           {"vectors of eight, causal", {2, 3, 8}, {2, 4, 8}, {2, 4, 16}, {.causal = true}},
           {"vectors of eight, mask, dropout", {2, 3, 8}, {2, 4, 8}, {2, 4, 8}, {.p = 0.3, .masked = true}, numbers},
           {"packed, vectors of eight, dropout", {2, 3, 8}, {2, 3, 8}, {2, 3, 8}, {.p = 0.3, .packed = true}},
           {"no sources", {2, 3, 2}, {2, 0, 2}, {2, 0, 2}},
           {"no queries", {2, 0, 2}, {2, 4, 2}, {2, 4, 2}},
           {"no heads", {0, 3, 2}, {0, 4, 2}, {0, 4, 2}},
           {"several blocks", {2, 150, 20}, {2, 300, 20}, {2, 300, 33}, {.scale = 0.2}, {}, true},
           {"several blocks, causal",
            {3, 150, 16},
            {3, 150, 16},
            {3, 150, 16},
            {.causal = true, .scale = 0.25},
            {},
            true},
           {"several blocks, causal, dropout",
            {2, 145, 8},
            {2, 145, 8},
            {2, 145, 8},
            {.causal = true, .p = 0.2, .scale = 0.3},
            {},
            true},
           {"several blocks, packed",
            {2, 2, 131, 32},
            {2, 2, 131, 32},
            {2, 2, 131, 32},
            {.causal = true, .scale = 0.1, .packed = true},
            {},
            true},
           {"several blocks, mask",
            {2, 60, 8},
            {2, 200, 8},
            {2, 200, 8},
            {.scale = 0.3, .masked = true},
            Operand{{60, 200}, spread(-2, 2, 9), {}, false},
            true},
       })
    add(samples, variant);
  // Scores of which exp alone overflows.
  add(samples, {"large scores", {1, 3, 2}, {1, 4, 2}, {1, 4, 2}, {.scale = 300}, {}, true});
}

}  // namespace tandem::samples
