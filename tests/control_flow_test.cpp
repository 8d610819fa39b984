// cond, while_loop, scan and map: the same values, gradients and errors in the three modes.
#include "graph/trace/control_flow.h"

#include <algorithm>
#include <set>

#include "autograd/autograd.h"
#include "autograd/custom_function.h"
#include "core/ops/ops.h"
#include "core/random.h"
#include "graph/ir/region.h"
#include "graph/passes/pipeline.h"
#include "graph/run/program.h"
#include "tests/support.h"

using namespace tandem;

namespace {

Tensor collatz(const Tensor& start) {
  return std::get<1>(while_loop([](const Tensor& n, const Tensor&) { return n != 1; },
                                [](const Tensor& n, const Tensor& turns) {
                                  const Tensor next = cond(
                                      n % 2 == 0, [&] { return floor_divide(n, 2); }, [&] { return n * 3 + 1; });
                                  return std::tuple{next, turns + 1};
                                },
                                start, zeros({}, {.dtype = int64})));
}

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
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      REQUIRE(got[i].defined() == expected[i].defined());
      if (!got[i].defined()) continue;
      if (tolerance == 0) CHECK(same(got[i], expected[i]));
      else CHECK(allclose(got[i], expected[i], {.rtol = tolerance, .atol = tolerance}));
    }
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

TEST_CASE("control flow: the text of a graph with regions reads back, and runs") {
  const Graph graph = trace(collatz, tensor<int64_t>(27));
  const std::string text = graph.to_string();
  CHECK(contains(text, "while_loop("));
  CHECK(contains(text, "condition=graph {"));
  CHECK(parse_graph(text).to_string() == text);
  verify(parse_graph(text));
}

namespace {

/// A graph with arguments bool[], float32[2], float32[3, 2] and float32[2], and these lines.
std::string with_arguments(const std::string& lines) {
  return "graph {\n  %0: bool[] = argument 0\n  %1: float32[2] = argument 1\n  %2: float32[3, 2] = argument 2\n"
         "  %3: float32[2] = argument 3\n  " +
         lines + "\n  return %9\n}";
}
std::string in_region(const std::string& lines) { return "graph {\n" + lines + "\n}"; }

const std::string kSame = in_region("%0: float32[2] = argument 0\nreturn %0"), kNothing = in_region("return"),
                  kTrue = in_region("%0: bool[] = scalar 1\nreturn %0");

}  // namespace

TEST_CASE("control flow: text with regions that aren't right is a GraphError that says why") {
  const auto refused = [](const std::string& lines, const std::string& reason) {
    const std::string text = with_arguments(lines);
    CAPTURE(text);
    try {
      parse_graph(text);
      FAIL_CHECK("parsed");
    } catch (const GraphError& error) {
      CAPTURE(error.message());
      CHECK(contains(error.message(), "parse_graph: line "));
      CHECK(contains(error.message(), reason));
    } catch (const std::exception& error) { FAIL_CHECK("another error: ", error.what()); }
  };
  const auto cond = [](const std::string& then, const std::string& otherwise, const std::string& operands = "%0, %1") {
    return "%9: float32[2] = cond(" + operands + ") {then=" + then + ", otherwise=" + otherwise + "}";
  };
  refused("%9: float32[2] = cond(%0, %1)", "attribute then is missing");
  refused("%9: float32[2] = cond(%0, %1) {then=" + kSame + "}", "attribute otherwise is missing");
  refused("%9: float32[2] = cond(%0, %1) {body=" + kSame + "}", "cond has no attribute body");
  for (const char* const other : {"3", "1.5", "[2]", "\"graph {}\"", "float32"}) refused(cond(kSame, other), "graph");
  refused(cond("graph {", kSame), "");
  refused(cond(kSame + " more", kSame), "expected");
  refused(cond(kSame, kSame, ""), "its condition is no bool of one element");
  refused(cond(kSame, kSame, "%1, %1"), "its condition is no bool of one element");
  refused(cond(kSame, kSame, "%0"), "its region then reads operand 0 of 0");
  refused(cond(kSame, kSame, "%0, %2"), "its region then takes float32[2] as operand 0, and gets float32[3, 2]");
  refused(cond(kSame, kSame, "%0, %7"), "%7 is not defined");
  refused(cond(kSame, kNothing), "its branches give other results");
  refused(cond(kNothing, kNothing), "cond gives 0 values, not 1");
  refused(cond(kTrue, kTrue), "the type of %9 is bool[]");
  const std::pair<const char*, const char*> regions[] = {
      {"%0: float32[2] = argument 1048575\nreturn %0", "reads operand 1048575 of 1"},
      {"%0: float32[2] = argument 1048576\nreturn %0", "an argument's position is 1048576"},
      {"%0: float32[2] = argument -1\nreturn %0", "an argument's position is -1"},
      {"%0: float64[2] = argument 0\nreturn %0", "takes float64[2] as operand 0"},
      {"%0: float32[2] on cuda = argument 0\nreturn %0", "takes float32[2] on cuda:0 as operand 0"},
      {"%0: float32[2] = argument 0\n%1: float32[2] = argument 0\nreturn %0", "argument 0 is defined twice"},
      {"%0: float32[2] = argument 0\n%0: float32[2] = exp(%0)\nreturn %0", "%0 is defined twice"},
      {"%0: float32[2] = argument 0\n%4: float32[2] = exp(%1)\nreturn %4", "%1 is not defined"},
      {"%0: float32[2] = state\nreturn %0", "its region then reads a state"},
      {"%0: float32[2] = gradient\nreturn %0", "its region then reads a gradient"},
      {"%0: float32[2] = constant {1, 2}\nreturn %0", "its region then reads a constant"},
      {"%0: float32[2] = argument 0\nassign %0 = %0\nreturn %0", "its region then changes what is outside"},
      {"%0: float32[2] = argument 0\ngradient argument 0 = %0\nreturn %0", "its region then changes what is outside"},
      {"%0: float32[2] = argument 0\ndraws 1\nreturn %0", "its region then changes what is outside"},
      {"%0: float32[2] = argument 0\nreturn none", "none is no value here"},
  };
  for (const auto& [lines, reason] : regions) refused(cond(in_region(lines), kSame), reason);
  std::string many = "%9: float32[2]", returned = "%0";
  for (int i = 0; i < 5000; ++i) many += detail::str(", %", 10 + i, ": float32[2]"), returned += ", %0";
  const std::string large = in_region("%0: float32[2] = argument 0\nreturn " + returned);
  refused(many + " = cond(%0, %1) {then=" + large + ", otherwise=" + large + "}", "makes more than the 4096 results");

  const auto loop = [](const std::string& condition, const std::string& body) {
    return "%9: float32[2] = while_loop(%1) {condition=" + condition + ", body=" + body + "}";
  };
  refused(loop(kSame, kSame), "its condition gives no bool of one element");
  refused(loop(kNothing, kSame), "its condition gives no bool of one element");
  refused(loop(in_region("%0: bool[] = scalar 1\nreturn %0, %0"), kSame), "its condition gives no bool of one element");
  refused(loop(kTrue, in_region("%0: float32[2] = argument 0\nreturn %0, %0")), "its body gives 2 results");
  refused(loop(kTrue, kTrue), "its body returns bool[] for float32[2]");
  refused(loop(kTrue, kNothing), "while_loop gives 0 values, not 1");

  const std::string turn = in_region("%0: float32[2] = argument 0\n%1: float32[2] = argument 1\nreturn %0, %1");
  const auto scan = [&](const std::string& operands, const std::string& attributes, const std::string& body) {
    return "%9: float32[2], %8: float32[3, 2] = scan(" + operands + ") {body=" + body + ", " + attributes + "}";
  };
  const std::string most = "9223372036854775807";
  const auto numbers = [](const std::string& carried, const std::string& sequences, const std::string& length) {
    return "carried=" + carried + ", sequences=" + sequences + ", length=" + length + ", reverse=0, keeps=0";
  };
  parse_graph(with_arguments(scan("%1, %2", numbers("1", "1", "3"), turn)));
  refused(scan("%1, %2", "carried=1, sequences=1, length=3, reverse=0", turn), "attribute keeps is missing");
  refused(scan("%1, %2", numbers(turn, "1", "3"), turn), "expected an integer");
  for (const std::string& carried : {std::string("-1"), "-" + most})
    refused(scan("%1, %2", numbers(carried, "1", "3"), turn), "carried is " + carried + ", need at least 0");
  for (const std::string& carried : {std::string("3"), most})
    refused(scan("%1, %2", numbers(carried, "1", "3"), turn), "carried is " + carried + ", need at most 2");
  refused(scan("%1, %2", numbers("2", "1", "3"), turn), "sequences is 1, need at most 0");
  for (const std::string sequences : {"-1", "0"})
    refused(scan("%1, %2", numbers("1", sequences, "3"), turn), "sequences is " + sequences + ", need at least 1");
  refused(scan("%1, %2", numbers("1", most, "3"), turn), "sequences is " + most + ", need at most 1");
  refused(scan("%1, %2", numbers("1", "1", "0"), turn), "length is 0, need at least 1");
  for (const std::string& length : {std::string("2"), std::string("4"), most})
    refused(scan("%1, %2", numbers("1", "1", length), turn), "a sequence [3, 2] has not " + length + " elements");
  refused(scan("%1, %0", numbers("1", "1", "3"), turn), "a sequence [] has not 3 elements");
  refused(scan("", numbers("0", "1", "3"), turn), "sequences is 1, need at most 0");
  refused(scan("%1, %2", numbers("1", "1", "3"), kNothing), "its body gives 0 results");
  refused(scan("%1, %2", numbers("1", "1", "3"), kTrue), "its body returns bool[] for float32[2]");
  refused(scan("%1, %2", numbers("1", "1", "3"), kSame), "scan gives 1 values, not 2");
  refused("%4: float32[1, 1, 1, 1, 1, 1, 1, 1] = argument 4\n" +
              scan("%2, %4", numbers("0", "1", "3"),
                   in_region("%0: float32[1, 1, 1, 1, 1, 1, 1, 1] = argument 1\nreturn %0, %0")),
          "at most 8 dimensions");
  refused("%4: float32[1073741824, 0] = argument 4\n%5: float32[1073741824] = argument 5\n" +
              scan("%4, %5", numbers("0", "1", "1073741824"),
                   in_region("%0: float32[1073741824] = argument 1\nreturn %0, %0")),
          "elements");

  for (const int depth : {33, 100, 100000}) {
    std::string deep = with_arguments("");
    deep.resize(deep.find("\n  return"));
    for (int i = 0; i < depth; ++i) deep += "\n%9: bool[] = cond(%0) {then=graph { %0: bool[] = scalar 1";
    CHECK_THROWS_WITH_AS(parse_graph(deep), doctest::Contains("regions within regions, more than 32 deep"), GraphError);
  }
}

TEST_CASE("control flow: text with regions that is unlike a trace's, and right, prints as it was and runs") {
  const Tensors arguments{tensor(true), tensor({1.f, 2.f}), tensor({{1.f, 2.f}, {3.f, 4.f}, {5.f, 6.f}}),
                          tensor({7.f, 8.f})};
  const auto gives = [&](const std::string& lines, const std::vector<float>& wanted) {
    const Graph graph = parse_graph(with_arguments(lines));
    CAPTURE(graph.to_string());
    verify(graph);
    CHECK(parse_graph(graph.to_string()).to_string() == graph.to_string());
    const Graph optimised = graph::optimise(graph, {"emit"}, Where::current()).graph;
    for (const Graph& each : {graph, optimised})
      for (const bool planned : {false, true}) {
        const auto program = graph::Program::build(each, {.memory_plan = planned}, Where::current(), nullptr);
        for (int again = 0; again < 2; ++again)
          CHECK(program->run(arguments)[0].to(float32).to_vector<float>() == wanted);
      }
  };
  const auto taken = [](const std::string& type, const std::string& operand = "%1") {
    const std::string region = in_region("%0: " + type + " = argument 0\nreturn %0");
    return "%9: float32[2] = cond(%0, " + operand + ") {then=" + region + ", otherwise=" + region + "}";
  };
  gives(taken("float32[2]"), {1, 2});
  gives(taken("float32[2]", "%1, %1"), {1, 2});
  gives(taken("float32[2] strides [16777216]"), {1, 2});  // with gaps, where it has none
  gives("%4: float32[] = scalar 5\n%9: float32[] = cond(%0) {then=" + in_region("%0: float32[] = scalar 3\nreturn %0") +
            ", otherwise=" + in_region("%7: float32[] = scalar run-time\nreturn %7") + "}",
        {3});
  const Graph endless = parse_graph(with_arguments(taken("float32[2] strides [576460752303423487]")));
  set_memory_limit(memory_stats().reserved + (1 << 20));
  CHECK_THROWS_AS(graph::Program::build(endless, {}, Where::current(), nullptr)->run(arguments), OutOfMemoryError);
  set_memory_limit(0);
  const std::string both = "%0: float32[2] = argument 0\n%1: float32[2] = argument 1\n";
  gives("%9: float32[2], %8: float32[2] = while_loop(%1, %3) {condition=" +
            in_region(both + "%2: float32[] = sum(%0) {dims=[0], keepdim=0}\n%3: float32[] = scalar 40\n"
                             "%4: bool[] = less(%2, %3)\nreturn %4") +
            ", body=" + in_region(both + "%2: float32[2] = add(%0, %1)\nreturn %1, %2") + "}",
        {23, 28});  // 1 7 8 15 23, 2 8 10 18 28
  const std::string scan = in_region(
      "%1: float32[2] = argument 1\n%0: float32[2] = argument 0\n"
      "%5: float32[2] = add(%1, %0)\nreturn %5, %1, %5");
  for (const char* const flags : {"reverse=0, keeps=0", "reverse=0, keeps=-3"})
    gives(detail::str("%9: float32[2], %8: float32[3, 2], %7: float32[3, 2]",
                      contains(flags, "-3") ? ", %6: float32[3, 2]" : "", " = scan(%3, %2) {body=", scan,
                      ", carried=1, sequences=1, length=3, ", flags, "}"),
          {16, 20});
  gives("%9: float32[3, 2], %8: float32[3, 2], %7: float32[3, 2] = scan(%2, %3) {body=" +
            in_region("%1: float32[2] = argument 1\n%0: float32[2] = argument 0\n"
                      "%5: float32[2] = add(%1, %0)\nreturn %5, %1, %5") +
            ", carried=0, sequences=1, length=3, reverse=7, keeps=1}",
        {8, 10, 10, 12, 12, 14});
  gives("%4: float32[2, 3] strides [1, 2] = permute(%2) {dims=[1, 0]}\n%9: float32[2] = scan(%4) {body=" +
            in_region("%0: float32[3] = argument 0\n%1: float32[] = sum(%0) {dims=[0], keepdim=0}\nreturn %1") +
            ", carried=0, sequences=1, length=2, reverse=1, keeps=0}",
        {9, 12});
  std::string deep = "%0: bool[] = argument 0\n%1: float32[2] = argument 1\n%2: float32[2] = exp(%1)\nreturn %2";
  for (int i = 0; i < 31; ++i)
    deep = "%0: bool[] = argument 0\n%1: float32[2] = argument 1\n%2: float32[2] = cond(%0, %0, %1) {then=" +
           in_region(deep) + ", otherwise=" + in_region("%0: float32[2] = argument 1\nreturn %0") + "}\nreturn %2";
  gives("%4: float32[2] = neg(%1)\n%9: float32[2] = cond(%0, %0, %4) {then=" + in_region(deep) +
            ", otherwise=" + in_region("%0: float32[2] = argument 1\nreturn %0") + "}",
        exp(-arguments[1]).to_vector<float>());
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
