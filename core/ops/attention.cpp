// Scaled dot-product attention: out = dropout(softmax(scale q kᵀ + mask)) v (Vaswani et al. 2017), whose kernels keep no
// [time, source] matrix (Dao et al. 2022). The op also gives the log-sum-exp of each row of scores, from which backward
// recomputes them.
//
//   attention           q, k, v, [mask], [key] -> out, log_sum_exp
//   attention_grad      g, q, k, v, out, log_sum_exp, [mask], [key] -> dq, dk, dv
//   attention_qkv       qkv [3, ..], [mask], [key] -> out, log_sum_exp
//   attention_qkv_grad  g, qkv, out, log_sum_exp, [mask], [key] -> dqkv
//
// The mask is there where `masked` is set, the key {seed, draw} of dropout where p > 0. Weight (i, j) of head h is dropped
// as element (h time + i) source + j of the op `dropout` would be.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/dispatch.h"
#include "core/ops/fit.h"
#include "core/ops/ops.h"
#include "core/random.h"

namespace tandem {

namespace {

DType statistics_type(DType type) { return type == float64 ? float64 : float32; }
Tensor widen(const Tensor& x) { return to(x, statistics_type(x.dtype())); }
Tensor turned(const Tensor& x) { return transpose(x, -2, -1); }
Tensor row_sum(const Tensor& x) { return sum(x, -1, {.keepdim = true}); }

Shape leading(const Shape& shape, int dropped) {
  Shape result = shape;
  result.resize(shape.size() - dropped);
  return result;
}

/// Strides of a dense tensor of this shape whose dims follow each other in memory as those of `like` do; row-major where
/// like's last dim isn't the innermost, or a dim repeats.
Shape strides_like(const Shape& shape, const Shape& like) {
  const int rank = shape.size();
  std::vector<int> order;
  for (int d = 0; d < rank; ++d) order.push_back(d);
  bool usable = true;
  for (int d = 0; d + 1 < rank; ++d)
    usable = usable && (shape[d] == 1 || like[d] >= like[rank - 1]) && (shape[d] == 1 || like[d] > 0);
  if (usable)
    std::stable_sort(order.begin(), order.end() - 1,
                     [&](int a, int b) { return shape[a] != 1 && shape[b] != 1 && like[a] > like[b]; });
  Shape strides = shape;
  int64_t next = 1;
  for (int i = rank - 1; i >= 0; --i) {
    strides[order[static_cast<size_t>(i)]] = next;
    next *= std::max<int64_t>(shape[order[static_cast<size_t>(i)]], 1);
  }
  return strides;
}

/// After `tensors` operands come the mask and the key, where there are such.
void check_operands(const Infer& op, size_t tensors) {
  const double p = op.attributes.number("p");
  op.check<ValueError>(p >= 0 && p <= 1, "dropout ", p, " must be between 0 and 1");
  op.check<ValueError>(p == 0 || op.attributes.find("site"), "attribute site is missing, which dropout needs");
  const size_t needed = tensors + op.attributes.flag("masked") + (p > 0);
  op.check<ValueError>(op.inputs.size() == needed, "needs ", needed, " operands, got ", op.inputs.size());
  if (p > 0)
    op.check<ShapeError>(op.inputs.back().shape() == Shape{2} && op.inputs.back().dtype() == int64,
                         "the key of dropout must be int64[2], got ", op.inputs.back().dtype(),
                         op.inputs.back().shape());
}

/// The mask, if there is one, behind that many tensors; q and k are shapes.
void check_mask(const Infer& op, const Shape& q, const Shape& k, size_t tensors) {
  if (!op.attributes.flag("masked")) return;
  const int rank = q.size();
  const Tensor& mask = op.input(static_cast<int>(tensors));
  Shape scores = q;
  scores[rank - 1] = k[rank - 2];
  op.check<DTypeError>(mask.dtype() == bool_ || is_floating(mask.dtype()), "the mask is ", mask.dtype(),
                       "; it must be bool (true where a query may look) or floating (added to the scores)");
  bool fits = mask.rank() <= rank;
  for (int d = 0; fits && d < mask.rank(); ++d) {
    const int64_t extent = mask.shape()[mask.rank() - 1 - d];
    fits = extent == 1 || extent == scores[rank - 1 - d];
  }
  op.check<ShapeError>(fits, "the mask ", mask.shape(), " doesn't broadcast to the scores ", scores,
                       " ([batch.., heads, time, source])");
}

/// Checks what q, k and v share, and makes the two outputs. Shapes are those without the packed dim.
void infer_outputs(Infer& op, const Shape& q, const Shape& k, const Shape& v, const Shape& layout, size_t tensors) {
  check_operands(op, tensors);
  op.check<ShapeError>(k.back() == q.back(), "q and k have vectors of different lengths: ", q, " and ", k, " (",
                       q.back(), " and ", k.back(), ")");
  const int rank = q.size();
  op.check<ShapeError>(v[rank - 2] == k[rank - 2], "k and v have different numbers of sources: ", k, " and ", v, " (",
                       k[rank - 2], " and ", v[rank - 2], ")");
  const Shape batch = leading(q, 2);
  const bool grouped = rank > 2 && k[rank - 3] > 0 && q[rank - 3] % k[rank - 3] == 0;
  op.check<ShapeError>(leading(k, 2) == batch && leading(v, 2) == batch, "batch dims and heads don't broadcast: q ", q,
                       ", k ", k, ", v ", v,
                       grouped ? "; where heads of q share those of k and v, say {.enable_gqa = true}" : "");
  check_mask(op, q, k, tensors);
  Shape out = q;
  out[rank - 1] = v.back();
  op.output(out, strides_like(out, layout), op.input(0).dtype());
  op.output(leading(q, 1), statistics_type(op.input(0).dtype()));
}

void infer_attention(Infer& op) {
  const Tensor &q = op.input(0), &k = op.input(1), &v = op.input(2);
  op.check_floating(0);
  op.check<ShapeError>(q.rank() >= 2 && k.rank() == q.rank() && v.rank() == q.rank(),
                       "needs q [batch.., heads, time, d], k and v [batch.., heads, source, d], got ", q.shape(), ", ",
                       k.shape(), " and ", v.shape());
  op.check<DTypeError>(q.dtype() == k.dtype() && q.dtype() == v.dtype(), "q, k and v of different dtypes: ", q.dtype(),
                       ", ", k.dtype(), " and ", v.dtype(), "; cast them with to()");
  infer_outputs(op, q.shape(), k.shape(), v.shape(), q.strides(), 3);
}

void infer_packed(Infer& op) {
  const Tensor& qkv = op.input(0);
  op.check_floating(0);
  op.check<ShapeError>(qkv.rank() >= 3 && qkv.shape()[0] == 3,
                       "needs q, k and v in one tensor [3, batch.., heads, time, d], got ", qkv.shape());
  Shape one = qkv.shape(), strides = qkv.strides();
  one.erase(0), strides.erase(0);
  infer_outputs(op, one, one, one, strides, 1);
}

void output_like(Infer& op, int first, int count) {
  for (int i = first; i < first + count; ++i) {
    const Tensor& x = op.input(i);
    op.output(x.shape(), strides_like(x.shape(), x.strides()), x.dtype());
  }
}
void infer_grad(Infer& op) {
  check_operands(op, 6);
  check_fit(op, ".. t d, .. t e, .. s e, .. s d, .. t d, .. t:wide");
  check_mask(op, op.input(1).shape(), op.input(2).shape(), 6);
  output_like(op, 1, 3);
}
void infer_packed_grad(Infer& op) {
  check_operands(op, 4);
  check_fit(op, ".. t d, 3 .. t d, .. t d, .. t:wide");
  check_mask(op, op.input(0).shape(), op.input(0).shape(), 4);
  output_like(op, 1, 1);
}

// ---- The same with whole matrices, for second derivatives and for the gradient of an additive mask.

struct Parts {
  Tensor q, k, v, mask, key;
  const Attributes& attributes;
};

/// Softmax of the scores, its dropout, and the gradients that flow to both.
struct Matrices {
  Tensor weights;    ///< P, before dropout
  Tensor dropped;    ///< A = dropout(P)
  Tensor d_weights;  ///< of P, from g
  Tensor d_scores;   ///< P (dP - sum(dP P)): of scale q kᵀ + mask

  Matrices(const Parts& x, const Tensor& g) : x_(x) {
    const double scale = x.attributes.number("scale");
    Tensor scores = matmul(x.q, turned(x.k)) * scale;
    const int64_t time = scores.shape()[scores.rank() - 2], source = scores.shape().back();
    if (x.mask.defined() && x.mask.dtype() == bool_) scores = where(x.mask, scores, kNothing);
    if (x.mask.defined() && x.mask.dtype() != bool_) scores = scores + to(x.mask, scores.dtype());
    if (x.attributes.flag("causal")) {
      const auto count = [&](int64_t n) { return arange(0, n, 1, {.dtype = int64, .device = x.q.device()}); };
      scores = where(count(source) <= unsqueeze(count(time), 1), scores, kNothing);
    }
    const bool limited = x.mask.defined() || x.attributes.flag("causal");
    const Tensor allowed = limited ? scores > kNothing : Tensor();
    weights = softmax(limited ? where(allowed, scores, kNothing) : scores);
    if (limited) weights = where(allowed, weights, 0);  // rows that may look nowhere
    dropped = drop(weights);
    d_weights = drop(matmul(g, turned(x.v)));
    d_scores = weights * (d_weights - row_sum(d_weights * weights));
  }

  Tensor drop(const Tensor& x) const {
    if (!x_.key.defined()) return x;
    return dispatch(find_op("dropout"), {x, x_.key},
                    {{"p", x_.attributes.number("p")}, {"site", x_.attributes.integer("site")}}, Where::current());
  }

 private:
  static constexpr double kNothing = -1e30;  // a finite -inf: exp of it is 0, and no difference of two is NaN
  const Parts& x_;
};

/// Gradients of (g, q, k, v) from those of dq, dk and dv (uq, uk, uv):
///   dq = s D k, dk = s Dᵀ q, dv = Aᵀ g with D = P (dP - sum(dP P)), dP = dropout(g vᵀ), A = dropout(P).
/// W is the gradient of D, E that of dP, M that of the scores.
Tensors second_grad(const Parts& x, const Tensor& g, const Tensor& uq, const Tensor& uk, const Tensor& uv) {
  const double scale = x.attributes.number("scale");
  const Matrices m(x, g);
  const Tensor w = (matmul(uq, turned(x.k)) + matmul(x.q, turned(uk))) * scale;
  const Tensor wp = row_sum(w * m.weights);
  const Tensor e = m.weights * (w - wp), f = m.drop(e);
  const Tensor through_weights =
      w * (m.d_weights - row_sum(m.d_weights * m.weights)) - m.d_weights * wp + m.drop(matmul(g, turned(uv)));
  const Tensor scores = m.weights * (through_weights - row_sum(through_weights * m.weights));
  return {matmul(f, x.v) + matmul(m.dropped, uv), (matmul(scores, x.k) + matmul(m.d_scores, uk)) * scale,
          (matmul(turned(scores), x.q) + matmul(turned(m.d_scores), uq)) * scale, matmul(turned(f), g)};
}

/// Operands after the first `tensors`: the mask and the key, where they are.
Parts parts_of(const OpContext& op, const Tensor& q, const Tensor& k, const Tensor& v, int after) {
  Parts parts{widen(q), widen(k), widen(v), {}, {}, op.attributes()};
  if (op.attributes().flag("masked")) parts.mask = op.input(after++);
  if (op.attribute("p") > 0) parts.key = op.input(after);
  return parts;
}

/// Calls the gradient op `name` with g, the operands, the results, and the mask and key; adds the mask's gradient.
Tensors first_grad(const OpContext& op, const char* name, int tensors) {
  Tensors inputs = {op.grad_output()};
  for (int i = 0; i < tensors; ++i) inputs.push_back(op.input(i));
  inputs.push_back(op.output(0));
  inputs.push_back(op.output(1));
  for (int i = tensors; i < op.input_count(); ++i) inputs.push_back(op.input(i));
  const Op& gradient = find_op(name);
  Tensors result(static_cast<size_t>(gradient.outputs));
  bool wanted = false;
  for (int i = 0; i < tensors; ++i) wanted = wanted || op.needs_grad(i);
  if (wanted) dispatch(gradient, inputs, op.attributes(), result, Where::current());
  result.resize(static_cast<size_t>(op.input_count()));
  if (op.attributes().flag("masked") && op.needs_grad(tensors)) {
    const bool packed = tensors == 1;
    const auto part = [&](int i) { return packed ? select(op.input(0), 0, i) : op.input(i); };
    const Parts parts = parts_of(op, part(0), part(1), part(2), tensors);
    result[static_cast<size_t>(tensors)] =
        to(sum_to(Matrices(parts, widen(op.grad_output())).d_scores, parts.mask.shape()), parts.mask.dtype());
  }
  return result;
}

Tensors cast_to(Tensors tensors, DType type) {
  for (Tensor& each : tensors) each = to(each, type);
  return tensors;
}

Tensors attention_second_grad(const OpContext& op) {
  const Parts parts = parts_of(op, op.input(1), op.input(2), op.input(3), 6);
  Tensors result = cast_to(second_grad(parts, widen(op.input(0)), widen(op.grad_output(0)), widen(op.grad_output(1)),
                                       widen(op.grad_output(2))),
                           op.input_dtype(1));
  result.resize(static_cast<size_t>(op.input_count()));
  return result;
}

Tensors packed_second_grad(const OpContext& op) {
  const Tensor qkv = op.input(1), u = op.grad_output();
  const auto part = [](const Tensor& x, int i) { return select(x, 0, i); };
  const Parts parts = parts_of(op, part(qkv, 0), part(qkv, 1), part(qkv, 2), 4);
  const Tensors each = cast_to(
      second_grad(parts, widen(op.input(0)), widen(part(u, 0)), widen(part(u, 1)), widen(part(u, 2))), qkv.dtype());
  Tensors result = {each[0], concat({unsqueeze(each[1], 0), unsqueeze(each[2], 0), unsqueeze(each[3], 0)})};
  result.resize(static_cast<size_t>(op.input_count()));
  return result;
}

/// The call's attributes, and the mask and key after the operands.
Tensor call(const char* name, Tensors inputs, const AttentionOptions& options, Where where) {
  const Shape& shape = inputs[0].shape();
  Attributes attributes{
      {"scale", options.scale
                    ? *options.scale
                    : 1 / std::sqrt(static_cast<double>(shape.empty() ? 1 : std::max<int64_t>(shape.back(), 1)))},
      {"causal", options.causal},
      {"masked", options.mask.defined()},
      {"p", options.dropout}};
  if (options.mask.defined()) inputs.push_back(options.mask);
  if (options.dropout > 0) {
    const Draw next = next_draw();
    inputs.push_back(next.key_on(inputs[0].device()));
    attributes.set({"site", next.site});
  }
  Tensor outputs[2];
  dispatch(find_op(name), inputs, attributes, outputs, where);
  return outputs[0];
}

/// Lets batch dims and heads broadcast; what doesn't fit is left for infer to report.
void broadcast_heads(Tensors& x, Where where) {
  Shape batch;
  for (const Tensor& each : x) {
    if (each.rank() < 2) return;
    const Shape own = leading(each.shape(), 2);
    while (batch.size() < own.size()) batch.insert(0, 1);
    for (int d = 0; d < own.size(); ++d) {
      int64_t& extent = batch[batch.size() - own.size() + d];
      if (extent != own[d] && extent != 1 && own[d] != 1) return;
      if (extent == 1) extent = own[d];
    }
  }
  for (Tensor& each : x) {
    Shape shape = batch;
    for (int d = each.rank() - 2; d < each.rank(); ++d) shape.push_back(each.shape()[d]);
    if (shape != each.shape()) each = expand({each, where}, shape);
  }
}

/// Heads of q that share a head of k and v become a dim of their own: q [.., key heads, group, time, d], k and v
/// [.., key heads, 1, source, d], the mask alike. All are views.
void group_heads(Tensors& x, Tensor& mask, Where where) {
  for (const Tensor& each : x)
    if (each.rank() < 3)
      throw ShapeError(detail::str("scaled_dot_product_attention: enable_gqa needs heads: q [batch.., heads, time, d], "
                                   "k and v [batch.., key heads, source, d], got ",
                                   x[0].shape(), ", ", x[1].shape(), " and ", x[2].shape()),
                       where);
  const int64_t heads = x[0].shape()[x[0].rank() - 3], shared = x[1].shape()[x[1].rank() - 3];
  if (shared != x[2].shape()[x[2].rank() - 3] || shared == 0 || heads % shared != 0)
    throw ShapeError(
        detail::str("scaled_dot_product_attention: the heads of q must be a multiple of those of k and v, got ",
                    x[0].shape(), ", ", x[1].shape(), " and ", x[2].shape()),
        where);
  const auto split = [&](const Tensor& tensor) {
    Shape shape = tensor.shape();
    const int dim = shape.size() - 3;
    const bool whole = shape[dim] == heads;
    shape[dim] = whole ? shared : shape[dim];
    shape.insert(dim + 1, whole ? heads / shared : 1);
    return reshape({tensor, where}, shape);
  };
  x[0] = split(x[0]);
  for (size_t i = 1; i < 3; ++i) x[i] = unsqueeze({x[i], where}, -3);
  if (mask.defined() && mask.rank() >= 3) mask = split(mask);
}

/// Sequences of a batch, without a mask or draws, which are of all of them.
uint32_t rows_of_batch(std::span<const Tensor> inputs, const Attributes& attributes) {
  if (attributes.flag("masked") || attributes.number("p") > 0 || inputs[0].rank() < 3) return 0;
  uint32_t all = 0;
  for (int i = 0; i < static_cast<int>(inputs.size()); ++i) all |= in(i);
  return all;
}

}  // namespace

void define_attention(OpTable& table) {
  using enum AttributeType;
  const AttributeSchema attributes = {{"scale", number},
                                      {"causal", flag, false},
                                      {"masked", flag, false},
                                      {"p", number, 0.0},
                                      optional_attribute("site", integer)};
  table.add({.name = "attention",
             .kind = OpKind::contract,
             .inputs = kVariadic,
             .outputs = 2,
             .attributes = attributes,
             .infer = infer_attention,
             .grad = [](const OpContext& op) { return first_grad(op, "attention_grad", 3); },
             .saved = in(0) | in(1) | in(2) | in(3) | in(4) | out(0) | out(1),
             .rows = rows_of_batch});
  table.add({.name = "attention_grad",
             .kind = OpKind::contract,
             .inputs = kVariadic,
             .outputs = 3,
             .attributes = attributes,
             .infer = infer_grad,
             .grad = attention_second_grad,
             .saved = in(0) | in(1) | in(2) | in(3) | in(6) | in(7),
             .rows = rows_of_batch});
  table.add({.name = "attention_qkv",
             .kind = OpKind::contract,
             .inputs = kVariadic,
             .outputs = 2,
             .attributes = attributes,
             .infer = infer_packed,
             .grad = [](const OpContext& op) { return first_grad(op, "attention_qkv_grad", 1); },
             .saved = in(0) | in(1) | in(2) | out(0) | out(1)});
  table.add({.name = "attention_qkv_grad",
             .kind = OpKind::contract,
             .inputs = kVariadic,
             .attributes = attributes,
             .infer = infer_packed_grad,
             .grad = packed_second_grad,
             .saved = in(0) | in(1) | in(4) | in(5)});
  for (const char* name : {"attention", "attention_qkv"}) table.at(name).autocast = AutocastRule::lower;
}

Tensor scaled_dot_product_attention(const Arg& q, const Arg& k, const Arg& v, const AttentionOptions& options) {
  Tensors inputs = {q.tensor(), k.tensor(), v.tensor()};
  for (const Tensor& each : inputs)
    if (!each.defined())
      throw UndefinedError("scaled_dot_product_attention: q, k or v is an undefined Tensor", user_line(q.where()));
  AttentionOptions own = options;
  if (options.enable_gqa) group_heads(inputs, own.mask, q.where());
  broadcast_heads(inputs, q.where());
  const Tensor out = call("attention", std::move(inputs), own, q.where());
  if (!options.enable_gqa) return out;
  Shape merged = leading(out.shape(), 4);  // [batch.., heads, time, width]
  merged.push_back(out.shape()[out.rank() - 4] * out.shape()[out.rank() - 3]);
  for (int d = out.rank() - 2; d < out.rank(); ++d) merged.push_back(out.shape()[d]);
  return reshape({out, q.where()}, merged);
}

Tensor scaled_dot_product_attention(const Arg& qkv, const AttentionOptions& options) {
  // Packed, all three have as many heads: what enable_gqa allows isn't there.
  return call("attention_qkv", {qkv.tensor()}, options, qkv.where());
}

}  // namespace tandem
