// What tests share: the text of an error, whether a text holds another, whether two tensors are one to the bit, the modes.
#pragma once

#include <doctest/doctest.h>

#include <string>

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
