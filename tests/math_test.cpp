// The hand-written float32 functions: error in ULP against float64, for every float on the best instruction
// set of this machine and for a sample on the others; and the same bits from C and from C++.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "tests/math/tables.h"

#define MATH_DECLARE(level)                          \
  extern "C" const MathTable math_table_cpp_##level; \
  extern "C" const MathReferences math_references_cpp_##level;
#define MATH_DECLARE_C(compiler, level) extern "C" const MathTable math_table_c_##compiler##_##level;
MATH_DECLARE(portable)
MATH_DECLARE_C(gcc, portable)
MATH_DECLARE_C(clang, portable)
#ifdef MATH_WITH_AVX2
MATH_DECLARE(avx2)
MATH_DECLARE_C(gcc, avx2)
MATH_DECLARE_C(clang, avx2)
#endif
#ifdef MATH_WITH_AVX512
MATH_DECLARE(avx512)
MATH_DECLARE_C(gcc, avx512)
MATH_DECLARE_C(clang, avx512)
#endif

namespace {

struct Level {
  std::string name;
  const MathTable* loops;
  const MathReferences* references;
  std::vector<std::pair<std::string, const MathTable*>> from_c;  // the same, compiled as C11
};

#ifdef MATH_WITH_C_GCC
#define MATH_C_GCC(level) {"gcc", &math_table_c_gcc_##level},
#else
#define MATH_C_GCC(level)
#endif
#ifdef MATH_WITH_C_CLANG
#define MATH_C_CLANG(level) {"clang", &math_table_c_clang_##level},
#else
#define MATH_C_CLANG(level)
#endif
#define MATH_LEVEL(level)                                                                                    \
  Level {                                                                                                    \
#level, &math_table_cpp_##level, &math_references_cpp_##level, { MATH_C_GCC(level) MATH_C_CLANG(level) } \
  }

// Those that this machine can run, the best one first.
std::vector<Level> levels() {
  std::vector<Level> found;
#ifdef MATH_WITH_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    found.push_back(MATH_LEVEL(avx512));
#endif
#ifdef MATH_WITH_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(MATH_LEVEL(avx2));
#endif
  found.push_back(MATH_LEVEL(portable));
  return found;
}

float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

constexpr std::uint64_t all_floats = std::uint64_t{1} << 32;
constexpr long chunk = 2048;

struct Worst {
  double ulp = 0;
  float at = 0;
};

// The floats with the bit patterns 0, stride, 2 stride, …, on all cores.
Worst worst_of(MathLoop* loop, MathReference* reference, const MathReferences& references, std::uint64_t stride) {
  unsigned threads = std::max(2u, std::thread::hardware_concurrency());
  std::vector<Worst> found(threads);
  auto sweep = [&](unsigned thread) {
    std::vector<float> x(chunk), got(chunk);
    std::vector<double> wanted(chunk);
    Worst worst;
    for (std::uint64_t start = thread * chunk * stride; start < all_floats; start += threads * chunk * stride) {
      references.floats(static_cast<unsigned>(start), static_cast<unsigned>(stride), x.data(), chunk);
      loop(x.data(), got.data(), chunk);
      reference(x.data(), wanted.data(), chunk);
      double ulp = references.worst(got.data(), wanted.data(), chunk);
      if (ulp <= worst.ulp) continue;
      long index = 0;
      while (references.worst(&got[index], &wanted[index], 1) < ulp) ++index;
      worst = {ulp, x[index]};
    }
    found[thread] = worst;
  };
  std::vector<std::thread> pool;
  for (unsigned t = 0; t < threads; ++t) pool.emplace_back(sweep, t);
  for (std::thread& t : pool) t.join();
  Worst worst;
  for (const Worst& w : found) worst = w.ulp > worst.ulp ? w : worst;
  return worst;
}

// Without optimisation, under a sanitizer or with a scalar reference only a sample can be tried.
std::uint64_t smallest_stride(const MathReferences& references) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
  (void)references;
  return 1009;
#else
  return references.vectorised ? 1 : 61;
#endif
}

void check_all(const char* name, MathLoop* MathTable::*loop, MathReference* MathReferences::*reference,
               std::uint64_t stride_of_best, double allowed = 2.0) {
  bool best = true;
  for (const Level& level : levels()) {
    std::uint64_t stride = std::max(best ? stride_of_best : 251, smallest_stride(*level.references));
    // The reference of the best level serves all: it is the fastest.
    const MathReferences& references = *levels().front().references;
    Worst worst = worst_of(level.loops->*loop, references.*reference, references, stride);
    std::printf("  %-8s %-9s %.3f ULP at %a (%.9g), %s\n", name, level.name.c_str(), worst.ulp,
                static_cast<double>(worst.at), static_cast<double>(worst.at),
                stride == 1 ? "every float" : ("one float in " + std::to_string(stride)).c_str());
    INFO(name << " on " << level.name << " is off by " << worst.ulp << " ULP at " << worst.at);
    CHECK(worst.ulp <= allowed);
    best = false;
  }
}

const std::vector<float>& special_values() {
  static const std::vector<float> values = [] {
    const float inf = std::numeric_limits<float>::infinity();
    std::vector<float> v = {0.0f,
                            0x1p-149f,
                            0x1.fffffcp-127f,
                            0x1p-126f,
                            0x1p-25f,
                            0x1p-24f,
                            0x1p-12f,
                            0.25f,
                            0.35f,
                            0.5f,
                            0.7f,
                            0.92f,
                            1.0f,
                            1.5f,
                            2.0f,
                            3.9f,
                            4.0f,
                            9.0f,
                            9.02f,
                            17.0f,
                            18.0f,
                            87.0f,
                            88.7f,
                            88.8f,
                            103.9f,
                            104.1f,
                            1e9f,
                            0x1p60f,
                            0x1.8p60f,
                            0x1p126f,
                            0x1.fffffep127f,
                            inf,
                            std::numeric_limits<float>::quiet_NaN()};
    for (std::size_t i = 0, n = v.size(); i < n; ++i) v.push_back(-v[i]);
    return v;
  }();
  return values;
}

// A sample of all floats, and the special ones.
std::vector<float> sample() {
  std::vector<float> x = special_values();
  for (std::uint64_t bits = 0; bits < all_floats; bits += 4099)
    x.push_back(from_bits(static_cast<std::uint32_t>(bits)));
  return x;
}

// How many elements differ in their bits; the sign of a NaN is nobody's promise.
long differences(const std::vector<float>& a, const std::vector<float>& b) {
  long count = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    count += std::memcmp(&a[i], &b[i], sizeof(float)) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]));
  return count;
}

}  // namespace

TEST_CASE("math: exp is within 2 ULP for every float") { check_all("exp", &MathTable::exp, &MathReferences::exp, 1); }
TEST_CASE("math: log is within 2 ULP for every float") { check_all("log", &MathTable::log, &MathReferences::log, 1); }
TEST_CASE("math: tanh is within 2 ULP for every float") {
  check_all("tanh", &MathTable::tanh, &MathReferences::tanh, 1);
}
TEST_CASE("math: sigmoid is within 2 ULP for every float") {
  check_all("sigmoid", &MathTable::sigmoid, &MathReferences::sigmoid, 1);
}
TEST_CASE("math: erf is within 2 ULP for every float") { check_all("erf", &MathTable::erf, &MathReferences::erf, 1); }
TEST_CASE("math: expm1 is within 2 ULP") { check_all("expm1", &MathTable::expm1, &MathReferences::expm1, 17); }
TEST_CASE("math: log1p is within 2 ULP") { check_all("log1p", &MathTable::log1p, &MathReferences::log1p, 17); }

TEST_CASE("math: log2 and cosh are within 2 ULP, sinh within 2.5") {
  check_all("log2", &MathTable::log2, &MathReferences::log2, 17);
  check_all("sinh", &MathTable::sinh, &MathReferences::sinh, 17, 2.5);
  check_all("cosh", &MathTable::cosh, &MathReferences::cosh, 17);
}

TEST_CASE("math: the vectorised float64 reference agrees with the C library") {
  const MathReferences& references = *levels().front().references;
  std::vector<float> x = sample();
  std::vector<double> y(x.size());
  auto compare = [&](const char* name, MathReference* reference, double (*library)(double)) {
    reference(x.data(), y.data(), static_cast<long>(x.size()));
    for (std::size_t i = 0; i < x.size(); ++i) {
      double wanted = library(x[i]);
      // Where the reference stops short of an overflow or of zero, a float32 has stopped before.
      bool same = wanted == y[i] || (wanted != wanted && y[i] != y[i]) ||
                  std::abs(wanted - y[i]) <= 1e-12 * std::abs(wanted) || (wanted > 1e60 && y[i] > 1e60) ||
                  (wanted < 1e-60 && y[i] < 1e-60 && y[i] >= 0);
      INFO(name << "(" << x[i] << ") = " << wanted << ", reference " << y[i]);
      REQUIRE(same);
    }
  };
  compare("exp", references.exp, [](double v) { return std::exp(v); });
  compare("log", references.log, [](double v) { return std::log(v); });
  compare("tanh", references.tanh, [](double v) { return std::tanh(v); });
  compare("sigmoid", references.sigmoid, [](double v) { return 1 / (1 + std::exp(-v)); });
  compare("erf", references.erf, [](double v) { return std::erf(v); });
  compare("expm1", references.expm1, [](double v) { return std::expm1(v); });
  compare("log1p", references.log1p, [](double v) { return std::log1p(v); });
  compare("log2", references.log2, [](double v) { return std::log2(v); });
  compare("sinh", references.sinh, [](double v) { return std::sinh(v > 200 ? 200 : v < -200 ? -200 : v); });
  compare("cosh", references.cosh, [](double v) { return std::cosh(v); });
}

TEST_CASE("math: limits and signs of zero are exact at each instruction set") {
  const float inf = std::numeric_limits<float>::infinity();
  for (const Level& level : levels()) {
    CAPTURE(level.name);
    auto value = [](MathLoop* loop, float x) {  // as an element of a vector, not of a loop's remainder
      std::vector<float> in(64, x), out(64);
      loop(in.data(), out.data(), 64);
      return out[7];
    };
    const MathTable& f = *level.loops;
    CHECK(value(f.exp, -inf) == 0.0f);
    CHECK(value(f.exp, inf) == inf);
    CHECK(value(f.exp, 0.0f) == 1.0f);
    CHECK(value(f.log, 0.0f) == -inf);
    CHECK(value(f.log, -0.0f) == -inf);
    CHECK(value(f.log, inf) == inf);
    CHECK(value(f.log, 1.0f) == 0.0f);
    CHECK(std::isnan(value(f.log, -1.0f)));
    CHECK(std::isnan(value(f.log, -inf)));
    CHECK(value(f.log1p, -1.0f) == -inf);
    CHECK(std::isnan(value(f.log1p, -1.5f)));
    CHECK(value(f.expm1, -inf) == -1.0f);
    CHECK(value(f.sigmoid, -inf) == 0.0f);
    CHECK(value(f.sigmoid, inf) == 1.0f);
    CHECK(value(f.sigmoid, 0.0f) == 0.5f);
    CHECK(value(f.sigmoid, -100.0f) > 0.0f);
    for (MathLoop* odd : {f.tanh, f.erf}) {
      CHECK(value(odd, inf) == 1.0f);
      CHECK(value(odd, -inf) == -1.0f);
      CHECK(std::signbit(value(odd, -0.0f)));
      CHECK(!std::signbit(value(odd, 0.0f)));
    }
    CHECK(value(f.log2, 0.0f) == -inf);
    CHECK(value(f.log2, 0x1p-149f) == -149.0f);
    CHECK(value(f.log2, 8.0f) == 3.0f);
    CHECK(value(f.sinh, inf) == inf);
    CHECK(value(f.sinh, -89.5f) == -inf);
    CHECK(std::isfinite(value(f.sinh, 89.4f)));
    CHECK(value(f.cosh, -inf) == inf);
    CHECK(std::isfinite(value(f.cosh, -89.4f)));
    CHECK(value(f.cosh, 0.0f) == 1.0f);
    CHECK(value(f.mish, inf) == inf);
    CHECK(std::signbit(value(f.sinh, -0.0f)));
    CHECK(std::signbit(value(f.expm1, -0.0f)));
    CHECK(std::signbit(value(f.log1p, -0.0f)));
    CHECK(value(f.softplus, -inf) == 0.0f);
    CHECK(value(f.softplus, inf) == inf);
    CHECK(value(f.gelu, 20.0f) == 20.0f);
    CHECK(value(f.gelu, -20.0f) == 0.0f);
#define MATH_CHECK_NAN(name) CHECK(std::isnan(value(f.name, std::numeric_limits<float>::quiet_NaN())));
    MATH_FUNCTIONS(MATH_CHECK_NAN)
#undef MATH_CHECK_NAN
  }
}

TEST_CASE("math: tanh and erf stay within [-1, 1], sigmoid within [0, 1]") {
  std::vector<float> x = sample(), y(x.size());
  for (const Level& level : levels()) {
    CAPTURE(level.name);
    for (MathLoop* loop : {level.loops->tanh, level.loops->erf, level.loops->sigmoid}) {
      loop(x.data(), y.data(), static_cast<long>(x.size()));
      long outside = 0;
      for (float v : y) outside += v > 1.0f || v < -1.0f;
      CHECK(outside == 0);
    }
  }
}

TEST_CASE("math: gelu, silu and softplus are as close to float64 as their formulas in float32 allow") {
  std::vector<float> x;
  for (int i = -200000; i <= 200000; ++i) x.push_back(static_cast<float>(i) * 0.0001f);
  std::vector<float> y(x.size());
  for (const Level& level : levels()) {
    auto largest = [&](MathLoop* loop, double (*wanted)(double)) {
      loop(x.data(), y.data(), static_cast<long>(x.size()));
      double error = 0;
      for (std::size_t i = 0; i < x.size(); ++i)
        error = std::max(error, std::abs(y[i] - wanted(x[i])) / std::max(1.0, std::abs(static_cast<double>(x[i]))));
      return error;
    };
    CAPTURE(level.name);
    CHECK(largest(level.loops->gelu, [](double v) { return 0.5 * v * (1 + std::erf(v * M_SQRT1_2)); }) < 2e-7);
    CHECK(largest(level.loops->gelu_tanh, [](double v) {
            return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
          }) < 3e-7);
    CHECK(largest(level.loops->silu, [](double v) { return v / (1 + std::exp(-v)); }) < 2e-7);
    CHECK(largest(level.loops->softplus, [](double v) { return std::log1p(std::exp(v)); }) < 2e-7);
  }
}

TEST_CASE("math: C and C++ compute the same bits, by gcc and by clang") {
  std::vector<float> x = sample();
  long n = static_cast<long>(x.size());
  std::vector<float> from_cpp(x.size()), from_c(x.size());
  for (const Level& level : levels()) {
    for (const auto& entry : level.from_c) {
      const std::string& compiler = entry.first;  // clang 14 can't capture a structured binding
      const MathTable* table = entry.second;
      CAPTURE(level.name);
      CAPTURE(compiler);
#define MATH_CHECK_SAME(name)                      \
  level.loops->name(x.data(), from_cpp.data(), n); \
  table->name(x.data(), from_c.data(), n);         \
  CHECK_MESSAGE(differences(from_cpp, from_c) == 0, #name);
      MATH_FUNCTIONS(MATH_CHECK_SAME)
#undef MATH_CHECK_SAME
    }
  }
}

#if defined(MATH_WITH_AVX2) && defined(MATH_WITH_AVX512)
TEST_CASE("math: AVX2 and AVX-512 compute the same bits") {
  if (levels().size() < 3) {
    MESSAGE("skipped: this processor has no AVX-512");
    return;
  }
  std::vector<float> x = sample(), a(x.size()), b(x.size());
  long n = static_cast<long>(x.size());
#define MATH_CHECK_SAME(name)                        \
  math_table_cpp_avx2.name(x.data(), a.data(), n);   \
  math_table_cpp_avx512.name(x.data(), b.data(), n); \
  CHECK_MESSAGE(differences(a, b) == 0, #name);
  MATH_FUNCTIONS(MATH_CHECK_SAME)
#undef MATH_CHECK_SAME
}
#endif
