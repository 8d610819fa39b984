// Labels, indices and numbers out of range on cuda(0): the CPU's error, in every mode, at the next synchronisation.
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "tandem.h"
#include "tests/cuda/orders.h"

using namespace tandem;

namespace {

using Program = std::function<Tensor(const Tensor&)>;
struct Case {
  const char* name;
  Program run;
  Tensor good, bad;
};

/// "DimensionError: … at line" of what `f` throws, or nothing.
std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const DimensionError& error) {
    return detail::str("DimensionError: ", error.message(), " at ", to_string(error.where()));
  } catch (const ValueError& error) {
    return detail::str("ValueError: ", error.message(), " at ", to_string(error.where()));
  }
  return "";
}

std::vector<Case> cases() {
  const Tensor x = arange(0, 6).reshape({2, 3}) * 0.25f, there = x.to(cuda(0));
  const auto on = [=](const Tensor& like) { return like.device().is_cpu() ? x : there; };
  const Tensor labels = tensor<int64_t>({0, 2});
  std::vector<Case> all;
  const auto labelled = [&](const char* name, Program f) {
    all.push_back({name, f, labels, tensor<int64_t>({1, 3})});
    all.push_back({name, f, labels, tensor<int64_t>({-1, 7})});
    all.push_back({name, f, labels, tensor<int64_t>({0, int64_t{1} << 40})});
  };
  labelled("cross_entropy", [=](const Tensor& t) { return cross_entropy(on(t), t); });
  labelled("cross_entropy of a fused operand", [=](const Tensor& t) { return cross_entropy(on(t) * 2, t) + 1; });
  labelled("cross_entropy with a gradient", [=](const Tensor& t) {
    const Tensor w = (on(t) * 1).detach().requires_grad(true);
    cross_entropy(w, t).backward();
    return w.grad();
  });
  labelled("cross_entropy that ignores labels",
           [=](const Tensor& t) { return cross_entropy(on(t), t, {.ignore_index = 2}); });
  labelled("long rows", [=](const Tensor& t) {
    return cross_entropy(zeros({2, 9000}, {.device = t.device()}), where(t >= 3, t + 9000, t));
  });
  labelled("gather", [=](const Tensor& t) { return gather(on(t) * 2, 1, unsqueeze(t, 1)); });
  labelled("embedding", [=](const Tensor& t) { return embedding(t, ones({3, 2}, {.device = t.device()})) * 2; });
  labelled("embedding of wide rows", [=](const Tensor& t) {
    return embedding(reshape(t, {1, 2}), ones({3, 64}, {.device = t.device()}));
  });
  labelled("scatter_add", [=](const Tensor& t) {
    return scatter_add(on(t).slice(1, 0, 1), 1, unsqueeze(t, 1), {2, 3});
  });
  labelled("scatter", [=](const Tensor& t) { return scatter(on(t) * 2, 1, unsqueeze(t, 1), 5); });
  labelled("scatter_add to x", [=](const Tensor& t) {
    return scatter_add(on(t), 1, unsqueeze(t, 1), ones({2, 1}, {.device = t.device()}));
  });
  labelled("index_select", [=](const Tensor& t) { return index_select(on(t) * 2, 1, t); });
  labelled("index_add", [=](const Tensor& t) { return index_add(on(t), 1, t, ones({2, 2}, {.device = t.device()})); });
  labelled("one_hot", [=](const Tensor& t) { return one_hot(t, 3); });
  const Tensor p = tensor({0.5f, 1.0f, 0.25f});
  const auto bounded = [&](const char* name, Program f) {
    all.push_back({name, f, p, tensor({0.5f, -1.0f, 0.25f})});
    all.push_back({name, f, p, tensor({0.5f, 0.25f, NAN})});
  };
  bounded("bernoulli", [](const Tensor& t) { return bernoulli(t); });
  bounded("normal", [](const Tensor& t) { return normal(zeros({3}, {.device = t.device()}), t) * 0; });
  bounded("binary_cross_entropy",
          [](const Tensor& t) { return binary_cross_entropy(t, ones({3}, {.device = t.device()})); });
  bounded("binary_cross_entropy of a fused operand",
          [](const Tensor& t) { return binary_cross_entropy(t * 1, ones({3}, {.device = t.device()})) * 2; });
  bounded("multinomial", [](const Tensor& t) { return multinomial(t, 2, {.replacement = true}); });
  return all;
}

}  // namespace

TEST_CASE("cuda: what is out of range is the CPU's error, in every mode and with the line, and is told once") {
  for (const Case& each : cases()) {
    CAPTURE(each.name);
    const std::string expected = error_of([&] { each.run(each.bad); });
    REQUIRE(!expected.empty());
    const Tensor good = each.good.to(cuda(0)), bad = each.bad.to(cuda(0));
    for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
      auto f = compile(each.run, {.mode = mode});
      for (int turn = 0; turn < 4; ++turn) {  // from the third on a compiled function is one recorded launch
        CAPTURE(turn);
        manual_seed(3);
        f(good).cpu();
        CHECK(error_of([&] { f(bad).cpu(); }) == expected);
        CHECK(error_of([&] { synchronize(cuda(0)); }) == "");
      }
    }
  }
}

TEST_CASE("cuda: of many values out of range the first is told of, in any order of lanes") {
  const Tensor x = zeros({700, 5}, {.device = cuda(0)});
  std::vector<int64_t> labels(700, 2);
  for (size_t i = 301; i < 700; ++i) labels[i] = static_cast<int64_t>(i);
  const Tensor index = tensor(labels).to(cuda(0));
  const auto compiled = compile([&](const Tensor& t) { return cross_entropy(x * 2, t); });
  in_every_order([&](bool) {
    CHECK(error_of([&] { cross_entropy(x, index).cpu(); }).find("label 301 at row 301") != std::string::npos);
    CHECK(error_of([&] { gather(x, 1, unsqueeze(index, 1)).cpu(); }).find("index 301 at [301, 0]") !=
          std::string::npos);
    CHECK(error_of([&] { compiled(index).cpu(); }).find("label 301 at row 301") != std::string::npos);
  });
}

TEST_CASE("cuda: of several ops the first to run is told of, and functions that are gone are known") {
  const Tensor x = zeros({2, 3}, {.device = cuda(0)}), bad = tensor<int64_t>({0, 9}).to(cuda(0));
  embedding(bad, x);
  cross_entropy(x, bad);
  CHECK(error_of([&] { synchronize(cuda(0)); }).find("embedding: id 9 at [1]") != std::string::npos);
  CHECK(error_of([&] { synchronize(cuda(0)); }) == "");
  {
    const auto gone = compile([&](const Tensor& t) { return cross_entropy(x * 2, t); });
    gone(bad);
  }
  CHECK(error_of([&] { synchronize(cuda(0)); }).find("cross_entropy: label 9 at row 1") != std::string::npos);
  for (int i = 0; i < 3; ++i) CHECK(error_of([&] { synchronize(cuda(0)); }) == "");
  // Nobody synchronises: what was checked doesn't pile up.
  const Tensor fine = tensor<int64_t>({0, 1}).to(cuda(0));
  cross_entropy(x, bad);
  const std::string told = error_of([&] {
    for (int i = 0; i < (1 << 12) + 10; ++i) cross_entropy(x, fine);
  });
  CHECK(told.find("cross_entropy: label 9 at row 1") != std::string::npos);
  synchronize(cuda(0));
}
