// Generated C in stages: a fused chain of costly functions is cut into strips, and computes what the ops do one by one.
#include <doctest/doctest.h>

#include <cstring>

#include "tandem.h"

namespace {

using namespace tandem;

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = contiguous(a), y = contiguous(b);
  return x.shape() == y.shape() && x.dtype() == y.dtype() &&
         std::memcmp(x.data<float>().data(), y.data<float>().data(), x.data<float>().size_bytes()) == 0;
}

// Every kind of value that crosses a stage: a chain, a result needed much later, a condition, a constant.
Tensor chain(const Tensor& x, const Tensor& y) {
  const Tensor a = tanh(x) * y + 0.5f;
  const Tensor b = sigmoid(a) - x;
  const Tensor c = exp(-square(b));
  return where(c > 0.4f, tanh(c + a), log(c + 1.5f)) * b;
}

}  // namespace

TEST_CASE("stages: a chain of functions gives the bits of the ops, at lengths around a strip's") {
  manual_seed(3);
  for (int64_t n : {1, 7, 127, 128, 129, 1000, 70001}) {
    const Tensor x = randn({n}), y = randn({n});
    auto compiled = compile(chain, {.mode = Mode::compiled});
    CHECK(same_bits(compiled(x, y), chain(x, y)));
    CHECK(same_bits(compiled(x, y), chain(x, y)));
  }
}

TEST_CASE("stages: broadcast rows and columns, and an operand of any layout") {
  manual_seed(4);
  for (int64_t width : {3, 128, 300}) {
    const Tensor x = randn({37, width}), row = randn({width}), column = randn({37, 1}),
                 turned = randn({width, 37}).transpose(0, 1);
    auto compiled = compile(chain, {.mode = Mode::compiled});
    CHECK(same_bits(compiled(x, row), chain(x, row)));
    CHECK(same_bits(compiled(x, column), chain(x, column)));
    CHECK(same_bits(compiled(row, column), chain(row, column)));
    CHECK(same_bits(compiled(x, turned), chain(x, turned)));
  }
}

TEST_CASE("stages: a result may lie where an operand did") {
  manual_seed(5);
  Tensor state = randn({1000}), by_hand = state.clone();
  const Tensor y = randn({1000});
  auto compiled = compile(
      [&](const Tensor& other) {
        state.assign(chain(state, other));
        return state.sum();
      },
      {.mode = Mode::compiled});
  for (int step = 0; step < 5; ++step) {
    compiled(y);
    by_hand.assign(chain(by_hand, y));
    CHECK(same_bits(state, by_hand));
  }
}
