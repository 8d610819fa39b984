// checkpoint, custom functions, hooks and anomaly mode.
#include <doctest/doctest.h>

#include <cmath>

#include "support.h"
#include "tandem.h"

namespace td = tandem;
namespace nn = tandem::nn;
using td::Tensor, td::Tensors;

namespace {

using Floats = std::vector<float>;

Floats floats(const Tensor& x) { return x.to_vector<float>(); }
std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const td::Error& error) { return error.what(); }
  return "";
}

struct Model {
  nn::Linear first{8, 8}, second{8, 8};
  nn::Dropout dropout{0.5};
  Tensor block(const Tensor& x) const { return second(dropout(gelu(first(x)))); }
};

/// Loss and gradients of x and the parameters, from equal draws.
Tensors step(Model& model, const Tensor& x, bool with_checkpoint) {
  const Tensor h = tanh(x * 2);
  const auto f = [&](const Tensor& h) { return model.block(h) + h; };
  const Tensor y = with_checkpoint ? td::checkpoint(f, h) : f(h);
  const Tensor loss = (y * y).sum();
  Tensors wanted = nn::parameters(model);
  wanted.push_back(x);
  Tensors result = td::grad_of(loss, wanted);
  result.push_back(loss.detach());
  return result;
}

}  // namespace

TEST_CASE("checkpoint: gradients of arguments and captured parameters, with the same dropout, in three modes") {
  td::manual_seed(3);
  Model model;
  Tensor x = td::randn({5, 8}, {.requires_grad = true});
  for (const td::Mode mode : kModes) {
    auto plain = td::compile([&](const Tensor& x) { return step(model, x, false); }, {.mode = mode});
    auto recomputed = td::compile([&](const Tensor& x) { return step(model, x, true); }, {.mode = mode});
    for (int i = 0; i < 2; ++i) {
      td::manual_seed(17);
      const Tensors expected = plain(x);
      const uint64_t draws = td::default_generator().draws();
      td::manual_seed(17);
      const Tensors got = recomputed(x);
      CHECK(td::default_generator().draws() == draws);
      REQUIRE(got.size() == expected.size());
      for (size_t k = 0; k < got.size(); ++k) CHECK(td::allclose(got[k], expected[k]));
    }
  }
}

TEST_CASE(
    "checkpoint: backward() accumulates, nested calls, several results, captured values with a tape of their own") {
  Tensor w = td::full({3}, 2, {.requires_grad = true}), x = td::full({3}, 1.5, {.requires_grad = true});
  const auto run = [&](bool outer, bool inner) {
    w.set_grad({});
    x.set_grad({});
    const Tensor scaled = w * 3;  // computed outside, captured
    const auto cube = [&](const Tensor& t) { return t * t * t * scaled; };
    const auto f = [&](const Tensor& t) {
      const Tensor c = inner ? td::checkpoint(cube, sin(t)) : cube(sin(t));
      return Tensors{exp(c), c * w, t};
    };
    const Tensors y = outer ? td::checkpoint(f, x) : f(x);
    (y[0] + y[1] * y[2]).sum().backward();
    return Tensors{x.grad(), w.grad()};
  };
  const Tensors expected = run(false, false);
  for (const auto& [outer, inner] : {std::pair{false, true}, {true, false}, {true, true}}) {
    const Tensors got = run(outer, inner);
    CHECK(td::allclose(got[0], expected[0]));
    CHECK(td::allclose(got[1], expected[1]));
  }
}

TEST_CASE("checkpoint: gradients of gradients") {
  Tensor x = td::linspace(-1, 1, 4, {.dtype = td::float64, .requires_grad = true}),
         w = td::full({4}, 0.7, {.dtype = td::float64, .requires_grad = true});
  const auto f = [](const Tensors& in) {
    return td::checkpoint([w = in[1]](const Tensor& x) { return tanh(x * x * w) * w; }, in[0]).sum();
  };
  CHECK(td::gradcheck(f, {x, w}));
  CHECK(td::gradgradcheck(f, {x, w}));
}

TEST_CASE("checkpoint: keeps nothing of what the function makes on its way") {
  const auto peak = [](bool with_checkpoint) {
    Tensor x = td::ones({1 << 16}, {.requires_grad = true});
    const auto f = [](Tensor x) {
      for (int i = 0; i < 10; ++i) x = sin(x);
      return x;
    };
    const int64_t before = td::memory_stats().in_use;
    const Tensor y = with_checkpoint ? td::checkpoint(f, x) : f(x);
    return td::memory_stats().in_use - before;
  };
  CHECK(peak(true) < 2 * (4 << 16));
  CHECK(peak(false) > 8 * (4 << 16));
}

TEST_CASE("checkpoint: in a graph the second run is not merged with the first") {
  Tensor w = td::randn({64, 64}, {.requires_grad = true});
  const auto loss = [&](const Tensor& x, bool with_checkpoint) {
    const auto f = [&](const Tensor& x) { return relu(matmul(relu(matmul(x, w)), w)); };
    Tensor h = x;
    for (int i = 0; i < 3; ++i) h = with_checkpoint ? td::checkpoint(f, h) : f(h);
    return td::grad<1>(h.sum(), {w})[0];
  };
  const Tensor x = td::randn({256, 64});
  auto plain = td::compile([&](const Tensor& x) { return loss(x, false); });
  auto recomputed = td::compile([&](const Tensor& x) { return loss(x, true); });
  CHECK(td::allclose(plain(x), recomputed(x), {.rtol = 1e-4, .atol = 1e-4}));
  const auto products = [](const td::Graph& graph) {
    int count = 0;
    for (const td::Node& node : graph.nodes) count += std::string(node.op->name) == "matmul";
    return count;
  };
  // Two products forward and four backward for each block; the last block's first run gives way to nothing either.
  CHECK(products(plain.stages().back().graph) < products(recomputed.stages().back().graph));
  CHECK(recomputed.stats().peak_bytes < plain.stats().peak_bytes);
}

TEST_CASE("checkpoint: errors") {
  Tensor x = td::ones({2}, {.requires_grad = true});
  // What the function reads was overwritten before backward.
  Tensor y = td::checkpoint([](const Tensor& x) { return x * x; }, x);
  {
    td::NoGrad no_grad;
    x += 1;
  }
  CHECK_THROWS_AS(y.sum().backward(), td::InPlaceError);
  // Another result the second time.
  int calls = 0;
  y = td::checkpoint([&](const Tensor& x) { return calls++ ? x.slice(0, 0, 1) * 2 : x * 2; }, x);
  CHECK(contains(message_of([&] { y.sum().backward(); }), "must do the same both times"));
  // A tensor smuggled out.
  Tensor inside;
  td::checkpoint(
      [&](const Tensor& x) {
        inside = x * 2;
        return inside * 3;
      },
      x);
  CHECK(contains(message_of([&] { inside.sum().backward(); }), "didn't return"));
  // Twice without retain_graph.
  y = td::checkpoint([](const Tensor& x) { return x * x; }, x).sum();
  y.backward({.retain_graph = true});
  y.backward();
  CHECK(floats(x.grad()) == Floats{8, 8});
  CHECK(contains(message_of([&] { y.backward(); }), "a second time"));
  // A second backward() on the result of a compiled function.
  Tensor compiled = td::compile([](const Tensor& x) {
    const Tensor y = (x * x).sum();
    y.backward();
    return y;
  })(x);
  CHECK(contains(message_of([&] { compiled.backward(); }), "a compiled function that has called backward() over it"));
  CHECK(contains(message_of([&] { td::grad<1>(compiled, {x}); }), "a compiled function that has called backward()"));
  CHECK(contains(message_of([&] { (compiled * 2).backward(); }), "was not computed from one that requires a gradient"));
  compiled.requires_grad(true);  // a leaf like any other
  (compiled * 2).backward();
  CHECK(compiled.grad().item<float>() == 2);
  // Nothing to differentiate.
  CHECK_FALSE(td::checkpoint([](const Tensor& x) { return x * x; }, td::ones({2})).requires_grad());
}

// ---- Functions of the user's.

TEST_CASE("custom_function: a gradient of its own, with saved inputs and results, in three modes") {
  int forwards = 0;
  const auto scaled_exp = td::custom_function(
      {.forward = [&](td::FunctionContext& context, const Tensors& in) -> td::TensorList {
         ++forwards;
         const Tensor y = exp(in[0]) * in[1];
         context.save({y, in[1]});
         CHECK_FALSE(y.requires_grad());
         return y;
       },
       .backward = [](const td::FunctionContext& context, const Tensors& g) -> td::TensorList {
         return Tensors{g[0] * context.saved(0),
                        context.needs_grad(1) ? g[0] * context.saved(0) / context.saved(1) : Tensor()};
       }});
  Tensor x = td::linspace(-1, 1, 5, {.dtype = td::float64, .requires_grad = true}),
         s = td::full({5}, 2, {.dtype = td::float64, .requires_grad = true});
  const auto f = [&](const Tensors& in) { return scaled_exp(in[0], in[1]).sum(); };
  CHECK(td::gradcheck(f, {x, s}));
  CHECK(td::gradgradcheck(f, {x, s}));
  const auto gradient = [&](const Tensor& x) { return td::grad<1>((scaled_exp(x, s) * 3).sum(), {x})[0]; };
  for (const td::Mode mode : kModes) CHECK(td::allclose(td::compile(gradient, {.mode = mode})(x), exp(x.detach()) * 6));
  CHECK(forwards > 0);
}

TEST_CASE("custom_function: straight-through, results that are inputs, several results, data, errors") {
  const auto straight = td::custom_function(
      {.forward = [](td::FunctionContext&, const Tensors& in) -> td::TensorList { return sign(in[0]); },
       .backward = [](const td::FunctionContext&, const Tensors& g) -> td::TensorList { return g[0]; }});
  Tensor x = td::tensor({-2.f, 3.f}, {.requires_grad = true});
  (straight(x) * td::tensor({10.f, 20.f})).sum().backward();
  CHECK(floats(x.grad()) == Floats{10, 20});

  const auto reversal =
      td::custom_function({.forward = [](td::FunctionContext& context, const Tensors& in) -> td::TensorList {
                             context.data() = -0.5;
                             return {in[0], in[0] * 2};
                           },
                           .backward = [](const td::FunctionContext& context, const Tensors& g) -> td::TensorList {
                             return (g[0] + g[1] * 2) * std::any_cast<double>(context.data());
                           },
                           .name = "reversal"});
  x.set_grad({});
  const Tensors out = reversal.all({x});
  CHECK(out[0].shares_storage(x));
  out[0].sum().backward();  // nothing flows into the other result
  CHECK(floats(x.grad()) == Floats{-0.5, -0.5});
  CHECK(contains(message_of([&] { reversal(x); }), "reversal: forward gave 2 results"));
  CHECK_FALSE(straight(td::ones({2})).requires_grad());

  const auto saves =
      td::custom_function({.forward = [](td::FunctionContext& context, const Tensors& in) -> td::TensorList {
                             context.save(in[1]);
                             return in[0] * in[1];
                           },
                           .backward = [](const td::FunctionContext& context, const Tensors& g) -> td::TensorList {
                             return {g[0] * context.saved(0), Tensor()};
                           },
                           .name = "saves"});
  Tensor other = td::ones({2});
  const Tensor y = saves(x, other);
  other += 1;
  CHECK_THROWS_AS(y.sum().backward(), td::InPlaceError);
  CHECK(contains(message_of([] { td::custom_function({}); }), "needs .forward and .backward"));
}

TEST_CASE("custom_function: inside checkpoint") {
  const auto twice = td::custom_function(
      {.forward = [](td::FunctionContext&, const Tensors& in) -> td::TensorList { return in[0] * 2; },
       .backward = [](const td::FunctionContext&, const Tensors& g) -> td::TensorList { return g[0] * 100; }});
  Tensor x = td::ones({2}, {.requires_grad = true});
  td::checkpoint([&](const Tensor& x) { return twice(x) * 3; }, x).sum().backward();
  CHECK(floats(x.grad()) == Floats{300, 300});
}

// ---- Hooks.

TEST_CASE("hooks: see the whole gradient of leaves and of values, may replace it, and can be removed") {
  Tensor x = td::ones({2}, {.requires_grad = true});
  std::vector<Floats> seen;
  td::HookHandle on_leaf = x.register_hook([&](const Tensor& g) {
    seen.push_back(floats(g));
    return g * 10;
  });
  const auto loss = [&] {
    const Tensor h = x * 3;
    h.register_hook([&](const Tensor& g) {
      seen.push_back(floats(g));
      return Tensor();
    });
    return (h * 2 + h * 5 + x).sum();
  };
  loss().backward();
  CHECK(seen == std::vector<Floats>{{7, 7}, {22, 22}});
  CHECK(floats(x.grad()) == Floats{220, 220});
  CHECK(floats(td::grad<1>(loss(), {x})[0]) == Floats{220, 220});
  CHECK(floats(x.grad()) == Floats{220, 220});
  on_leaf.remove();
  on_leaf.remove();
  x.set_grad({});
  loss().backward();
  CHECK(floats(x.grad()) == Floats{22, 22});
  // In order; a hook on the tensor that backward starts from.
  Tensor y = x * 1;
  y.register_hook([](const Tensor& g) { return g + 1; });
  y.register_hook([](const Tensor& g) { return g * 2; });
  CHECK(floats(td::grad_of(y, {x}, {}, td::ones({2}))[0]) == Floats{4, 4});
}

TEST_CASE("hooks: in traces, on parameters, arguments and values") {
  Tensor w = td::full({2}, 2, {.requires_grad = true});
  w.register_hook([](const Tensor& g) { return minimum(g, 4); });
  for (const td::Mode mode : kModes) {
    w.set_grad({});
    auto f = td::compile(
        [&](const Tensor& x) {
          const Tensor h = x * w;
          h.register_hook([](const Tensor& g) { return g * 3; });
          (h + h).sum().backward();
          return h;
        },
        {.mode = mode});
    f(td::tensor({0.5f, 1.f}));
    CHECK(floats(w.grad()) == Floats{3, 4});
  }
}

TEST_CASE("hooks: errors") {
  CHECK_THROWS_AS(td::ones({2}).register_hook([](const Tensor& g) { return g; }), td::AutogradError);
  Tensor x = td::ones({2}, {.requires_grad = true});
  x.register_hook([](const Tensor& g) { return g.sum(); });
  CHECK(contains(message_of([&] { (x * x).sum().backward(); }), "turned a gradient [2] into []"));
}

// ---- Anomalies.

TEST_CASE("AnomalyMode: names the op, its line, and whose gradient is not finite") {
  Tensor x = td::tensor({0.f, 1.f}, {.requires_grad = true});
  const auto loss = [&] {
    const Tensor root = sqrt(x);
    const uint32_t line = __LINE__ - 1;
    return std::pair{(root * root).sum(), line};
  };
  loss().first.backward();  // silently NaN
  CHECK(std::isnan(floats(x.grad())[0]));
  const td::AnomalyMode guard;
  const auto [value, line] = loss();
  try {
    value.backward();
    FAIL("no error");
  } catch (const td::AnomalyError& error) {
    CHECK(std::string(error.code()) == "E013");
    CHECK(error.where().line() == line);
    CHECK(contains(error.message(),
                   "of operand 0, float32[2], of sqrt called at checkpoint_test.cpp:" + std::to_string(line)));
    CHECK(contains(error.message(), "1 NaN and 0 infinite of 2 elements; the gradient that it received is finite"));
  }
  // A compiled function runs eagerly meanwhile.
  auto compiled = td::compile([&](const Tensor& y) {
    const Tensor loss = log(y * x).sum();
    loss.backward();
    return loss;
  });
  CHECK_THROWS_AS(compiled(td::ones({2})), td::AnomalyError);
}
