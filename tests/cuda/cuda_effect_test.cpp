// print and assert_that of tensors on cuda(0): in their order, in the three modes.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "core/ops/effect.h"
#include "graph/trace/control_flow.h"
#include "tandem.h"
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

}  // namespace

TEST_CASE("cuda: print: values and label, in the order of the text, where a graph would be one launch too") {
  const auto f = [](const Tensor& x) {
    Tensor state = x * 1;
    const Tensor y = x * 2, z = exp(x * 0);
    print(z, "last made");
    print(y, "first made");
    state.assign(state + 1);
    print(state.transpose(0, 1).slice(0, 1, 2));
    print(x.slice(0, 0, 0), "none");
    print(sum(x) > 3);
    print(full({}, 2), "of the host");
    return x + 1;
  };
  const Tensor x = tensor({{1.f, 2.f}, {3.f, 4.f}});
  const std::vector<std::string> wanted = printed([&] { f(x); });
  CHECK(wanted.size() == 6);
  CHECK(wanted[1] == "first made: [[2, 4],\n [6, 8]] float32[2, 2] cpu");
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto step = compile(f, {.mode = mode});
    for (int call = 0; call < 4; ++call) CHECK(printed([&] { step(x.to(cuda(0))); }) == wanted);
    if (mode == Mode::compiled) CHECK(!contains(step.plan(), "recorded as one launch"));
  }
}

TEST_CASE("cuda: print in loops and branches") {
  const auto f = [](const Tensor& x) {
    const Tensor last = scan(
                            [&](const Tensor& h, const Tensor& e) {
                              print(e, "turn");
                              cond(
                                  e > 1, [&] { print(h.sum(), "above"); }, [] {});
                              const Tensor next = h * 2;
                              return std::pair{next, next};
                            },
                            ones({1}, {.device = x.device()}), x)
                            .first;
    return last * 1;
  };
  const Tensor x = tensor({0.f, 2.f, 1.f, 3.f});
  const std::vector<std::string> wanted = printed([&] { f(x); });
  CHECK(wanted.size() == 6);
  for (const Mode mode : kModes) {
    auto step = compile(f, {.mode = mode});
    for (int call = 0; call < 3; ++call) CHECK(printed([&] { step(x.to(cuda(0))); }) == wanted);
  }
}

TEST_CASE("cuda: assert_that: a ValueError with the line, at the next wait for the device, within one launch") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto step = compile(
        [](const Tensor& x) {
          assert_that(x > 0, "x must be positive");
          assert_that(x < 9, "x must be less than 9");
          return x * 2;
        },
        {.mode = mode});
    const Tensor good = ones({300}).to(cuda(0)), bad = (arange(300, 0, -1) - 4).to(cuda(0));
    for (int call = 0; call < 4; ++call) {
      CAPTURE(call);
      CHECK(step(good).to_vector<float>()[5] == 2);
      const std::string text = thrown<ValueError>([&] { step(bad).cpu(); });
      CHECK_MESSAGE(contains(text, "assert_that: x must be positive"), text);
      CHECK_MESSAGE(contains(text, "cuda_effect_test.cpp"), text);
      synchronize(cuda(0));  // it is told once
      CHECK(contains(thrown<ValueError>([&] { step(good * 10).cpu(); }), "x must be less than 9"));
    }
    if (mode == Mode::compiled) CHECK_MESSAGE(contains(step.plan(), "recorded as one launch"), step.plan());
  }
}

TEST_CASE("cuda: print waits for the device: what was asserted before is told first") {
  const Tensor x = -ones({3}, {.device = cuda(0)});
  const std::vector<std::string> lines = printed([&] {
    CHECK(contains(thrown<ValueError>([&] {
                     assert_that(x > 0, "x must be positive");
                     print(x, "never");
                   }),
                   "x must be positive"));
    print(x, "then");
  });
  CHECK(lines == std::vector<std::string>{"then: [-1, -1, -1] float32[3] cpu"});
}
