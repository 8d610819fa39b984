// Defines math_references_<MATH_NAME>: the functions of loops.h in float64, and the error in ULP.
// With these declarations gcc calls glibc's vector versions (libmvec, within 4 ULP of float64) in loops;
// other compilers call the scalar ones. <cmath> would declare the functions without them.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define MATH_SIMD __attribute__((simd("notinbranch"), const))
#define MATH_VECTORISED 1
#else
#define MATH_SIMD
#define MATH_VECTORISED 0
#endif
extern "C" {
MATH_SIMD double tanh(double) noexcept;
MATH_SIMD double erf(double) noexcept;
MATH_SIMD double expm1(double) noexcept;
MATH_SIMD double log1p(double) noexcept;
MATH_SIMD double log2(double) noexcept;
MATH_SIMD double sinh(double) noexcept;
MATH_SIMD double cosh(double) noexcept;
}

namespace {

// The vector functions leave for scalar code where an argument is NaN or far out: keep it within [low, high],
// where the float32 result is already constant or infinite, and put NaN back afterwards.
inline double clamp(double x, double low, double high) { return x > high ? high : x > low ? x : low; }
double keep_nan(double x, double y) { return x == x ? y : x; }

#define MATH_REFERENCE(name, expression)                                                  \
  void reference_##name(const float* __restrict__ in, double* __restrict__ out, long n) { \
    for (long i = 0; i < n; ++i) {                                                        \
      double x = in[i];                                                                   \
      double y = expression;                                                              \
      out[i] = keep_nan(x, y);                                                            \
    }                                                                                     \
  }

const double infinity = __builtin_inf();
const double nan = __builtin_nan("");

double from_bits(td_i64 bits) {
  double x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// Taylor's series where |x - n ln2| <= ln2/2: good to 1e-13, and several times faster than the C library's.
double exp_of(double x) {
  double shifted = x * 1.4426950408889634 + 0x1.8p52;
  double n = shifted - 0x1.8p52;
  double r = x - n * 0x1.62e42fefa0000p-1 - n * 0x1.cf79abc9e3b3ap-40;
  double p = 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  td_i64 bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  return p * from_bits((td_i64)((td_u64)(bits + 1023) << 52));
}

// ln m = 2 artanh((m - 1) / (m + 1)) for sqrt(1/2) <= m < sqrt(2), by its series. For normal x > 0.
double positive_log_of(double x) {
  td_i64 bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  td_u64 exponent = (td_u64)(bits - 0x3fe6a09e667f3bcd) & 0xfff0000000000000u;
  double m = from_bits((td_i64)((td_u64)bits - exponent));
  // To a float through the last bits of 1.5 * 2^52; flipping the sign bit makes the exponent positive.
  double e = from_bits((td_i64)((exponent >> 52 ^ 0x800) + 0x4338000000000000u)) - (0x1.8p52 + 2048);
  double s = (m - 1) / (m + 1), s2 = s * s;
  double p = 1.0 / 17;
  p = p * s2 + 1.0 / 15;
  p = p * s2 + 1.0 / 13;
  p = p * s2 + 1.0 / 11;
  p = p * s2 + 1.0 / 9;
  p = p * s2 + 1.0 / 7;
  p = p * s2 + 1.0 / 5;
  p = p * s2 + 1.0 / 3;
  return e * 0.69314718055994531 + 2 * (s + s * s2 * p);
}

double log_of(double x, double positive_log) {
  return x > 0 ? (x == infinity ? infinity : positive_log) : x == 0 ? -infinity : nan;
}

double sigmoid_of(double x, double e) { return (x < 0 ? e : 1.0) / (1.0 + e); }

MATH_REFERENCE(exp, exp_of(clamp(x, -200, 200)))
MATH_REFERENCE(log, log_of(x, positive_log_of(clamp(x, 1e-50, 1e50))))
MATH_REFERENCE(tanh, x* x < 1e-40 ? x : tanh(clamp(x, -20, 20)))
MATH_REFERENCE(sigmoid, sigmoid_of(x, exp_of(clamp(-__builtin_fabs(x), -200, 0))))
MATH_REFERENCE(erf, x* x < 1e-40 ? x * 1.1283791670955126 : erf(clamp(x, -5.5, 5.5)))
MATH_REFERENCE(expm1, x* x < 1e-40 ? x : expm1(clamp(x, -200, 200)))
MATH_REFERENCE(log1p, x* x < 1e-40 ? x : log_of(x + 1, log1p(clamp(x, -1 + 1e-9, 1e50))))

MATH_REFERENCE(log2, log_of(x, log2(clamp(x, 1e-50, 1e50))))
MATH_REFERENCE(sinh, x* x < 1e-40 ? x : sinh(clamp(x, -200, 200)))
MATH_REFERENCE(cosh, cosh(clamp(x, -200, 200)))

// The floats with the bit patterns first, first + stride, …
void floats(unsigned first, unsigned stride, float* x, long count) {
  for (long i = 0; i < count; ++i) x[i] = td_from_bits(first + stride * static_cast<unsigned>(i));
}

// |got - wanted| in units of the last place of wanted, as a float32. Infinity counts as 2^128, so an overflow
// is judged like any other rounding; NaN must meet NaN.
double error_in_ulp(float got, double wanted) {
  double w = clamp(wanted, -0x1p128, 0x1p128), g = clamp(got, -0x1p128, 0x1p128);
  td_i64 bits;
  __builtin_memcpy(&bits, &w, sizeof bits);
  bits &= 0x7ff0000000000000;                                          // the power of two at or below |wanted| …
  const td_i64 least = 0x3810000000000000, most = 0x47e0000000000000;  // 2^-126, 2^127
  bits = bits < least ? least : bits > most ? most : bits;
  bits = 0x7fd0000000000000 - bits;  // … and its inverse, times 2^-1 (the biases sum to 0x7fe)
  double error = __builtin_fabs(g - w) * from_bits(bits) * 0x1p24;
  error = got != got ? infinity : error;
  return wanted == wanted ? error : got == got ? infinity : 0.0;
}

// The largest of `count` errors. They are compared as integers: compilers don't vectorise a maximum of
// floats.
double worst(const float* __restrict__ got, const double* __restrict__ wanted, long count) {
  td_i64 largest = 0;
  for (long i = 0; i < count; ++i) {
    double error = error_in_ulp(got[i], wanted[i]);
    td_i64 bits;
    __builtin_memcpy(&bits, &error, sizeof bits);
    largest = bits > largest ? bits : largest;
  }
  return from_bits(largest);
}

}  // namespace

extern "C" const MathReferences MATH_JOIN(math_references, MATH_NAME) = {
    reference_exp,   reference_log,   reference_tanh, reference_sigmoid, reference_erf,
    reference_expm1, reference_log1p, reference_log2, reference_sinh,    reference_cosh,
    floats,          worst,           MATH_VECTORISED};
