// Ops of the user's own: pointwise expressions and opaque functions, in every mode.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>

#include "support.h"
#include "tandem.h"

namespace td = tandem;
using td::Tensor, td::Tensors;

namespace {

using Floats = std::vector<float>;

const td::Op softplus_beta = td::pointwise_op(
    "test_softplus_beta", {.inputs = {"x"}, .attributes = {"beta"}}, "log1p(exp(beta * x)) / beta",
    [](const td::OpContext& op) { return Tensors{op.grad_output() * sigmoid(op.attribute("beta") * op.input(0))}; });

const td::Op weighted = td::pointwise_op("test_weighted", {.inputs = {"a", "b", "w"}}, "w > 0.5 ? a * w : -b / (1 + w)",
                                         td::not_differentiable);

const td::Op five = td::pointwise_op("test_five", {.inputs = {"a", "b", "c", "d", "e"}, .attributes = {"k"}},
                                     "a + 2*b + 3*c + 4*d + k*e", td::not_differentiable);

const td::Op cumulative_max =
    td::custom_op("test_cumulative_max", {
                                             .infer = [](td::Infer& op) { op.output(op.input(0)); },
                                             .cpu =
                                                 [](td::KernelContext& op) {
                                                   auto in = op.input<float>(0);
                                                   auto out = op.output<float>(0);
                                                   float best = -INFINITY;
                                                   for (size_t i = 0; i < in.size(); ++i)
                                                     out[i] = best = std::max(best, in[i]);
                                                 },
                                             .grad = td::not_differentiable,
                                         });

// y = x^3, whose gradient is an op of its own: (g, x) -> 3 g x^2.
const td::Op cube_grad =
    td::custom_op("test_cube_grad", {
                                        .infer = [](td::Infer& op) { op.output(op.input(1)); },
                                        .cpu =
                                            [](td::KernelContext& op) {
                                              auto g = op.input<double>(0), x = op.input<double>(1);
                                              auto out = op.output<double>(0);
                                              for (size_t i = 0; i < x.size(); ++i) out[i] = 3 * g[i] * x[i] * x[i];
                                            },
                                        .grad =
                                            [](const td::OpContext& op) {
                                              const Tensor gg = op.grad_output(), g = op.input(0), x = op.input(1);
                                              return Tensors{gg * 3 * x * x, gg * g * 6 * x};
                                            },
                                        .inputs = 2,
                                    });
const td::Op cube =
    td::custom_op("test_cube", {
                                   .infer =
                                       [](td::Infer& op) {
                                         op.check<td::DTypeError>(op.input(0).dtype() == td::float64,
                                                                  "needs float64, got ", op.input(0).dtype());
                                         op.output(op.input(0));
                                       },
                                   .cpu =
                                       [](td::KernelContext& op) {
                                         auto x = op.input<double>(0);
                                         auto out = op.output<double>(0);
                                         for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * x[i] * x[i];
                                       },
                                   .grad = cube_grad,
                                   .inputs = 1,
                               });

const td::Op split_sign =
    td::custom_op("test_split_sign",
                  {
                      .infer =
                          [](td::Infer& op) {
                            op.output(op.input(0));
                            op.output(op.input(0));
                          },
                      .cpu =
                          [](td::KernelContext& op) {
                            auto x = op.input<float>(0);
                            auto plus = op.output<float>(0), minus = op.output<float>(1);
                            for (size_t i = 0; i < x.size(); ++i)
                              plus[i] = std::max(x[i], 0.f), minus[i] = std::max(-x[i], 0.f);
                          },
                      .grad =
                          [](const td::OpContext& op) {
                            const Tensor x = op.input(0);
                            return Tensors{where(x > 0, op.grad_output(0), 0) - where(x < 0, op.grad_output(1), 0)};
                          },
                      .inputs = 1,
                      .outputs = 2,
                  });

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const td::Error& error) { return error.what(); }
  return "";
}

double softplus_reference(double x, double beta) { return std::log1p(std::exp(beta * x)) / beta; }

}  // namespace

TEST_CASE("pointwise_op: values in all layouts and floating dtypes, integers become float32") {
  const Tensor x = td::linspace(-3, 3, 24).reshape({4, 6});
  const std::vector<Tensor> layouts = {x,
                                       x.transpose(0, 1),
                                       x.slice(1, 1, 6, 2),
                                       x.reshape({4, 1, 6}).expand({4, 3, 6}),
                                       td::tensor(0.5f),
                                       x.slice(0, 0, 0)};
  for (const Tensor& each : layouts)
    for (const td::DType type : {td::float32, td::float64, td::float16, td::bfloat16}) {
      const Tensor in = each.to(type), out = softplus_beta(in, {{"beta", 2.0}});
      CHECK(out.dtype() == type);
      CHECK(out.shape() == in.shape());
      const auto values = in.to_vector<double>(), results = out.to_vector<double>();
      const double tolerance = type == td::float64 ? 1e-14 : type == td::float32 ? 1e-6 : 1e-2;
      for (size_t i = 0; i < values.size(); ++i)
        CHECK(std::fabs(results[i] - softplus_reference(values[i], 2)) <= tolerance);
    }
  const Tensor integer = softplus_beta(td::tensor({0, 1}), {{"beta", 1}});
  CHECK(integer.dtype() == td::float32);
  CHECK(integer.to_vector<float>()[0] == doctest::Approx(std::log(2)));
}

TEST_CASE("pointwise_op: several operands broadcast, promote and take numbers") {
  const Tensor a = td::tensor({{1.f, 2.f}, {3.f, 4.f}}), b = td::tensor({10.f, 20.f}), w = td::tensor({{1.f}, {0.f}});
  CHECK(weighted(a, b, w).to_vector<float>() == Floats{1, 2, -10, -20});
  CHECK(weighted(a, 5, w).to_vector<float>() == Floats{1, 2, -5, -5});
  CHECK(weighted(a.to(td::float64), b, w).dtype() == td::float64);
  const Tensor row = td::tensor({1.f, 2.f}), column = td::tensor({{1.f}, {2.f}});
  const Tensors out = five({row, column, td::tensor(1.f), row, column}, {{"k", 5}});
  CHECK(out.at(0).to_vector<float>() ==
        Floats{1 + 2 + 3 + 4 + 5, 2 + 2 + 3 + 8 + 5, 1 + 4 + 3 + 4 + 10, 2 + 4 + 3 + 8 + 10});
}

TEST_CASE("pointwise_op: gradients, and the same numbers in three modes, fused") {
  Tensor x = td::linspace(-1, 1, 7, {.dtype = td::float64, .requires_grad = true});
  const auto f = [](const Tensor& x) { return (softplus_beta(x, {{"beta", 2.0}}) * 3).sum(); };
  CHECK(td::gradcheck(f, {x}));
  CHECK(td::gradgradcheck(f, {x}));
  const Tensor y = td::linspace(-4, 4, 1000);
  const auto g = [](const Tensor& y) { return softplus_beta(y * 2, {{"beta", 0.5}}) + 1; };
  const auto expected = g(y).to_vector<float>();
  for (const td::Mode mode : {td::Mode::replay, td::Mode::compiled}) {
    auto compiled = td::compile(g, {.mode = mode});
    CHECK(compiled(y).to_vector<float>() == expected);
    if (mode == td::Mode::compiled && compiled.stats().fused_kernels) CHECK(compiled.stats().kernels == 1);
  }
  auto whole = td::compile(f);
  CHECK(td::allclose(whole(y), f(y)));
  if (whole.stats().fused_kernels) CHECK(whole.stats().kernels == 1);
}

TEST_CASE("pointwise_op: the interpreter gives the compiled loop's numbers") {
  const auto [loop, interpreted] = [] {
    const auto define = [](const char* name) {
      return td::pointwise_op(name, {.inputs = {"x", "y"}},
                              "x >= 0 && !(y == 2) ? pow(maximum(x, .5e0), y) - -y : tanh(x) + 1e-3 * hypot(x, y)",
                              td::not_differentiable);
    };
    return std::pair{define("test_loop"), define("test_interpreted")};
  }();
  const Tensor x = td::linspace(-2, 2, 33), y = td::tensor({{1.f}, {2.f}, {-0.5f}});
  const Tensor expected = loop(x, y);
  const auto compiler = std::exchange(td::expression_compiler().compile, nullptr);
  const Tensor slow = interpreted(x, y);
  td::expression_compiler().compile = compiler;
  CHECK(td::allclose(slow, expected, {.rtol = 1e-6, .atol = 1e-7}));
  for (int64_t i = 0; i < 33; ++i) {
    const double a = -2 + static_cast<double>(i) / 8, b = 2;
    CHECK(slow[1][i].item<float>() == doctest::Approx(std::tanh(a) + 1e-3 * std::hypot(a, b)));
  }
}

TEST_CASE("pointwise_op: op by op, as on CUDA, it gives the same numbers") {
  const td::Op loop = td::pointwise_op(
      "test_composed", {.inputs = {"x", "y"}, .attributes = {"k"}},
      "x >= 0 && !(y == 2) || x < -1.5 ? pow(maximum(x, .5e0), y) - -y * k : tanh(x) / (k + square(y))",
      td::not_differentiable);
  const Tensor x = td::linspace(-2, 2, 33), y = td::tensor({{1.f}, {2.f}, {-0.5f}});
  const td::Attributes attributes{{"k", 1.5}};
  const Tensor expected = loop(x, y, attributes), inputs[] = {x, y};
  Tensor out[] = {td::zeros({3, 33})};
  td::KernelContext context(td::find_op("test_composed"), inputs, attributes, out, td::Where::current());
  td::kernel_for(td::find_op("test_composed"), {td::DeviceKind::cuda})(context);
  CHECK(td::allclose(out[0], expected, {.rtol = 1e-6, .atol = 1e-7}));
}

TEST_CASE("pointwise_op: wrong expressions show the text and the place") {
  int count = 0;
  const auto message = [&](const std::string& expression) {
    return message_of([&] {
      td::pointwise_op("test_wrong_" + std::to_string(count++), {.inputs = {"x"}, .attributes = {"beta"}}, expression,
                       td::not_differentiable);
    });
  };
  CHECK(contains(message("log1p(exp(beta * z)) / beta"),
                 "\"z\" is neither an input nor an attribute (x, beta):\n    log1p(exp(beta * z)) / beta\n             "
                 "        ^"));
  CHECK(contains(message("foo(x)"), "no function is called \"foo\"; there are abs, "));
  CHECK(contains(message("x ^ 2"), "powers are written pow(a, b):\n    x ^ 2\n      ^"));
  CHECK(contains(message("x ** 2"), "powers are written pow(a, b)"));
  CHECK(contains(message("x % 2"), "remainder(a, b)"));
  CHECK(contains(message("(x"), "expected )"));
  CHECK(contains(message("x)"), "no parenthesis is open"));
  CHECK(contains(message("x +"), "the expression ends"));
  CHECK(contains(message(""), "the expression ends"));
  CHECK(contains(message("2x"), "is a * missing?"));
  CHECK(contains(message("2.0f * x"), "no suffix"));
  CHECK(contains(message("pow(x)"), "pow takes 2 operands"));
  CHECK(contains(message("exp(x, x)"), "exp takes 1 operand"));
  CHECK(contains(message("x; system(0)"), "expected an operator"));
  CHECK(contains(message(std::string(500, '(') + "x"), "nested too deep"));
  CHECK(contains(message("x ? 1"), "expected :"));
  std::string sum = "x";
  for (int i = 0; i < 3000; ++i) sum += "+x";
  CHECK(contains(message(sum), "more than 2000 operations"));
}

TEST_CASE("ops of the user's: wrong names, operands and attributes") {
  CHECK(contains(message_of([] { td::pointwise_op("test_weighted", {.inputs = {"x"}}, "x", td::not_differentiable); }),
                 "an op called test_weighted exists already"));
  CHECK(contains(message_of([] { td::pointwise_op("exp", {.inputs = {"x"}}, "x", td::not_differentiable); }),
                 "exists already; choose another name"));
  CHECK(contains(message_of([] { td::pointwise_op("no name", {.inputs = {"x"}}, "x", td::not_differentiable); }),
                 "is no name for an op"));
  CHECK(contains(message_of([] { td::pointwise_op("test_none", {.inputs = {}}, "1", td::not_differentiable); }),
                 "need 1 to 8"));
  CHECK(contains(message_of([] {
                   td::pointwise_op("test_twice", {.inputs = {"x"}, .attributes = {"x"}}, "x", td::not_differentiable);
                 }),
                 "are called x"));
  CHECK(contains(message_of([] { td::custom_op("test_no_infer", {.grad = td::not_differentiable}); }), "needs .infer"));
  CHECK(contains(
      message_of([] { td::custom_op("test_no_grad", {.infer = [](td::Infer& op) { op.output(op.input(0)); }}); }),
      "needs .grad"));
  const Tensor x = td::ones({2});
  CHECK(contains(message_of([&] { softplus_beta(x); }), "attribute beta is missing"));
  CHECK(contains(message_of([&] {
                   softplus_beta(x, {{"beta", 1.0}, {"gamma", 2}});
                 }),
                 "has no attribute gamma; it has beta"));
  CHECK(contains(message_of([&] { softplus_beta(x, x, {{"beta", 1.0}}); }), "takes 1 operand, got 2"));
  CHECK(contains(message_of([&] { split_sign(x); }), "has 2 results"));
  CHECK(contains(message_of([&] { cumulative_max(td::ones({2}, {.dtype = td::float64})); }),
                 "input 0 is float64, but the kernel asks for float32"));
  CHECK(contains(message_of([&] { cube(x); }), "test_cube: needs float64, got float32"));
}

TEST_CASE("custom_op: runs eagerly, in replay and compiled, on operands of any layout") {
  const Tensor x = td::tensor({1.f, 3.f, 2.f, 5.f});
  CHECK(cumulative_max(x).to_vector<float>() == Floats{1, 3, 3, 5});
  const Tensor wide = td::tensor({{4.f, 0.f}, {1.f, 9.f}, {6.f, 2.f}});
  const auto f = [](const Tensor& x) { return cumulative_max((exp(x * 0) * x).transpose(0, 1)) + 1; };
  const Floats expected{5, 5, 7, 7, 10, 10};
  CHECK(f(wide).to_vector<float>() == expected);
  for (const td::Mode mode : {td::Mode::replay, td::Mode::compiled}) {
    auto compiled = td::compile(f, {.mode = mode});
    CHECK(compiled(wide).to_vector<float>() == expected);
  }
  CHECK_FALSE(cumulative_max(td::ones({2}, {.requires_grad = true})).requires_grad());
}

TEST_CASE("custom_op: a reduction given as a fold fuses as sum does, under its own gradient") {
  const td::Op clipped_sum = td::custom_op("test_clipped_sum", {
                                                                   .grad =
                                                                       [](const td::OpContext& op) {
                                                                         const Tensor g =
                                                                             clamp(op.grad_output(), -1, 1);
                                                                         return Tensors{expand(g, op.input_shape(0))};
                                                                       },
                                                                   .saved = td::kSaveNothing,
                                                                   .fold = td::Fold::sum,
                                                               });
  const auto f = [&](const Tensor& x) { return exp(x) / clipped_sum(exp(x), {{"dims", -1}, {"keepdim", true}}); };
  const Tensor x = td::randn({5, 70});
  auto compiled = td::compile(f), replayed = td::compile(f, {.mode = td::Mode::replay});
  const std::vector<double> eager = f(x).to_vector<double>();
  CHECK(compiled(x).to_vector<double>() == eager);
  CHECK(replayed(x).to_vector<double>() == eager);
  CHECK(compiled.stats().kernels == 1);
  CHECK(compiled.stats().fused_kernels == 1);
  CHECK(clipped_sum(x).to_vector<double>() == sum(x).to_vector<double>());

  Tensor w = td::randn({3}).requires_grad(true);
  const Tensor loss = 5 * clipped_sum(w, {{"dims", 0}, {"keepdim", true}});
  sum(loss).backward();
  CHECK(w.grad().to_vector<float>() == Floats{1, 1, 1});
  CHECK_THROWS_AS(clipped_sum(x, {{"dims", 2}}), td::DimensionError);
  CHECK_THROWS_AS(clipped_sum(x, {{"axis", 0}}), td::ValueError);
}

TEST_CASE("custom_op: a gradient by another op, which has one itself; several results") {
  Tensor x = td::linspace(-1, 1, 5, {.dtype = td::float64, .requires_grad = true});
  const auto f = [](const Tensor& x) { return cube(x).sum(); };
  CHECK(td::gradcheck(f, {x}));
  CHECK(td::gradgradcheck(f, {x}));
  auto step = td::compile([](const Tensor& x) {
    const Tensor loss = cube(x).sum();
    return td::grad<1>(loss, {x})[0];
  });
  CHECK(td::allclose(step(x), 3 * x.detach() * x.detach()));

  Tensor y = td::tensor({-2.f, 3.f}, {.requires_grad = true});
  const Tensors parts = split_sign(Tensors{y});
  CHECK(parts.at(0).to_vector<float>() == Floats{0, 3});
  CHECK(parts.at(1).to_vector<float>() == Floats{2, 0});
  (parts[0] * 2 + parts[1] * 5).sum().backward();
  CHECK(y.grad().to_vector<float>() == Floats{-5, 2});
}

TEST_CASE("custom_op: infer that makes another number of outputs, and a rule that returns the wrong gradients") {
  const td::Op two =
      td::custom_op("test_two_of_one",
                    {.infer = [](td::Infer&) {}, .cpu = [](td::KernelContext&) {}, .grad = td::not_differentiable});
  CHECK(contains(message_of([&] { two(td::ones({1})); }), "its infer made 0 outputs, but the op has 1"));
  const auto copy = [](td::KernelContext& op) {
    std::copy(op.input<float>(0).begin(), op.input<float>(0).end(), op.output<float>().begin());
  };
  const td::Op few = td::custom_op("test_no_gradients", {.infer = [](td::Infer& op) { op.output(op.input(0)); },
                                                         .cpu = copy,
                                                         .grad = [](const td::OpContext&) { return Tensors{}; }});
  const td::Op shape = td::custom_op("test_wrong_shape",
                                     {.infer = [](td::Infer& op) { op.output(op.input(0)); },
                                      .cpu = copy,
                                      .grad = [](const td::OpContext& op) { return Tensors{op.grad_output().sum()}; }});
  const Tensor x = td::ones({3}, {.requires_grad = true});
  CHECK(
      contains(message_of([&] { few(x).sum().backward(); }), "its gradient returns 0 tensors, but there are 1 inputs"));
  CHECK(
      contains(message_of([&] { shape(x).sum().backward(); }), "its gradient for input 0 has shape [], the input [3]"));
}

TEST_CASE("ops of the user's are part of graph text") {
  const auto f = [](const Tensor& x) { return cumulative_max(softplus_beta(x, {{"beta", 2.5}})); };
  const td::Graph graph = td::trace(f, td::ones({3}));
  const std::string text = graph.to_string();
  CHECK(contains(text, "test_softplus_beta(%0) {beta=2.5}"));
  CHECK(td::parse_graph(text).to_string() == text);
}
