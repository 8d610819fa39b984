// What the tests of control flow share.
#pragma once

#include "core/ops/ops.h"
#include "graph/trace/control_flow.h"

/// How many turns it takes to come to 1.
inline tandem::Tensor collatz(const tandem::Tensor& start) {
  using namespace tandem;
  return std::get<1>(while_loop([](const Tensor& n, const Tensor&) { return n != 1; },
                                [](const Tensor& n, const Tensor& turns) {
                                  const Tensor next = cond(
                                      n % 2 == 0, [&] { return floor_divide(n, 2); }, [&] { return n * 3 + 1; });
                                  return std::tuple{next, turns + 1};
                                },
                                start, zeros({}, {.dtype = int64})));
}
