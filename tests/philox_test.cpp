// The random numbers: the published answers, their distribution, and the same bits everywhere.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/scalar/math.h"

#include "core/scalar/philox.h"
#include "tests/math/tables.h"

extern "C" const MathTable math_table_cpp_portable;
#ifdef MATH_WITH_AVX2
extern "C" const MathTable math_table_cpp_avx2;
#endif
#ifdef MATH_WITH_AVX512
extern "C" const MathTable math_table_cpp_avx512;
#endif

namespace {

std::vector<const MathTable*> tables() {
  std::vector<const MathTable*> found = {&math_table_cpp_portable};
#ifdef MATH_WITH_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&math_table_cpp_avx2);
#endif
#ifdef MATH_WITH_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    found.push_back(&math_table_cpp_avx512);
#endif
  return found;
}

std::vector<float> drawn(MathRandomLoop* loop, std::size_t count, unsigned long seed = 7, unsigned long draw = 3,
                         unsigned long first = 0) {
  std::vector<float> y(count);
  loop(seed, draw, first, y.data(), static_cast<long>(count));
  return y;
}

// The largest distance of the sample's distribution from `cdf`, times sqrt(n): above 1.95 by chance once in
// 1000.
template <class Cdf> double kolmogorov(std::vector<float> sample, Cdf cdf) {
  std::sort(sample.begin(), sample.end());
  double n = static_cast<double>(sample.size()), distance = 0;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    double wanted = cdf(sample[i]);
    distance = std::max(
        {distance, std::abs(wanted - static_cast<double>(i) / n), std::abs(wanted - static_cast<double>(i + 1) / n)});
  }
  return distance * std::sqrt(n);
}

double correlation(const std::vector<float>& a, const std::vector<float>& b) {
  double n = static_cast<double>(a.size()), sa = 0, sb = 0, saa = 0, sbb = 0, sab = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double x = a[i], y = b[i];
    sa += x, sb += y, saa += x * x, sbb += y * y, sab += x * y;
  }
  return (sab / n - sa / n * (sb / n)) / std::sqrt((saa / n - sa / n * (sa / n)) * (sbb / n - sb / n * (sb / n)));
}

}  // namespace

TEST_CASE("philox: the known answers of Random123") {
  auto words = [](td_u32 c0, td_u32 c1, td_u32 c2, td_u32 c3, td_u32 k0, td_u32 k1) {
    td_philox_block b = td_philox(k0 | td_u64{k1} << 32, c0 | td_u64{c1} << 32, c2 | td_u64{c3} << 32);
    return std::vector<td_u32>(b.word, b.word + 4);
  };
  CHECK(words(0, 0, 0, 0, 0, 0) == std::vector<td_u32>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  CHECK(words(~0u, ~0u, ~0u, ~0u, ~0u, ~0u) == std::vector<td_u32>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  // The digits of pi.
  CHECK(words(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0xa4093822u, 0x299f31d0u) ==
        std::vector<td_u32>{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("philox: an element's word depends on seed, draw and index as documented") {
  td_u64 seed = 0x0123456789abcdefu, draw = 0xfedcba9876543210u;
  for (td_u64 index : {td_u64{0}, td_u64{1}, td_u64{6}, td_u64{7}, (td_u64{1} << 34) + 2}) {
    td_philox_block b = td_philox(seed, index / 4, draw);
    CHECK(td_philox_u32(seed, draw, index) == b.word[index % 4]);
  }
  CHECK(td_philox_u32(1, 0, 0) != td_philox_u32(0, 0, 0));
  CHECK(td_philox_u32(0, 1, 0) != td_philox_u32(0, 0, 0));
}

TEST_CASE("philox: every instruction set, and blocks of four, give the same bits") {
  const std::size_t count = 1 << 16;
  const MathTable& first = *tables().front();
  for (const MathTable* table : tables()) {
    CHECK(drawn(table->uniform, count) == drawn(first.uniform, count));
    CHECK(drawn(table->uniform_blocks, count) == drawn(first.uniform, count));
    CHECK(drawn(table->normal, count) == drawn(first.normal, count));
    CHECK(drawn(table->normal_blocks, count) == drawn(first.normal, count));
    CHECK(drawn(table->normal, 100, 7, 3, 37)[0] == drawn(first.normal, count)[37]);
  }
}

TEST_CASE("philox: the numbers of this release, on every machine") {
  CHECK(td_uniform_f32(1, 2, 3) == 0x1.415fap-5f);
  CHECK(td_normal_f32(1, 2, 0) == -0x1.b727ccp-2f);
  CHECK(td_normal_f32(1, 2, 1) == -0x1.2073fap-3f);
  CHECK(td_normal_f32(1, 2, 2) == 0x1.9fa8fep+0f);
  CHECK(td_normal_f32(1, 2, 3) == 0x1.a254ecp-2f);
  CHECK(td_uniform_f64(1, 2, 3) == 0x1.11507e44382cep-2);
}

TEST_CASE("philox: uniform numbers lie in [0, 1) and are uniform") {
  std::vector<float> y = drawn(tables().back()->uniform, 1 << 18);
  CHECK(*std::min_element(y.begin(), y.end()) >= 0.0f);
  CHECK(*std::max_element(y.begin(), y.end()) < 1.0f);
  CHECK(kolmogorov(y, [](double v) { return v; }) < 1.95);
  CHECK(td_uniform_from_word(0xffffffffu) < 1.0f);
  CHECK(td_uniform_from_words(0xffffffffu, 0xffffffffu) < 1.0);
  std::vector<float> doubles(1 << 16);
  for (std::size_t i = 0; i < doubles.size(); ++i) doubles[i] = static_cast<float>(td_uniform_f64(7, 4, i));
  CHECK(kolmogorov(doubles, [](double v) { return v; }) < 1.95);
}

TEST_CASE("philox: normal numbers are normal, in the middle and in the tails") {
  auto cdf = [](double v) { return 0.5 * std::erfc(-v * M_SQRT1_2); };
  std::vector<float> y = drawn(tables().back()->normal, 1 << 22);
  double n = static_cast<double>(y.size()), m1 = 0, m2 = 0, m3 = 0, m4 = 0, beyond_4 = 0;
  for (double v : y) m1 += v, m2 += v * v, m3 += v * v * v, m4 += v * v * v * v, beyond_4 += std::abs(v) > 4;
  CHECK(std::abs(m1 / n) < 4 * std::sqrt(1 / n));
  CHECK(std::abs(m2 / n - 1) < 4 * std::sqrt(2 / n));
  CHECK(std::abs(m3 / n) < 4 * std::sqrt(15 / n));
  CHECK(std::abs(m4 / n - 3) < 4 * std::sqrt(96 / n));
  double expected = n * std::erfc(4 * M_SQRT1_2);  // 266
  CHECK(std::abs(beyond_4 - expected) < 4 * std::sqrt(expected));
  y.resize(1 << 18);
  CHECK(kolmogorov(y, cdf) < 1.95);
  std::vector<float> doubles(1 << 16);
  for (std::size_t i = 0; i < doubles.size(); ++i) doubles[i] = static_cast<float>(td_normal_f64(7, 4, i));
  CHECK(kolmogorov(doubles, cdf) < 1.95);
}

TEST_CASE("philox: the normal's radius and angle are right at their ends") {
  CHECK(td_normal_radius(0) == doctest::Approx(std::sqrt(-2 * std::log(0x1p-32))));
  CHECK(td_normal_radius(0xffffffffu) == 0.0f);
  CHECK(td_normal_radius(0x80000000u) == doctest::Approx(std::sqrt(2 * std::log(2.0))));
  for (td_u32 word = 0; word < 0xffff0000u; word += 0x10000u) {
    double angle = 2 * M_PI * (word >> 8) * 0x1p-24;
    REQUIRE(std::abs(td_normal_angle(word, false) - std::cos(angle)) < 2e-7);
    REQUIRE(std::abs(td_normal_angle(word, true) - std::sin(angle)) < 2e-7);
  }
}

TEST_CASE("philox: neighbours, draws and seeds are uncorrelated") {
  const std::size_t count = 1 << 18;
  const double limit = 4 / std::sqrt(static_cast<double>(count));
  for (MathRandomLoop* loop : {tables().back()->uniform, tables().back()->normal}) {
    std::vector<float> y = drawn(loop, count);
    for (unsigned long lag : {1ul, 2ul, 3ul, 4ul, 1024ul})
      CHECK(std::abs(correlation(y, drawn(loop, count, 7, 3, lag))) < limit);
    CHECK(std::abs(correlation(y, drawn(loop, count, 7, 4))) < limit);
    CHECK(std::abs(correlation(y, drawn(loop, count, 8, 3))) < limit);
  }
}

TEST_CASE("philox: bounded integers reach each value equally often") {
  std::vector<double> seen(10);
  for (td_u64 i = 0; i < 100000; ++i) ++seen[td_random_below(7, 5, i, 10)];
  double chi_squared = 0;
  for (double s : seen) chi_squared += (s - 10000) * (s - 10000) / 10000;
  CHECK(chi_squared < 27.9);  // 9 degrees of freedom, one in 1000
}
