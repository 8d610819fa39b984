// Peak memory: what a compiled function needs, arena, results and gradients together, is never more than what the same
// function needs eagerly, as the allocator counts it, and values stay.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <sstream>

#include "support.h"
#include "tandem.h"

using namespace tandem;

namespace {

/// A call, and what it leaves that others see.
using Step = std::function<Tensors()>;
/// Makes its state, the same each time, and a function of these options on it.
using Program = std::function<Step(CompileOptions)>;

struct Measured {
  int64_t peak = 0;  ///< beyond what is there before the function is made
  int64_t kept = 0;  ///< of that, what is there after a call too
  Tensors values;    ///< after four calls
};

Measured measured(const Program& program, const CompileOptions& options) {
  manual_seed(7);
  const Step step = program(options);
  const int64_t before = memory_stats().in_use;
  for (int i = 0; i < 3; ++i) step();  // the second is traced again to compare
  reset_peak_memory();
  Tensors values = step();
  const int64_t peak = memory_stats().peak - before, kept = memory_stats().in_use - before;
  for (Tensor& value : values) value = value.detach().clone();
  return {peak, kept, values};
}

void check(const Program& program, double tolerance = 2e-5, const CompileOptions& options = {}) {
  const Measured eager = measured(program, {.mode = Mode::eager}), compiled = measured(program, options);
  constexpr int64_t kNumbers = 8192;  // those of the text, and of each channel: a program keeps them for its whole life
  CHECK(compiled.peak <= eager.peak + kNumbers);
  check_alike(compiled.values, eager.values, tolerance);
}

/// What a step adds to its state, ÷ what it adds eagerly.
double added(const Program& program, const CompileOptions& options = {}) {
  const Measured eager = measured(program, {.mode = Mode::eager}), compiled = measured(program, options);
  check_alike(compiled.values, eager.values, 1e-3);
  return static_cast<double>(compiled.peak - eager.kept) / static_cast<double>(eager.peak - eager.kept);
}

Tensors states(int count, const Shape& shape, bool requires_grad = false) {
  Tensors all;
  for (int i = 0; i < count; ++i) all.push_back((randn(shape) * 0.1).requires_grad(requires_grad));
  return all;
}

/// A program of one function on a model and its inputs.
template <class Model, class F> Program of(F function) {
  return [=](CompileOptions options) -> Step {
    auto model = std::make_shared<Model>();
    auto step = compile([=](const Tensor& x, const Tensor& y) { return function(*model, x, y); }, options);
    return [=] {
      Tensors values{step(model->x, model->y)};
      for (const Tensor& parameter : nn::parameters(model->net)) values.push_back(parameter);
      return values;
    };
  };
}

/// One step of training, whose gradients stay where grad() finds them.
const auto train = [](auto& model, const Tensor& x, const Tensor& y) {
  model.optimizer.zero_grad();
  Tensor loss = cross_entropy(model.net(x), y);
  loss.backward();
  model.optimizer.step();
  return loss.detach();
};
/// One that leaves no gradient.
const auto train_and_forget = [](auto& model, const Tensor& x, const Tensor& y) {
  Tensor loss = cross_entropy(model.net(x), y);
  loss.backward();
  model.optimizer.step();
  model.optimizer.zero_grad();
  return loss.detach();
};

/// `times`: how many of the net's batches are one.
template <class Net, int64_t times = 1> struct Training {
  Net net;
  nn::optim::AdamW optimizer{nn::parameters(net), {.lr = 1e-3}};
  Tensor x = Net::input(times), y = randint(0, 10, {times * Net::rows});
};

struct Mlp {
  static constexpr int64_t rows = 64;
  static Tensor input(int64_t times) { return randn({times * rows, 256}); }
  nn::Linear first{256, 192}, second{192, 192}, output{192, 10};
  Tensor operator()(const Tensor& x) const { return output(relu(second(relu(first(x))))); }
};

struct ConvNet {
  static constexpr int64_t rows = 16;
  static Tensor input(int64_t times) { return randn({times * rows, 3, 24, 24}); }
  nn::Conv2d first{3, 8, 3, {.padding = 1}}, second{8, 16, 3, {.padding = 1}};
  nn::Linear output{16 * 6 * 6, 10};
  Tensor operator()(const Tensor& x) const {
    return output(max_pool2d(relu(second(max_pool2d(relu(first(x)), 2))), 2).flatten(1));
  }
};

struct NormNet {
  static constexpr int64_t rows = 16;
  static Tensor input(int64_t times) { return randn({times * rows, 3, 16, 16}); }
  nn::Conv2d stem{3, 16, 3, {.padding = 1, .bias = false}}, second{16, 16, 3, {.padding = 1, .bias = false}};
  nn::BatchNorm2d stem_norm{16}, second_norm{16};
  nn::Linear output{16, 10};
  Tensor operator()(Tensor x) const {
    x = relu(stem_norm(stem(x)));
    return output(mean(relu(second_norm(second(x)) + x), {2, 3}));
  }
};

struct Attention {
  static constexpr int64_t rows = 4 * 32;
  static Tensor input(int64_t times) { return randn({times * 4, 32, 64}); }
  std::vector<nn::TransformerBlock> blocks;
  nn::LayerNorm norm{64};
  nn::Linear output{64, 10};
  Attention() {
    for (int i = 0; i < 2; ++i) blocks.emplace_back(64, 4, nn::TransformerBlockOptions{.causal = true});
  }
  Tensor operator()(Tensor x) const {
    for (const nn::TransformerBlock& block : blocks) x = block(x);
    return output(norm(x)).reshape({-1, 10});
  }
  template <class V> void visit(V&& v) {
    v("blocks", blocks);
    v("norm", norm);
    v("output", output);
  }
};

struct Recurrent {
  static constexpr int64_t rows = 16 * 8;
  static Tensor input(int64_t times) { return randn({times * 16, 8, 32}); }
  nn::Lstm lstm{32, 48, {.layers = 2}};
  nn::Linear output{48, 10};
  Tensor operator()(const Tensor& x) const { return output(lstm(x).output.flatten(0, 1)); }
};

}  // namespace

TEST_CASE("peak: a recurrent net unrolled over 64 steps") {
  check([](CompileOptions options) -> Step {
    const Tensors weights = states(2, {256, 256}, true);
    const Tensor x = randn({64, 4, 256});
    auto step = compile(
        [=](const Tensor& in) {
          Tensor h = zeros({4, 256});
          for (int t = 0; t < 64; ++t) h = tanh(matmul(in[t], weights[0]) + matmul(h, weights[1]));
          Tensor loss = square(h).mean();
          const auto gradients = grad<2>(loss, {weights[0], weights[1]});
          const NoGrad no_grad;
          for (size_t i = 0; i < 2; ++i) Tensor(weights[i]).assign(weights[i] - gradients[i] * 0.1f);
          return loss.detach();
        },
        options);
    return [=] { return Tensors{step(x), weights[0], weights[1]}; };
  });
}

TEST_CASE("peak: gradients accumulated over 16 small batches") {
  for (const bool forget : {true, false})
    check([forget](CompileOptions options) -> Step {
      const Tensor weight = states(1, {512, 512}, true)[0], x = randn({16, 4, 512});
      auto step = compile(
          [=](const Tensor& in) {
            Tensor w = weight, total = zeros({});
            w.set_grad({});
            for (int i = 0; i < 16; ++i) {
              Tensor loss = square(matmul(in[i], w)).mean();
              loss.backward();
              total = total + loss.detach();
            }
            const NoGrad no_grad;
            w.assign(w - w.grad() * 0.1f);
            if (forget) w.set_grad({});
            return total;
          },
          options);
      return [=] { return Tensors{step(x), weight}; };
    });
}

TEST_CASE("peak: 32 states updated by products") {
  check([](CompileOptions options) -> Step {
    const Tensors all = states(32, {256, 256});
    const Tensor x = randn({32, 4, 256});
    auto step = compile(
        [=](const Tensor& in) {
          for (size_t i = 0; i < all.size(); ++i) {
            const Tensor row = in[static_cast<int64_t>(i)];
            Tensor(all[i]).assign(all[i] * 0.9f + matmul(row.transpose(0, 1), row) * 0.1f);
          }
        },
        options);
    return [=] {
      step(x);
      return all;
    };
  });
}

TEST_CASE("peak: 32 states assigned") {
  const auto program = [](auto function) -> Program {
    return [=](CompileOptions options) -> Step {
      const Tensors all = states(32, {256, 256});
      const Tensor x = randn({256, 256});
      auto step = compile([=](const Tensor& in) { return function(all, in); }, options);
      return [=] {
        Tensors values{step(x)};
        values.insert(values.end(), all.begin(), all.end());
        return values;
      };
    };
  };
  SUBCASE("from the argument") {
    check(program([](const Tensors& all, const Tensor& x) {
      for (size_t i = 0; i < all.size(); ++i) Tensor(all[i]).assign(x * static_cast<float>(i));
      return x.mean();
    }));
  }
  SUBCASE("from products") {
    check(program([](const Tensors& all, const Tensor& x) {
      for (size_t i = 0; i < all.size(); ++i) Tensor(all[i]).assign(matmul(x, x * static_cast<float>(i)) * 1e-3f);
      return x.mean();
    }));
  }
  SUBCASE("each read before") {
    check(program([](const Tensors& all, const Tensor& x) {
      Tensor total = zeros({});
      for (const Tensor& each : all) {
        total = total + matmul(each, x).mean();
        Tensor(each).assign(matmul(each, x) * 0.01f);
      }
      return total;
    }));
  }
  SUBCASE("as their neighbours were") {
    check(program([](const Tensors& all, const Tensor& x) {
      for (size_t i = 0; i + 1 < all.size(); ++i) Tensor(all[i]).assign(all[i + 1] + x);
      Tensor(all.back()).assign(x);
      return x.mean();
    }));
  }
  SUBCASE("moved on by one") {
    check(program([](const Tensors& all, const Tensor& x) {
      for (size_t i = 0; i + 1 < all.size(); ++i) Tensor(all[i]).assign(all[i + 1]);
      Tensor(all.back()).assign(x);
      return x.mean();
    }));
  }
}

TEST_CASE("peak: training steps") {
  SUBCASE("an MLP") {
    check(of<Training<Mlp>>(train), 1e-3);
    check(of<Training<Mlp>>(train_and_forget), 1e-3);
  }
  SUBCASE("a convolutional net") {
    check(of<Training<ConvNet>>(train), 1e-3);
    check(of<Training<ConvNet>>(train_and_forget), 1e-3);
  }
  SUBCASE("a convolutional net with batch norm") {
    check(of<Training<NormNet>>(train), 1e-3);
    check(of<Training<NormNet>>(train_and_forget), 1e-3);
  }
  SUBCASE("attention") {
    check(of<Training<Attention>>(train), 1e-3, {.memory_budget = 0.1});  // by default the first takes a twentieth more
    check(of<Training<Attention>>(train_and_forget), 1e-3, {.memory_budget = 0.1});
  }
  SUBCASE("an LSTM") {
    check(of<Training<Recurrent>>(train), 1e-3);
    check(of<Training<Recurrent>>(train_and_forget), 1e-3);
  }
}

TEST_CASE("peak: training on large batches adds less than it adds eagerly") {
  CHECK(added(of<Training<ConvNet, 8>>(train)) < 0.7);
  CHECK(added(of<Training<Attention, 8>>(train)) < 0.85);
  CHECK(added(of<Training<Recurrent, 8>>(train)) < 0.85);
  CHECK(added(of<Training<Attention, 8>>(train), {.memory_budget = 0.5}) < 0.6);
}

TEST_CASE("peak: chains of rows that would raise it by more than a twentieth are given up, others stay") {
  Training<Attention, 16> model;
  const auto made = [&](std::vector<std::string> without) {
    auto step = compile([&](const Tensor& x, const Tensor& y) { return train(model, x, y); },
                        {.without = without, .memory_budget = 0.5});
    step(model.x, model.y);
    return std::pair(step.explain(), step.stats().peak_bytes);
  };
  const auto [with, peak] = made({});
  const auto [none, before] = made({"row_pipelines"});
  CHECK(contains(with, "blocks of rows"));
  CHECK(contains(with, "more memory would be in use at one time"));
  CHECK(static_cast<double>(peak) <= 1.05 * static_cast<double>(before));
}

TEST_CASE("peak: gradients are masked before they are spread out, and no bit changes") {
  const auto bits = [](const Tensor& x) {
    const std::vector<float> all = x.to(float32).to_vector<float>();
    std::vector<uint32_t> result;
    for (const float each : all) result.push_back(std::bit_cast<uint32_t>(each));
    return result;
  };
  Tensor data = randn({4, 3, 12, 12});
  data[0].assign(full({3, 12, 12}, -1));
  data[1].assign(zeros({3, 12, 12}));
  data[2][0][3][4].assign(full({}, std::numeric_limits<float>::quiet_NaN()));
  const Tensor inputs[] = {data, data.to(bfloat16), data.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2})};
  for (const Tensor& input : inputs)
    for (const std::pair<int, int>& window : {std::pair(2, 2), std::pair(3, 2), std::pair(3, 1)})
      for (const bool repeated : {true, false}) {
        const int kernel = window.first, stride = window.second;
        CAPTURE(name_of(input.dtype()));
        CAPTURE(kernel);
        CAPTURE(stride);
        CAPTURE(repeated);  // one element is the gradient of all
        const auto f = [=](const Tensor& in) {
          const Tensor x = in.detach().requires_grad(true), pooled = max_pool2d(relu(x), kernel, {.stride = stride});
          return grad<1>((repeated ? pooled : pooled * randn({3, 1, 1})).sum(), {x})[0];
        };
        std::vector<std::vector<uint32_t>> results;
        for (const Mode mode : kModes) {
          auto g = compile(f, {.mode = mode});
          manual_seed(11);
          results.push_back(bits(g(input)));
          if (mode != Mode::compiled) continue;
          int masks = 0;
          for (const Stage& stage : g.stages()) {
            if (stage.name != "simplify") continue;
            for (const Node& node : stage.graph.nodes) {
              if (!node.op->masks) continue;
              ++masks;
              CHECK(stage.graph.type(node.inputs[0]).shape != data.shape());
            }
          }
          CHECK(masks == 1);
        }
        CHECK(results[1] == results[0]);
        CHECK(results[2] == results[0]);
      }
}

TEST_CASE("peak: what is cheap to compute again isn't kept, and no bit changes") {
  manual_seed(3);
  const Tensors weights = states(6, {128, 128}, true);
  const Tensor x = randn({512, 128});
  const auto loss = [&](const Tensor& in) {
    Tensor h = in;
    for (const Tensor& weight : weights) h = dropout(relu(matmul(h, weight) * 2 + 1) * 0.5f, 0.1);
    for (const Tensor& weight : weights) Tensor(weight).set_grad({});
    Tensor total = square(h).mean();
    total.backward();
    return total.detach();
  };
  std::string explained;
  const auto run = [&](const CompileOptions& options, int64_t* bytes) {
    auto f = compile(loss, options);
    Tensors values;
    for (int call = 0; call < 3; ++call) {
      manual_seed(5);
      values.push_back(f(x));
    }
    for (const Tensor& weight : weights) values.push_back(weight.grad().clone());
    *bytes = f.stats().peak_bytes;
    explained = f.explain();
    return values;
  };
  /// What is said to be computed again, for how much of the step in all.
  const auto again = [&] {
    const size_t begin = explained.find("computed again:\n"), end = explained.find("% of the step");
    std::pair<std::string, double> result;
    if (begin == std::string::npos || end == std::string::npos) return result;
    std::istringstream lines(explained.substr(begin));
    for (std::string line; std::getline(lines, line);)
      if (const size_t at = line.find("% of the step"); at != std::string::npos) {
        result.first += line + "\n";
        result.second += std::stod(line.substr(line.rfind(' ', at) + 1));
      }
    return result;
  };
  int64_t all = 0, some = 0, kept = 0, in_order = 0, ignored = 0;
  const Tensors expected = run({.mode = Mode::replay}, &ignored);
  check_alike(run({.memory_budget = 0.1}, &all), expected);
  CHECK(contains(again().first, "matmul at"));
  check_alike(run({}, &some), expected);
  CHECK(!again().first.empty());
  CHECK(!contains(again().first, "matmul at"));
  CHECK(again().second <= 2);
  check_alike(run({.memory_budget = 1}, &kept), expected);
  CHECK(again().first.empty());
  check_alike(run({.without = {"schedule"}}, &in_order), expected);
  CHECK(all < 0.8 * static_cast<double>(kept));
  CHECK(all < some);
  CHECK(some < kept);
  CHECK(some <= in_order);
}

TEST_CASE("peak: another size is computed again, joined and ordered as the first was") {
  const Tensors weights = states(4, {96, 96});
  const auto f = [&](const Tensor& in) {
    Tensor h = in;
    Tensors made;
    for (const Tensor& weight : weights) made.push_back(h = gelu(matmul(h, weight)));
    Tensor total = zeros({});
    for (; !made.empty(); made.pop_back()) total = total + matmul(made.back() * 2, weights[0]).mean();
    return total;
  };
  auto compiled = compile(f);
  for (const int64_t rows : {16, 4096, 512, 33, 8192}) {
    const Tensor x = randn({rows, 96});
    CHECK(allclose(compiled(x), f(x), {.rtol = 1e-5, .atol = 1e-5}));
  }
  CHECK(compiled.stats().resizes == 2);
  CHECK(compiled.stats().traces == 3);
}

TEST_CASE("peak: explain() names what a join would have kept") {
  const Tensor x = randn({256, 256});
  auto sum = compile(
      [](const Tensor& in) {
        Tensor total = matmul(in, in);
        for (int i = 1; i < 5; ++i) total = total + matmul(in * static_cast<float>(i), in);
        return total;
      },
      {.without = {"row_pipelines"}});
  sum(x);
  CHECK(contains(sum.explain(), "bytes alive until its other operand is there"));
}
