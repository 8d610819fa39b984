// What the generic names mean: NaN, signs, rounding, Python's division, integers, float64.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <type_traits>

#include "core/scalar/math.h"

namespace {

const float inf = std::numeric_limits<float>::infinity();
const float nan32 = std::numeric_limits<float>::quiet_NaN();
const double nan64 = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("math: maximum and minimum give NaN if either operand is NaN") {
  CHECK(std::isnan(td_maximum(nan32, 1.0f)));
  CHECK(std::isnan(td_maximum(1.0f, nan32)));
  CHECK(std::isnan(td_minimum(nan64, 1.0)));
  CHECK(std::isnan(td_minimum(1.0, nan64)));
  CHECK(td_maximum(-inf, 1.0f) == 1.0f);
  CHECK(td_minimum(-inf, 1.0f) == -inf);
  CHECK(td_maximum(td_i32{-3}, td_i32{2}) == 2);
  CHECK(td_minimum(td_u8{200}, td_u8{100}) == 100);
}

TEST_CASE("math: relu and abs pass NaN on, sign has 0 for it") {
  CHECK(std::isnan(td_relu(nan32)));
  CHECK(td_sign(nan32) == 0.0f);
  CHECK(std::isnan(td_abs(nan64)));
  CHECK(td_relu(-2.0f) == 0.0f);
  CHECK(td_relu(2.0) == 2.0);
  CHECK(td_sign(-0.5f) == -1.0f);
  CHECK(td_sign(0.0) == 0.0);
  CHECK(td_sign(td_i64{-7}) == -1);
  CHECK(td_abs(td_i32{-7}) == 7);
  CHECK(td_square(td_i64{-7}) == 49);
}

TEST_CASE("math: round goes to even, floor, ceil and trunc as named") {
  CHECK(td_round(0.5f) == 0.0f);
  CHECK(td_round(1.5f) == 2.0f);
  CHECK(td_round(-2.5) == -2.0);
  CHECK(td_floor(-0.5f) == -1.0f);
  CHECK(td_ceil(-0.5) == 0.0);
  CHECK(td_trunc(-1.7f) == -1.0f);
}

TEST_CASE("math: remainder has the divisor's sign and floor_divide rounds down") {
  CHECK(td_remainder(7.0f, -3.0f) == -2.0f);
  CHECK(td_remainder(-7.0, 3.0) == 2.0);
  CHECK(td_floor_divide(7.0f, -3.0f) == -3.0f);
  CHECK(td_floor_divide(-7.0, 3.0) == -3.0);
  CHECK(td_floor_divide(1.0, 0.1) == 9.0);  // 0.1 is a little more than a tenth; Python says so too
  CHECK(td_floor_divide(1.0f, 0.0f) == inf);
  CHECK(std::isnan(td_floor_divide(0.0f, 0.0f)));
  CHECK(std::signbit(td_floor_divide(-0.0f, 2.0f)));
  for (td_i32 a = -7; a <= 7; ++a) {
    for (td_i32 b = -3; b <= 3; ++b) {
      if (b == 0) continue;
      CAPTURE(a);
      CAPTURE(b);
      td_i32 wanted = static_cast<td_i32>(std::floor(static_cast<double>(a) / b));
      CHECK(td_floor_divide(a, b) == wanted);
      CHECK(td_remainder(a, b) == a - b * wanted);
      CHECK(td_floor_divide(td_i64{a}, td_i64{b}) == wanted);
      CHECK(td_remainder(td_i64{a}, td_i64{b}) == a - b * wanted);
      CHECK(td_floor_divide(static_cast<float>(a), static_cast<float>(b)) == static_cast<float>(wanted));
      CHECK(td_remainder(static_cast<double>(a), static_cast<double>(b)) == a - b * wanted);
    }
  }
}

TEST_CASE("math: no integer operation traps") {
  const td_i32 least = std::numeric_limits<td_i32>::min();
  CHECK(td_floor_divide(least, td_i32{-1}) == least);
  CHECK(td_remainder(least, td_i32{-1}) == 0);
  CHECK(td_floor_divide(td_i32{5}, td_i32{0}) == 0);
  CHECK(td_remainder(td_i64{5}, td_i64{0}) == 0);
  CHECK(td_floor_divide(td_u8{5}, td_u8{0}) == 0);
  CHECK(td_abs(least) == least);
  CHECK(td_square(td_i32{1} << 16) == 0);
}

TEST_CASE("math: integer powers wrap, and negative exponents truncate") {
  CHECK(td_pow(td_i32{-3}, td_i32{5}) == -243);
  CHECK(td_pow(td_i64{10}, td_i64{18}) == 1000000000000000000);
  CHECK(td_pow(td_u8{3}, td_u8{7}) == static_cast<td_u8>(2187));
  CHECK(td_pow(td_i32{0}, td_i32{0}) == 1);
  CHECK(td_pow(td_i32{2}, td_i32{-1}) == 0);
  CHECK(td_pow(td_i32{-1}, td_i32{-3}) == -1);
  CHECK(td_pow(2.0f, 0.5f) == doctest::Approx(std::sqrt(2.0)));
}

TEST_CASE("math: isnan, isinf and isfinite give bool") {
  static_assert(std::is_same_v<decltype(td_isnan(1.0f)), bool>);
  CHECK(td_isnan(nan32));
  CHECK(!td_isnan(inf));
  CHECK(td_isinf(-inf));
  CHECK(!td_isinf(nan64));
  CHECK(!td_isinf(std::numeric_limits<float>::max()));
  CHECK(td_isfinite(std::numeric_limits<double>::max()));
  CHECK(!td_isfinite(nan32));
}

TEST_CASE("math: float64 is the C library's, and sigmoid and softplus neither overflow nor vanish early") {
  static_assert(std::is_same_v<decltype(td_exp(1.0)), double>);
  CHECK(td_exp(1.0) == std::exp(1.0));
  CHECK(td_tanh(0.3) == std::tanh(0.3));
  CHECK(td_sigmoid(-700.0) == doctest::Approx(std::exp(-700.0)));
  CHECK(td_sigmoid(800.0) == 1.0);
  CHECK(td_softplus(800.0) == 800.0);
  CHECK(td_softplus(-50.0) == doctest::Approx(std::exp(-50.0)));
  CHECK(td_gelu(1.0) == doctest::Approx(0.8413447460685429));
  CHECK(td_gelu_tanh(1.0) == doctest::Approx(0.8411919906082768));
  CHECK(td_silu(1.0) == doctest::Approx(0.7310585786300049));
}

TEST_CASE("math: the functions taken from the C library are the right ones") {
  CHECK(td_log2(8.0f) == 3.0f);
  CHECK(td_sqrt(9.0f) == 3.0f);
  CHECK(td_rsqrt(4.0f) == 0.5f);
  CHECK(td_sin(1.0f) == std::sin(1.0f));
  CHECK(td_cos(1.0f) == std::cos(1.0f));
  CHECK(td_tan(1.0f) == std::tan(1.0f));
  CHECK(td_asin(0.5f) == std::asin(0.5f));
  CHECK(td_acos(0.5f) == std::acos(0.5f));
  CHECK(td_atan(0.5f) == std::atan(0.5f));
  CHECK(td_atan2(1.0f, -2.0f) == std::atan2(1.0f, -2.0f));
  CHECK(td_hypot(3.0, 4.0) == 5.0);
}
