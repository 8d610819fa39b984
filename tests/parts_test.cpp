// What compiled functions take and return beside tensors: structs, vectors, optionals, numbers; and that they are values.
#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <thread>

#include "support.h"
#include "tandem.h"

using namespace tandem;

namespace {

struct Moments {
  Tensor mean, deviation;
};
struct Report {
  Moments of_x;
  std::optional<Tensor> largest;
  int64_t count = 0;
  std::string name;
  Tensors rows;
  Tensor absent;
};

Report report(const Tensor& x) {
  const Tensor mean = x.mean();
  return {.of_x = {mean, (x - mean).abs().mean()},
          .largest = x.numel() > 2 ? std::optional(x.max()) : std::nullopt,
          .count = x.numel(),
          .name = "x",
          .rows = {x + 1, x + 2},
          .absent = {}};
}

}  // namespace

TEST_CASE("results: a plain struct of tensors, numbers, vectors and optionals, in every mode") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto f = compile(report, {.mode = mode});
    for (int call = 0; call < 3; ++call) {
      const Report made = f(tensor({1.0, 2.0, 6.0}) + call);
      CHECK(made.of_x.mean.item<float>() == 3 + call);
      CHECK(made.of_x.deviation.item<float>() == 2);
      REQUIRE(made.largest.has_value());
      CHECK(made.largest->item<float>() == 6 + call);
      CHECK(made.count == 3);
      CHECK(made.name == "x");
      REQUIRE(made.rows.size() == 2);
      CHECK(made.rows[1].to_vector<float>()[0] == 3 + call);
      CHECK(!made.absent.defined());
    }
    const Report other = f(tensor({1.0, 2.0}));
    CHECK(!other.largest.has_value());
    CHECK(other.count == 2);
  }
}

TEST_CASE("results: vectors before other tensors, pairs, maps, optionals, numbers alone") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    const Tensor x = tensor({1.0, 2.0});
    auto pair = compile([](const Tensor& t) { return std::pair{Tensors{t, t * 2}, t * 3}; }, {.mode = mode});
    CHECK(same(pair(x).second, x * 3));
    CHECK(pair(x).first.size() == 2);
    auto map = compile(
        [](const Tensor& t) {
          return std::map<std::string, Tensor>{{"a", t}, {"b", -t}};
        },
        {.mode = mode});
    CHECK(same(map(x).at("b"), -x));
    auto optional = compile([](const Tensor& t) { return std::optional(t + 1); }, {.mode = mode});
    CHECK(same(*optional(x), x + 1));
    auto number = compile([](const Tensor& t) { return static_cast<double>(t.numel()) / 4; }, {.mode = mode});
    CHECK(number(x) == 0.5);
    CHECK(number(tensor({1.0})) == 0.25);
    auto vectors = compile(
        [](const Tensor& t) {
          return std::vector{std::tuple{t, 1}, std::tuple{t + 1, 2}};
        },
        {.mode = mode});
    CHECK(same(std::get<0>(vectors(x)[1]), x + 1));
    CHECK(std::get<1>(vectors(x)[1]) == 2);
  }
}

TEST_CASE("results: a number that changes between calls is noticed as a captured one is") {
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    int count = 0;
    auto f = compile([&](const Tensor& x) { return std::pair{x * 2, count}; }, {.mode = mode, .verify = Verify::every});
    const Tensor x = ones({2});
    for (count = 0; count < 5; ++count) CHECK(f(x).second == count);
    auto g = compile([&](const Tensor& x) { return std::pair{x * 2, count}; }, {.mode = mode});
    const WarningHandler before = set_warning_handler([](const std::string&) {});
    count = 0;
    for (int call = 1; call <= 6; ++call) {
      if (call == 3) count = 7;
      CHECK(g(x).second == (call < 3 ? 0 : call == 3 ? 0 : 7));
    }
    set_warning_handler(before);
    REQUIRE(g.stats().stale.size() == 1);
    CHECK(contains(g.stats().stale[0], "a number among the results"));
  }
}

TEST_CASE("results: what item() gives of state is that of each call, and one that turns undefined is noticed") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    const Tensor x = ones({2});
    Tensor state = zeros({});
    auto f = compile([&](const Tensor& x) { return std::pair{x * 2, state.item<double>()}; }, {.mode = mode});
    for (int call = 0; call < 5; ++call) {
      state.assign(full({}, call));
      CHECK(f(x).second == call);
    }
    bool swapped = false;
    auto g = compile(
        [&](const Tensor& x) {
          return swapped ? std::pair{Tensor(), x * 2} : std::pair{x * 2, Tensor()};
        },
        {.mode = mode, .verify = Verify::every});
    CHECK(g(x).first.defined());
    swapped = true;
    for (int call = 0; call < 2; ++call) {
      CHECK(!g(x).first.defined());
      CHECK(same(g(x).second, x * 2));
    }
    if (mode != Mode::eager) {
      auto number = compile([](const Tensor& x) { return x.sum().item<double>(); }, {.mode = mode});
      CHECK_THROWS_AS(number(x), TraceError);
      auto written = compile(
          [&](const Tensor& x) {
            state.assign(x.sum());
            return state.item<double>();
          },
          {.mode = mode});
      CHECK(contains(thrown<TraceError>([&] { written(x); }), "item(): the function has written to this tensor"));
    }
  }
}

TEST_CASE("results are held over later calls, and are tensors of their own") {
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    auto f = compile([](const Tensor& x) { return std::tuple{x, x + 1, Tensors{x.sum()}}; }, {.mode = mode});
    Tensor x = tensor({1.0, 2.0});
    const auto [own, next, sums] = f(x);
    x.assign(tensor({10.0, 20.0}));
    f(x), f(x);
    CHECK(own.to_vector<float>() == std::vector<float>{1, 2});
    CHECK(next.to_vector<float>() == std::vector<float>{2, 3});
    CHECK(sums[0].item<float>() == 3);
  }
}

TEST_CASE("arguments: vectors and structs of tensors; their sizes and numbers are part of the key") {
  struct Batch {
    Tensor x;
    std::optional<Tensor> weight = {};
    double scale = 1;
  };
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto sum = compile(
        [](const Tensors& all, const Batch& batch) {
          Tensor total = batch.x * batch.scale;
          for (const Tensor& each : all) total = total + each;
          return batch.weight ? total * *batch.weight : total;
        },
        {.mode = mode});
    const Tensor x = tensor({1.0, 2.0});
    for (int call = 0; call < 3; ++call) {
      CHECK(same(sum(Tensors{x, x + call}, Batch{.x = x}), x * 3 + call));
      CHECK(same(sum(Tensors{x}, Batch{x, x, 2}), x * 3 * x));
      CHECK(same(sum(Tensors{x}, Batch{x, x, 3}), x * 4 * x));
    }
    if (mode != Mode::eager) CHECK(sum.stats().traces == 3);
  }
}

TEST_CASE("vectors of bool are arguments and results; what holds no elements of its own is neither") {
  static_assert(graph::OwningRange<Tensors> && graph::OwningRange<std::vector<bool>>);
  static_assert(!graph::OwningRange<std::span<Tensor>> && !graph::OwningRange<std::span<const Tensor>>);
  static_assert(graph::OwningTuple<std::pair<int, Tensor>> && !graph::OwningTuple<std::tuple<Tensor&, Tensor&>>);
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto f = compile(
        [](const Tensor& x, std::vector<bool> signs) {
          signs.flip();
          return std::pair{signs[0] ? x : -x, signs};
        },
        {.mode = mode});
    const Tensor x = ones({2});
    CHECK(f(x, std::vector{true, false}).second == std::vector{false, true});
    CHECK(same(f(x, std::vector{false, false}).first, x));
  }
}

TEST_CASE("a compiled function is a value: copies share traces, std::function holds it, calls are const") {
  const auto f = compile([](const Tensor& x) { return x + 1; });
  const std::function<Tensor(const Tensor&)> held = f;
  const auto copy = f;
  const Tensor x = ones({2});
  CHECK(same(held(x), x + 1));
  CHECK(same(copy(x), f(x)));
  CHECK(f.stats().traces == 1);
  CHECK(f.stats().calls == 3);
  std::vector<std::thread> threads;
  std::atomic<bool> wrong = false;
  for (int64_t t = 1; t <= 3; ++t)
    threads.emplace_back([&, t] {
      for (int64_t call = 0; call < 20; ++call) {
        const auto own = f;
        if (own(full({t + call % 2}, 1)).sum().item<float>() != static_cast<float>(2 * (t + call % 2))) wrong = true;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(!wrong);
}
