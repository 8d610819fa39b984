// Random draws in branches and bodies: the same numbers in every mode.
#include <set>

#include "autograd/autograd.h"
#include "autograd/checkpoint.h"
#include "core/random.h"
#include "tests/control_flow.h"
#include "tests/support.h"

using namespace tandem;

namespace {

/// What a program that draws gives in a mode, from one seed: three calls, the gradients of each, and a draw after them.
template <class F> Tensors draws_of(Mode mode, F&& f, const Tensor& x, const Tensor& w) {
  manual_seed(17);
  auto step = compile(
      [&](const Tensor& in) {
        const Tensor value = f(in) + rand({}), loss = value.sum();
        loss.backward();
        return value;
      },
      {.mode = mode});
  Tensors all;
  for (int call = 0; call < 3; ++call) {
    all.push_back(step(x * (call + 1)).detach());
    Tensor(w).set_grad({});
  }
  all.push_back(randn({3}));
  step(x);
  all.push_back(w.grad().clone());
  Tensor(w).set_grad({});
  return all;
}
template <class F> void draws_agree(F&& f, const Tensor& x, const Tensor& w) {
  const Tensors expected = draws_of(Mode::eager, f, x, w);
  CHECK(!same(expected[0], expected[1]));
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    const Tensors got = draws_of(mode, f, x, w);
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      if (i + 1 < got.size()) CHECK(same(got[i], expected[i]));
      else CHECK(allclose(got[i], expected[i], {.rtol = 1e-5}));  // the turns' gradients add up in another order
    }
  }
}

}  // namespace

TEST_CASE("control flow: draws inside are the same in every mode") {
  const Tensor w = tensor({1.f, 2.f, 3.f, 4.f}).requires_grad(true), x = arange(20).reshape({5, 4}).to(float32) * 0.25;
  SUBCASE("a branch, taken or not") {
    draws_agree(
        [&](const Tensor& in) {
          const Tensor a = cond(
                           in.sum() > 60, [&] { return dropout(in * w, 0.5) + rand({4}); },
                           [&] {
                             return in + randn({5, 4}) + rand({4}) * w;
                           }),
                       b = cond(
                           in.sum() < 60, [&] { return rand({4}); }, [&] { return w * 1; });
          return a + b * randn({4});
        },
        x, w);
  }
  SUBCASE("scan and map") {
    for (const bool reverse : {false, true})
      for (const int64_t checkpoint : {0, 2, 3})
        draws_agree(
            [&](const Tensor& in) {
              const auto turn = [&](const Tensor& h, const Tensor& e) {
                const Tensor next = dropout(h * 0.5 + e * w, 0.3) + rand({4});
                return std::pair{next, dropout(next, 0.5)};
              };
              const auto scanned = scan(turn, w * 0.5, in, {.reverse = reverse, .checkpoint = checkpoint});
              return scanned.second + scanned.first + map([&](const Tensor& e) { return e * rand({4}); }, in) +
                     rand({4});
            },
            x, w);
  }
  SUBCASE("while_loop, whose condition draws too") {
    draws_agree(
        [&](const Tensor& in) {
          const Tensor n = while_loop([](const Tensor& n) { return n.sum() + rand({}) < 40; },
                                      [&](const Tensor& n) { return n + rand({4}) + randint(0, 3, {4}); },
                                      in.select(0, 1) + zeros({4}));
          return n * w + while_loop([](const Tensor& n) { return rand({}) * n.sum() < 9; },
                                    [&](const Tensor& n) { return n + 1; }, zeros({4}));
        },
        x, w);
  }
  SUBCASE("one within another") {
    draws_agree(
        [&](const Tensor& in) {
          const auto turn = [&](const Tensor& h, const Tensor& row) {
            const Tensor started = dropout(row, 0.2);
            const auto inner = [&](const Tensor& g, const Tensor& e) {
              const Tensor next = cond(
                  e + rand({}) > 2, [&] { return dropout(g * e + w, 0.5); }, [&] { return g + randn({4}); });
              return std::pair{next, next.sum()};
            };
            const auto scanned = scan(inner, h + rand({4}), started);
            return std::pair{scanned.first * 0.25, scanned.second + rand({4})};
          };
          return scan(turn, w * 1, in, {.checkpoint = 2}).second;
        },
        x, w);
  }
  SUBCASE("second order") {
    draws_agree(
        [&](const Tensor& in) {
          const auto turn = [&](const Tensor& h, const Tensor& e) {
            const Tensor next = dropout(h * w, 0.3) * e;
            return std::pair{next, next * rand({4})};
          };
          const Tensor value = square(scan(turn, w * 1, in.slice(0, 1, 3)).second).sum();
          const auto [slope] = grad<1>(value, {w}, {.create_graph = true});
          return slope * 0.001;
        },
        x, w);
  }
}

TEST_CASE("control flow: turns draw from keys of their own") {
  manual_seed(3);
  const Tensor once = map([](const Tensor&) { return rand({4}); }, zeros({100})), again = rand({4});
  CHECK(default_generator().draws() == 2);  // the map, and the draw after it
  manual_seed(3);
  CHECK(same(map([](const Tensor&) { return rand({4}); }, zeros({100})), once));
  cond(
      tensor(true), [] {}, [] {});
  CHECK(!same(rand({4}), again));
  CHECK(default_generator().draws() == 3);
  CHECK(std::abs(once.mean().item<double>() - 0.5) < 0.05);
  const std::vector<float> numbers = once.to_vector<float>();
  CHECK(std::set<float>(numbers.begin(), numbers.end()).size() > 390);
  // What a compiled function draws in a turn, or in what is checkpointed, is what its text draws there.
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto draw = compile([](const Tensor& x) { return dropout(x, 0.5) + rand({4}); }, {.mode = mode});
    manual_seed(3);
    const Tensor drawn = map([&](const Tensor& x) { return draw(x) + rand({4}); }, ones({5, 4}));
    manual_seed(3);
    CHECK(same(drawn, map([](const Tensor& x) { return dropout(x, 0.5) + rand({4}) + rand({4}); }, ones({5, 4}))));
  }
  // Loops that draw nothing read no key, and their calls may overlap.
  auto quiet = compile([](const Tensor& x) { return map([](const Tensor& e) { return e * 2; }, x); });
  quiet(ones({3}));
  const auto first_line = [](const std::string& text) { return text.substr(0, text.find('\n')); };
  CHECK(contains(first_line(quiet.plan()), "calls may overlap"));
  CHECK(!contains(quiet.plan(), "turn_key"));
  auto drawing = compile([](const Tensor& x) { return map([](const Tensor& e) { return e * rand({}); }, x); });
  drawing(ones({3}));
  CHECK(!contains(first_line(drawing.plan()), "calls may overlap"));
  // The text of a graph that draws inside reads back.
  const Graph graph =
      trace([](const Tensor& x) { return map([](const Tensor& e) { return e * rand({}); }, x); }, ones({3}));
  CHECK(contains(graph.to_string(), "turn_key"));
  CHECK(parse_graph(graph.to_string()).to_string() == graph.to_string());
}
