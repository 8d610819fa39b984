// Attention beyond its samples: the public functions, layouts, masks' gradients, dropout in every mode, errors, and the
// layers made of it against compositions of simpler ops in float64.
#include <doctest/doctest.h>

#include <cmath>

#include "core/threads.h"
#include "tandem.h"

using namespace tandem;

namespace {

constexpr TensorOptions kDouble{.dtype = DType::float64};

Tensor last_two(const Tensor& x) { return transpose(x, -2, -1); }

/// softmax(q kᵀ scale) v with whole matrices.
Tensor composed(const Tensor& q, const Tensor& k, const Tensor& v, bool causal) {
  Tensor scores = matmul(q, last_two(k)) / std::sqrt(static_cast<double>(q.shape().back()));
  const int64_t time = q.shape()[q.rank() - 2], source = k.shape()[k.rank() - 2];
  if (causal) scores = where(arange(source) <= unsqueeze(arange(time), 1), scores, -INFINITY);
  return matmul(softmax(scores), v);
}

Tensor doubles(const Tensor& x) { return to(x.detach(), float64); }

template <class E, class F> std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) { return error.what(); } catch (const std::exception& error) {
    FAIL_CHECK("another error: " << std::string(error.what()));
  }
  return "";
}
#define SAYS(E, statement, text) \
  CHECK_MESSAGE(message_of<E>([&] { statement; }).find(text) != std::string::npos, message_of<E>([&] { statement; }))

}  // namespace

TEST_CASE("attention: transposed views, broadcast heads and memory order") {
  manual_seed(1);
  const Tensor q = transpose(randn({2, 70, 4, 16}), 1, 2), k = transpose(randn({2, 90, 1, 16}), 1, 2),
               v = transpose(randn({2, 90, 1, 24}), 1, 2);
  const Tensor y = scaled_dot_product_attention(q, k, v);
  CHECK(y.shape() == Shape{2, 4, 70, 24});
  CHECK(transpose(y, 1, 2).is_contiguous());  // q's order of dims
  CHECK(allclose(doubles(y), composed(doubles(q), doubles(k), doubles(v), false), {.rtol = 1e-4, .atol = 1e-6}));
  const Tensor causal = scaled_dot_product_attention(q, k, v, {.causal = true});
  CHECK(allclose(doubles(causal), composed(doubles(q), doubles(k), doubles(v), true), {.rtol = 1e-4, .atol = 1e-6}));
}

TEST_CASE("attention: gradients, also of broadcast operands and of an additive mask") {
  manual_seed(2);
  const Tensor q = randn({2, 2, 3, 2}, kDouble), k = randn({2, 1, 4, 2}, kDouble), v = randn({1, 4, 3}, kDouble),
               mask = randn({3, 4}, kDouble);
  const auto f = [](const Tensors& x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.mask = x[3]}); };
  gradcheck(f, {q, k, v, mask});
  const auto of_mask = [&](const Tensors& x) {
    return scaled_dot_product_attention(q, k, v, {.mask = x[0], .causal = true});
  };
  gradcheck(of_mask, {mask});
  const Tensor qkv = randn({3, 2, 3, 2}, kDouble);
  const auto packed = [&](const Tensors& x) {
    return scaled_dot_product_attention(x[0], {.causal = true, .scale = 0.7});
  };
  gradcheck(packed, {qkv});
  gradgradcheck(packed, {qkv});
  CHECK(allclose(packed({qkv}), scaled_dot_product_attention(select(qkv, 0, 0), select(qkv, 0, 1), select(qkv, 0, 2),
                                                             {.causal = true, .scale = 0.7})));
}

TEST_CASE("attention: a row that may look nowhere gives zeros, and no NaN flows back") {
  const Tensor q = randn({1, 2, 4}, {.requires_grad = true}), k = randn({1, 3, 4}, {.requires_grad = true}),
               v = randn({1, 3, 4}, {.requires_grad = true});
  const Tensor mask = tensor({{0.f, 0.f, 0.f}, {1.f, 0.f, 1.f}}) > 0;
  const Tensor y = scaled_dot_product_attention(q, k, v, {.mask = mask});
  CHECK(allclose(select(y, 1, 0), zeros({1, 4})));
  y.sum().backward();
  CHECK(allclose(select(q.grad(), 1, 0), zeros({1, 4})));
  CHECK(std::isfinite(k.grad().sum().item<double>()));
}

TEST_CASE("attention: dropout draws the same eagerly, replayed and compiled") {
  const Tensor q = randn({2, 50, 8}), k = randn({2, 60, 8}), v = randn({2, 60, 8});
  const auto step = [](const Tensor& q, const Tensor& k, const Tensor& v) {
    const Tensor a = q.detach().requires_grad(true);
    const Tensor y = scaled_dot_product_attention(a, k, v, {.dropout = 0.25});
    (y * y).sum().backward();
    return y + a.grad();
  };
  manual_seed(5);
  std::vector<Tensor> expected;
  for (int i = 0; i < 3; ++i) expected.push_back(step(q, k, v));
  CHECK(!allclose(expected[0], expected[1]));
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    manual_seed(5);
    auto compiled = compile(step, {.mode = mode});
    for (int i = 0; i < 3; ++i)
      CHECK(allclose(compiled(q, k, v), expected[static_cast<size_t>(i)], {.rtol = 1e-6, .atol = 1e-7}));
  }
}

TEST_CASE("attention: one thread or several give the same") {
  manual_seed(6);
  const Tensor q = randn({3, 200, 32}), k = randn({3, 200, 32}), v = randn({3, 200, 32});
  const int threads = num_threads();
  set_num_threads(1);
  const Tensor one = scaled_dot_product_attention(q, k, v, {.causal = true});
  set_num_threads(3);
  const Tensor three = scaled_dot_product_attention(q, k, v, {.causal = true});
  set_num_threads(threads);
  CHECK(allclose(one, three, {.rtol = 0, .atol = 0}));
}

TEST_CASE("attention: errors say what doesn't fit") {
  const Tensor q = ones({2, 3, 4}), k = ones({2, 5, 4}), v = ones({2, 5, 4});
  SAYS(ShapeError, scaled_dot_product_attention(ones({3}), k, v), "attention: needs q [batch.., heads, time, d]");
  SAYS(ShapeError, scaled_dot_product_attention(q, ones({2, 5, 3}), v),
       "q and k have vectors of different lengths: [2, 3, 4] and [2, 5, 3] (4 and 3)");
  SAYS(ShapeError, scaled_dot_product_attention(q, k, ones({2, 6, 4})), "k and v have different numbers of sources");
  SAYS(ShapeError, scaled_dot_product_attention(q, ones({3, 5, 4}), ones({3, 5, 4})),
       "batch dims and heads don't broadcast");
  SAYS(ShapeError, scaled_dot_product_attention(q, k, v, {.mask = ones({4, 5})}),
       "the mask [4, 5] doesn't broadcast to the scores [2, 3, 5]");
  SAYS(ShapeError, scaled_dot_product_attention(ones({2, 3, 4})),
       "needs q, k and v in one tensor [3, batch.., heads, time, d], got [2, 3, 4]");
  SAYS(DTypeError, scaled_dot_product_attention(q, k, to(v, float64)), "q, k and v of different dtypes");
  SAYS(DTypeError, scaled_dot_product_attention(q, k, v, {.mask = ones({5}, {.dtype = int64})}),
       "the mask is int64; it must be bool");
  SAYS(DTypeError, scaled_dot_product_attention(ones({3, 2, 2, 2}, {.dtype = int64})), "attention_qkv");
  SAYS(ValueError, scaled_dot_product_attention(q, k, v, {.dropout = 1.5}), "dropout 1.5 must be between 0 and 1");
  SAYS(ValueError, nn::MultiheadAttention(10, 3), "a width of 10 can't be shared by 3 heads");
  SAYS(ShapeError, nn::MultiheadAttention(8, 2)(ones({3, 4})), "needs [batch.., time, 8], got [3, 4]");
}

TEST_CASE("nn::MultiheadAttention and nn::TransformerBlock against float64 compositions") {
  manual_seed(3);
  const int64_t width = 32, heads = 4, time = 50;
  nn::TransformerBlock block(width, heads, {.causal = true});
  const auto named = nn::named_parameters(block);
  std::vector<std::string> names;
  for (const auto& each : named) names.push_back(each.name);
  CHECK(names == std::vector<std::string>{"attention_norm.weight", "attention_norm.bias", "attention.qkv.weight",
                                          "attention.qkv.bias", "attention.output.weight", "attention.output.bias",
                                          "mlp_norm.weight", "mlp_norm.bias", "expand.weight", "expand.bias",
                                          "shrink.weight", "shrink.bias"});
  const Tensor x = randn({3, time, width});
  // By hand, in float64, with parameters to differentiate by.
  std::vector<Tensor> p;
  for (const auto& each : named) p.push_back(doubles(each.tensor).requires_grad(true));
  const auto norm = [](const Tensor& x, const Tensor& weight, const Tensor& bias) {
    const Tensor centred = x - mean(x, -1, {.keepdim = true});
    return centred / sqrt(mean(centred * centred, -1, {.keepdim = true}) + 1e-5) * weight + bias;
  };
  const auto affine = [](const Tensor& x, const Tensor& weight, const Tensor& bias) {
    return matmul(x, transpose(weight, 0, 1)) + bias;
  };
  const Tensor wide = doubles(x);
  const Tensor qkv = affine(norm(wide, p[0], p[1]), p[2], p[3]);
  const auto head = [&](int64_t part) {
    return transpose(reshape(slice(qkv, -1, part * width, (part + 1) * width), {3, time, heads, width / heads}), 1, 2);
  };
  const Tensor attended = reshape(transpose(composed(head(0), head(1), head(2), true), 1, 2), {3, time, width});
  const Tensor middle = wide + affine(attended, p[4], p[5]);
  const Tensor hidden = affine(norm(middle, p[6], p[7]), p[8], p[9]);
  const Tensor expected = middle + affine(hidden * 0.5 * (erf(hidden / std::sqrt(2.0)) + 1), p[10], p[11]);
  const Tensor weights = randn(x.shape());
  (expected * to(weights, float64)).sum().backward();

  const Tensor y = block(x);
  CHECK(allclose(doubles(y), expected, {.rtol = 1e-4, .atol = 1e-5}));
  (y * weights).sum().backward();
  for (size_t i = 0; i < p.size(); ++i) {
    CAPTURE(names[i]);
    CHECK(allclose(doubles(named[i].tensor.grad()), p[i].grad(), {.rtol = 1e-3, .atol = 1e-3}));
  }

  nn::MultiheadAttention attention(8, 2, {.dropout = 0.5, .bias = false});
  CHECK(nn::parameters(attention).size() == 2);
  const Tensor sequence = randn({5, 8});
  CHECK(attention(sequence).shape() == Shape{5, 8});
  CHECK(!allclose(attention(sequence), attention(sequence)));
  nn::eval(attention);
  CHECK(allclose(attention(sequence), attention(sequence)));
}
