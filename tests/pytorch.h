// What PyTorch (2.15, float64) gives for the same operands: results, and the gradients of sum(result * (1, 2, 3, …)), eagerly,
// replayed and compiled. Smooth functions are also differentiated numerically.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "support.h"
#include "tandem.h"

namespace pytorch {

using namespace tandem;

inline Tensor numbers(const std::vector<double>& values, const Shape& shape) { return tensor(values).reshape(shape); }
inline Tensor integers(const std::vector<int64_t>& values, const Shape& shape) { return tensor(values).reshape(shape); }
inline Tensor mask(const std::vector<int64_t>& values, const Shape& shape) {
  return (tensor(values) != 0).reshape(shape);
}

/// As {…}, for long lists: the formatter fills lines with arguments.
template <class... Numbers> std::vector<double> list(Numbers... values) { return {static_cast<double>(values)...}; }

/// Where finite differences don't see the gradient: at ties, bounds and NaN, or of integers.
enum class Kinks { no, yes };

inline void check_numbers(const Tensor& actual, const std::vector<double>& expected) {
  const std::vector<double> values = actual.to_vector<double>();
  REQUIRE(values.size() == expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    CAPTURE(i);
    if (std::isnan(expected[i])) CHECK(std::isnan(values[i]));
    else if (std::isinf(expected[i])) CHECK(values[i] == expected[i]);
    else CHECK(values[i] == doctest::Approx(expected[i]).epsilon(1e-9));
  }
}

inline void check(const char* name, const std::function<Tensor(const Tensors&)>& f, const Tensors& operands,
                  const Shape& shape, const std::vector<double>& expected,
                  const std::vector<std::vector<double>>& gradients, Kinks kinks = Kinks::no) {
  CAPTURE(name);
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    Tensors x;
    for (const Tensor& operand : operands) {
      x.push_back(operand.clone());
      if (!gradients.empty() && is_floating(operand.dtype())) x.back().requires_grad(true);
    }
    auto step = compile(
        [&] {
          const Tensor y = f(x);
          if (y.requires_grad()) {
            for (Tensor& leaf : x) leaf.set_grad({});
            sum(y * arange(1, y.numel() + 1, 1, {.dtype = y.dtype()}).reshape(y.shape())).backward();
          }
          return y.detach().clone();
        },
        {.mode = mode});
    const Tensor y = step();
    CHECK(y.shape() == shape);
    check_numbers(y, expected);
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (gradients[i].empty()) continue;
      CAPTURE("gradient");
      CAPTURE(i);
      const Tensor gradient = x[i].grad();
      check_numbers(gradient.defined() ? gradient : zeros_like(x[i]), gradients[i]);
    }
  }
  if (kinks == Kinks::no) CHECK(gradcheck(f, operands));
}

}  // namespace pytorch

/// A call of operands x[0], x[1], …: its text, and itself.
#define CALL(...) #__VA_ARGS__, [](const Tensors& x) -> Tensor { return __VA_ARGS__; }
