// Autocast and GradScaler: training in 16 bits.
#include <doctest/doctest.h>

#include <cmath>

#include "support.h"
#include "tandem.h"

namespace td = tandem;
namespace nn = tandem::nn;
using td::Tensor, td::Tensors;

namespace {

struct Mlp {
  nn::Linear hidden{16, 32}, output{32, 4};
  Tensor operator()(const Tensor& x) const { return output(relu(hidden(x))); }
};

/// The losses of 30 steps.
std::vector<double> train(td::Mode mode, td::DType type) {
  td::manual_seed(5);
  Mlp model;
  const Tensor x = td::randn({64, 16}), labels = td::randint(0, 4, {64});
  nn::optim::Sgd optimizer(nn::parameters(model), {.lr = 0.2, .momentum = 0.5});
  nn::GradScaler scaler({.initial_scale = type == td::float16 ? 1024.0 : 1.0});
  auto step = td::compile(
      [&](const Tensor& x, const Tensor& labels) {
        optimizer.zero_grad();
        Tensor loss;
        {
          std::optional<td::Autocast> guard;
          if (type != td::float32) guard.emplace(type);
          loss = cross_entropy(model(x), labels);
        }
        if (type == td::float16) {
          scaler.scale(loss).backward();
          scaler.step(optimizer);
          scaler.update();
        } else {
          loss.backward();
          optimizer.step();
        }
        return loss;
      },
      {.mode = mode});
  std::vector<double> losses;
  for (int i = 0; i < 30; ++i) losses.push_back(step(x, labels).item<double>());
  return losses;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const td::Error& error) { return error.what(); }
  return "";
}

}  // namespace

TEST_CASE("Autocast: products take 16 bits, sums and losses float32, the rest what it is given") {
  const Tensor x = td::randn({4, 8}, {.requires_grad = true}), w = td::randn({8, 8}, {.requires_grad = true});
  {
    const td::Autocast guard(td::bfloat16);
    const Tensor y = matmul(x, w);
    CHECK(y.dtype() == td::bfloat16);
    CHECK(linear(x, w).dtype() == td::bfloat16);
    CHECK(relu(y).dtype() == td::bfloat16);
    CHECK((y + 1).dtype() == td::bfloat16);
    CHECK((y + x).dtype() == td::float32);
    CHECK(softmax(y, -1).dtype() == td::float32);
    CHECK(layer_norm(y, td::ones({8}), td::zeros({8})).dtype() == td::float32);
    CHECK(y.sum().dtype() == td::float32);
    CHECK(y.mean().dtype() == td::float32);
    CHECK(exp(y).dtype() == td::float32);
    CHECK(cross_entropy(y, td::zeros({4}, {.dtype = td::int64})).dtype() == td::float32);
    CHECK(conv2d(td::ones({1, 1, 4, 4}), td::ones({1, 1, 3, 3})).dtype() == td::bfloat16);
    const Tensor heads = td::ones({1, 2, 4, 8});
    CHECK(scaled_dot_product_attention(heads, heads, heads).dtype() == td::bfloat16);
    CHECK(batch_norm(td::ones({2, 3, 4, 4}, {.dtype = td::bfloat16}), {}, {}, td::ones({3}), td::zeros({3}),
                     {.training = true})
              .dtype() == td::float32);
    CHECK(matmul(x.to(td::float64), w.to(td::float64)).dtype() == td::float64);
    {
      const td::AutocastOff off;
      CHECK(matmul(x, w).dtype() == td::float32);
    }
    const Tensors g = td::grad_of(y.sum(), {x, w});
    CHECK(g[0].dtype() == td::float32);
    CHECK(g[1].dtype() == td::float32);
    CHECK(td::allclose(
        g[1],
        matmul(x.detach().to(td::float32).transpose(0, 1).to(td::bfloat16), td::ones({4, 8}, {.dtype = td::bfloat16}))
            .to(td::float32),
        {.rtol = 1e-2, .atol = 1e-2}));
  }
  CHECK(matmul(x, w).dtype() == td::float32);
  CHECK(message_of([] { td::Autocast guard(td::int32); }).find("casts to bfloat16 or float16, not int32") !=
        std::string::npos);
}

TEST_CASE("Autocast: part of what a compiled function is specialised by") {
  const Tensor x = td::randn({4, 8}), w = td::randn({8, 8});
  auto f = td::compile([&](const Tensor& x) { return matmul(x, w); });
  CHECK(f(x).dtype() == td::float32);
  {
    const td::Autocast guard(td::bfloat16);
    CHECK(f(x).dtype() == td::bfloat16);
    CHECK(f.stats().retraces.at(0).reason == "autocast off -> bfloat16");
  }
  CHECK(f(x).dtype() == td::float32);
  CHECK(f.stats().traces == 2);
}

TEST_CASE("Autocast: an MLP trains as in float32, in three modes; float16 with GradScaler too") {
  const std::vector<double> expected = train(td::Mode::eager, td::float32);
  CHECK(expected.back() < 0.7 * expected.front());
  for (const td::DType type : {td::bfloat16, td::float16})
    for (const td::Mode mode : kModes) {
      const std::vector<double> losses = train(mode, type);
      for (size_t i = 0; i < losses.size(); ++i) CHECK(losses[i] == doctest::Approx(expected[i]).epsilon(0.02));
    }
}

TEST_CASE("GradScaler: an overflow leaves the step out and shrinks the scale; good steps let it grow") {
  for (const td::Mode mode : kModes) {
    Tensor w = td::full({3}, 2, {.requires_grad = true});
    nn::optim::AdamW optimizer({w}, {.lr = 0.1});
    nn::GradScaler scaler({.initial_scale = 8, .growth_interval = 2});
    auto step = td::compile(
        [&](const Tensor& x) {
          optimizer.zero_grad();
          const Tensor loss = (w * x).sum();
          scaler.scale(loss).backward();
          scaler.unscale(optimizer);
          scaler.step(optimizer);
          const Tensor overflow = scaler.found_overflow().clone();
          scaler.update();
          return overflow;
        },
        {.mode = mode});
    const auto scale = [&] { return scaler.current_scale().item<double>(); };
    CHECK(step(td::ones({3})).item<float>() == 0);
    CHECK(w.grad().to_vector<float>() == std::vector<float>{1, 1, 1});
    const auto after = w.to_vector<float>();
    const auto moments = optimizer.state()[1].tensor.to_vector<double>();
    CHECK(after[0] < 2);
    CHECK(scale() == 8);
    CHECK(step(td::tensor({1.f, INFINITY, 1.f})).item<float>() == 1);
    CHECK(w.to_vector<float>() == after);
    CHECK(optimizer.state()[1].tensor.to_vector<double>() == moments);
    CHECK(scale() == 4);
    step(td::tensor({1.f, NAN, 1.f}));
    CHECK(w.to_vector<float>() == after);
    CHECK(scale() == 2);
    step(td::ones({3}));
    CHECK(w.to_vector<float>()[0] < after[0]);
    CHECK(scale() == 2);
    step(td::ones({3}));
    CHECK(scale() == 4);
  }
  CHECK(message_of([] { nn::GradScaler({.initial_scale = 0}); }).find("initial_scale is 0, need above 0") !=
        std::string::npos);
}
