// bfloat16 and float16: every pattern out, and in against a rounding done in float64.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "core/scalar/math.h"

#include "core/scalar/half.h"

namespace {

struct Format {
  int significand_bits, smallest_exponent;  // stored bits; exponent of the smallest normal
  double overflow;                          // the first value that rounds to infinity
  double (*widen)(td_u16);
  td_u16 (*narrow)(float);
};

const Format float16{10, -14, 65520.0, [](td_u16 h) { return double{td_f16_to_f32(h)}; },
                     [](float x) { return td_f32_to_f16(x); }};
const Format bfloat16{7, -126, 0x1.ffp127, [](td_u16 h) { return double{td_bf16_to_f32(h)}; },
                      [](float x) { return td_f32_to_bf16(x); }};

// What the 16 bits mean, by IEEE 754's definition.
double meaning(const Format& f, unsigned bits) {
  unsigned significand = bits & ((1u << f.significand_bits) - 1);
  unsigned exponent = (bits & 0x7fffu) >> f.significand_bits;
  unsigned special = 0x7fffu >> f.significand_bits;
  double sign = (bits & 0x8000u) ? -1.0 : 1.0;
  if (exponent == special) return significand != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  int power = f.smallest_exponent - f.significand_bits + (exponent == 0 ? 0 : static_cast<int>(exponent) - 1);
  return sign * std::ldexp(significand + (exponent == 0 ? 0u : 1u << f.significand_bits), power);
}

double rounded(const Format& f, double x) {
  if (x != x || std::isinf(x)) return x;
  if (std::abs(x) >= f.overflow) return std::copysign(std::numeric_limits<double>::infinity(), x);
  int last_place = std::max(x == 0 ? f.smallest_exponent : std::ilogb(x), f.smallest_exponent) - f.significand_bits;
  return std::copysign(std::ldexp(std::nearbyint(std::ldexp(x, -last_place)), last_place), x);
}

bool same(double a, double b) { return (a != a && b != b) || (a == b && std::signbit(a) == std::signbit(b)); }

}  // namespace

TEST_CASE("half: each of the 65536 patterns widens to what it means and comes back as it was") {
  for (const Format& f : {float16, bfloat16}) {
    CAPTURE(f.significand_bits);
    for (unsigned bits = 0; bits <= 0xffffu; ++bits) {
      td_u16 half = static_cast<td_u16>(bits);
      double wide = f.widen(half);
      CAPTURE(bits);
      REQUIRE(same(wide, meaning(f, bits)));
      td_u16 quiet = wide != wide ? static_cast<td_u16>(half | (1u << (f.significand_bits - 1))) : half;
      REQUIRE((f.narrow(static_cast<float>(wide)) | 0) == quiet);
    }
  }
}

TEST_CASE("half: floats round to the nearest, ties to even, and overflow to infinity") {
  auto check = [](float x) {
    for (const Format& f : {float16, bfloat16}) {
      INFO("x = " << x << ", " << f.significand_bits << " bits");
      REQUIRE(same(f.widen(f.narrow(x)), rounded(f, x)));
    }
  };
  for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += 5003) {
    std::uint32_t pattern = static_cast<std::uint32_t>(bits);
    float x;
    std::memcpy(&x, &pattern, sizeof x);
    check(x);
  }
  // The midpoint of each two neighbours, and the floats on both sides of it.
  for (unsigned bits = 0; bits < 0x7c00u; ++bits) {
    for (const Format& f : {float16, bfloat16}) {
      double low = meaning(f, bits), high = meaning(f, bits + 1);
      if (std::isinf(high)) high = 65536.0;
      float middle = static_cast<float>((low + high) / 2);
      for (float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e30f)}) {
        check(x);
        check(-x);
      }
    }
  }
}
