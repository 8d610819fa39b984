// Ops on cuda(0) against the same on the CPU.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "core/tensor.h"
#include "tests/cuda/orders.h"

namespace tandem {

inline constexpr DType floats[] = {float32, float64, float16, bfloat16};

// Numbers in [-1, 1) that are the same at every run.
inline Tensor numbers(const Shape& shape, DType type = float32, uint32_t seed = 1) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  uint32_t state = seed * 2654435761u + 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  }
  return tensor(values).reshape(shape).to(type);
}
inline Tensor integers(const Shape& shape, int64_t bound, uint32_t seed = 1) {
  std::vector<int64_t> values(static_cast<size_t>(shape.numel()));
  uint32_t state = seed * 747796405u + 1;
  for (int64_t& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<int64_t>(state >> 8) % bound;
  }
  return tensor(values).reshape(shape);
}

struct Tolerance {
  double relative = 1e-5, absolute = 1e-6;
};
inline Tolerance tolerance_of(DType type) {
  if (type == float64) return {1e-12, 1e-13};
  if (type == float16) return {2e-3, 1e-3};
  if (type == bfloat16) return {1.6e-2, 1e-2};
  return {};
}

inline void check_same(const Tensor& got, const Tensor& wanted, Tolerance tolerance) {
  REQUIRE(got.shape() == wanted.shape());
  REQUIRE(got.dtype() == wanted.dtype());
  const std::vector<double> a = got.to_vector<double>(), b = wanted.to_vector<double>();
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same = a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])) ||
                      std::fabs(a[i] - b[i]) <= tolerance.absolute + tolerance.relative * std::fabs(b[i]);
    if (!same && wrong++ == 0) first = i;
  }
  if (wrong > 0)
    FAIL_CHECK(wrong << " of " << a.size() << " differ, the first at " << first << ": " << a[first] << " for "
                     << b[first]);
}

// Views are made on the device too, so that kernels see the strides.
using Function = std::function<Tensors(const Tensors&)>;
inline void compare(const Tensors& inputs, const Function& f, Tolerance tolerance = {-1, -1}) {
  NoGrad guard;
  const Tensors wanted = f(inputs);
  Tensors moved;
  for (const Tensor& input : inputs) moved.push_back(input.to(cuda(0)));
  Tensors first;
  in_every_order([&](bool is_first) {
    Tensors got = f(moved);
    REQUIRE(got.size() == wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CHECK(got[i].device() == cuda(0));
      got[i] = got[i].cpu();
      if (is_first) check_same(got[i], wanted[i], tolerance.relative < 0 ? tolerance_of(wanted[i].dtype()) : tolerance);
      else check_same(got[i], first[i], {0, 0});  // the order of lanes must not show in a single bit
    }
    if (is_first) first = got;
  });
}
inline void compare1(const Tensors& inputs, const std::function<Tensor(const Tensors&)>& f,
                     Tolerance tolerance = {-1, -1}) {
  compare(
      inputs, [&](const Tensors& x) { return Tensors{f(x)}; }, tolerance);
}

}  // namespace tandem
