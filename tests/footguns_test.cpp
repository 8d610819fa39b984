// The ways in which others' graph modes have silently given wrong results, one test each.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <memory>

#include "support.h"
#include "tandem.h"

using namespace tandem;

TEST_CASE("footguns: an output that is kept isn't written over by the next call") {
  for (const Mode mode : kGraphModes) {
    auto f = compile([](const Tensor& x) { return std::pair{x * 2, exp(x).sum()}; }, {.mode = mode});
    std::vector<std::pair<Tensor, Tensor>> kept;
    for (int i = 0; i < 5; ++i) kept.push_back(f(full({100}, i)));
    for (int i = 0; i < 5; ++i) {
      CHECK(same(kept[static_cast<size_t>(i)].first, full({100}, 2 * i)));
      CHECK(kept[static_cast<size_t>(i)].second.item<float>() == doctest::Approx(100 * std::exp(i)));
    }
  }
}

TEST_CASE("footguns: an output never shares memory with an argument, state or another output") {
  for (const Mode mode : kGraphModes) {
    Tensor state = ones({4});
    auto f = compile(
        [&](const Tensor& x) {
          Tensor y = x + 1;
          return std::array{x, state, y, y, y.reshape({2, 2}), x.slice(0, 1, 3)};
        },
        {.mode = mode});
    Tensor x = zeros({4});
    std::array<Tensor, 6> out = f(x);
    for (size_t i = 0; i < out.size(); ++i) {
      CHECK_FALSE(out[i].shares_storage(x));
      CHECK_FALSE(out[i].shares_storage(state));
      for (size_t j = 0; j < i; ++j) CHECK_FALSE(out[i].shares_storage(out[j]));
    }
    x.assign(full({4}, 9));
    state.assign(full({4}, 9));
    CHECK(same(out[0], zeros({4})));
    CHECK(same(out[1], ones({4})));
    CHECK(same(out[5], zeros({2})));
  }
}

TEST_CASE("footguns: a captured number that changes is read, not frozen") {
  for (const Mode mode : kGraphModes) {
    float scale = 1;
    auto f = compile([&](const Tensor& x) { return x * scale; }, {.mode = mode});
    const Tensor x = ones({3});
    CHECK(same(f(x), full({3}, 1)));
    scale = 5;
    CHECK(same(f(x), full({3}, 5)));  // call 2 is traced again
    CHECK(f.stats().promoted == 1);
    for (int i = 0; i < 6; ++i) {
      scale = static_cast<float>(i);
      CHECK(same(f(x), full({3}, i)));
    }
    CHECK(f.stats().promoted == 1);
    CHECK(f.stats().traces == 1);
  }
}

TEST_CASE("footguns: a tensor made from changing C++ values is read, not frozen") {
  for (const Mode mode : kGraphModes) {
    std::vector<float> values{1, 2, 3};
    auto f = compile([&](const Tensor& x) { return x + tensor(values); }, {.mode = mode});
    const Tensor x = zeros({3});
    CHECK(same(f(x), tensor(values)));
    for (int i = 0; i < 5; ++i) {
      values[1] += 1;
      CHECK(same(f(x), tensor(values)));
    }
  }
}

TEST_CASE("footguns: a branch on a C++ value that changes is an error that names both lines") {
  for (const Mode mode : kGraphModes) {
    bool first = true;
    int then_line = 0, now_line = 0;
    auto f = compile(
        [&](const Tensor& x) {
          if (first) {
            then_line = __LINE__ + 1;
            return exp(x);
          }
          now_line = __LINE__ + 1;
          return tanh(x);
        },
        {.mode = mode});
    const Tensor x = zeros({3});
    f(x);
    first = false;
    try {
      f(x);
      FAIL("the old branch ran in silence");
    } catch (const TraceError& error) {
      CAPTURE(error.what());
      CHECK(error.message().find("exp at ") != std::string::npos);
      CHECK(error.message().find(":" + std::to_string(then_line)) != std::string::npos);
      CHECK(error.message().find("tanh at ") != std::string::npos);
      CHECK(error.message().find(":" + std::to_string(now_line)) != std::string::npos);
    }
  }
}

TEST_CASE("footguns: a branch on a static argument or a training flag is another specialisation") {
  for (const Mode mode : kGraphModes) {
    auto f = compile([](const Tensor& x, bool negate) { return negate ? -x : x + 0.f; }, {.mode = mode});
    const Tensor x = ones({2});
    CHECK(same(f(x, false), x));
    CHECK(same(f(x, true), full({2}, -1)));
    CHECK(same(f(x, false), x));
    CHECK(f.stats().traces == 2);
  }
}

TEST_CASE("footguns: a static number that differs in its last digits is another value") {
  auto f = compile([](const Tensor& x, double by) { return x * by; });
  const Tensor x = ones({1}, {.dtype = float64});
  CHECK(f(x, 1e-9).item<double>() == 1e-9);
  CHECK(f(x, 2e-9).item<double>() == 2e-9);
  CHECK(f(x, 0.1).item<double>() == 0.1);
  CHECK(f(x, 0.1 + 1e-16).item<double>() == 0.1 + 1e-16);
}

TEST_CASE("footguns: static strings can't run into one another") {
  auto f = compile([](const Tensor& x, const std::string& a, const std::string& b) {
    return x * static_cast<double>(a.size() * 100 + b.size());
  });
  const Tensor x = ones({});
  CHECK(f(x, std::string("p;q"), std::string("r")).item<float>() == 301);
  CHECK(f(x, std::string("p"), std::string("q;r")).item<float>() == 103);
}

TEST_CASE("footguns: constants keep all their digits") {
  for (const Mode mode : kGraphModes) {
    const Tensor x = zeros({2}, {.dtype = float64});
    CHECK(
        compile([](const Tensor& a) { return a + 0.1234567890123456789; }, {.mode = mode})(x).to_vector<double>()[0] ==
        0.1234567890123456789);
    CHECK(compile(
              [](const Tensor& a) {
                return a + tensor({1e-300, 1. / 3}, {.dtype = float64});
              },
              {.mode = mode})(x)
              .to_vector<double>()[1] == 1. / 3);
    const int64_t large = (int64_t{1} << 53) + 1;
    const Tensor n = zeros({2}, {.dtype = int64});
    CHECK(compile([=](const Tensor& a) { return a + large; }, {.mode = mode})(n).to_vector<int64_t>()[0] == large);
    CHECK(compile(
              [=](const Tensor& a) {
                return a + tensor<int64_t>({large, 1});
              },
              {.mode = mode})(n)
              .to_vector<int64_t>()[0] == large);
  }
}

TEST_CASE("footguns: two instances of one lambda don't share what they captured") {
  for (const Mode mode : kGraphModes) {
    const auto make = [&](float start) {
      auto state = std::make_shared<Tensor>(full({2}, start));
      return compile(
          [state](const Tensor& x) {
            state->assign(*state + x);
            return *state * 1;
          },
          {.mode = mode});
    };
    auto a = make(0), b = make(100);
    const Tensor one = ones({2});
    for (int i = 1; i <= 4; ++i) {
      CHECK(same(a(one), full({2}, i)));
      CHECK(same(b(one), full({2}, 100 + i)));
    }
  }
}

TEST_CASE("footguns: parameters that a function captured are read at each call") {
  for (const Mode mode : kGraphModes) {
    nn::Linear layer(3, 2);
    auto f = compile([&](const Tensor& x) { return layer(x); }, {.mode = mode});
    const Tensor x = ones({1, 3});
    f(x);
    {
      const NoGrad guard;
      layer.weight.assign(full({2, 3}, 2));
      layer.bias.assign(zeros({2}));
    }
    CHECK(same(f(x), full({1, 2}, 6)));
  }
}

TEST_CASE("footguns: another tensor put in a captured variable is noticed when the call is verified") {
  for (const Mode mode : kGraphModes) {
    Tensor w = ones({2});
    auto f = compile([&](const Tensor& x) { return x * w; }, {.mode = mode, .verify = Verify::every});
    const Tensor x = ones({2});
    f(x);
    w = full({2}, 7);
    CHECK(same(f(x), full({2}, 7)));
    w = full({2}, 8);
    CHECK(same(f(x), full({2}, 8)));
  }
}

TEST_CASE("footguns: gradients are those of eager mode with memory planned, in place and fused") {
  const auto run = [](CompileOptions options) {
    manual_seed(11);
    Tensors w;
    for (int i = 0; i < 6; ++i) w.push_back((randn({16, 16}) * 0.3f).requires_grad(true));
    const Tensor x = randn({8, 16});
    auto step = compile(
        [&](const Tensor& in) {
          for (Tensor& each : w) each.set_grad({});
          Tensor h = in, skip = in;
          for (const Tensor& each : w) {
            h = gelu(matmul(h, each)) + skip;
            skip = h * 0.5f;
          }
          Tensor loss = square(h).mean();
          loss.backward();
          const NoGrad guard;
          for (Tensor& each : w) each.assign(each.detach() - each.grad() * 0.01f);
          return loss;
        },
        std::move(options));
    for (int i = 0; i < 4; ++i) step(x);
    return w;
  };
  const Tensors eager = run({.mode = Mode::eager});
  for (const auto& options :
       {CompileOptions{.mode = Mode::replay}, CompileOptions{}, CompileOptions{.without = {"memory_plan"}},
        CompileOptions{.without = {"fusion"}}, CompileOptions{.without = {"horizontal"}}}) {
    const Tensors graph = run(options);
    for (size_t i = 0; i < eager.size(); ++i) {
      CHECK(allclose(graph[i].detach(), eager[i].detach(), {.rtol = 1e-6, .atol = 1e-6}));
      CHECK(allclose(graph[i].grad(), eager[i].grad(), {.rtol = 1e-5, .atol = 1e-6}));
    }
  }
}

TEST_CASE("footguns: the gradient of an argument accumulates over calls, as in eager mode") {
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    Tensor x = ones({3}, {.requires_grad = true}), w = ones({3}, {.requires_grad = true});
    auto f = compile(
        [&](const Tensor& a) {
          Tensor loss = (a * w * 2).sum();
          loss.backward();
          return loss;
        },
        {.mode = mode});
    for (int i = 1; i <= 4; ++i) {
      f(x);
      CHECK(same(w.grad(), full({3}, 2 * i)));
      CHECK(same(x.grad(), full({3}, 2 * i)));
    }
  }
}

TEST_CASE("footguns: a gradient that somebody holds isn't written over") {
  for (const Mode mode : kGraphModes) {
    Tensor w = ones({3}, {.requires_grad = true});
    auto f = compile(
        [&](const Tensor& x) {
          w.set_grad({});
          (x * w).sum().backward();
        },
        {.mode = mode});
    Tensors held;
    for (int i = 0; i < 4; ++i) {
      f(full({3}, i));
      held.push_back(w.grad());
    }
    for (int i = 0; i < 4; ++i) CHECK(same(held[static_cast<size_t>(i)], full({3}, i)));
  }
}

TEST_CASE("footguns: an argument that is the very tensor the function assigns to is right or refused") {
  for (const Mode mode : kGraphModes) {
    Tensor state = ones({3});
    auto f = compile(
        [&](const Tensor& x) {
          state.assign(state * 2);
          return x + state;  // eagerly x is the state, already doubled
        },
        {.mode = mode});
    CHECK(same(f(zeros({3})), full({3}, 2)));
    try {
      const Tensor result = f(state);
      CHECK(same(result, full({3}, 8)));
    } catch (const TraceError& error) {
      CAPTURE(error.what());
      CHECK(error.message().find("argument 0") != std::string::npos);
      CHECK(same(state, full({3}, 2)));  // nothing was done
    }
  }
}

TEST_CASE("footguns: a parameter that is also an argument gets its whole gradient, or the call is refused") {
  for (const Mode mode : kGraphModes) {
    Tensor w = ones({3}, {.requires_grad = true});
    auto f = compile([&](const Tensor& x) { (x * 3 + w * 5).sum().backward(); }, {.mode = mode});
    try {
      f(w);
      CHECK(same(w.grad(), full({3}, 8)));
    } catch (const TraceError& error) { CHECK(error.message().find("argument 0") != std::string::npos); }
  }
}

TEST_CASE("footguns: random numbers are those of eager mode, and differ from call to call") {
  const auto draw = [](Mode mode) {
    manual_seed(12);
    auto f = compile([] { return rand({5}) + randn({5}); }, {.mode = mode});
    Tensors out;
    for (int i = 0; i < 4; ++i) out.push_back(f());
    out.push_back(rand({5}));  // and go on where the calls left off
    return out;
  };
  const Tensors eager = draw(Mode::eager);
  for (const Mode mode : kGraphModes) {
    const Tensors graph = draw(mode);
    for (size_t i = 0; i < eager.size(); ++i) CHECK(allclose(graph[i], eager[i], {.rtol = 1e-6, .atol = 1e-6}));
    CHECK_FALSE(same(graph[0], graph[1]));
    CHECK(same(graph.back(), eager.back()));
  }
}
