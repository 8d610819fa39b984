// Row pipelines: which chains become blocks of rows, and that they compute what the ops do one by one.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "any_size.h"
#include "support.h"
#include "tandem.h"

using namespace tandem;

namespace {

/// The nodes that run over blocks of rows after all passes.
std::vector<std::string> pipelines(const std::vector<Stage>& stages) {
  std::vector<std::string> found;
  const Graph& graph = stages.back().graph;
  for (const Node& node : graph.nodes)
    if (std::string_view(node.op->name) == "over_rows") {
      std::string ops;
      for (const Attribute& attribute : node.attributes)
        if (attribute.name == std::string_view("blocks")) ops = to_string(attribute.value) + " blocks";
      found.push_back(ops);
    }
  return found;
}

struct Compared {
  size_t pipelines;
  int64_t kernels, kernels_without;
};

/// Runs f eagerly, replayed, and compiled with and without row pipelines, twice each.
template <class F, class... Args> Compared compared(const F& f, double tolerance, const Args&... args) {
  const Tensors expected = f(args...);
  auto replayed = compile(f, {.mode = Mode::replay});
  auto with = compile(f), without = compile(f, {.without = {"row_pipelines"}});
  for (int turn = 0; turn < 2; ++turn) {
    check_alike(replayed(args...), expected);
    check_alike(without(args...), expected, tolerance);
    check_alike(with(args...), expected, tolerance);
  }
  CHECK(pipelines(without.stages()).empty());
  return {pipelines(with.stages()).size(), with.stats().kernels, without.stats().kernels};
}

struct Layers {
  nn::LayerNorm norm{48};
  nn::Linear wide{48, 96}, narrow{96, 48};

  Tensor operator()(const Tensor& x) const { return x + narrow(gelu(wide(norm(x)))); }
};

}  // namespace

TEST_CASE("row pipelines: norm, products, activation and residual are one node") {
  const AnySize any_size;
  manual_seed(1);
  Layers layers;
  const auto f = [&](const Tensor& x) -> Tensors {
    NoGrad no_grad;
    return {layers(x)};
  };
  SUBCASE("rows of a matrix") {
    const Compared result = compared(f, 1e-5, randn({512, 48}));
    CHECK(result.pipelines == 1);
    CHECK(result.kernels == 1);
  }
  SUBCASE("positions of a batch, which products see as rows") {
    const Compared result = compared(f, 1e-5, randn({16, 32, 48}));
    CHECK(result.pipelines == 1);
    CHECK(result.kernels == 1);
  }
  SUBCASE("rows that no block divides") { CHECK(compared(f, 1e-5, randn({509, 48})).pipelines == 0); }
  SUBCASE("a row") { CHECK(compared(f, 1e-5, randn({1, 48})).pipelines == 0); }
}

TEST_CASE("row pipelines: a training step's gradients, state and losses") {
  const AnySize any_size;
  manual_seed(3);
  struct Net {
    nn::Linear in{64, 48}, out{48, 10};
    Layers layers;
    Tensor operator()(const Tensor& x) const { return out(layers(relu(in(x)))); }
  };
  Net net;
  const Tensor rows = randn({64, 64}), labels = randint(0, 10, {64});
  const auto trained = [&](CompileOptions options) {
    Net own = nn::clone(net);
    nn::optim::Sgd optimizer{nn::parameters(own), {.lr = 0.05, .momentum = 0.9}};
    auto step = compile(
        [&](const Tensor& x, const Tensor& y) {
          optimizer.zero_grad();
          Tensor loss = cross_entropy(own(x), y);
          loss.backward();
          optimizer.step();
          return loss;
        },
        options);
    Tensors result;
    for (int i = 0; i < 4; ++i) result.push_back(step(rows, labels));
    for (const auto& each : nn::parameters(own)) result.push_back(each.detach()), result.push_back(each.grad());
    if (options.mode == Mode::compiled && options.without.empty()) CHECK(!pipelines(step.stages()).empty());
    return result;
  };
  const Tensors expected = trained({.mode = Mode::eager});
  check_alike(trained({.mode = Mode::replay}), expected);
  check_alike(trained({.without = {"row_pipelines"}}), expected, 1e-4);
  check_alike(trained({}), expected, 1e-4);
}

TEST_CASE("row pipelines: an update follows its gradient block by block, in place") {
  const AnySize any_size;
  manual_seed(4);
  const Tensor x = randn({64, 128}), g = randn({64, 256});
  const auto run = [&](CompileOptions options, bool* in_place) {
    Tensor weight = full({256, 128}, 0.5), velocity = zeros({256, 128});
    auto step = compile(
        [&](const Tensor& in, const Tensor& gradient) {
          const Tensor change = matmul(gradient.transpose(0, 1), in);
          velocity.assign(velocity * 0.9 + change);
          weight.assign(weight - velocity * 0.01);
          return change.sum();
        },
        options);
    Tensors result;
    for (int i = 0; i < 3; ++i) result.push_back(step(x, g));
    if (in_place) *in_place = !pipelines(step.stages()).empty() && !contains(step.plan(), "late write");
    result.push_back(weight), result.push_back(velocity);
    return result;
  };
  bool in_place = false;
  const Tensors expected = run({.mode = Mode::eager}, nullptr);
  check_alike(run({}, &in_place), expected, 1e-4);
  CHECK(in_place);
}

TEST_CASE("row pipelines: numbers, small operands, folds and views are read whole or by block as they must") {
  const AnySize any_size;
  manual_seed(5);
  const Tensor weight = randn({32, 64}), bias = randn({64}), column = randn({256, 1}), whole = randn({1, 64});
  SUBCASE("broadcast operands") {
    const auto f = [&](const Tensor& x) -> Tensors {
      return {relu(matmul(x, weight) + bias) * column + whole, matmul(x, weight).sum(1)};
    };
    CHECK(compared(f, 1e-5, randn({256, 32})).pipelines == 1);
  }
  SUBCASE("a number given at each call") {
    auto f = compile([&](const Tensor& x, Dynamic<float> scale) { return relu(matmul(x, weight) * scale + bias); });
    const Tensor x = randn({256, 32});
    for (const float scale : {0.5f, 2.f, -1.f}) {
      const Tensor expected = relu(matmul(x, weight) * scale + bias);
      CHECK(allclose(f(x, Dynamic<float>(scale)), expected, {.rtol = 1e-5, .atol = 1e-5}));
    }
    CHECK(pipelines(f.stages()).size() == 1);
  }
  SUBCASE("transposed and sliced operands") {
    const auto f = [&](const Tensor& x) -> Tensors {
      const Tensor rows = x.transpose(0, 1).slice(1, 3, 35);
      return {tanh(matmul(rows, weight)).slice(1, 0, 10) * 2, tanh(matmul(rows, weight)).reshape({64, -1})};
    };
    CHECK(compared(f, 1e-5, randn({40, 256})).pipelines >= 1);
  }
  SUBCASE("what all rows together give comes between two chains") {
    const auto f = [&](const Tensor& x) -> Tensors {
      const Tensor y = relu(matmul(x, weight));
      const Tensor z = y - y.mean(0, {.keepdim = true});
      return {tanh(matmul(z, weight.transpose(0, 1))) * 2};
    };
    CHECK(compared(f, 1e-5, randn({256, 32})).pipelines >= 1);
  }
  SUBCASE("halves and doubles") {
    for (const DType type : {float64, bfloat16, float16}) {
      const Tensor w = weight.to(type);
      const auto f = [&](const Tensor& x) -> Tensors { return {relu(matmul(x, w)) * 0.5}; };
      compared(f, type == float64 ? 1e-12 : 1e-2, randn({256, 32}).to(type));
    }
  }
}

TEST_CASE("row pipelines: any number of threads gives the same bits") {
  manual_seed(6);
  Layers layers;
  const Tensor x = randn({1024, 48});
  const int before = num_threads();
  Tensor expected;
  for (const int threads : {1, 2, 3, 4, 8}) {
    set_num_threads(threads);
    auto f = compile([&](const Tensor& in) {
      NoGrad no_grad;
      return layers(in);
    });
    const Tensor got = f(x);
    if (expected.defined()) CHECK(same(got, expected));
    expected = got;
  }
  set_num_threads(before);
}

TEST_CASE("row pipelines: another size has none, and costs no compiler from the third on") {
  const AnySize any_size;
  manual_seed(7);
  Layers layers;
  auto f = compile([&](const Tensor& x) {
    NoGrad no_grad;
    return layers(x);
  });
  for (const int64_t rows : {512, 256, 128, 512, 64, 32}) {
    const Tensor x = randn({rows, 48});
    NoGrad no_grad;
    CHECK(allclose(f(x), layers(x), {.rtol = 1e-5, .atol = 1e-5}));
  }
  CHECK(f.stats().resizes >= 2);
}

TEST_CASE("row pipelines: as text and back") {
  const AnySize any_size;
  manual_seed(8);
  Layers layers;
  auto f = compile([&](const Tensor& x) {
    NoGrad no_grad;
    return layers(x);
  });
  f(randn({512, 48}));
  const auto& stages = f.stages();
  const auto made =
      std::find_if(stages.begin(), stages.end(), [](const Stage& s) { return s.name == "row_pipelines"; });
  REQUIRE(made != stages.end());
  const std::string text = made->graph.to_string();
  CHECK(contains(text, "over_rows"));
  const Graph read = parse_graph(text);
  CHECK(read.to_string() == text);
  verify(read);
}

TEST_CASE("row pipelines: no rows, transposed, repeated and strided ones, and NaN") {
  const AnySize any_size;
  manual_seed(9);
  const Tensor weight = randn({32, 64}), back = randn({64, 32});
  const auto f = [&](const Tensor& x) -> Tensors { return {tanh(matmul(relu(matmul(x, weight)), back)) * 2}; };
  const Tensors given = {zeros({0, 32}), randn({32, 64}).transpose(0, 1), randn({1, 32}).expand({64, 32}),
                         randn({128, 32}).slice(0, 0, 128, 2)};
  for (size_t i = 0; i < given.size(); ++i) {
    CAPTURE(i);
    CHECK(compared(f, 1e-5, given[i]).pipelines == (i == 0 ? 0 : 1));
  }
  auto compiled = compile(f);
  CHECK(allclose(compiled(full({64, 32}, NAN))[0], f(full({64, 32}, NAN))[0], {.equal_nan = true}));
}

TEST_CASE("row pipelines: state that a chain reads by row, whole, turned, or through a view that it writes") {
  const AnySize any_size;
  for (int variant = 0; variant < 5; ++variant) {
    CAPTURE(variant);
    const auto run = [&](CompileOptions options) {
      manual_seed(10);
      Tensor state = randn({64, 64});
      const Tensor weight = randn({64, 64}), x = randn({64, 64});
      Tensor top = state.slice(0, 0, 32);
      const Tensor turned = state.transpose(0, 1);
      auto step = compile(
          [&](const Tensor& in) {
            Tensor before = state;
            switch (variant) {
              case 0: state.assign(state + matmul(in, weight) * 0.1); break;
              case 1: state.assign(state * 0.5 + matmul(in, state) * 0.01); break;
              case 2: state.assign(state * 0.5 + matmul(turned, weight) * 0.01); break;
              case 3: top.assign(top * 0.5 + matmul(in.slice(0, 0, 32), weight) * 0.1); break;
              case 4:
                before = tanh(matmul(state, weight));
                state.assign(state * 0.5 + matmul(in, weight) * 0.1);
                break;
            }
            return (before + state).sum();
          },
          options);
      Tensors results;
      for (int i = 0; i < 4; ++i) results.push_back(step(x));
      results.push_back(state);
      return results;
    };
    const Tensors expected = run({.mode = Mode::eager});
    check_alike(run({.mode = Mode::replay}), expected);
    check_alike(run({}), expected, 1e-4);
    check_alike(run({.wait = false}), expected, 1e-4);
  }
}

TEST_CASE("row pipelines: several threads call one") {
  const AnySize any_size;
  manual_seed(11);
  const Tensor weight = randn({32, 64});
  auto f = compile([&](const Tensor& x) { return relu(matmul(x, weight)) * 2; });
  f(randn({64, 32}));
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const Tensor x = full({64, 32}, 0.1 * t), expected = relu(matmul(x, weight)) * 2;
      for (int i = 0; i < 50; ++i)
        if (!allclose(f(x), expected, {.rtol = 1e-5, .atol = 1e-5})) ++wrong;
    });
  for (std::thread& each : threads) each.join();
  CHECK(wrong == 0);
}
