// print and assert_that: what they do, how often and in which order, in the three modes.
#include "core/ops/effect.h"

#include "autograd/autograd.h"
#include "core/custom_op.h"
#include "core/ops/ops.h"
#include "graph/trace/control_flow.h"
#include "tests/support.h"

using namespace tandem;

namespace {

/// What `run` prints.
template <class F> std::vector<std::string> printed(F&& run) {
  std::vector<std::string> lines;
  const PrintHandler before = set_print_handler([&](const std::string& text) { lines.push_back(text); });
  run();
  set_print_handler(before);
  return lines;
}

/// In each mode, two calls of f(x) print what one prints eagerly, twice.
template <class F> void prints(F&& f, const Tensor& x, const std::vector<std::string>& expected) {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto step = compile([&](const Tensor& in) { return f(in); }, {.mode = mode});
    for (int call = 0; call < 3; ++call) CHECK(printed([&] { step(x); }) == expected);
  }
}

}  // namespace

TEST_CASE("views in a trace: a value without memory has no place in it") {
  auto f = compile([](const Tensor& x) {
    const Tensor view = x.slice(0, 1, 3);
    CHECK(x.impl()->data == nullptr);
    CHECK(view.impl()->data == nullptr);
    return view * 2;
  });
  CHECK(f(arange(4)).to_vector<int64_t>() == std::vector<int64_t>{2, 4});
}

TEST_CASE("print: values and label, in the order of the text") {
  prints(
      [](const Tensor& x) {
        const Tensor y = x * 2, z = exp(x * 0);
        print(z, "last made");
        print(y, "first made");
        print(y, "first made");
        print(x.transpose(0, 1).slice(0, 1, 2));
        return x + 1;
      },
      tensor({{1.f, 2.f}, {3.f, 4.f}}),
      {"last made: [[1, 1],\n [1, 1]] float32[2, 2] cpu", "first made: [[2, 4],\n [6, 8]] float32[2, 2] cpu",
       "first made: [[2, 4],\n [6, 8]] float32[2, 2] cpu", "[[2, 4]] float32[1, 2] cpu"});
  CHECK(printed([] { print(tensor(true), "flag"); }) == std::vector<std::string>{"flag: 1 bool[] cpu"});
}

TEST_CASE("print: what a tensor was there, though it is written to later") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    Tensor state = zeros({});
    auto step = compile(
        [&](const Tensor& x) {
          print(state);
          state.assign(state + x);
          print(state);
          return x * 1;
        },
        {.mode = mode});
    CHECK(printed([&] { step(tensor({2.f}).sum()); }) ==
          std::vector<std::string>{"0 float32[] cpu", "2 float32[] cpu"});
  }
}

TEST_CASE("effects in branches and loops: each turn, once, also where a gradient runs the turn again") {
  const Tensor w = tensor({2.f}).requires_grad(true);
  for (const int64_t checkpoint : {0, 2}) {
    prints(
        [&](const Tensor& x) {
          const auto turn = [&](const Tensor& h, const Tensor& e) {
            print(e, "turn");
            cond(
                e > 1, [&] { print(h.sum(), "above"); }, [] {});
            const Tensor next = h * w;
            return std::pair{next, next};
          };
          const Tensor last = scan(turn, ones({1}), x, {.checkpoint = checkpoint}).first;
          map([](const Tensor& e) { return print(e, "each"), Tensors(); }, x.slice(0, 0, 2));
          const Tensor n = while_loop([](const Tensor& n) { return print(n, "n"), n < 1; },
                                      [](const Tensor& n) { return n + 1; }, zeros({}));
          print(n, "end");
          last.sum().backward();
          return last.detach();
        },
        tensor({0.f, 2.f, 1.f, 3.f}),
        {"turn: 0 float32[] cpu", "turn: 2 float32[] cpu", "above: 2 float32[] cpu", "turn: 1 float32[] cpu",
         "turn: 3 float32[] cpu", "above: 8 float32[] cpu", "each: 0 float32[] cpu", "each: 2 float32[] cpu",
         "n: 0 float32[] cpu", "n: 1 float32[] cpu", "end: 1 float32[] cpu"});
  }
}

TEST_CASE("assert_that: a ValueError with the line, at the call that finds it false") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto step = compile(
        [](const Tensor& x) {
          assert_that(x > 0, "x must be positive");
          return x.sum();
        },
        {.mode = mode});
    auto loop = compile(
        [](const Tensor& x) {
          return map(
              [](const Tensor& e) {
                cond(
                    e < 5, [&] { assert_that(e > 0, "elements must be positive"); }, [] {});
                return e * 2;
              },
              x);
        },
        {.mode = mode});
    for (int call = 0; call < 2; ++call) {
      CHECK(step(ones({3})).item<float>() == 3);
      const std::string text = thrown<ValueError>([&] { step(-ones({3})); });
      CHECK_MESSAGE(contains(text, "assert_that: x must be positive"), text);
      CHECK_MESSAGE(contains(text, "effects_test.cpp"), text);
      CHECK(loop(tensor({1.f, 7.f})).to_vector<float>() == std::vector<float>{2, 14});
      CHECK(contains(thrown<ValueError>([&] { loop(tensor({1.f, -7.f})); }), "elements must be positive"));
    }
  }
}

TEST_CASE("print: at first to stdout, and not where there is no handler") {
  const PrintHandler first = set_print_handler({});
  print(ones({2}), "dropped");
  CHECK(static_cast<bool>(first));
  CHECK(!set_print_handler(first));
}
