// Attention on cuda(0): against the CPU's kernels in float32 and float64, against float64 in 16-bit floats, over sequences of
// several tiles and lengths that fill none, in every order of lanes and in the three modes.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "support.h"
#include "tandem.h"
#include "tests/cuda/orders.h"

using namespace tandem;

namespace {

/// 1.25 units of the last place: results are rounded to one, and so are weights before they are multiplied.
constexpr double kBfloat16 = 0x1.4p-8, kFloat16 = 0x1.4p-11;

/// What a call is made of. Tensors are made on the CPU.
struct Call {
  std::string name;
  Tensor q, k, v;
  AttentionOptions options = {};
};

/// The result and the gradients of q, k and v, from the gradient `g`; on the CPU.
Tensors attend(const Call& call, DType type, Device device, const Tensor& g) {
  const auto moved = [&](const Tensor& x) { return x.to(type).to(device).detach(); };
  const Tensor q = moved(call.q).requires_grad(true), k = moved(call.k).requires_grad(true),
               v = moved(call.v).requires_grad(true);
  AttentionOptions options = call.options;
  if (options.mask.defined()) options.mask = options.mask.to(device);
  manual_seed(9);  // draws of dropout
  const Tensor y = scaled_dot_product_attention(q, k, v, options);
  (y * moved(g)).sum().backward();
  return {y.detach().cpu(), q.grad().cpu(), k.grad().cpu(), v.grad().cpu()};
}

Tensor gradient_of(const Call& call) {
  Shape shape = call.q.shape();
  shape[shape.size() - 1] = call.v.shape().back();
  manual_seed(77);
  return randn(shape);
}

double root_mean_square(const Tensor& x) {
  const Tensor wide = to(x, float64);
  return x.numel() == 0 ? 0 : std::sqrt((wide * wide).mean().item<double>());
}

/// Runs in every order of lanes: the first result is judged by `check`, the others must have its bits.
template <class F> void in_all_orders(const Call& call, DType type, const F& check) {
  const Tensor g = gradient_of(call);
  Tensors first;
  in_every_order([&](bool is_first) {
    const Tensors got = attend(call, type, cuda(0), g);
    if (is_first) {
      first = got;
      check(got, g);
    } else {
      for (size_t i = 0; i < got.size(); ++i) CHECK(same(got[i], first[i]));
    }
  });
}

/// Error against float64, of numbers that the type holds, relative to the root mean square of each result.
void check_against_float64(const Call& rounded, DType type, double bound) {
  CAPTURE(rounded.name);
  CAPTURE(type);
  Call call = rounded;
  for (Tensor* x : {&call.q, &call.k, &call.v}) *x = to(to(*x, type), float64);
  in_all_orders(call, type, [&](const Tensors& got, const Tensor& g) {
    const Tensors exact = attend(call, float64, cpu(), to(g, type));
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      CHECK(got[i].shape() == exact[i].shape());
      const double error = root_mean_square(to(got[i], float64) - exact[i]), size = root_mean_square(exact[i]);
      CAPTURE(error / size);
      CHECK(error <= bound * size);
    }
  });
}

void check_against_cpu(const Call& call, DType type) {
  CAPTURE(call.name);
  CAPTURE(type);
  in_all_orders(call, type, [&](const Tensors& got, const Tensor& g) {
    const Tensors wanted = attend(call, type, cpu(), g);
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      const double tolerance = type == float64 ? 1e-11 : 2e-5;
      CHECK(allclose(got[i], wanted[i], {.rtol = tolerance, .atol = tolerance}));
    }
  });
}

Tensor bools(const Shape& shape) { return rand(shape) > 0.3; }

/// Calls of every kind, with vectors of `depth` and `width` numbers.
std::vector<Call> calls(int64_t depth, int64_t width) {
  manual_seed(3);
  const Tensor q = randn({2, 67, depth}), k = randn({2, 139, depth}), v = randn({2, 139, width});
  const Tensor aligned_k = randn({2, 132, depth}), aligned_v = randn({2, 132, width});
  const auto heads = [](int64_t time, int64_t size) { return transpose(randn({1, time, 2, size}), 1, 2); };
  return {
      {"whole", q, k, v},
      {"causal", q, k, v, {.causal = true}},
      {"causal, fewer sources", k, q, randn({2, 67, width}), {.causal = true}},
      {"transposed", heads(70, depth), heads(65, depth), heads(65, width), {.causal = true, .scale = 0.3}},
      {"negative scale", q, k, v, {.scale = -0.2}},
      {"bool mask", q, k, v, {.mask = bools({67, 139})}},
      {"mask of sources, causal", q, k, v, {.mask = bools({2, 1, 139}), .causal = true}},
      {"added mask", q, k, v, {.mask = randn({67, 139})}},
      {"mask of other dtype", q, k, v, {.mask = to(randn({2, 67, 1}), float16)}},
      {"dropout", q, k, v, {.dropout = 0.3}},
      {"dropout, aligned rows", q, aligned_k, aligned_v, {.dropout = 0.3, .causal = true}},
      {"all dropped", q, k, v, {.dropout = 1}},
  };
}

/// A small GPT over numbers below 40.
struct Gpt {
  nn::Embedding token{40, 32}, position{24, 32};
  nn::TransformerBlock first{32, 2, {.dropout = 0.1, .causal = true}},
      second{32, 2, {.dropout = 0.1, .causal = true, .kv_heads = 1}};
  nn::LayerNorm norm{32};
  nn::Linear output{32, 40, {.bias = false}};

  Tensor operator()(const Tensor& ids) const {
    const Tensor places = arange(0, ids.shape()[1], 1, {.dtype = int64, .device = ids.device()});
    return output(norm(second(first(token(ids) + position(places)))));
  }
};

/// Losses of a few steps of training.
std::vector<double> train(Device device, Mode mode, bool half) {
  manual_seed(11);
  Gpt model;
  nn::to(model, device);
  nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 1e-2});
  auto step = compile(
      [&](const Tensor& ids, const Tensor& targets) {
        optimizer.zero_grad();
        const Tensor logits = [&] {
          if (!half) return model(ids);
          const Autocast guard(bfloat16);
          return to(model(ids), float32);
        }();
        const Tensor loss = cross_entropy(logits.flatten(0, 1), targets.flatten());
        loss.backward();
        nn::clip_grad_norm(nn::parameters(model), 1.0);
        optimizer.step();
        return loss;
      },
      {.mode = mode});
  std::vector<double> losses;
  for (int i = 0; i < 4; ++i) {
    const Tensor ids = randint(0, 40, {3, 21});
    losses.push_back(step(ids.to(device), ids.to(device)).item<double>());
  }
  CHECK_MESSAGE(step.stats().note.empty(), step.stats().note);
  return losses;
}

}  // namespace

TEST_CASE("cuda attention: a GPT trains to the losses of the CPU in every mode") {
  for (const bool half : {false, true}) {
    CAPTURE(half);
    const std::vector<double> wanted = train(cpu(), Mode::eager, half);
    CHECK(wanted.back() < wanted.front());
    for (const Mode mode : kModes) {
      CAPTURE(name_of(mode));
      const std::vector<double> got = train(cuda(0), mode, half);
      REQUIRE(got.size() == wanted.size());
      for (size_t i = 0; i < got.size(); ++i)
        CHECK(std::fabs(got[i] - wanted[i]) <= (half ? 1e-2 : 1e-4) * std::fabs(wanted[i]));
    }
  }
}

TEST_CASE("cuda attention: decoding from a cache gives what attention to all at once does") {
  manual_seed(8);
  const nn::MultiheadAttention layer(32, 4, {.causal = true, .kv_heads = 2});
  const Tensor x = randn({2, 30, 32});
  const NoGrad guard;
  const Tensor whole = layer(x);
  nn::MultiheadAttention moved = layer;
  nn::to(moved, cuda(0));
  nn::KeyValueCache cache = moved.make_cache({2}, 30);
  int64_t at = 0;
  for (const int64_t count : {20, 1, 1, 1, 5, 1, 1}) {
    const Tensor y = moved(slice(x, 1, at, at + count).to(cuda(0)), cache);
    CHECK(allclose(y.cpu(), slice(whole, 1, at, at + count), {.rtol = 1e-4, .atol = 1e-6}));
    at += count;
  }
}

TEST_CASE("cuda attention: float32 and float64 agree with the CPU") {
  for (const Call& call : calls(20, 33)) check_against_cpu(call, float32);
  for (const Call& call : calls(72, 136)) check_against_cpu(call, float32);
  for (const Call& call : calls(36, 70)) check_against_cpu(call, float64);
}

TEST_CASE("cuda attention: 16-bit floats on the tensor cores, against float64") {
  for (const Call& call : calls(64, 64)) check_against_float64(call, bfloat16, kBfloat16);
  for (const Call& call : calls(32, 24)) check_against_float64(call, float16, kFloat16);
  for (const Call& call : calls(80, 96)) check_against_float64(call, bfloat16, kBfloat16);
  for (const Call& call : calls(128, 104)) check_against_float64(call, float16, kFloat16);
}

TEST_CASE("cuda attention: 16-bit floats whose vectors the tensor cores don't take, against float64") {
  for (const Call& call : calls(20, 33)) check_against_float64(call, bfloat16, kBfloat16);
  const Call wide = calls(136, 8)[1];
  check_against_float64(wide, float16, kFloat16);
}

TEST_CASE("cuda attention: sequences of many tiles") {
  manual_seed(4);
  const auto heads = [](int64_t time, int64_t size) { return transpose(randn({1, time, 1, size}), 1, 2); };
  for (const bool causal : {false, true}) {
    const Call call{"long", heads(390, 64), heads(517, 64), heads(517, 64), {.causal = causal}};
    check_against_float64(call, bfloat16, kBfloat16);
    check_against_cpu(call, float32);
  }
  const Call dropped{"long, dropout", heads(390, 32), heads(518, 32), heads(518, 32), {.dropout = 0.5}};
  check_against_float64(dropped, float16, kFloat16);
}

TEST_CASE("cuda attention: layouts that the tensor cores read in place, and those that are copied for them") {
  manual_seed(5);
  const auto check = [](const std::string& name, const Tensor& q, const Tensor& k, const Tensor& v) {
    check_against_float64({name, q, k, v, {.causal = true}}, bfloat16, kBfloat16);
  };
  const Tensor q = randn({2, 3, 40, 16}), k = randn({2, 3, 50, 16}), v = randn({2, 3, 50, 16});
  check("batch and heads", q, k, v);
  check("one key head for all", q, k.slice(1, 0, 1), v.slice(0, 0, 1).slice(1, 2, 3));
  NoGrad guard;
  for (const DType type : {bfloat16, float32}) {
    const auto moved = [&](const Tensor& x) { return x.to(type).to(cuda(0)); };
    const Tensor y = scaled_dot_product_attention(moved(q), moved(k), moved(v));
    const auto turned = [&](const Tensor& x) { return transpose(transpose(moved(x), -2, -1).contiguous(), -2, -1); };
    CHECK(same(scaled_dot_product_attention(turned(q), turned(k), turned(v)).cpu(), y.cpu()));
    const auto shifted = [&](const Tensor& x) {  // rows that start at odd elements
      return moved(concat({zeros({2, 3, x.shape()[2], 1}), x, zeros({2, 3, x.shape()[2], 2})}, 3)).slice(3, 1, 17);
    };
    CHECK(same(scaled_dot_product_attention(shifted(q), shifted(k), shifted(v)).cpu(), y.cpu()));
  }
}

TEST_CASE("cuda attention: q, k and v in one tensor give what they do apart, gradients in one tensor too") {
  manual_seed(6);
  const Tensor data = randn({2, 30, 3, 2, 16}), weights = randn({2, 2, 30, 16});  // as a projection lays them out
  for (const DType type : {bfloat16, float32}) {
    CAPTURE(type);
    Tensors results;
    for (const bool packed : {true, false}) {
      const Tensor x = data.to(type).to(cuda(0)).detach().requires_grad(true);
      const Tensor qkv = x.permute({2, 0, 3, 1, 4});
      manual_seed(7);
      const AttentionOptions options{.dropout = 0.2, .causal = true};
      const Tensor y = packed ? scaled_dot_product_attention(qkv, options)
                              : scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], options);
      (y * weights.to(type).to(cuda(0))).sum().backward();
      results.push_back(y.detach().cpu());
      results.push_back(x.grad().cpu());
    }
    CHECK(same(results[0], results[2]));
    CHECK(same(results[1], results[3]));
  }
}

TEST_CASE("cuda attention: rows that may look nowhere are zeros, and no NaN flows back") {
  for (const DType type : {float32, bfloat16}) {
    const auto leaf = [&](const Shape& shape) {
      return randn(shape).to(type).to(cuda(0)).detach().requires_grad(true);
    };
    const Tensor q = leaf({1, 70, 16}), k = leaf({1, 70, 16}), v = leaf({1, 70, 16});
    const Tensor mask = unsqueeze(arange(70) >= 3, 1).to(cuda(0));
    const Tensor y = scaled_dot_product_attention(q, k, v, {.mask = mask});
    y.sum().backward();
    CHECK(allclose(y.detach().cpu().slice(1, 0, 3), zeros({1, 3, 16}, {.dtype = type})));
    CHECK(allclose(q.grad().cpu().slice(1, 0, 3), zeros({1, 3, 16}, {.dtype = type})));
    for (const Tensor& x : {q, k, v}) CHECK(std::isfinite(x.grad().cpu().sum().item<double>()));
  }
}
