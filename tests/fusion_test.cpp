// What fuses, counted in kernels, and that fused kernels compute what the ops do one by one.
#include <doctest/doctest.h>

#include <cmath>

#include "tandem.h"

using namespace tandem;

namespace {

double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  REQUIRE(a.dtype() == b.dtype());
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i]) && std::isnan(y[i])) continue;
    if (x[i] == y[i]) continue;
    const double d = std::fabs(x[i] - y[i]) / std::max(1.0, std::fabs(y[i]));
    if (!(d <= worst)) worst = d;
  }
  return worst;
}

struct Fused {
  int64_t kernels, generated;
  double error;
};

/// Compiles f, runs it twice, and compares with the function as it stands.
template <class F, class... Args> Fused fused(const F& f, const Args&... args) {
  auto compiled = compile(f);
  const Tensor expected = f(args...);
  double error = difference(compiled(args...), expected);
  error = std::max(error, difference(compiled(args...), expected));
  return {compiled.stats().kernels, compiled.stats().fused_kernels, error};
}

Tensor gelu_chain(const Tensor& x) { return gelu(x * 0.5f + 1.f) * sigmoid(x) - tanh(x); }

}  // namespace

#define CHECK_ONE_KERNEL(...)         \
  do {                                \
    const Fused result = __VA_ARGS__; \
    CHECK(result.kernels == 1);       \
    CHECK(result.generated == 1);     \
    CHECK(result.error <= 1e-6);      \
  } while (false)

TEST_CASE("fusion: chains, softmax and layer norm are one kernel each") {
  manual_seed(1);
  const Tensor x = randn({16, 40}), weight = randn({40}), bias = randn({40});
  SUBCASE("a GELU chain") { CHECK_ONE_KERNEL(fused(gelu_chain, x)); }
  SUBCASE("bias and relu") {
    CHECK_ONE_KERNEL(fused([&](const Tensor& a) { return relu(a + bias); }, x));
  }
  SUBCASE("softmax") {
    CHECK_ONE_KERNEL(fused([](const Tensor& a) { return softmax(a * 2); }, x));
  }
  SUBCASE("log_softmax") {
    CHECK_ONE_KERNEL(fused([](const Tensor& a) { return log_softmax(a * 2); }, x));
  }
  SUBCASE("softmax with work before and after") {
    CHECK_ONE_KERNEL(fused([&](const Tensor& a) { return softmax(a * 2 + bias) * weight; }, x));
  }
  SUBCASE("layer_norm") {
    CHECK_ONE_KERNEL(fused([&](const Tensor& a) { return layer_norm(a * 2, weight, bias); }, x));
  }
}

TEST_CASE("fusion: cross-entropy with its gradient is one kernel") {
  manual_seed(2);
  for (const int64_t rows : {1, 5, 64}) {
    const Tensor logits = randn({rows, 10}, {.requires_grad = true}), labels = randint(0, 10, {rows});
    Tensor expected = cross_entropy(logits * 2, labels);
    expected.backward();
    const Tensor gradient = logits.grad();
    logits.impl()->grad = {};
    auto step = compile([&](const Tensor& t) {
      Tensor loss = cross_entropy(logits * 2, t);
      loss.backward();
      return loss;
    });
    CHECK(difference(step(labels), expected.detach()) <= 1e-6);
    CHECK(difference(logits.grad(), gradient) <= 1e-6);
    CHECK(step.stats().kernels == 1);
  }
}

TEST_CASE("fusion: AdamW over all parameters is one kernel, also with clipping of the gradient") {
  for (const bool clip : {false, true}) {
    CAPTURE(clip);
    const auto run = [&](Mode mode, int64_t* kernels) {
      manual_seed(3);
      Tensors parameters;
      for (const Shape& shape : {Shape{7, 5}, Shape{7}, Shape{3, 7}, Shape{1}})
        parameters.push_back(randn(shape, {.requires_grad = true}));
      nn::optim::AdamW optimizer(parameters, {.lr = 1e-2});
      for (const Tensor& p : parameters) Tensor(p).set_grad(randn(p.shape()));
      auto step = compile(
          [&] {
            if (clip) nn::clip_grad_norm(parameters, 1.0);
            optimizer.step();
          },
          {.mode = mode});
      for (int i = 0; i < 3; ++i) {
        for (const Tensor& p : parameters) Tensor(p).set_grad(p.detach() * 0.5f + 0.1f);
        step();
      }
      *kernels = step.stats().kernels;
      return parameters;
    };
    int64_t kernels = 0, ignored = 0;
    const Tensors compiled = run(Mode::compiled, &kernels), eager = run(Mode::eager, &ignored);
    CHECK(kernels <= (clip ? 2 : 1));  // the norm needs all gradients before the first is scaled
    for (size_t i = 0; i < eager.size(); ++i) CHECK(difference(compiled[i].detach(), eager[i].detach()) <= 1e-6);
  }
}

TEST_CASE("fusion: a thousand parameters are a few kernels") {
  Tensors states;
  for (int i = 0; i < 1100; ++i) states.push_back(ones({3}));
  auto step = compile([&] {
    for (Tensor& state : states) state.assign(state * 0.5 + 1);
  });
  step();
  CHECK(step.stats().kernels == 3);
  step();
  for (const Tensor& state : states) CHECK(state[0].item<float>() == 1.75f);
}

TEST_CASE("fusion: operands of any layout are read where they lie") {
  manual_seed(4);
  const Tensor x = randn({6, 8}), other = randn({8, 6}).transpose(0, 1), big = randn({12, 20});
  const auto f = [](const Tensor& a, const Tensor& b) { return tanh(a * b + 1.f) - b; };
  CHECK_ONE_KERNEL(fused(f, x, randn({8})));
  CHECK_ONE_KERNEL(fused(f, x, randn({6, 1})));
  CHECK_ONE_KERNEL(fused(f, randn({6, 1}), randn({1, 8})));
  CHECK_ONE_KERNEL(fused(f, x, randn({})));
  CHECK_ONE_KERNEL(fused(f, x, other));
  CHECK_ONE_KERNEL(fused(f, other, x));
  CHECK_ONE_KERNEL(fused(f, x, big.slice(0, 1, 12, 2).slice(1, 3, 19, 2)));
  CHECK_ONE_KERNEL(fused(f, x, randn({1, 8}).expand({6, 8})));
  CHECK_ONE_KERNEL(fused(f, randn({2, 3, 4, 5}), randn({2, 4, 5, 3}).permute({0, 3, 1, 2})));
  CHECK_ONE_KERNEL(fused(f, randn({2, 4, 5, 3}).permute({0, 3, 1, 2}), randn({3, 1, 1})));
  CHECK_ONE_KERNEL(fused(f, randn({1, 9}), randn({1, 9})));
  CHECK_ONE_KERNEL(fused(f, randn({9, 1}), randn({9, 1})));
  CHECK_ONE_KERNEL(fused(f, randn({9, 1}), randn({1, 1})));
  CHECK_ONE_KERNEL(fused(f, randn({}), randn({})));
}

TEST_CASE("fusion: views inside the function cost no kernel") {
  manual_seed(5);
  const Tensor x = randn({6, 8});
  CHECK_ONE_KERNEL(fused([](const Tensor& a) { return exp(a.transpose(0, 1)) + a.reshape({8, 6}); }, x));
  CHECK_ONE_KERNEL(fused([](const Tensor& a) { return exp(a.slice(0, 1, 5, 2)) * a[0]; }, x));
  CHECK_ONE_KERNEL(fused([](const Tensor& a) { return relu(a[2].expand({3, 8}) - a.slice(0, 0, 3)); }, x));
}

TEST_CASE("fusion: row reductions of any shape") {
  manual_seed(6);
  const auto norm = [](const Tensor& a) { return a / sqrt(square(a).sum({-1}, {.keepdim = true}) + 1e-6f); };
  for (const Shape& shape :
       {Shape{2, 3, 4, 5}, Shape{1, 17}, Shape{17, 1}, Shape{1, 1}, Shape{23}, Shape{3, 300}, Shape{300, 3}}) {
    CAPTURE(to_string(shape));
    const Tensor x = randn(shape);
    CHECK_ONE_KERNEL(fused(norm, x));
    CHECK_ONE_KERNEL(fused([](const Tensor& a) { return softmax(a * 2, -1); }, x));
  }
  const Tensor x = randn({4, 5, 6});
  CHECK_ONE_KERNEL(fused([](const Tensor& a) { return exp(a - a.max({1, 2}, {.keepdim = true})); }, x));
  CHECK(fused([](const Tensor& a) { return softmax(a, 0); }, x).error <= 1e-6);
  CHECK(fused([](const Tensor& a) { return softmax(a, 1); }, x).error <= 1e-6);
  CHECK(fused(
            [](const Tensor& a) {
              return a.sum({0}) + a.sum({0, 2}, {.keepdim = true}).reshape({5, 1});
            },
            x)
            .error <= 2e-6);
  CHECK(fused(norm, randn({40, 12}).transpose(0, 1)).error <= 1e-6);
}

TEST_CASE("fusion: a fold of everything, with what is done to its result") {
  manual_seed(7);
  for (const int64_t n : {1, 3, 1000, 100003}) {
    CAPTURE(n);
    const Tensor x = randn({n});
    CHECK_ONE_KERNEL(fused([](const Tensor& a) { return sqrt(square(a).mean() + 1.f) * 2; }, x));
    CHECK_ONE_KERNEL(fused([](const Tensor& a) { return log(a.max() - a.sum() * 0 + 10.f); }, x));
  }
  const Tensor x = randn({50, 60});
  CHECK(fused([](const Tensor& a) { return a / (square(a).sum() + 1.f); }, x).error <= 1e-6);
  CHECK(fused([](const Tensor& a) { return (softmax(a) * a).sum(); }, x).error <= 1e-6);
}

TEST_CASE("fusion: a chain too long for one kernel is cut, and computes the same") {
  manual_seed(8);
  const Tensor x = rand({33});
  const auto deep = [](const Tensor& a) {
    Tensor y = a;
    for (int i = 0; i < 300; ++i) y = i % 3 == 0 ? sin(y) + a : y * 0.9f + 0.01f * static_cast<float>(i % 7);
    return y;
  };
  const Fused result = fused(deep, x);
  CHECK(result.kernels > 1);
  CHECK(result.kernels < 40);
  CHECK(result.error <= 1e-6);

  Tensors many;
  for (int i = 0; i < 60; ++i) many.push_back(randn({33}));
  const Fused wide = fused(
      [&](const Tensor& a) {
        Tensor sum = a;
        for (const Tensor& each : many) sum = sum + each * a;
        return sum;
      },
      x);
  CHECK(wide.kernels > 1);
  CHECK(wide.kernels < 10);
  CHECK(wide.error <= 1e-6);
}

TEST_CASE("fusion: left out, each op is a kernel; results stay") {
  manual_seed(9);
  const Tensor x = randn({16, 40});
  auto whole = compile(gelu_chain), apart = compile(gelu_chain, {.without = {"fusion", "horizontal"}});
  CHECK(difference(whole(x), apart(x)) <= 1e-6);
  CHECK(whole.stats().kernels == 1);
  CHECK(apart.stats().kernels >= 7);
  CHECK(apart.stats().fused_kernels == 0);
}

TEST_CASE("fusion: other dtypes") {
  manual_seed(10);
  const Tensor x = randn({5, 7});
  CHECK_ONE_KERNEL(fused(gelu_chain, x.to(float64)));
  CHECK(fused([](const Tensor& a) { return softmax(a) * 2 + a; }, x.to(bfloat16)).error <= 0.02);
  CHECK(fused([](const Tensor& a) { return softmax(a) * 2 + a; }, x.to(float16)).error <= 0.004);
  CHECK_ONE_KERNEL(fused([](const Tensor& a) { return a * 3 - 7; }, arange(20)));
  CHECK_ONE_KERNEL(fused([](const Tensor& a) { return where(a > 0.f, a, 0.f).to(int64) + 1; }, x));
  CHECK(fused([](const Tensor& a) { return (a > 0.f).sum(); }, x).error == 0);
}
