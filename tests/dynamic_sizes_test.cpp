// Sizes that change: one specialisation serves many, with eager's bits in each, and never another program's.
#include "support.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "tandem.h"

using namespace tandem;

namespace {

struct Mlp {
  nn::Linear hidden{12, 16};
  nn::Linear output{16, 4};
  Tensor operator()(const Tensor& x) const { return output(relu(hidden(x.flatten(1)))); }
};
struct ConvNet {
  nn::Conv2d first{1, 4, 3, {.padding = 1}};
  nn::BatchNorm2d norm{4};
  nn::Dropout drop{0.25};
  nn::Linear output{4 * 3 * 2, 4};
  Tensor operator()(const Tensor& x) const { return output(drop(max_pool2d(relu(norm(first(x))), 2)).flatten(1)); }
};

/// Losses, and all parameters at the end, of steps with batches of these sizes.
template <class Model> std::vector<float> train(Mode mode, const std::vector<int64_t>& sizes, Stats* stats = nullptr) {
  manual_seed(5);
  Model model;
  nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 1e-2});
  auto step = compile(
      [&](const Tensor& images, const Tensor& labels) {
        optimizer.zero_grad();
        Tensor loss = cross_entropy(model(images), labels);
        loss.backward();
        optimizer.step();
        return loss;
      },
      {.mode = mode});
  std::vector<float> result;
  for (const int64_t size : sizes) {
    const Tensor images = randn({size, 1, std::is_same_v<Model, Mlp> ? 3 : 6, 4}), labels = randint(0, 4, {size});
    result.push_back(step(images, labels).template item<float>());
  }
  for (const Tensor& parameter : nn::parameters(model))
    for (const float each : parameter.to_vector<float>()) result.push_back(each);
  if (stats) *stats = step.stats();
  return result;
}

/// Calls with arguments of these sizes, in each mode; all results are those of eager mode, to the bit.
template <class F, class Make>
Stats check_sizes(F f, Make arguments_of, const std::vector<int64_t>& sizes, CompileOptions options = {}) {
  Stats stats;
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    options.mode = mode;
    auto g = compile(f, options);
    for (const int64_t size : sizes) {
      CAPTURE(size);
      const Tensor x = arguments_of(size);
      const Tensor eager = f(x), graph = g(x);
      CHECK(graph.shape() == eager.shape());
      CHECK(same(graph, eager));
    }
    stats = g.stats();
  }
  return stats;
}
Tensor numbers(int64_t n) { return randn({n, 6}); }

}  // namespace

TEST_CASE("sizes: an epoch with a last small batch, and batches of any size") {
  const std::vector<int64_t> epoch{8, 8, 8, 5, 8, 8, 5, 8}, any{8, 5, 7, 6, 12, 8, 3, 5, 2, 1, 20, 33, 12};
  for (const std::vector<int64_t>& sizes : {epoch, any}) {
    Stats replayed, compiled;
    CHECK(train<Mlp>(Mode::replay, sizes, &replayed) == train<Mlp>(Mode::eager, sizes));
    CHECK(train<Mlp>(Mode::compiled, sizes, &compiled) == train<Mlp>(Mode::eager, sizes));
    CHECK(train<ConvNet>(Mode::replay, sizes) == train<ConvNet>(Mode::eager, sizes));
    Stats convolutions;
    CHECK(train<ConvNet>(Mode::compiled, sizes, &convolutions) == train<ConvNet>(Mode::eager, sizes));
    const bool many = sizes.size() > 8;
    for (const Stats& stats : {replayed, compiled, convolutions}) {
      CHECK(stats.resizes == (many ? 6 : 0));
      CHECK(stats.sources <= (many ? 4 : 3));
    }
  }
}

TEST_CASE("sizes: a decode loop over a growing cache") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    manual_seed(3);
    const NoGrad guard;
    const nn::Linear q{16, 16}, k{16, 16}, v{16, 16}, out{16, 16};
    const auto decode = [&](const Tensor& x, const Tensor& keys, const Tensor& values) {
      Tensor all_keys = concat({keys, k(x)}, 0), all_values = concat({values, v(x)}, 0);
      Tensor weights = softmax(matmul(q(x), all_keys.transpose(0, 1)) * 0.25, 1);
      return std::tuple{out(matmul(weights, all_values)) + x, all_keys, all_values};
    };
    auto step = compile(decode, {.mode = mode});
    Tensor keys = randn({4, 16}), values = randn({4, 16}), x = randn({1, 16}), eager_x = x;
    Tensor eager_keys = keys, eager_values = values;
    for (int i = 0; i < 64; ++i) {
      std::tie(x, keys, values) = step(x, keys, values);
      std::tie(eager_x, eager_keys, eager_values) = decode(eager_x, eager_keys, eager_values);
      CHECK(same(x, eager_x));
      CHECK(same(keys, eager_keys));
    }
    if (mode == Mode::eager) continue;
    CHECK(step.stats().traces == 3);
    CHECK(step.stats().resizes == 61);
    CHECK(step.stats().sources <= 2);
  }
}

TEST_CASE("sizes: without verification three traces are all") {
  int runs = 0;
  const auto f = [&](const Tensor& x) { return ++runs, softmax(concat({x * 2, x[0].unsqueeze(0)}, 0), 0) * x.sum(); };
  auto g = compile(f, {.verify = Verify::never});
  for (int64_t n = 4; n < 40; ++n) {
    const Tensor x = randn({n, 5});
    CHECK(same(g(x), compile(f, {.mode = Mode::eager})(x)));
  }
  CHECK(runs == 3 + 36);
  CHECK(g.stats().resizes == 33);
}

TEST_CASE("sizes: 0 and 1 are programs of their own") {
  const auto f = [](const Tensor& x) { return (x - x.mean({0}, {.keepdim = true})).sum(1) * 2; };
  const Stats stats = check_sizes(f, numbers, {5, 1, 4, 9, 2, 1, 3, 7});
  CHECK(stats.traces == 4);
  CHECK(stats.resizes == 3);
  check_sizes([](const Tensor& x) { return relu(x) + 1; }, numbers, {0, 3, 1, 4, 0, 2, 5, 6});
}

TEST_CASE("sizes: two dims, apart and together") {
  const auto square_of = [](int64_t n) { return randn({n % 7 + 2, n}); };
  const auto f = [](const Tensor& x) {
    Tensor scores = matmul(x, x.transpose(0, 1));
    return softmax(scores, 1).reshape({-1}) * static_cast<double>(x.size(1));
  };
  const Stats stats = check_sizes(f, square_of, {3, 4, 5, 9, 13, 17, 20, 33, 41});
  CHECK(stats.resizes >= 3);
  check_sizes([](const Tensor& x) { return x.transpose(0, 1).contiguous().reshape({-1}) + 1; }, square_of,
              {3, 4, 12, 9, 13, 17, 20, 33, 41});
}

TEST_CASE("sizes: a size as a number in the text, in shapes and in ranges") {
  const auto f = [](const Tensor& x) {
    const int64_t n = x.size(0);
    Tensor positions = arange(n).to(float32).unsqueeze(1) / static_cast<double>(n);
    return (x / static_cast<double>(n) + positions).reshape({n * 3, 2}) * (1.0 / static_cast<double>(n)) +
           x.var({0}).sum();
  };
  const Stats stats = check_sizes(f, numbers, {8, 4, 6, 5, 7, 9, 30, 50});
  CHECK(stats.traces == 3);
  CHECK(stats.resizes == 5);
  check_sizes([](const Tensor& x) { return x.slice(0, 1, x.size(0) - 1) * 2; }, numbers, {8, 4, 6, 5, 7, 9, 3});
  check_sizes(
      [](const Tensor& x) {
        return x.flip({0}).cumsum(0) + tril(matmul(x, x.transpose(0, 1))).sum(1, {.keepdim = true});
      },
      numbers, {8, 4, 6, 5, 7, 9, 3});
}

TEST_CASE("sizes: a branch of the host on the size is another specialisation") {
  const auto threshold = [](const Tensor& x) { return x.size(0) > 10 ? x * 2 : exp(x) + 1; };
  const auto parity = [](const Tensor& x) { return x.size(0) % 2 ? x * 2 : x + 1; };
  const auto smaller = [](const Tensor& x) { return x.slice(0, 0, std::min<int64_t>(x.size(0), 10)) * 2; };
  const auto unrolled = [](const Tensor& x) {
    Tensor sum = x[0];
    for (int64_t i = 1; i < x.size(0); ++i) sum = sum * 0.5 + x[i];
    return sum;
  };
  const std::vector<int64_t> sizes{4, 5, 6, 7, 12, 13, 14, 8, 15, 9, 21, 10, 22};
  const CompileOptions many{.max_specialisations = 32};
  CHECK(check_sizes(threshold, numbers, sizes, many).traces == 6);
  check_sizes(parity, numbers, sizes, many);
  check_sizes(smaller, numbers, sizes, many);
  const Stats stats = check_sizes(unrolled, numbers, sizes, many);
  CHECK(stats.traces == static_cast<int64_t>(sizes.size()));
  CHECK(contains(stats.sizes.at(0), "one specialisation per size"));
}

TEST_CASE("sizes: a tensor made of C++ values is another one in each size") {
  const auto f = [](const Tensor& x) {
    std::vector<float> weights;
    for (int64_t i = 0; i < x.size(0); ++i) weights.push_back(static_cast<float>(i * i));
    return (x * tensor(weights).unsqueeze(1)).sum(0);
  };
  const Stats stats = check_sizes(f, numbers, {4, 5, 6, 7, 8}, {.max_specialisations = 16});
  CHECK(stats.traces == 5);
}

TEST_CASE("sizes: numbers of the program that change with the calls are read at each") {
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    double factor = 0.3;
    auto f = compile([&](const Tensor& x) { return x * factor + 1; }, {.mode = mode});
    for (const int64_t n : {4, 5, 6, 7, 8, 4, 5, 9, 6}) {
      factor = factor * 1.3 - 0.1;
      const Tensor x = randn({n, 3});
      CHECK(same(f(x), x * factor + 1));
    }
  }
}

TEST_CASE("sizes: asked for, and refused") {
  auto asked = compile([](const Tensor& x) { return softmax(x * 2, 0); }, {.dynamic = {{0, 0}}});
  for (int64_t n = 4; n < 9; ++n) {
    const Tensor x = randn({n, 3});
    CHECK(same(asked(x), softmax(x * 2, 0)));
  }
  CHECK(asked.stats().traces == 1);
  CHECK(asked.stats().sources == 1);
  CHECK(asked.stats().resizes == 4);
  CHECK(contains(asked.explain(), "many in one specialisation: argument 0, dim 0"));

  auto refused =
      compile([](const Tensor& x) { return x * 2; }, {.max_specialisations = 2, .dynamic = DynamicSizes::never});
  refused(ones({3})), refused(ones({4}));
  CHECK_THROWS_AS(refused(ones({5})), RetraceError);
  CHECK(refused.stats().resizes == 0);

  // Only the first function says that it can't be larger.
  const Tensor table = randn({6, 3});
  auto bounded = compile([&](const Tensor& x) { return x + table.slice(0, 0, x.size(0)); }, {.dynamic = {{0, 0}}});
  for (const int64_t n : {4, 5, 6, 3}) {
    const Tensor x = randn({n, 3});
    CHECK(same(bounded(x), x + table.slice(0, 0, n)));
  }
}

TEST_CASE("sizes: gradients of arguments, results that are numbers, and labels out of range") {
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    auto f = compile(
        [](const Tensor& x) {
          square(x).mean().backward();
          return std::pair{x * 2, x.size(0)};
        },
        {.mode = mode});
    for (const int64_t n : {4, 5, 6, 7, 5, 9, 4}) {
      const Tensor x = randn({n, 3}, {.requires_grad = true}), y = x.detach().clone().requires_grad(true);
      CHECK(f(x).second == n);
      square(y).mean().backward();
      CHECK(same(x.grad(), y.grad()));
    }
    const Tensor table = randn({5, 3});
    auto lookup = compile([&](const Tensor& positions) { return embedding(positions, table) * 2; }, {.mode = mode});
    for (const int64_t n : {4, 5, 6, 7, 8}) lookup(zeros({n}, {.dtype = int64}));
    CHECK_THROWS_AS(lookup(full({9}, 5, {.dtype = int64})), DimensionError);
  }
}

TEST_CASE("sizes: threads with sizes of their own") {
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    const Tensor w = randn({6, 6});
    const auto f = [&](const Tensor& x) { return softmax(matmul(x, w) + 1, 0); };
    auto g = compile(f, {.mode = mode});
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        const NoGrad guard;
        for (int i = 0; i < 40; ++i) {
          const Tensor x = full({2 + (7 * i + t) % 23, 6}, i * 0.1);
          wrong += !same(g(x), f(x));
        }
      });
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(g.stats().sources <= 2);
  }
}

TEST_CASE("sizes: a mean of everything divides by a number that is read at each call") {
  const NoGrad guard;
  const auto f = [](const Tensor& x) { return x.mean() + softmax(x * 2, 1); };
  auto g = compile(f);
  std::string tier;
  for (const int64_t n : {3, 4, 5, 6, 7, 8}) {
    const Tensor x = randn({n, 6});
    CHECK(same(g(x), f(x)));
    if (tier.empty()) tier = g.stats().tier;
    CHECK(g.stats().tier == tier);
  }
  CHECK(g.stats().sources <= 2);
}

TEST_CASE("sizes: programs are given other sizes in place, up and down, beyond the room that they have") {
  const NoGrad guard;
  manual_seed(11);
  const nn::Linear project{6, 6}, wide{6, 24};
  const Tensor table = randn({4, 6}), bias = randn({6});
  const auto f = [&](const Tensor& x, const Tensor& y) {
    const int64_t n = x.size(0), m = y.size(0);
    Tensor last = x.slice(0, n - 1, n), rest = x.slice(0, 0, n - 1), scores = matmul(project(x), y.transpose(0, 1));
    Tensor attended = matmul(softmax(scores, 1), y) + bias;
    Tensor folded = matmul(table, attended.transpose(0, 1)).sum(1) * (1.0 / static_cast<double>(n));
    Tensor grown = concat({y, relu(project(last)), last.expand({2, 6})}, 0);
    Tensor hidden = matmul(gelu(wide(attended)).reshape({n * 4, 6}), bias.unsqueeze(1)).sum();
    return std::vector<Tensor>{attended,
                               folded,
                               grown,
                               rest.transpose(0, 1).contiguous(),
                               hidden,
                               last,
                               x.flip({0})[0],
                               y,
                               arange(m).to(float32) / static_cast<double>(m)};
  };
  std::vector<std::pair<int64_t, int64_t>> sizes{{4, 3}, {5, 4}, {7, 6}, {9, 9}};
  for (int64_t i = 0; i < 40; ++i) sizes.emplace_back(4 + i, 3 + i);                            // growing
  for (int64_t i = 0; i < 20; ++i) sizes.emplace_back(44 - 2 * i, 3 + i % 4);                   // and not
  for (int64_t i = 0; i < 60; ++i) sizes.emplace_back(2 + i * 37 % 61, 2 + (i * 23 + 5) % 47);  // any
  const CompileOptions each[] = {{.mode = Mode::replay}, {}, {.verify = Verify::never}};
  for (const CompileOptions& options : each) {
    CAPTURE(name_of(options.mode));
    auto g = compile(f, options);
    std::vector<std::pair<std::vector<Tensor>, std::vector<Tensor>>> held;
    for (const std::pair<int64_t, int64_t>& size : sizes) {
      const int64_t n = size.first, m = size.second;
      CAPTURE(n);
      CAPTURE(m);
      const Tensor x = randn({n, 6}), y = randn({m, 6});
      const std::vector<Tensor> eager = f(x, y), graph = g(x, y);
      for (size_t i = 0; i < eager.size(); ++i) {
        CAPTURE(i);
        CHECK(graph[i].shape() == eager[i].shape());
        CHECK(same(graph[i], eager[i]));
      }
      held.emplace_back(graph, eager);
    }
    for (const auto& [graph, eager] : held)  // results are nobody else's later
      for (size_t i = 0; i < eager.size(); ++i) CHECK(same(graph[i], eager[i]));
    const Stats stats = g.stats();
    CHECK(stats.traces <= 7);
    CHECK(stats.resizes >= 100);
    CHECK(stats.resizes_in_place >= 80);
    CHECK((options.verify != Verify::never || stats.verifications == 0));
    CHECK(stats.stale.empty());
  }
}

TEST_CASE("sizes: state, scratch and gradients in programs that are given other sizes") {
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    const auto run = [&](Mode how) {
      manual_seed(2);
      Tensor seen = zeros({}, {.dtype = int64}), mean = zeros({6}), w = randn({6, 6}, {.requires_grad = true});
      std::vector<Tensor> results;
      auto step = compile(
          [&](const Tensor& x) {
            w.set_grad({});
            seen.assign(seen + x.size(0));
            mean.assign(mean * 0.9 + x.mean({0}) * 0.1);
            Tensor loss = square(matmul(x, w) - mean).mean() + rand({6}).sum();
            loss.backward();
            return loss;
          },
          {.mode = how});
      for (int64_t i = 0; i < 60; ++i) {
        results.push_back(step(randn({3 + i * 17 % 41, 6})));
        results.push_back(w.grad().clone());
      }
      results.push_back(seen);
      results.push_back(mean);
      return results;
    };
    const std::vector<Tensor> graph = run(mode), eager = run(Mode::eager);
    for (size_t i = 0; i < eager.size(); ++i) {
      CAPTURE(i);
      CHECK(same(graph[i], eager[i]));
    }
  }
}

TEST_CASE("sizes: what eagerly is an error in a size is one in a program that had another") {
  const Tensor table = randn({40, 3});
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    auto g = compile([&](const Tensor& x) { return x + table.slice(0, 0, x.size(0)) * 2; }, {.mode = mode});
    for (int64_t n = 2; n <= 40; ++n) {
      const Tensor x = randn({n, 3});
      CHECK(same(g(x), x + table.slice(0, 0, n) * 2));
    }
    CHECK_THROWS_AS(g(randn({41, 3})), Error);
    CHECK(same(g(table.slice(0, 0, 17)), table.slice(0, 0, 17) + table.slice(0, 0, 17) * 2));
  }
}

TEST_CASE("sizes: a size in which an extent happens to be another's") {
  const NoGrad guard;
  const Tensor w = randn({16, 16});
  const auto f = [&](const Tensor& x) {  // where x is [16, 16], everything has one shape
    Tensor a = tanh(matmul(x, w)), b = matmul(a, w) + a, c = matmul(softmax(matmul(b, b.transpose(0, 1)), 0), a);
    return concat({c.sum(0, {.keepdim = true}), matmul(c.transpose(0, 1), b)}, 0) + w.sum(0);
  };
  const auto arguments_of = [](int64_t n) { return randn({n, 16}); };
  check_sizes(f, arguments_of,
              {15, 16, 17, 16, 32, 16, 8, 2, 16, 3, 16, 4, 5, 6, 7, 16, 9, 64, 16, 10, 11, 16, 12, 33});
}

TEST_CASE("sizes: numbers that change with the calls, in programs that are given other sizes") {
  for (const Mode mode : kGraphModes)
    for (const int changes : {1, 2, 100}) {
      CAPTURE(name_of(mode));
      CAPTURE(changes);
      float number = 1;
      const auto f = [&](const Tensor& x) { return x * number + 0.5f; };
      const auto by_argument = [](const Tensor& x, Dynamic<float> y) { return x * y + 0.5f; };
      auto g = compile(f, {.mode = mode});
      auto h = compile(by_argument, {.mode = mode});
      for (int64_t n = 3; n < 80; ++n) {
        CAPTURE(n);
        if (n > 20 && n % (80 / std::min(changes, 80)) == 0) number = 0.5f * static_cast<float>(n);
        const Tensor x = randn({n, 4}), expected = f(x);
        CHECK(same(g(x), expected));
        CHECK(same(h(x, Dynamic<float>(number)), expected));
      }
      CHECK(h.stats().resizes_in_place > 20);
    }
}

TEST_CASE(
    "numbers that the text works out of a size, also where nobody traces new sizes") {  // found by random programs
  using Number = double (*)(double);
  const std::pair<Number, bool> numbers[] = {{[](double n) { return n / 8; }, true},
                                             {[](double n) { return n / 10; }, true},
                                             {[](double n) { return n * 0.1; }, true},
                                             {[](double n) { return 3 / n; }, false},
                                             {[](double n) { return std::sqrt(n); }, false}};
  for (const auto& [number, follows_a_rule] : numbers)
    for (const Verify verify : {Verify::never, Verify::powers_of_two, Verify::every})
      for (const Mode mode : {Mode::replay, Mode::compiled}) {
        auto f = compile(
            [number = number](const Tensor& x) {
              const double n = number(static_cast<double>(x.numel()));
              return x * n + n;
            },
            {.mode = mode, .verify = verify});
        for (const int64_t size : {7, 2, 3, 5, 6, 9, 5}) {
          const auto value = static_cast<float>(number(static_cast<double>(size)));
          CHECK(f(ones({size})).to_vector<float>() == std::vector<float>(static_cast<size_t>(size), value + value));
        }
        // Where the number follows no rule, the size has to be traced after all.
        if (verify == Verify::never) CHECK((f.stats().verifications == 0) == follows_a_rule);
      }
}
