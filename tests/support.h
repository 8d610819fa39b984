// What tests share: the text of an error, whether a text holds another, whether two tensors are one to the bit, the modes.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "core/ops/ops.h"
#include "core/tensor.h"
#include "graph/trace/compile.h"

inline constexpr tandem::Mode kModes[] = {tandem::Mode::eager, tandem::Mode::replay, tandem::Mode::compiled};
inline constexpr tandem::Mode kGraphModes[] = {tandem::Mode::replay, tandem::Mode::compiled};

/// What f throws, as a user sees it.
template <class E, class F> std::string thrown(F&& f) {
  try {
    f();
  } catch (const E& error) { return error.what(); }
  FAIL("nothing was thrown");
  return {};
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline bool same(const tandem::Tensor& a, const tandem::Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         a.detach().to_vector<double>() == b.detach().to_vector<double>();
}

/// Lists of tensors, some of them undefined: the same to the bit, or to `tolerance`.
inline void check_alike(const tandem::Tensors& got, const tandem::Tensors& expected, double tolerance = 0) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    REQUIRE(got[i].defined() == expected[i].defined());
    if (!got[i].defined()) continue;
    if (tolerance == 0) CHECK(same(got[i], expected[i]));
    else CHECK(allclose(got[i], expected[i], {.rtol = tolerance, .atol = tolerance}));
  }
}
