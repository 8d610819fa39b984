// Autograd: what backward and grad promise beside the gradients themselves (generated_test.cpp has those).
#include <doctest/doctest.h>

#include <cmath>
#include <thread>

#include "autograd/autograd.h"
#include "core/ops/ops.h"
#include "core/random.h"

namespace td = tandem;
using td::Tensor, td::Tensors;

namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

Tensor leaf(std::initializer_list<float> values) { return td::tensor(values, {.requires_grad = true}); }
Tensor double_leaf(std::initializer_list<double> values) {
  return td::tensor(values, {.dtype = td::float64, .requires_grad = true});
}
Floats floats(const Tensor& x) { return x.to_vector<float>(); }

}  // namespace

TEST_CASE("backward: fills grad of the leaves, and adds to what is there") {
  Tensor x = leaf({1, 2, 3});
  CHECK_FALSE(x.grad().defined());
  (x * x).sum().backward();
  CHECK(floats(x.grad()) == Floats{2, 4, 6});
  (x * 10).sum().backward();
  CHECK(floats(x.grad()) == Floats{12, 14, 16});
  x.set_grad({});
  CHECK_FALSE(x.grad().defined());
  (x * 3).sum().backward();
  CHECK(floats(x.grad()) == Floats{3, 3, 3});
}

TEST_CASE("backward: only leaves that ask for it, and nothing that computed values keep") {
  Tensor x = leaf({1, 2}), constant = td::tensor({3.f, 4.f});
  const Tensor y = x * constant;
  y.sum().backward();
  CHECK(x.grad().defined());
  CHECK_FALSE(constant.grad().defined());
  CHECK_FALSE(y.grad().defined());
  CHECK_FALSE(x.grad().requires_grad());
  CHECK(x.is_leaf());
  CHECK_FALSE(y.is_leaf());
  CHECK(y.requires_grad());
  CHECK_FALSE((constant * 2).requires_grad());
}

TEST_CASE("backward: from a gradient of the tensor's shape") {
  Tensor x = leaf({1, 2, 3});
  (x * x).backward(td::tensor({1.f, 10.f, 100.f}));
  CHECK(floats(x.grad()) == Floats{2, 40, 600});
  Tensor y = leaf({2});
  y.backward();  // a leaf itself
  CHECK(floats(y.grad()) == Floats{1});
}

TEST_CASE("backward: retain_graph allows a second one") {
  Tensor x = leaf({3});
  const Tensor y = (x * x).sum();
  y.backward({.retain_graph = true});
  y.backward();
  CHECK(floats(x.grad()) == Floats{12});
  CHECK_THROWS_AS(y.backward(), td::AutogradError);
}

TEST_CASE("backward: shared parts are walked once, after everything that flows into them") {
  Tensor x = double_leaf({0.5});
  // A ladder of diamonds: 2^40 paths, 80 nodes.
  Tensor y = x;
  for (int i = 0; i < 40; ++i) y = y * 0.5 + y * 0.5;
  y.sum().backward();
  CHECK(x.grad().item<double>() == doctest::Approx(1));
  // Two branches of different length that meet.
  Tensor z = double_leaf({0.5});
  const Tensor shared = exp(z);
  (shared * sin(sin(sin(shared))) + shared).sum().backward();
  const double e = std::exp(0.5), a = std::sin(e), b = std::sin(a), c = std::sin(b);
  const double expected = e * (c + 1) + e * std::cos(b) * std::cos(a) * std::cos(e) * e;
  CHECK(z.grad().item<double>() == doctest::Approx(expected));
}

TEST_CASE("backward: an operand used twice by one op gets both parts") {
  Tensor x = leaf({3});
  (x * x).sum().backward();
  CHECK(floats(x.grad()) == Floats{6});
  Tensor m = td::tensor({{1.f, 2.f}, {3.f, 4.f}});
  m.requires_grad(true);
  matmul(m, m).sum().backward();
  CHECK(floats(m.grad()) == Floats{7, 11, 9, 13});
}

TEST_CASE("backward: gradients of broadcast and promoted operands have the operand's shape and dtype") {
  Tensor column = td::ones({3, 1}, {.dtype = td::float16, .requires_grad = true}),
         row = td::full({4}, 2, {.requires_grad = true}),
         number = td::full({}, 3, {.dtype = td::float64, .requires_grad = true});
  (column * row * number).sum().backward();
  CHECK(column.grad().shape() == td::Shape{3, 1});
  CHECK(column.grad().dtype() == td::float16);
  CHECK(floats(column.grad()) == Floats{24, 24, 24});
  CHECK(row.grad().shape() == td::Shape{4});
  CHECK(floats(row.grad()) == Floats{9, 9, 9, 9});
  CHECK(number.grad().shape() == td::Shape{});
  CHECK(number.grad().dtype() == td::float64);
  CHECK(number.grad().item<double>() == 24);
}

TEST_CASE("backward: through views, to the elements that were shown") {
  Tensor x = td::arange(0, 12, 1, {.dtype = td::float32}).reshape({3, 4});
  x.requires_grad(true);
  x.slice(1, 1, 4, 2).transpose(0, 1)[1].sum().backward();
  CHECK(floats(x.grad()) == Floats{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1});
}

// ---- Not recording.

TEST_CASE("NoGrad and detach cut the tape") {
  Tensor x = leaf({2});
  {
    td::NoGrad guard;
    CHECK_FALSE((x * x).requires_grad());
    { td::NoGrad inner; }
    CHECK_FALSE((x * x).requires_grad());
  }
  CHECK((x * x).requires_grad());
  const Tensor cut = (x * x).detach();
  CHECK_FALSE(cut.requires_grad());
  CHECK(cut.is_leaf());
  (x * cut).sum().backward();
  CHECK(floats(x.grad()) == Floats{4});
}

TEST_CASE("NoGrad holds for its own thread") {
  td::NoGrad guard;
  bool recorded = false;
  std::thread([&] {
    Tensor x = leaf({2});
    recorded = (x * x).requires_grad();
  }).join();
  CHECK(recorded);
}

TEST_CASE("integers carry no gradient") {
  Tensor x = leaf({1, 5, 2});
  const Tensor best = x.argmax();
  CHECK_FALSE(best.requires_grad());
  CHECK_FALSE(x.to(td::int32).requires_grad());
  CHECK_FALSE((x > 1).requires_grad());
}

// ---- grad.

TEST_CASE("grad: gives the gradients, and leaves every grad() alone") {
  Tensor x = leaf({1, 2}), y = leaf({3, 4}), unused = leaf({0});
  auto [gx, gy] = td::grad<2>((x * y * y).sum(), {x, y});
  CHECK(floats(gx) == Floats{9, 16});
  CHECK(floats(gy) == Floats{6, 16});
  for (const Tensor& each : {x, y}) CHECK_FALSE(each.grad().defined());
  const Tensors some = td::grad_of((x * y).sum(), {x, unused}, {.allow_unused = true});
  CHECK(some[0].defined());
  CHECK_FALSE(some[1].defined());
}

TEST_CASE("grad: with respect to computed values, to the output itself, and to one twice") {
  Tensor x = leaf({2});
  const Tensor h = x * x, y = h * h * 3;
  auto [gh, gx, gh_again, gy] = td::grad<4>(y.sum(), {h, x, h, h}, {.retain_graph = true});
  CHECK(floats(gh) == Floats{24});
  CHECK(floats(gx) == Floats{96});
  CHECK(floats(gh_again) == Floats{24});
  CHECK(floats(gy) == Floats{24});
  const Tensors own = td::grad_of(y, {y}, {.retain_graph = true});
  CHECK(floats(own[0]) == Floats{1});
  const Tensors weighted = td::grad_of(y, {x}, {}, td::tensor({10.f}));
  CHECK(floats(weighted[0]) == Floats{960});
}

// ---- Gradients of gradients.

TEST_CASE("create_graph: derivatives of x^4 up to the fourth") {
  Tensor x = double_leaf({1.5});
  Tensor y = pow(x, 4);
  const double expected[] = {4 * 3.375, 12 * 2.25, 24 * 1.5, 24};
  for (const double each : expected) {
    const Tensors g = td::grad_of(y.sum(), {x}, {.create_graph = true});
    CHECK(g[0].item<double>() == doctest::Approx(each));
    y = g[0];
  }
}

TEST_CASE("create_graph: a Hessian-vector product, by backward of grad") {
  // f = sum(x^2 y), so d/dx of (df/dx . v) = 2 y v, and d/dy of it = 2 x v.
  Tensor x = double_leaf({1, 2}), y = double_leaf({3, 4});
  const Tensor v = td::tensor({5.0, 7.0}, {.dtype = td::float64});
  auto [gx] = td::grad<1>((x * x * y).sum(), {x}, {.create_graph = true});
  (gx * v).sum().backward();
  CHECK(x.grad().to_vector<double>() == Doubles{30, 56});
  CHECK(y.grad().to_vector<double>() == Doubles{10, 28});
}

TEST_CASE("create_graph: gradients that backward() left are differentiable too") {
  Tensor x = double_leaf({3});
  pow(x, 3).sum().backward({.create_graph = true});
  const Tensor g = x.grad();
  CHECK(g.requires_grad());
  x.set_grad({});  // the leaf and its gradient hold one another otherwise
  g.sum().backward();
  CHECK(x.grad().item<double>() == doctest::Approx(18));
  x.set_grad({});
}

TEST_CASE("create_graph: the gradient penalty of Gulrajani et al. 2017 against finite differences") {
  td::manual_seed(1);
  const Tensor w = td::randn({4, 3}, {.dtype = td::float64}), x = td::randn({5, 4}, {.dtype = td::float64});
  const auto penalty = [](const Tensors& in) {
    Tensor points = in[1];
    if (!points.requires_grad()) points.requires_grad(true);
    const td::EnableGrad recorded;
    const td::Tensors g = td::grad_of(tanh(matmul(points, in[0])).sum(), {points}, {.create_graph = true});
    return square(sqrt(square(g[0]).sum(-1)) - 1).mean();
  };
  CHECK(td::gradcheck(penalty, {w, x}));
}

TEST_CASE("gradcheck: tells a wrong gradient, and which element") {
  const Tensor x = td::tensor({1.0, 2.0}, {.dtype = td::float64});
  CHECK(td::gradcheck([](const Tensor& t) { return t * t; }, {x}));
  CHECK(td::gradgradcheck([](const Tensor& t) { return t * t * t; }, {x}));
  try {
    td::gradcheck([](const Tensor& t) { return t * t.detach(); }, {x});
    FAIL("a detached factor went unnoticed");
  } catch (const td::GradCheckError& error) {
    CHECK(error.message().find("input 0 [2], element 0") != std::string::npos);
  }
}

// ---- Long tapes and memory.

TEST_CASE("a chain of a million ops: forward, backward and freeing, without recursion or leak") {
  const int64_t before = td::memory_stats().in_use;
  {
    Tensor x = leaf({1});
    Tensor y = x;
    for (int i = 0; i < 1000000; ++i) y = y + 1;
    CHECK(y.item<float>() == 1000001);
    y.sum().backward();
    CHECK(floats(x.grad()) == Floats{1});
  }
  CHECK(td::memory_stats().in_use == before);
  {
    Tensor x = leaf({1});
    Tensor y = x;
    for (int i = 0; i < 1000000; ++i) y = -y;  // freed without a backward
  }
  CHECK(td::memory_stats().in_use == before);
}

TEST_CASE("backward frees what the tape saved, and keeps it with retain_graph") {
  const int64_t before = td::memory_stats().in_use;
  Tensor x = td::ones({1 << 16}, {.requires_grad = true});
  Tensor y = exp(exp(x * 0.1)).sum();
  const int64_t with_tape = td::memory_stats().in_use;
  CHECK(with_tape - before >= 3 * (4 << 16));
  y.backward({.retain_graph = true});
  CHECK(td::memory_stats().in_use >= with_tape);
  y.backward();
  x.set_grad({});
  CHECK(td::memory_stats().in_use - before < 2 * (4 << 16));
}

TEST_CASE("an error in a backward leaves nothing pending: the next one is right") {
  Tensor x = leaf({1, 2}), b = td::tensor({3.f, 4.f});
  const Tensor shared = exp(x);
  const Tensor y = (shared * b).sum() + (shared * 2).sum();
  b.assign(b * 2);  // saved by the product
  CHECK_THROWS_AS(y.backward({.retain_graph = true}), td::InPlaceError);
  x.set_grad({});
  (shared * 2).sum().backward();
  CHECK(x.grad().to_vector<float>()[0] == doctest::Approx(2 * std::exp(1.0)));
}

TEST_CASE("assignment: free before and after, an error while the tape needs the value") {
  Tensor w = leaf({1, 2});
  const Tensor y = (w * w).sum();
  {
    td::NoGrad guard;
    w.assign(w - 1);
  }
  CHECK_THROWS_AS(y.backward(), td::InPlaceError);
  Tensor v = leaf({1, 2});
  const Tensor z = (v + 3).sum();  // saves nothing
  {
    td::NoGrad guard;
    v.assign(v - 1);
  }
  CHECK_NOTHROW(z.backward());
}

TEST_CASE("threads: independent graphs run backward side by side on shared parameters' values") {
  const Tensor shared = td::full({64, 64}, 0.01);
  std::vector<std::thread> threads;
  std::vector<float> sums(4);
  for (size_t t = 0; t < sums.size(); ++t)
    threads.emplace_back([&, t] {
      Tensor x = td::ones({64}, {.requires_grad = true});
      for (int i = 0; i < 20; ++i) {
        x.set_grad({});
        tanh(matmul(shared, x * static_cast<float>(t + 1))).sum().backward();
      }
      sums[t] = x.grad().sum().item<float>();
    });
  for (std::thread& thread : threads) thread.join();
  for (size_t t = 0; t < sums.size(); ++t) {
    const double factor = static_cast<double>(t + 1), slope = 1 - std::pow(std::tanh(0.64 * factor), 2);
    CHECK(sums[t] == doctest::Approx(64 * 64 * 0.01 * factor * slope).epsilon(1e-4));
  }
}

TEST_CASE("a tape may be freed by another thread than made it") {
  const int64_t before = td::memory_stats().in_use;
  Tensor y;
  std::thread([&] {
    Tensor x = leaf({1});
    y = x;
    for (int i = 0; i < 10000; ++i) y = y * 1.0001;
  }).join();
  y = {};
  CHECK(td::memory_stats().in_use == before);
}

// ---- What is walked, and what is let go.

TEST_CASE("grad: walks and frees only what lies between the output and the inputs") {
  Tensor x = leaf({2});
  const Tensor h = x * x, y = h * h * 3;
  CHECK(floats(td::grad_of(y, {h})[0]) == Floats{24});
  h.backward();  // its tape is still whole
  CHECK(floats(x.grad()) == Floats{4});
  // A branch that leads to no input isn't walked, so what was freed there doesn't matter.
  const Tensor side = exp(x);
  side.backward();
  CHECK(floats(td::grad_of(h * 2 + side, {h})[0]) == Floats{2});
  // An input below another input.
  const Tensor a = x * 3, b = a * a, c = b * 5;
  const Tensors both = td::grad_of(c, {b, a, x});
  CHECK(floats(both[0]) == Floats{5});
  CHECK(floats(both[1]) == Floats{60});
  CHECK(floats(both[2]) == Floats{180});
}

TEST_CASE("grad: of several outputs") {
  Tensor x = leaf({2, 3});
  CHECK(floats(td::grad_of(Tensors{x * x, x.sum()}, {x}, {}, {td::tensor({1.f, 10.f}), td::tensor(100.f)})[0]) ==
        Floats{104, 160});
  CHECK_THROWS_AS(td::grad_of(Tensors{x * x}, {x}, {}, {Tensor(), Tensor()}), td::ValueError);
}

TEST_CASE("backward: create_graph makes no cycle of leaf and gradient") {
  const int64_t before = td::memory_stats().in_use;
  {
    Tensor x = td::ones({1 << 14}, {.requires_grad = true}), w = td::ones({1 << 14}, {.requires_grad = true});
    for (int i = 0; i < 3; ++i) {
      (x * x * w).sum().backward({.create_graph = true});
      const Tensor penalty = (x.grad() * w.grad()).sum();
      const Tensors second = td::grad_of(penalty, {x, w}, {.retain_graph = true});
      const double n = i + 1;  // x.grad = 2 n x w, w.grad = n x^2: penalty = 2 n^2 x^3 w
      CHECK(second[0].to_vector<float>()[7] == doctest::Approx(6 * n * n));
      CHECK(second[1].to_vector<float>()[7] == doctest::Approx(2 * n * n));
    }
  }
  CHECK(td::memory_stats().in_use == before);
  // The gradient outlives its leaf, and can still be differentiated by the others.
  Tensor w = leaf({3}), g;
  {
    Tensor x = leaf({2});
    (x * x * w).sum().backward({.create_graph = true});
    g = x.grad();
  }
  CHECK(floats(td::grad_of(g, {w})[0]) == Floats{4});
}

TEST_CASE("grad: two threads over one tape") {
  Tensor x = td::full({64}, 0.5, {.requires_grad = true});
  Tensor y = x;
  for (int i = 0; i < 200; ++i) y = y * 0.9 + sin(y) * 0.1;
  const Tensor loss = y.sum();
  const Floats expected = floats(td::grad_of(loss, {x}, {.retain_graph = true})[0]);
  std::vector<Floats> results(4);
  std::vector<std::thread> threads;
  for (Floats& result : results)
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) result = floats(td::grad_of(loss, {x}, {.retain_graph = true})[0]);
    });
  for (std::thread& thread : threads) thread.join();
  for (const Floats& result : results) CHECK(result == expected);
}
