// Peak memory: what a compiled function needs, arena, results and gradients together, is never more than what the same
// function needs eagerly, as the allocator counts it, and values stay.
#include <doctest/doctest.h>

#include <functional>

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
  Tensors values;    ///< after four calls
};

Measured measured(const Program& program, const CompileOptions& options) {
  manual_seed(7);
  const Step step = program(options);
  const int64_t before = memory_stats().in_use;
  for (int i = 0; i < 3; ++i) step();  // the second is traced again to compare
  reset_peak_memory();
  Tensors values = step();
  const int64_t peak = memory_stats().peak - before;
  for (Tensor& value : values) value = value.detach().clone();
  return {peak, values};
}

void check(const Program& program, double tolerance = 2e-5, const CompileOptions& options = {}) {
  const Measured eager = measured(program, {.mode = Mode::eager}), compiled = measured(program, options);
  CHECK(compiled.peak <= eager.peak);
  check_alike(compiled.values, eager.values, tolerance);
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

template <class Net> struct Training {
  Net net;
  nn::optim::AdamW optimizer{nn::parameters(net), {.lr = 1e-3}};
  Tensor x = Net::input(), y = randint(0, 10, {Net::rows});
};

struct ConvNet {
  static constexpr int64_t rows = 16;
  static Tensor input() { return randn({rows, 3, 24, 24}); }
  nn::Conv2d first{3, 8, 3, {.padding = 1}}, second{8, 16, 3, {.padding = 1}};
  nn::Linear output{16 * 6 * 6, 10};
  Tensor operator()(const Tensor& x) const {
    return output(max_pool2d(relu(second(max_pool2d(relu(first(x)), 2))), 2).flatten(1));
  }
};

struct Recurrent {
  static constexpr int64_t rows = 16 * 8;
  static Tensor input() { return randn({16, 8, 32}); }
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
  SUBCASE("moved on by one") {
    check(program([](const Tensors& all, const Tensor& x) {
      for (size_t i = 0; i + 1 < all.size(); ++i) Tensor(all[i]).assign(all[i + 1]);
      Tensor(all.back()).assign(x);
      return x.mean();
    }));
  }
}

TEST_CASE("peak: training steps") {
  SUBCASE("a convolutional net") {
    check(of<Training<ConvNet>>(train), 1e-3);
    check(of<Training<ConvNet>>(train_and_forget), 1e-3);
  }
  SUBCASE("an LSTM") {
    check(of<Training<Recurrent>>(train), 1e-3);
    check(of<Training<Recurrent>>(train_and_forget), 1e-3);
  }
}
