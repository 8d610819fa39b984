// Norms and distances of vectors, and the losses made of them.
#include <cmath>

#include "core/dispatch.h"
#include "core/ops/composed.h"

namespace tandem {

namespace {

/// Operands that broadcast, in the type that they are computed in; `type` is that of the result.
struct Wide {
  Tensors values;
  DType type;
};
Wide widened(const char* name, std::initializer_list<const Arg*> operands, Where where) {
  Wide wide{{}, (*operands.begin())->tensor().dtype()};
  for (const Arg* operand : operands) wide.type = promote(wide.type, operand->tensor().dtype());
  if (!is_floating(wide.type))
    throw DTypeError(detail::str(name, ": needs floating operands, got ", wide.type, "; cast them with to(float32)"),
                     user_line(where));
  for (const Arg* operand : operands) wide.values.push_back(to(*operand, wide_type(wide.type)));
  broadcast_shape(name, wide.values, where);
  return wide;
}

}  // namespace

Tensor normalize(const Arg& x, NormalizeOptions options) {
  const CallScope scope("normalize", x.where());
  check_floating("normalize", x);
  const DType type = x.tensor().dtype();
  const Tensor wide = to(x, wide_type(type));
  return to(wide / maximum(norm(wide, options.dims, {.p = options.p, .keepdim = true}), options.epsilon), type);
}

Tensor pairwise_distance(const Arg& x, const Arg& y, DistanceOptions options) {
  const CallScope scope("pairwise_distance", x.where());
  const auto [values, type] = widened("pairwise_distance", {&x, &y}, x.where());
  return to(norm(values[0] - values[1] + options.epsilon, -1, {.p = options.p, .keepdim = options.keepdim}), type);
}

Tensor cdist(const Arg& x, const Arg& y, double p) {
  const CallScope scope("cdist", x.where());
  const Tensor &a = x.tensor(), &b = y.tensor();
  if (a.rank() < 2 || b.rank() < 2 || a.shape().back() != b.shape().back())
    throw ShapeError(
        detail::str("cdist: needs x [.., n, width] and y [.., m, width], got ", a.shape(), " and ", b.shape()),
        user_line(x.where()));
  const Tensor rows = unsqueeze(a, -2), columns = unsqueeze(b, -3);
  const Arg of_x(rows), of_y(columns);
  const auto [values, type] = widened("cdist", {&of_x, &of_y}, x.where());
  return to(norm(values[0] - values[1], -1, {.p = p}), type);
}

Tensor count_nonzero(const Arg& x, const Dims& dims) {
  const CallScope scope("count_nonzero", x.where());
  return sum(x != 0, dims);
}

Tensor gaussian_nll_loss(const Arg& x, const Arg& target, const Arg& variance, GaussianNllOptions options) {
  const CallScope scope("gaussian_nll_loss", x.where());
  const auto [values, type] = widened("gaussian_nll_loss", {&x, &target, &variance}, x.where());
  const Tensor& v = values[2];
  // Bounded from below, with the gradient of what is not.
  const Tensor bounded = where(v < options.epsilon, v - v.detach() + options.epsilon, v);
  Tensor loss = (log(bounded) + square(values[0] - values[1]) / bounded) * 0.5;
  if (options.full) loss = loss + 0.91893853320467274178;  // log(2 pi) / 2
  return reduced_loss("gaussian_nll_loss", loss, options.reduction, type, x.where());
}

Tensor poisson_nll_loss(const Arg& x, const Arg& target, PoissonNllOptions options) {
  const CallScope scope("poisson_nll_loss", x.where());
  const auto [values, type] = widened("poisson_nll_loss", {&x, &target}, x.where());
  const Tensor &a = values[0], &t = values[1];
  Tensor loss = options.log_input ? exp(a) - t * a : a - t * log(a + options.epsilon);
  if (options.full) {  // log t! by Stirling: t log t - t + log(2 pi t) / 2
    const Tensor large = t > 1, safe = where(large, t, 2);
    loss = loss + where(large, safe * log(safe) - safe + log(safe * 6.283185307179586477) * 0.5, 0);
  }
  return reduced_loss("poisson_nll_loss", loss, options.reduction, type, x.where());
}

Tensor triplet_margin_loss(const Arg& anchor, const Arg& positive, const Arg& negative, TripletOptions options) {
  const CallScope scope("triplet_margin_loss", anchor.where());
  const auto [values, type] = widened("triplet_margin_loss", {&anchor, &positive, &negative}, anchor.where());
  const DistanceOptions distance{.p = options.p, .epsilon = options.epsilon};
  const Tensor near = pairwise_distance(values[0], values[1], distance);
  Tensor far = pairwise_distance(values[0], values[2], distance);
  if (options.swap) far = minimum(far, pairwise_distance(values[1], values[2], distance));
  return reduced_loss("triplet_margin_loss", maximum(near - far + options.margin, 0), options.reduction, type,
                      anchor.where());
}

Tensor margin_ranking_loss(const Arg& a, const Arg& b, const Arg& y, MarginOptions options) {
  const CallScope scope("margin_ranking_loss", a.where());
  const auto [values, type] = widened("margin_ranking_loss", {&a, &b, &y}, a.where());
  return reduced_loss("margin_ranking_loss", clamp_min(options.margin - values[2] * (values[0] - values[1]), 0),
                      options.reduction, type, a.where());
}

Tensor cosine_embedding_loss(const Arg& a, const Arg& b, const Arg& y, MarginOptions options) {
  const CallScope scope("cosine_embedding_loss", a.where());
  const auto [values, type] = widened("cosine_embedding_loss", {&a, &b}, a.where());
  constexpr double tiny = 1e-12;
  const Tensor squares = (sum(square(values[0]), -1) + tiny) * (sum(square(values[1]), -1) + tiny);
  const Tensor cosine = sum(values[0] * values[1], -1) / sqrt(squares);
  const Tensor loss = where(y == 1, 1 - cosine, where(y == -1, clamp_min(cosine - options.margin, 0), 0));
  return reduced_loss("cosine_embedding_loss", loss, options.reduction, type, a.where());
}

Tensor hinge_embedding_loss(const Arg& x, const Arg& y, MarginOptions options) {
  const CallScope scope("hinge_embedding_loss", x.where());
  const auto [values, type] = widened("hinge_embedding_loss", {&x}, x.where());
  const Tensor& a = values[0];
  const Tensor loss = where(y == 1, a, where(y == -1, clamp_min(options.margin - a, 0), 0));
  return reduced_loss("hinge_embedding_loss", loss, options.reduction, type, x.where());
}

Tensor soft_margin_loss(const Arg& x, const Arg& y, LossOptions options) {
  const CallScope scope("soft_margin_loss", x.where());
  const auto [values, type] = widened("soft_margin_loss", {&x, &y}, x.where());
  return reduced_loss("soft_margin_loss", -logsigmoid(values[0] * values[1]), options.reduction, type, x.where());
}

}  // namespace tandem
