// Replayed and compiled functions give eager's bits: in conversions, overflow, zeros with a sign and NaN; and no pass, nor
// its absence, changes them.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "graph/codegen/c_source.h"
#include "graph/codegen/cuda_source.h"
#include "graph/ir/graph.h"
#include "tandem.h"

using namespace tandem;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Every bit; any NaN is as good as another.
bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  if (!is_floating(a.dtype())) return a.to_vector<int64_t>() == b.to_vector<int64_t>();
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  for (size_t i = 0; i < x.size(); ++i)
    if (!(std::isnan(x[i]) && std::isnan(y[i])) && std::memcmp(&x[i], &y[i], sizeof x[i]) != 0) return false;
  return true;
}

/// Calls it often enough to be traced again, in both modes.
template <class... Args> void check_bits(const std::function<Tensor(const Args&...)>& f, const Args&... args) {
  const Tensor expected = f(args...);
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    auto g = compile(f, {.mode = mode});
    for (int call = 0; call < 3; ++call) {
      const Tensor result = g(args...);
      const bool same = same_bits(result, expected);
      CHECK_MESSAGE(same, "eager: ", expected, "\ngraph: ", result);
      if (!same) return;
    }
  }
}
using Unary = std::function<Tensor(const Tensor&)>;
using Binary = std::function<Tensor(const Tensor&, const Tensor&)>;
void check(const Unary& f, const Tensor& x) { check_bits<Tensor>(f, x); }
void check(const Binary& f, const Tensor& x, const Tensor& y) { check_bits<Tensor, Tensor>(f, x, y); }

}  // namespace

TEST_CASE("bits: a filled tensor keeps its layout, whatever looks at it") {
  const Tensor x = ones({2, 4});
  check([](const Tensor& a) { return matmul(a, ones({3, 4}).transpose(0, 1)); }, x);
  check([](const Tensor& a) { return matmul(a, full({4, 4}, 2).slice(1, 1, 3)); }, x);
  check([](const Tensor& a) { return matmul(a, full({12}, 3).reshape({3, 4}).transpose(0, 1)) + zeros({2, 3}); }, x);
  check([](const Tensor& a) { return softmax(ones({2, 4})) * a; }, x);
  check([](const Tensor& a) { return cumsum(full({2, 4}, 0.1), 1) + a; }, x);
  check([](const Tensor& a) { return sort(full({2, 4}, 0.1), 1).values + a; }, x);
  check([](const Tensor& a) { return cross_entropy(a, full({2}, 1, {.dtype = int64})); }, x);
  check([](const Tensor& a) { return (a * ones_like(a)).sum() + full({3, 2}, 2).sum({0}).mean(); }, x);
  auto filled = compile([](const Tensor& a) {
    return Tensors{full({2, 3}, 0.5), a + 1, ones({2, 3}).transpose(0, 1)};
  });
  for (const Tensor& result : filled(x)) {
    CHECK(result.strides()[result.rank() - 1] != 0);
    Tensor target = result;
    target += 1.f;
  }
}

TEST_CASE("verify: a view whose recorded layout is another than its own is caught") {
  Graph graph = trace([](const Tensor& x) { return matmul(x, ones({3, 4}).transpose(0, 1)); }, ones({2, 4}));
  CHECK_NOTHROW(verify(graph));
  for (const Node& node : graph.nodes)
    if (node.op->kind == OpKind::view) graph.type(node.outputs[0]).strides = contiguous_strides({4, 3});
  CHECK_THROWS_AS(verify(graph), GraphError);
}

TEST_CASE("bits: floats to integers are PyTorch's on x86, in every mode") {
  const double values[] = {-2.5,      -0.3,       -0.6,        256.5,       -0.0,         255.9,        1e9,    -1e9,
                           3e9,       -3e9,       4294967551., 1e19,        -1e19,        1e30,         -1e30,  NAN,
                           kInfinity, -kInfinity, 2147483647., 2147483648., -2147483648., -2147483649., 9.3e18, 65504};
  const Tensor wide = tensor(std::vector<double>(std::begin(values), std::end(values)));
  for (const DType from : {float64, float32, float16, bfloat16}) {
    const Tensor x = wide.to(from);
    for (const DType to : {uint8, int8, int16, int32, int64, bool_}) {
      CAPTURE(name_of(from));
      CAPTURE(name_of(to));
      const auto elements = x.to_vector<double>();
      const auto converted = x.to(to).to_vector<int64_t>();
      for (size_t i = 0; i < elements.size(); ++i) {
        const double v = elements[i];
        const int64_t in_64 = v >= -0x1p63 && v < 0x1p63 ? static_cast<int64_t>(v) : INT64_MIN;
        const int64_t in_32 = v >= -0x1p31 && v < 0x1p31 ? static_cast<int64_t>(v) : INT32_MIN;
        const int64_t expected = to == bool_   ? v != 0
                                 : to == int64 ? in_64
                                 : to == int32 ? in_32
                                 : to == int16 ? static_cast<int16_t>(in_32)
                                 : to == int8  ? static_cast<int8_t>(in_32)
                                               : in_64 & 255;
        CHECK_MESSAGE(converted[i] == expected, v);
      }
      check([=](const Tensor& a) { return a.to(to); }, x);
      check([=](const Tensor& a) { return (a * 1.5).to(to).to(float32) * 2; }, x);
    }
  }
  check([](const Tensor& a) { return a + arange(0, 5, 1.5, {.dtype = int64}); }, zeros({4}, {.dtype = int64}));
  check([](const Tensor& a) { return a + arange(250, 260, 1, {.dtype = uint8}); }, zeros({10}, {.dtype = uint8}));
  check([](const Tensor& a) { return a + arange(120, 130, 1, {.dtype = int8}); }, zeros({10}, {.dtype = int8}));
}

TEST_CASE("bits: generated C and CUDA C++ convert and wrap by the functions of core/scalar") {
  auto f = compile([](const Tensor& a) { return (a.to(uint8).to(int64) + 1) * a.to(int64) - a.to(int32).to(int64); });
  f(ones({8}));
  graph::CudaSource cuda;
  graph::CSource c;
  for (const Node& node : f.stages().back().graph.nodes)
    if (node.fused) cuda.add(*node.fused), c.add(*node.fused);
  for (const std::string& text : {cuda.text(), c.text()})
    for (const char* call :
         {"td_f32_to_u8(v", "td_f32_to_i64(v", "td_f32_to_i32(v", "td_add(x, y)", "td_multiply(x, y)"})
      CHECK_MESSAGE(text.find(call) != std::string::npos, call);
}

TEST_CASE("bits: constants are folded as they run") {
  const Tensor x = ones({2});
  for (const double value : {double{NAN}, 1e30, -1e30, kInfinity, 300.7, -2.5})
    for (const DType to : {uint8, int8, int16, int32, int64, bool_}) {
      CAPTURE(value);
      CAPTURE(name_of(to));
      check([=](const Tensor& a) { return full({}, value).to(to).to(float32) + a; }, x);
      check([=](const Tensor& a) { return full({2}, value, {.dtype = to}).to(float32) + a; }, x);
      check([=](const Tensor& a) { return full({2}, value, {.dtype = to}) + a; }, x);
    }
  for (const DType half : {float16, bfloat16})
    check([=](const Tensor& a) { return a + full({2}, 0.1, {.dtype = half}); }, x);
}

TEST_CASE("bits: integers wrap") {
  const Tensor wide = tensor<int64_t>({INT64_MAX, INT64_MIN, -1, 3, INT64_MAX - 1, 0});
  for (const DType type : {int32, int64, int16, int8, uint8}) {
    const Tensor x = type == int32 ? tensor<int32_t>({INT32_MAX, INT32_MIN, -1, 3, INT32_MAX - 1, 0}) : wide.to(type);
    CAPTURE(name_of(type));
    check([](const Tensor& a) { return a + 1; }, x);
    check([](const Tensor& a) { return a * 3 - 7; }, x);
    check([](const Tensor& a) { return -a; }, x);
    check([](const Tensor& a) { return square(a) + abs(a); }, x);
    check([](const Tensor& a) { return a + 1 > a; }, x);
    check([](const Tensor& a) { return a.sum() + a.prod(); }, x);
    check([](const Tensor& a) { return floor_divide(a, 0) + remainder(a, 0); }, x);
    check([](const Tensor& a) { return floor_divide(a, -1) + remainder(a, -1); }, x.to(type == uint8 ? int32 : type));
    check([](const Tensor& a) { return cumsum(a, 0); }, x);
  }
  // PyTorch 2.15's, of int8.
  const Tensor narrow = tensor<int64_t>({-128, 127, -1, 100, 3}).to(int8);
  const auto is = [](const Tensor& x, std::vector<int64_t> expected) {
    CHECK(x.dtype() == int8);
    CHECK(x.to_vector<int64_t>() == expected);
  };
  is(narrow + narrow, {0, -2, -2, -56, 6});
  is(narrow * narrow, {0, 1, 1, 16, 9});
  is(-narrow, {-128, -127, 1, -100, -3});
  is(abs(narrow), {-128, 127, 1, 100, 3});
  is(floor_divide(narrow, -1), {-128, -127, 1, -100, -3});
  is(remainder(narrow, 7), {5, 1, 6, 2, 3});
  is(narrow + 1000, {104, 103, -25, 76, -21});
  is(narrow & 15, {0, 15, 15, 4, 3});
  is(~narrow, {127, -128, 0, -101, -4});
  is(max(narrow).reshape({1}), {127});
  is(matmul(narrow, narrow).reshape({1}), {27});
  CHECK(narrow.sum().dtype() == int64);
  CHECK(cumsum(narrow, 0).dtype() == int64);
  CHECK((narrow / 2).to_vector<float>() == std::vector<float>{-64, 63.5f, -0.5f, 50, 1.5f});
  CHECK((wide + 1).to_vector<int64_t>()[0] == INT64_MIN);
  CHECK((-wide).to_vector<int64_t>()[1] == INT64_MIN);
  CHECK(floor_divide(wide, -1).to_vector<int64_t>()[1] == INT64_MIN);
}

TEST_CASE("bits: zeros keep their sign") {
  const Tensor x = tensor({-0.f, 0.f, 1.f}), column = x.reshape({3, 1});
  check([](const Tensor& a) { return a - (-0.0); }, x);
  check([](const Tensor& a) { return a - 0.0; }, x);
  check([](const Tensor& a) { return a + (-0.0); }, x);
  check([](const Tensor& a) { return a + 0.0; }, x);
  check([](const Tensor& a) { return a * 1.0; }, x);
  check([](const Tensor& a) { return a * -1.0; }, x);
  for (const bool keepdim : {false, true}) {
    check([=](const Tensor& a) { return a.sum({1}, {.keepdim = keepdim}); }, column);
    check([=](const Tensor& a) { return a.mean({1}, {.keepdim = keepdim}); }, column);
    check([=](const Tensor& a) { return a.prod({1}, {.keepdim = keepdim}); }, column);
    check([=](const Tensor& a) { return a.max({1}, {.keepdim = keepdim}); }, column);
    check([=](const Tensor& a) { return a.min({1}, {.keepdim = keepdim}); }, column);
  }
  check([](const Tensor& a) { return concat({pad(a, {1, 1}, {.value = 0.0}), pad(a, {1, 1}, {.value = -0.0})}); }, x);
  check([](const Tensor& a) { return concat({full({3}, 0.0) * a, full({3}, -0.0) * a, full({2}, -0.0)}); }, x);
}

TEST_CASE("bits: NaN is a constant like any other") {
  const Tensor x = ones({3});
  check([](const Tensor& a) { return a + full({3}, NAN); }, x);
  check([](const Tensor& a) { return pad(a, {1, 0}, {.value = NAN}); }, x);
  check([](const Tensor& a) { return where(a > 0, NAN, a); }, x);
  auto f = compile([](const Tensor& a) { return pad(a, {1, 0}, {.value = NAN}) + NAN; });
  for (int call = 0; call < 20; ++call) f(x);
  CHECK(f.stats().promoted == 0);
  CHECK(f.stats().traces == 1);
}

TEST_CASE("bits: means, softmax and norms of float32 rows") {
  manual_seed(3);
  const Tensor weight = randn({77}), bias = randn({77});
  for (const int64_t rows : {1, 64}) {
    const Tensor x = randn({rows, 77}), g = randn({rows, 77});
    check([](const Tensor& a) { return a.mean({1}); }, x);
    check([](const Tensor& a) { return a.mean(); }, x);
    check([](const Tensor& a) { return a - a.mean({1}, {.keepdim = true}); }, x);
    check([](const Tensor& a) { return (a * 2).to(bfloat16).mean({1}); }, x);
    check([](const Tensor& a) { return (a * 2).to(float16).mean({1}); }, x);
    check([](const Tensor& a) { return softmax(a) * 2; }, x);
    check([](const Tensor& a) { return log_softmax(a) * 2; }, x);
    check([&](const Tensor& a) { return layer_norm(a, weight, bias); }, x);
    check([&](const Tensor& a) { return rms_norm(a, weight); }, x);
    check([&](const Tensor& a) { return var(a, {1}); }, x);
    check(
        [&](const Tensor& a, const Tensor& b) {
          Tensor y = a.detach().requires_grad(true);
          (layer_norm(y, weight, bias) * b).sum().backward();
          return y.grad();
        },
        x, g);
    check(
        [&](const Tensor& a, const Tensor& b) {
          Tensor y = a.detach().requires_grad(true);
          (rms_norm(y, weight) * b).sum().backward();
          return y.grad();
        },
        x, g);
    check(
        [&](const Tensor& a, const Tensor& b) {
          Tensor y = a.detach().requires_grad(true);
          (softmax(y) * b).sum().backward();
          return y.grad();
        },
        x, g);
  }
}

TEST_CASE("bits: sums of float64, and what is made of them, are the eager kernels'") {
  for (const Shape& shape : {Shape{7, 100}, Shape{3, 1024}, Shape{2, 70000}}) {
    CAPTURE(shape);
    manual_seed(5);
    const Tensor labels = zeros({shape[0]}, {.dtype = int64}), w = rand({shape[1]}, {.dtype = float64});
    const Unary parts[] = {
        [](const Tensor& t) { return (t * 3 + 1).sum({1}) * 2; },
        [](const Tensor& t) { return (t * 3).mean() + 1; },
        [](const Tensor& t) { return (t * 1e-3 + 1).prod({1}) + t.sum({0}).max(); },
        [](const Tensor& t) { return t - t.mean({1}, {.keepdim = true}); },
        [](const Tensor& t) { return t.var({1}) + 1; },
        [](const Tensor& t) { return softmax(t, 1) * 3; },
        [](const Tensor& t) { return log_softmax(t, 1) + t; },
        [](const Tensor& t) { return logsumexp(t, {1}); },
        [=](const Tensor& t) { return layer_norm(t, w, w) * 2; },
        [=](const Tensor& t) { return rms_norm(t, w) * 2; },
        [=](const Tensor& t) { return cross_entropy(t, labels); },
    };
    const auto all = [&](const Tensor& t) {
      Tensors results;
      for (const Unary& part : parts) results.push_back(part(t * 2 - 1).reshape({-1}));
      return concat(results, 0);
    };
    const auto gradients = [&](const Tensor& t) {
      Tensors results;
      for (const Unary& part : parts) {
        const Tensor a = (t * 1.5).detach().requires_grad(true), y = part(a * 2);
        (y * y).sum().backward();
        results.push_back(a.grad().reshape({-1}));
      }
      return concat(results, 0);
    };
    const Tensor x = randn(shape, {.dtype = float64});
    check(all, x);
    check(gradients, x);
  }
}

TEST_CASE("passes: each, and each two, can be left out") {
  manual_seed(4);
  Tensor w = randn({4, 4}, {.requires_grad = true}), state = zeros({3, 4});
  nn::optim::AdamW optimizer({w}, {.lr = 1e-2});
  const std::pair<const char*, Unary> programs[] = {
      {"dead nodes",
       [](const Tensor& x) {
         const Tensor unused = exp(x * 2).sum() + 1, scalar = full({}, 3) * 2, view = x.transpose(0, 1);
         return softmax(x + 1);
       }},
      {"a dead scalar chain of state",
       [&](const Tensor& x) {
         const Tensor s = (state.sum() + 1) * 2, dead = s * s, alive = x * s;
         return alive;
       }},
      {"filled tensors and views",
       [](const Tensor& x) {
         const Tensor filled = ones({4, 3});
         return matmul(x, filled.transpose(0, 1).transpose(0, 1)) + filled.slice(0, 0, 3).sum() + arange(3).to(float32);
       }},
      {"a write to state",
       [&](const Tensor& x) {
         state.assign(x * 0.5 + zeros({3, 4}));
         return (x + state).mean({1});
       }},
      {"random numbers", [](const Tensor& x) { return dropout(relu(x), 0.5).sum({1}) + rand({3}); }},
      {"a training step",
       [&](const Tensor& x) {
         optimizer.zero_grad();
         Tensor loss = cross_entropy(matmul(x, w), tensor<int64_t>({0, 3, 1}));
         loss.backward();
         optimizer.step();
         return loss.detach();
       }},
  };
  std::vector<std::string> names = pass_names();
  names.insert(names.end(), {"memory_plan", "emit"});
  const Tensor x = randn({3, 4});
  for (const auto& program : programs) {
    const auto& name = program.first;
    const auto& f = program.second;
    CAPTURE(name);
    const auto run = [&](CompileOptions options) {
      manual_seed(7);
      {
        const NoGrad no_grad;
        state.assign(zeros({3, 4}));
        w.assign(full({4, 4}, 0.25));
      }
      w.impl()->grad = {};
      auto g = compile(f, std::move(options));
      return g(x);
    };
    const Tensor first = run({});
    for (size_t i = 0; i < names.size(); ++i)
      for (size_t j = i; j < names.size(); ++j) {
        CAPTURE(names[i]);
        CAPTURE(names[j]);
        const Tensor result = run({.without = {names[i], names[j]}});
        if (std::strcmp(name, "a training step") != 0) CHECK(max(abs(result - first)).item<double>() <= 1e-6);
      }
  }
}

TEST_CASE("passes: long chains neither overflow the stack nor take quadratic time") {
  const Tensor x = ones({4});
  const std::pair<const char*, Unary> programs[] = {
      {"flips",
       [](const Tensor& a) {
         const Tensor z = a + 1;
         Tensor y = a;
         for (int i = 0; i < 20000; ++i) y = y.flip({0});
         return z * y;
       }},
      {"views",
       [](const Tensor& a) {
         Tensor y = a;
         for (int i = 0; i < 20000; ++i) y = i % 2 ? y.reshape({4}) : y.reshape({2, 2}).transpose(0, 1);
         return y * 2;
       }},
      {"numbers",
       [](const Tensor& a) {
         Tensor s = a[0];
         for (int i = 0; i < 20000; ++i) s = s * s;
         return a + s;
       }},
      {"kernels",
       [](const Tensor& a) {
         Tensor y = a.reshape({2, 2});
         for (int i = 0; i < 3000; ++i) y = relu(y.flip({0})) + y / 2;
         return y;
       }},
  };
  for (const auto& program : programs) {
    const auto& name = program.first;
    const auto& f = program.second;
    CAPTURE(name);
    for (const auto& without : {std::vector<std::string>{"emit"}, std::vector<std::string>{"fusion"}}) {
      auto g = compile(f, {.without = without});
      CHECK(g(x).numel() == 4);
    }
  }
}

TEST_CASE("empty kernels and no channels are errors or empty results, never a trap") {
  const Tensor x = ones({1, 1, 4, 4});
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    auto convolve = compile([](const Tensor& a) { return conv2d(a, ones({1, 1, 0, 1})); }, {.mode = mode});
    CHECK_THROWS_AS(convolve(x), ShapeError);
    auto back = compile([](const Tensor& a) { return conv_transpose2d(a, ones({1, 1, 1, 0})); }, {.mode = mode});
    CHECK_THROWS_AS(back(x), ShapeError);
    auto norm =
        compile([](const Tensor& a) { return batch_norm(a, {}, {}, {}, {}, {.training = true}); }, {.mode = mode});
    CHECK(norm(ones({1, 0})).shape() == Shape{1, 0});
    CHECK(norm(ones({2, 0, 3, 3})).shape() == Shape{2, 0, 3, 3});
  }
}

TEST_CASE("labels and indices out of range are eager's error in every mode") {
  const Tensor x = ones({2, 3});
  using Labelled = std::function<Tensor(const Tensor&)>;
  const std::pair<const char*, Labelled> programs[] = {
      {"cross_entropy", [&](const Tensor& t) { return cross_entropy(x, t); }},
      {"cross_entropy of a fused operand", [&](const Tensor& t) { return cross_entropy(x * 2, t) + 1; }},
      {"with a gradient",
       [&](const Tensor& t) {
         const Tensor w = x.detach().requires_grad(true);
         cross_entropy(w, t).backward();
         return w.grad();
       }},
      {"ignoring labels", [&](const Tensor& t) { return cross_entropy(x, t, {.ignore_index = -7}); }},
      {"computed labels", [&](const Tensor& t) { return cross_entropy(x, t + 0 * t); }},
      {"one_hot", [](const Tensor& t) { return one_hot(t, 3); }},
      {"one_hot of a fused operand", [](const Tensor& t) { return (one_hot(t, 3) * 2).sum({1}); }},
      {"gather", [&](const Tensor& t) { return gather(x * 2, 1, unsqueeze(t, 1)); }},
      {"index_select", [&](const Tensor& t) { return index_select(x * 2, 1, t) + 1; }},
      {"embedding",
       [](const Tensor& t) {
         return embedding(t, ones({3, 2})) * 2;
       }},
      {"scatter",
       [&](const Tensor& t) {
         return scatter(x * 2, 1, unsqueeze(t, 1), ones({2, 1}));
       }},
  };
  for (const auto& program : programs) {
    const auto& name = program.first;
    const auto& f = program.second;
    CAPTURE(name);
    for (const int64_t bad : {int64_t{-1}, int64_t{3}, int64_t{-100}, int64_t{1} << 40}) {
      const Tensor good = tensor<int64_t>({0, 2}), labels = tensor<int64_t>({1, bad});
      std::string expected;
      try {
        f(labels);
      } catch (const DimensionError& error) { expected = error.message(); }
      REQUIRE(!expected.empty());
      for (const Mode mode : {Mode::replay, Mode::compiled}) {
        auto g = compile(f, {.mode = mode});
        const Tensor before = g(good);
        try {
          g(labels);
          FAIL_CHECK("no error");
        } catch (const DimensionError& error) {
          if (std::strcmp(name, "computed labels") != 0) CHECK(error.message() == expected);
        }
        CHECK(same_bits(g(good), before));  // and it goes on
      }
    }
  }
}
