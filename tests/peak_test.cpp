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
