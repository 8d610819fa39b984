// How generated C walks: by strips, tiles and held rows, where a plain loop would lose against the eager kernels; and what is
// left to these. The source shows it, and values agree in three modes. Nothing here is timed.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/scalar/math.h"

#include "core/scalar/rounded.h"
#include "graph/passes/pipeline.h"
#include "tandem.h"

using namespace tandem;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Every bit but those of NaN.
bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  for (size_t i = 0; i < x.size(); ++i)
    if (!(std::isnan(x[i]) && std::isnan(y[i])) && std::memcmp(&x[i], &y[i], sizeof x[i]) != 0) return false;
  return true;
}

struct Walk {
  std::string loops;  ///< the generated functions, without what stands before them
  int64_t kernels = 0, generated = 0;
  bool has(const std::string& text) const { return loops.find(text) != std::string::npos; }
};

/// Runs it in all modes from the same seed, compares, and returns what was generated.
template <class F, class... Args> Walk walked(const F& f, const Args&... args) {
  manual_seed(7);
  const Tensor expected = f(args...);
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    auto g = compile(f, {.mode = mode});
    for (int call = 0; call < 2; ++call) {
      manual_seed(7);
      const Tensor result = g(args...);
      const bool same = same_bits(result, expected);
      CHECK_MESSAGE(same, "eager: ", expected, "\ngraph: ", result);
    }
    if (mode != Mode::compiled) continue;
    const std::string source = g.source();
    const size_t begin = source.find("\nvoid s0(");
    return {begin == std::string::npos ? "" : source.substr(begin), g.stats().kernels, g.stats().fused_kernels};
  }
  return {};
}

/// All patterns of a type of 16 bits: denormals, infinities and NaN.
Tensor all_of(DType type) {
  std::vector<float> values;
  for (td_u32 bits = 0; bits <= 0xffff; ++bits)
    values.push_back(type == float16 ? td_f16_to_f32(static_cast<td_u16>(bits))
                                     : td_bf16_to_f32(static_cast<td_u16>(bits)));
  return tensor(values).to(type);
}

}  // namespace

TEST_CASE("generated loops: rounding a float to 16 bits is the way there and back") {
  int64_t wrong = 0;
  const auto check = [&](td_u32 bits) {
    const float x = td_from_bits(bits);
    wrong += td_bits(td_f16_rounded(x)) != td_bits(td_f16_to_f32(td_f32_to_f16(x)));
    wrong += td_bits(td_bf16_rounded(x)) != td_bits(td_bf16_to_f32(td_f32_to_bf16(x)));
  };
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4099) check(static_cast<td_u32>(bits));
  for (td_u32 top = 0; top <= 0xffff; ++top)  // around the midpoints of both
    for (const td_u32 low :
         {0u, 1u, 0x0fffu, 0x1000u, 0x1001u, 0x1fffu, 0x2000u, 0x3000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      check(top << 16 | low);
  CHECK(wrong == 0);
}

TEST_CASE("generated loops: float16 comes and goes in strips") {
  const Tensor x = all_of(float16), y = x.flip({0}).contiguous();
  const Walk chain = walked([](const Tensor& a, const Tensor& b) { return relu(a * b + a) - b; }, x, y);
  CHECK(chain.generated == 1);
  CHECK(chain.has("td_widen_f16(n"));
  CHECK(chain.has("td_narrow_f16(n"));
  CHECK(chain.has("td_f16_rounded("));
  CHECK(!chain.has("td_f16_to_f32("));
  CHECK(!chain.has("td_f32_to_f16("));
  const Walk cast = walked([](const Tensor& a) { return a.to(float32) * 0.5f; }, x);
  CHECK(cast.has("td_widen_f16(n"));
  const Walk odd = walked([](const Tensor& a) { return exp(a.slice(0, 1, 32000)) * 2; }, x);
  CHECK(odd.has("td_widen_f16(n"));
  walked([](const Tensor& a, const Tensor& b) { return relu(a * b + a) - b; }, all_of(bfloat16), all_of(bfloat16));
  // Rows too short for a strip.
  const Walk narrow =
      walked([](const Tensor& a) { return (a * 2 - a.sum(1, {.keepdim = true})) * 3; }, randn({70, 5}).to(float16));
  CHECK(!narrow.has("td_widen_f16(n"));
}

TEST_CASE("generated loops: random numbers come in strips, the same as one by one") {
  for (const Shape& shape : {Shape{1000}, Shape{33, 77}, Shape{3, 300}, Shape{5, 7}, Shape{1, 5000}}) {
    CAPTURE(to_string(shape));
    const Tensor x = randn(shape);
    const Walk flat = walked([&](const Tensor& a) { return rand(shape) * a - 0.5f; }, x);
    CHECK(flat.generated == 1);
    CHECK(flat.has("td_uniforms(n") == (shape.back() >= 16 || shape.size() == 2));
    walked([](const Tensor& a) { return dropout(a, 0.3) * 2; }, x);
    // Drawn once, and held for the phases of the row.
    walked(
        [&](const Tensor& a) {
          const Tensor noisy = a + rand(shape);
          return noisy - noisy.max({-1}, {.keepdim = true});
        },
        x);
  }
}

TEST_CASE("generated loops: what lies along another dim is transposed in tiles") {
  manual_seed(3);
  const auto f = [](const Tensor& a, const Tensor& b) { return relu(a + b.transpose(0, 1)) * 2; };
  for (const Shape& shape : {Shape{64, 64}, Shape{33, 77}, Shape{16, 200}, Shape{1, 40}, Shape{9, 3}}) {
    CAPTURE(to_string(shape));
    const Shape turned{shape[1], shape[0]};
    const bool tiled = shape[0] >= 8 && shape[1] >= 16;
    for (const DType type : {float32, float64, float16, uint8}) {
      CAPTURE(type);
      const Tensor x = (randn(shape) * 50).abs().to(type), y = (randn(turned) * 50).abs().to(type);
      const Walk walk = walked(f, x, y);
      CHECK(walk.generated == 1);
      CHECK(walk.has("td_transpose" + std::to_string(8 * size_of(type)) + "(") == tiled);
    }
  }
  const Tensor image = randn({2, 24, 5, 7});
  const Walk last = walked([](const Tensor& a) { return relu(a.permute({0, 2, 3, 1}).contiguous()); }, image);
  CHECK(last.has("td_transpose32("));
  walked([](const Tensor& a) { return a.permute({3, 0, 2, 1}).contiguous() * 2 - 1; }, image);
  walked([](const Tensor& a) { return (a.transpose(1, 3) * 2).sum(3); }, image);
}

TEST_CASE("generated loops: rows that lie across memory are transposed before they are folded") {
  manual_seed(4);
  for (const Shape& shape : {Shape{40, 64}, Shape{33, 19}, Shape{200, 9}, Shape{5000, 16}}) {
    CAPTURE(to_string(shape));
    const Tensor x = randn(shape);
    const Walk walk = walked([](const Tensor& a) { return softmax(a * 2, 0) + 1; }, x);
    CHECK(walk.has("td_transpose32("));
    walked([](const Tensor& a) { return softmax(a.to(float16) * 2, 0) + 1; }, x);
  }
}

TEST_CASE("generated loops: long rows hold what is costly in scratch, or where the row's result goes") {
  manual_seed(5);
  const Tensor x = randn({3, 5001});
  const Walk apart = walked([](const Tensor& a) { return (softmax(a * 2) * a).to(float16); }, x);
  CHECK(apart.has("(scratch + "));
  const Walk result = walked([](const Tensor& a) { return softmax(a * 2) * 2; }, x);
  CHECK(result.has("* const c"));
  CHECK(!result.has("(scratch + "));
  const Walk stack = walked([](const Tensor& a) { return softmax(a * 2) * 2; }, randn({3, 500}));
  CHECK(!stack.has("* const c"));
}

TEST_CASE("generated loops: sums in double by strips, NaN and infinities included") {
  manual_seed(6);
  for (const int64_t width : {16, 17, 64, 128, 129, 1000, 4500}) {
    CAPTURE(width);
    Tensor x = randn({4, width});
    const Walk walk = walked([](const Tensor& a) { return exp(a * 2).sum(1) + 1; }, x);
    CHECK(walk.has("td_sum"));
    for (const double special : {kInfinity, -kInfinity, std::nan("")}) {
      x.slice(0, 1, 2).slice(1, width / 2, width / 2 + 1).assign(full({1, 1}, special));
      walked([](const Tensor& a) { return softmax(a * 2) - 1; }, x);
      walked([](const Tensor& a) { return (a * 2 - a.mean(1, {.keepdim = true})) * 3; }, x);
    }
  }
  const Walk all = walked([](const Tensor& a) { return exp(a).sum() * 2; }, randn({40000}));
  CHECK(all.has("td_sums_add("));
}

TEST_CASE("generated loops: folds over short dims go on in a lane for each element") {
  manual_seed(8);
  for (const int64_t width : {2, 7, 16, 64}) {
    CAPTURE(width);
    Tensor x = randn({300, width});
    const Tensor row = randn({width});
    for (const double special : {1.0, kInfinity, std::nan("")}) {
      x.slice(0, 17, 18).slice(1, 1, 2).assign(full({1, 1}, special));
      const Walk sum = walked([](const Tensor& a, const Tensor& b) { return (a * b).sum() * 2; }, x, row);
      CHECK(sum.has("double l"));
      walked([](const Tensor& a, const Tensor& b) { return (a * b).max() * 2; }, x, row);
    }
    walked([](const Tensor& a, const Tensor& b) { return (a * b).sum() * 2; }, (x * 9).to(int32), (row * 9).to(int32));
  }
  // Of two operands that walk different dims, the longer dim lies innermost.
  const auto product = [](const Tensor& a, const Tensor& b) { return (a.unsqueeze(1) * b.unsqueeze(0)).sum() + 1; };
  CHECK(walked(product, randn({5}), randn({900})).has("< 900L; ++i1)"));
  CHECK(walked(product, randn({900}), randn({5})).has("< 900L; ++i1)"));
}

TEST_CASE("generated loops: an op that nothing joins stays the eager kernel") {
  const Tensor x = randn({40, 64}), labels = randint(0, 64, {40}), weight = randn({64}), bias = randn({64});
  const auto alone = [](const Walk& walk) { CHECK(walk.generated == 0); };
  alone(walked([](const Tensor& a) { return exp(a); }, x));
  alone(walked([](const Tensor& a, const Tensor& b) { return a + b; }, x, x));
  alone(walked([](const Tensor& a) { return a * 2; }, x));
  alone(walked([](const Tensor& a) { return a.sum(); }, x));
  alone(walked([](const Tensor& a) { return a.mean({1}); }, x));
  alone(walked([](const Tensor& a) { return a.max({0}); }, x));
  alone(walked([](const Tensor& a) { return a.transpose(0, 1).contiguous(); }, x));
  alone(walked([](const Tensor& a) { return softmax(a); }, x));
  alone(walked([](const Tensor& a) { return log_softmax(a); }, x));
  alone(walked([&](const Tensor& a) { return layer_norm(a, weight, bias); }, x));
  alone(walked([&](const Tensor& a) { return cross_entropy(a, labels); }, x));
  // With a neighbour they are loops again: of another shape of operand, a draw, or arithmetic before or after.
  CHECK(walked([&](const Tensor& a) { return a + weight; }, x).generated == 1);
  CHECK(walked([](const Tensor& a) { return softmax(a) * 2; }, x).generated == 1);
  CHECK(walked([&](const Tensor& a) { return layer_norm(a * 2, weight, bias); }, x).generated == 1);
  const graph::Optimised passes =
      graph::optimise(trace([](const Tensor& a) { return exp(a); }, x), {}, Where::current());
  REQUIRE(passes.fusion.refused.size() == 1);
  CHECK(passes.fusion.refused[0].find("nothing to join it with: the eager kernel runs") != std::string::npos);
}

TEST_CASE("generated loops: strips and tiles of sizes that are read at run time") {
  auto f = compile([](const Tensor& a, const Tensor& b) { return softmax(a + b.transpose(0, 1)) * 2; });
  NoGrad none;
  for (const int64_t width : {40, 56, 72, 300, 5000, 20000}) {
    const Tensor x = randn({24, width}), y = randn({width, 24});
    const bool same = same_bits(f(x, y), softmax(x + y.transpose(0, 1)) * 2);
    CHECK_MESSAGE(same, width);
  }
  auto g = compile([](const Tensor& a) { return relu(a.to(float16) * 2).transpose(0, 1).contiguous() - 1; });
  for (const int64_t width : {40, 56, 72, 300}) {
    const Tensor x = randn({width, width + 3});
    CHECK(same_bits(g(x), relu(x.to(float16) * 2).transpose(0, 1).contiguous() - 1));
  }
}
