// cond, while_loop, scan and map: the same values, gradients and errors in the three modes.
#include "tests/control_flow.h"

#include <algorithm>

#include "autograd/autograd.h"
#include "autograd/custom_function.h"
#include "core/ops/ops.h"
#include "core/random.h"
#include "graph/ir/region.h"
#include "graph/passes/pipeline.h"
#include "tests/support.h"

using namespace tandem;

namespace {

/// f(arguments) and the gradients of its sum, of the arguments and of `closed_over`, in a mode.
template <class F>
Tensors value_and_gradients(Mode mode, F&& f, const Tensors& given, const Tensors& closed_over = {}) {
  Tensors arguments, all;
  for (const Tensor& each : given) arguments.push_back(each.clone().detach().requires_grad(true));
  for (Tensor each : closed_over) each.set_grad({});
  auto step = compile(
      [&](const Tensor& x, const Tensor& y) {
        const Tensor value = f(x, y);
        value.sum().backward();
        return value;
      },
      {.mode = mode});
  all.push_back(step(arguments[0], arguments[1]).detach());
  for (const Tensor& each : arguments) all.push_back(each.grad().defined() ? each.grad() : Tensor());
  for (const Tensor& each : closed_over) all.push_back(each.grad().defined() ? each.grad().clone() : Tensor());
  return all;
}

/// The three modes agree to the bit, or to `tolerance`.
template <class F> void agree(F&& f, const Tensors& given, const Tensors& closed_over = {}, double tolerance = 0) {
  const Tensors expected = value_and_gradients(Mode::eager, f, given, closed_over);
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    const Tensors got = value_and_gradients(mode, f, given, closed_over);
    check_alike(got, expected, tolerance);
  }
}

}  // namespace

TEST_CASE("control flow: loops whose turns depend on the data are one trace") {
  for (const Mode mode : kModes) {
    auto turns = compile(collatz, {.mode = mode});
    CHECK(turns(tensor<int64_t>(27)).item<int64_t>() == 111);
    CHECK(turns(tensor<int64_t>(97)).item<int64_t>() == 118);
    CHECK(turns(tensor<int64_t>(1)).item<int64_t>() == 0);
    if (mode != Mode::eager) CHECK(turns.stats().traces == 1);
  }
}

TEST_CASE("cond: values and gradients are those of the branch") {
  manual_seed(1);
  const Tensor w = randn({4}).requires_grad(true);
  for (const float sign : {1.f, -1.f}) {
    const Tensor x = full({4}, sign) + arange(4) * 0.1, y = randn({4});
    agree(
        [&](const Tensor& a, const Tensor& b) {
          return cond(
              a.sum() > 0, [&] { return a * w + sin(b); }, [&] { return exp(a) * b - w; });
        },
        {x, y}, {w});
  }
}

TEST_CASE("cond: several results, views, numbers that change, and what one branch alone reads") {
  float scale = 2;
  for (const Mode mode : kModes) {
    scale = 2;
    auto f = compile(
        [&](const Tensor& x, const Tensor& y) {
          const Tensor row = x.select(0, 1), turned = x.transpose(0, 1);
          auto [a, b] = cond(
              y > 0,
              [&] {
                return std::pair{row * scale, matmul(turned, x)};
              },
              [&] {
                return std::pair{row + y, turned.slice(1, 0, 1) * ones({3, 3})};
              });
          return std::tuple{a + 1, b};
        },
        {.mode = mode, .verify = Verify::every});
    const Tensor x = arange(6).reshape({2, 3}).to(float32);
    CHECK(std::get<0>(f(x, tensor(1.f))).to_vector<float>() == std::vector<float>{7, 9, 11});
    CHECK(std::get<1>(f(x, tensor(1.f))).to_vector<float>() == std::vector<float>{9, 12, 15, 12, 17, 22, 15, 22, 29});
    CHECK(std::get<0>(f(x, tensor(-1.f))).to_vector<float>() == std::vector<float>{3, 4, 5});
    CHECK(std::get<1>(f(x, tensor(-1.f))).to_vector<float>() == std::vector<float>{0, 0, 0, 1, 1, 1, 2, 2, 2});
    scale = 3;
    CHECK(std::get<0>(f(x, tensor(1.f))).to_vector<float>() == std::vector<float>{10, 13, 16});
    if (mode != Mode::eager) CHECK(f.stats().traces == 1);
  }
}

TEST_CASE("control flow: state that a branch or a body assigns") {
  for (const Mode mode : kModes) {
    Tensor total = zeros({2}), count = zeros({});
    auto f = compile(
        [&](const Tensor& x) {
          cond(
              x.sum() > 0, [&] { total.assign(total + x); }, [&] { count.assign(count + 1); });
          const Tensor last = while_loop([](const Tensor& n) { return n < 3; },
                                         [&](const Tensor& n) {
                                           count.assign(count + 10);
                                           return n + 1;
                                         },
                                         zeros({}));
          return total + last;
        },
        {.mode = mode});
    CHECK(f(ones({2})).to_vector<float>() == std::vector<float>{4, 4});
    CHECK(f(-ones({2})).to_vector<float>() == std::vector<float>{4, 4});
    CHECK(f(ones({2})).to_vector<float>() == std::vector<float>{5, 5});
    CHECK(total.to_vector<float>() == std::vector<float>{2, 2});
    CHECK(count.item<float>() == 91);
  }
}

TEST_CASE("scan: a recurrent net has eager's values and gradients") {
  manual_seed(2);
  const Tensor w = (randn({4, 4}) * 0.5).requires_grad(true), h0 = zeros({4});
  const auto rnn = [&](const Tensor& xs, const Tensor& b) {
    auto [h, ys] = scan(
        [&](const Tensor& h, const Tensor& x) {
          const Tensor next = tanh(matmul(w, h) + x + b);
          return std::pair{next, next * 2};
        },
        h0, xs);
    return ys + h;
  };
  agree(rnn, {randn({16, 4}), randn({4})}, {w}, 1e-5);
  for (const bool reverse : {false, true})
    for (const int64_t checkpoint : {0, 4, 5, 16})
      agree(
          [&](const Tensor& xs, const Tensor& b) {
            auto [carry, ys] = scan(
                [&](const std::pair<Tensor, Tensor>& c, const Tensor& x) {
                  const Tensor next = tanh(matmul(w, c.first) + x * c.second);
                  return std::pair{std::pair{next, c.second * 0.9 + b}, next + b};
                },
                std::pair{h0, ones({4})}, xs, {.reverse = reverse, .checkpoint = checkpoint});
            return ys.sum(0) + carry.first * carry.second;
          },
          {randn({17, 4}), randn({4})}, {w}, 1e-5);
}

TEST_CASE("scan: second order, and inside a cond") {
  manual_seed(3);
  const Tensor x = randn({5}, {.dtype = float64}), w = randn({3}, {.dtype = float64}).requires_grad(true);
  const auto f = [&](const Tensor& start) {
    const auto scanned = scan(
        [&](const Tensor& h, const Tensor& e) {
          const Tensor next = sin(h * w.sum() + e);
          return std::pair{next, next * next};
        },
        start, x);
    const Tensor h = scanned.first, ys = scanned.second;  // clang 14 captures no bindings
    return cond(
        h.sum() > 100, [&] { return ys.sum() * 2; }, [&] { return ys.sum() * h.sum(); });
  };
  Tensors expected;
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto second = compile(
        [&](const Tensor& start) {
          auto [g, gw] = grad<2>(f(start), {start, w}, {.create_graph = true});
          auto [gg, ggw] = grad<2>(square(g).sum() + gw.sum(), {start, w});
          return Tensors{g, gw, gg, ggw};
        },
        {.mode = mode});
    const Tensors got = second(ones({}, {.dtype = float64}).requires_grad(true));
    if (mode == Mode::eager) expected = got;
    else
      for (size_t i = 0; i < got.size(); ++i) CHECK(allclose(got[i], expected[i], {.rtol = 1e-10, .atol = 1e-12}));
  }
}

TEST_CASE("map: a function of each element") {
  manual_seed(4);
  const Tensor w = randn({3, 3}).requires_grad(true);
  agree([&](const Tensor& xs,
            const Tensor& y) { return map([&](const Tensor& x) { return relu(matmul(w, x) + y); }, xs); },
        {randn({6, 3}), randn({3})}, {w}, 1e-5);
}

TEST_CASE("control flow: what can't be is said with the line") {
  const Tensor x = ones({3});
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    const auto run = [&](auto f) { compile([&](const Tensor& a) { return f(a); }, {.mode = mode})(x); };
    const auto is_here = [](const std::string& text, const char* part) {
      CHECK_MESSAGE(contains(text, part), text);
      CHECK_MESSAGE(contains(text, "control_flow_test.cpp"), text);
    };
    is_here(thrown<ShapeError>([&] {
              run([](const Tensor& a) {
                return cond(
                    a > 0, [&] { return a; }, [&] { return -a; });
              });
            }),
            "cond: the condition has shape [3]");
    is_here(thrown<DTypeError>([&] {
              run([](const Tensor& a) {
                return while_loop([](const Tensor& n) { return n < 3; }, [](const Tensor& n) { return n + 0.5; },
                                  zeros({}, {.dtype = int64}) + a.to(int64)[0]);
              });
            }),
            "while_loop: loop variable 0 is int64[] and the body returns float32[]");
    is_here(thrown<ShapeError>([&] {
              run([](const Tensor& a) {
                return scan(
                           [](const Tensor& c, const Tensor& e) {
                             return std::pair{stack({c, e}, 0), e};
                           },
                           a.sum(), a)
                    .first;
              });
            }),
            "scan: carry 0 is float32[] and the body returns float32[2]");
    is_here(thrown<ShapeError>(
                [&] { run([](const Tensor& a) { return map([](const Tensor& e) { return e; }, a.sum()); }); }),
            "map: a sequence [] has no elements along dim 0");
  }
  for (const Mode mode : kGraphModes) {
    const auto run = [&](auto f) { compile([&](const Tensor& a) { return f(a); }, {.mode = mode})(x); };
    CHECK(contains(thrown<TraceError>([&] {
                     run([](const Tensor& a) {
                       return cond(
                           a.sum() > 0, [&] { return a; }, [&] { return a.sum(); });
                     });
                   }),
                   "cond: result 0 is float32[3] in one branch and float32[] in the other"));
    Tensor w = ones({3}).requires_grad(true);
    CHECK(contains(thrown<TraceError>([&] {
                     run([&](const Tensor& a) {
                       return cond(
                           a.sum() > 0,
                           [&] {
                             (w * a).sum().backward();
                             return a;
                           },
                           [&] { return a; });
                     });
                   }),
                   "cond: backward() inside would add to grad()"));
    CHECK(contains(thrown<AutogradError>([&] {
                     run([&](const Tensor& a) {
                       const Tensor y = while_loop([](const Tensor& n) { return n.sum() < 100; },
                                                   [&](const Tensor& n) { return n * 2 + w; }, a);
                       y.sum().backward();
                       return y;
                     });
                   }),
                   "a while_loop in a graph has no gradient"));
  }
}

TEST_CASE("control flow: gradients taken inside, empty and strided operands, bodies within bodies") {
  const Tensor target = tensor({1.f, 4.f, 9.f});
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto root = compile(  // Newton's method, by grad() in the body
        [&](const Tensor& start) {
          return while_loop([&](const Tensor& x) { return max(abs(x * x - target)) > 1e-5; },
                            [&](const Tensor& x) {
                              const Tensor at = x.detach().requires_grad(true), y = at * at - target;
                              const auto [slope] = grad<1>(y.sum(), {at});
                              return (at - y / slope).detach();
                            },
                            start);
        },
        {.mode = mode});
    CHECK(allclose(root(ones({3}) * 5), tensor({1.f, 2.f, 3.f}), {.rtol = 1e-4}));
    auto empty = compile(
        [](const Tensor& x) {
          const auto [last, all] = scan(
              [](const Tensor& h, const Tensor& e) {
                return std::pair{h + e, e * 2};
              },
              zeros({0}), x);
          return std::pair{cond(
                               x.sum() == 0, [] { return ones({2}); }, [] { return zeros({2}); }),
                           all + last};
        },
        {.mode = mode});
    CHECK(empty(zeros({3, 0})).first.to_vector<float>() == std::vector<float>{1, 1});
    CHECK(empty(zeros({3, 0})).second.shape() == Shape{3, 0});
    auto constant = compile(
        [](const Tensor& x) {
          cond(
              x.sum() > 0, [] {}, [] {});
          return map([](const Tensor& e) { return e * tensor({1.f, 2.f}); }, x);
        },
        {.mode = mode});
    CHECK(constant(ones({2})).to_vector<float>() == std::vector<float>{1, 2, 1, 2});
    auto nested = compile(
        [](const Tensor& x) {
          return map(
              [&](const Tensor& row) {
                return scan(
                           [&](const Tensor& h, const Tensor& e) {
                             const Tensor next = cond(
                                 e > 0, [&] { return h + e; }, [&] { return h * row.sum(); });
                             return std::pair{next, next};
                           },
                           ones({}), row)
                    .second;
              },
              x);
        },
        {.mode = mode});
    const Tensor turned = tensor({{1.f, -1.f}, {2.f, 3.f}, {-4.f, 5.f}}).transpose(0, 1);  // rows 1 2 -4, -1 3 5
    CHECK(nested(turned).to_vector<float>() == std::vector<float>{2, 4, -4, 7, 10, 15});
  }
}

TEST_CASE("control flow: an error inside names its line, and leaves things as they were") {
  Tensor count = zeros({});
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto pick = compile(
        [&](const Tensor& x, const Tensor& at) {
          const Tensor result = scan(
                                    [&](const Tensor& h, const Tensor& i) {
                                      return std::pair{h, index_select(x, 0, i.reshape({1}))};
                                    },
                                    zeros({}), at)
                                    .second;
          count.assign(count + 1);
          return result;
        },
        {.mode = mode});
    const Tensor x = arange(3).to(float32);
    CHECK(pick(x, tensor({2, 0})).to_vector<float>() == std::vector<float>{2, 0});
    count.assign(zeros({}));
    const std::string error = thrown<DimensionError>([&] { pick(x, tensor({2, 7})); });
    CHECK_MESSAGE(contains(error, "7"), error);
    CHECK_MESSAGE(contains(error, "control_flow_test.cpp"), error);
    CHECK(pick(x, tensor({1, 1})).to_vector<float>() == std::vector<float>{1, 1});
    CHECK(count.item<float>() == 1);
  }
}

TEST_CASE("control flow: detach and NoGrad inside cut gradients as eagerly, of any order") {
  manual_seed(6);
  const Tensor w = randn({3}).requires_grad(true), xs = randn({5, 3}), y = randn({3});
  agree(
      [&](const Tensor& x, const Tensor& b) {
        const Tensor shared = x.sum(0) * b;
        const std::pair<Tensor, Tensor> scanned = scan(
            [&](const Tensor& h, const Tensor& e) {
              const Tensor next = tanh(h * w.detach() + e * w + h.detach() * b + shared * shared.detach());
              Tensor scale;
              {
                const NoGrad no_grad;
                scale = next * 0.5 + w;
              }
              return std::pair{next, next * scale};
            },
            zeros({3}), x);
        const Tensor last = scanned.first, all = scanned.second;
        return all + cond(
                         b.sum() > -100, [&] { return last * last.detach() + w; }, [&] { return last; });
      },
      {xs, y}, {w}, 1e-5);
  agree(  // truncated: nothing flows from turn to turn
      [&](const Tensor& x, const Tensor& b) {
        return scan(
                   [&](const Tensor& h, const Tensor& e) {
                     return std::pair{tanh(h * w + e).detach(), h * e * b};
                   },
                   b, x)
            .second;
      },
      {xs, y}, {w}, 1e-5);
  Tensors expected;
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto second = compile(
        [&](const Tensor& x) {
          const Tensor value = cond(
              x.sum() > -100, [&] { return x * x * x.detach() * w + sin(w.detach() * x); }, [&] { return x; });
          const auto [g] = grad<1>(value.sum(), {x}, {.create_graph = true});
          const auto [gg, gw] = grad<2>((g * g).sum(), {x, w});
          return Tensors{g, gg, gw};
        },
        {.mode = mode});
    const Tensors got = second(y.clone().requires_grad(true));
    if (mode == Mode::eager) expected = got;
    for (size_t i = 0; i < got.size(); ++i) CHECK(allclose(got[i], expected[i], {.rtol = 1e-5, .atol = 1e-6}));
  }
}

TEST_CASE("control flow: what only the tape knows is refused inside a region") {
  const CustomFunction doubled =
      custom_function({.forward = [](FunctionContext&, const Tensors& x) { return Tensors{x[0] * 2}; },
                       .backward = [](const FunctionContext&, const Tensors& g) { return Tensors{g[0] * 3}; },
                       .name = "doubled"});
  const Tensor w = ones({2}).requires_grad(true);
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto custom = compile(
        [&](const Tensor& x) {
          return cond(
              x.sum() > 0, [&] { return doubled(w * x); }, [&] { return w * x; });
        },
        {.mode = mode});
    auto hooked = compile(
        [&](const Tensor& x) {
          return cond(
              x.sum() > 0,
              [&] {
                const Tensor y = w * x;
                y.register_hook([](const Tensor& g) { return g * 2; });
                return y;
              },
              [&] { return w * x; });
        },
        {.mode = mode});
    if (mode == Mode::eager) {
      CHECK(custom(ones({2})).requires_grad());
      CHECK(hooked(ones({2})).requires_grad());
    } else {
      CHECK(contains(thrown<TraceError>([&] { custom(ones({2})); }), "doubled: a gradient, or a hook"));
      CHECK(contains(thrown<TraceError>([&] { hooked(ones({2})); }), "register_hook: a gradient, or a hook"));
    }
  }
}

TEST_CASE("control flow: a parameter that a branch writes to keeps its gradient, or says that it can't") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    Tensor w = full({2}, 3.f).requires_grad(true);
    auto step = compile(
        [&](const Tensor& x) {
          const Tensor y = cond(
              x.sum() > 0,
              [&] {
                const Tensor product = w * x;
                {
                  const NoGrad no_grad;
                  w.assign(w * 0.5);
                }
                return product * w.detach();
              },
              [&] { return w * x; });
          y.sum().backward();
          return y;
        },
        {.mode = mode});
    if (mode == Mode::eager) {  // neither product saved w itself for its gradient
      step(tensor({1.f, 2.f}));
      CHECK(w.grad().to_vector<float>() == std::vector<float>{1.5f, 3.f});
    } else {
      CHECK(contains(thrown<InPlaceError>([&] { step(tensor({1.f, 2.f})); }), "saved for backward"));
    }
  }
}

TEST_CASE("control flow: a branch or a loop without results") {
  const Tensor total = zeros({2}), x = ones({2});
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    int traced = 0;
    auto f = compile(
        [&](const Tensor& in) {
          cond(
              in.sum() > 0, [&] { ++traced; }, [&] { ++traced; });
          return in + static_cast<int>(map([](const Tensor&) { return Tensors(); }, in).size());
        },
        {.mode = mode});
    CHECK(f(x).to_vector<float>() == std::vector<float>{1, 1});
    CHECK(traced >= 1);
  }
}

TEST_CASE("control flow: the value of what is written to inside can't be asked for there") {
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    Tensor state = ones({});
    auto before = compile(
        [&](const Tensor& x) {
          const auto turn = [&](const Tensor& each) {
            const double scale = state.item<double>();  // of the first turn alone
            state.assign(state + 1);
            return each * scale;
          };
          return map(turn, x);
        },
        {.mode = mode});
    auto after = compile(
        [&](const Tensor& x) {
          const auto write = [&] {
            state.assign(state + 1);
            return x * state.item<double>();
          };
          return cond(x.sum() > 0, write, [&] { return x; });
        },
        {.mode = mode});
    CHECK(contains(thrown<TraceError>([&] { before(ones({3})); }), "its value asked for there"));
    CHECK(contains(thrown<TraceError>([&] { after(ones({3})); }), "its value asked for there"));
    CHECK(state.item<float>() == 1);
  }
}

TEST_CASE("control flow: a turn allocates nothing") {
  manual_seed(8);
  const Tensor w = (randn({4, 4}) * 0.5).requires_grad(true);
  const auto allocations = [&](Mode mode, int64_t turns, bool gradient) {
    auto step = compile(
        [&](const Tensor& xs, const Tensor& most) {
          const auto turn = [&](const Tensor& h, const Tensor& x) {
            const Tensor next = tanh(matmul(w, h) + x);
            return std::pair{next, next * 2};
          };
          const auto scanned = scan(turn, zeros({4}), xs);
          const Tensor n =
              while_loop([&](const Tensor& n) { return n < most; }, [](const Tensor& n) { return n + 1; }, zeros({}));
          const Tensor loss = scanned.second.sum() + scanned.first.sum();
          if (gradient) loss.backward();
          return loss + n;
        },
        {.mode = mode, .verify = Verify::never});
    const Tensor xs = ones({turns, 4}), most = full({}, static_cast<double>(turns));
    for (int i = 0; i < 3; ++i) step(xs, most);
    const int64_t before = memory_stats().allocations;
    step(xs, most);
    return memory_stats().allocations - before;
  };
  for (const Mode mode : kGraphModes)
    for (const bool gradient : {false, true}) {
      CAPTURE(name_of(mode));
      CAPTURE(gradient);
      const int64_t few = allocations(mode, 10, gradient);
      CHECK(allocations(mode, 300, gradient) == few);
      CHECK(few < (mode == Mode::compiled ? 20 : 60));
    }
}

namespace {

/// The first node of that op, of the graph after all passes.
Node optimised_node(const Graph& traced, const char* op) {
  const Graph graph = graph::optimise(traced, {"emit"}, Where::current()).graph;
  for (const Node& node : graph.nodes)
    if (std::string_view(node.op->name) == op) return node;
  FAIL("no node ", op);
  return {};
}
int count_in(const Graph& graph, std::string_view op) {
  int result = 0;
  for (const Node& node : graph.nodes) result += node.op->name == op;
  return result;
}

}  // namespace

TEST_CASE(
    "control flow: what is the same in each turn is computed before the loop, and what nobody reads is not carried") {
  const Tensor w = ones({4}), bias = ones({4}) * 2;
  const auto loop = [&](const Tensor& xs) {
    const auto turn = [&](const std::tuple<Tensor, Tensor, Tensor>& c, const Tensor& x) {
      const auto& [h, unread, count] = c;
      const Tensor next = h * exp(w + bias) + x;
      const auto inner = [&](const Tensor& g, const Tensor& e) { return std::pair{g + e * sin(w), g * 2}; };
      const Tensor last = scan(inner, next, stack({next, next})).first;
      return std::pair{std::tuple{last, unread + h, count + 1}, std::pair{last * 2, cos(unread)}};
    };
    const auto scanned = scan(turn, std::tuple{zeros({4}), ones({4}), zeros({})}, xs);
    return scanned.second.first + std::get<0>(scanned.first);
  };
  const Tensor xs = arange(12).reshape({3, 4}).to(float32);
  const Graph traced = trace([&](const Tensor& x) { return loop(x); }, xs);
  const Node node = optimised_node(traced, "scan");
  CHECK(node.attributes.integer("carried") == 1);
  CHECK(node.outputs.size() == 2);
  const Graph& body = graph::region_of(node.attributes, "body").graph();
  CHECK(count_in(body, "exp") == 0);
  CHECK(count_in(body, "sin") == 0);
  CHECK(count_in(body, "cos") == 0);
  const Graph whole = graph::optimise(traced, {"emit"}, Where::current()).graph;
  CHECK(count_in(whole, "exp") == 1);
  CHECK(count_in(whole, "sin") == 1);
  const auto loop_of = [](const char* const without) {
    return without ? std::vector<std::string>{without} : std::vector<std::string>();
  };
  for (const char* const without : {static_cast<const char*>(nullptr), "invariants", "prune", "dead_code", "regions"}) {
    auto compiled = compile([&](const Tensor& x) { return loop(x); }, {.without = loop_of(without)});
    CHECK(same(compiled(xs), loop(xs)));
  }
  // What might not run moves only if it can't fail, and effects stay.
  const auto repeat = [&](const Tensor& x) {
    return while_loop([](const Tensor& n) { return n.sum() < 100; },
                      [&](const Tensor& n) {
                        print(bias, "turn");
                        return n + exp(bias) + index_select(w, 0, x.to(int64));
                      },
                      zeros({4}));
  };
  const Node rest = optimised_node(trace([&](const Tensor& x) { return repeat(x); }, zeros({4})), "while_loop");
  const Graph& turn = graph::region_of(rest.attributes, "body").graph();
  CHECK(count_in(turn, "exp") == 0);
  CHECK(count_in(turn, "print") == 1);
  CHECK(count_in(turn, "index_select") == 1);
  // A gradient that isn't asked for keeps nothing.
  const Tensor v = ones({4}).requires_grad(true);
  const Graph kept = trace(
      [&](const Tensor& x) {
        return scan([&](const Tensor& h, const Tensor& e) { return std::pair{h * v + e, h}; }, zeros({4}), x).first;
      },
      xs);
  CHECK(optimised_node(kept, "scan").outputs.size() == 1);
}

TEST_CASE("control flow: pictures and plans show regions") {
  const Graph graph = trace(collatz, tensor<int64_t>(27));
  const std::string dot = graph.to_dot();
  for (const char* const part : {"label=\"condition\"", "label=\"body\"", "label=\"then\"", "label=\"otherwise\"",
                                 "subgraph cluster_", "[style=dashed]"})
    CHECK(contains(dot, part));
  CHECK(std::count(dot.begin(), dot.end(), '{') == std::count(dot.begin(), dot.end(), '}'));
  for (const Mode mode : kGraphModes) {
    auto turns = compile(collatz, {.mode = mode});
    turns(tensor<int64_t>(27));
    CHECK(contains(turns.explain(), "body:\n      plan: "));
    CHECK(contains(turns.explain(), "otherwise:\n"));
  }
}

TEST_CASE("control flow: what a branch wrote and read is its own, whatever is written outside later") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    Tensor factor = full({}, 3.f);
    factor.requires_grad(true);
    auto f = compile(
        [&](const Tensor& x, const Tensor& state) {
          Tensor inside = state;
          const auto halve = [&] {
            {
              const NoGrad no_grad;
              inside.assign(inside * 0.5f);
            }
            return inside * factor + 1;
          };
          const Tensor result = cond(x.detach() > 0, halve, [&] { return sin(inside) - factor; });
          const NoGrad no_grad;
          inside.assign(x);
          return result;
        },
        {.mode = mode});
    const Tensor state = full({}, 8.f), result = f(full({}, 1.f), state);
    CHECK(result.item<float>() == 13);
    CHECK(state.item<float>() == 1);
    if (mode == Mode::eager) {
      CHECK_THROWS_AS(result.backward(), InPlaceError);
    } else {
      result.backward();
      CHECK(factor.grad().item<float>() == 4);
    }
  }
}
