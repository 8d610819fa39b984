// The gamma function's family and the inverse of erf, in float64 throughout: float32 is that, rounded. Needs math.h before it,
// includes nothing.
#ifndef TANDEM_CORE_SCALAR_GAMMA_H
#define TANDEM_CORE_SCALAR_GAMMA_H

#ifndef TANDEM_CORE_SCALAR_MATH_H  // generated sources hold the text of math.h before this one
#include "math.h"
#endif

// psi = (log Gamma)': psi(x) = psi(x + 1) - 1/x up to where log x - 1/2x - sum B_2k / (2k x^2k) is exact (Abramowitz and
// Stegun 6.3.18); below 0 by reflection, psi(1 - x) - pi / tan(pi x) with x less the nearest integer, which is exact.
TD_LARGE_FN double td_digamma_f64(double x) {
  double total = 0.0;
  if (x == 0.0) return TD_LIBM(copysign)((double)TD_INF, -x);
  if (x < 0.0) {
    double apart = x - TD_LIBM(rint)(x);
    if (apart == 0.0 || x < -TD_DOUBLE_MAX) return (double)(TD_INF - TD_INF);
    total = -3.14159265358979323846 / TD_LIBM(tan)(3.14159265358979323846 * apart);
    x = 1.0 - x;
  }
  for (; x < 10.0; x += 1.0) total -= 1.0 / x;
  double r = 1.0 / (x * x);
  double series = 1.0 / 12.0;
  series = 691.0 / 32760.0 - r * series;
  series = 1.0 / 132.0 - r * series;
  series = 1.0 / 240.0 - r * series;
  series = 1.0 / 252.0 - r * series;
  series = 1.0 / 120.0 - r * series;
  series = 1.0 / 12.0 - r * series;
  return total + (TD_LIBM(log)(x) - 0.5 / x - r * series);
}

// sum over k >= 0 of (q + k)^-s for q > 0, s >= 2: ten terms at least, the rest by Euler and Maclaurin, whose coefficients
// are B_2j / (2j)!.
TD_LARGE_FN double td_hurwitz_zeta(double s, double q) {
  const double coefficients[] = {1.0 / 12,
                                 -1.0 / 720,
                                 1.0 / 30240,
                                 -1.0 / 1209600,
                                 1.0 / 47900160,
                                 -691.0 / 1307674368000.0,
                                 1.0 / 74724249600.0,
                                 -3617.0 / 10670622842880000.0,
                                 43867.0 / 5109094217170944000.0};
  double total = 0.0;
  if (q > TD_DOUBLE_MAX) return 0.0;
  for (int i = 0; i < 10 || q < 10.0; ++i, q += 1.0) {
    double term = TD_LIBM(pow)(q, -s);
    total += term;
    if (term < total * 1e-17) return total;
  }
  double power = TD_LIBM(pow)(q, -s);
  total += TD_LIBM(pow)(q, 1.0 - s) / (s - 1.0) + 0.5 * power;
  double rising = s * power / q;
  for (int j = 0; j < 9; ++j) {
    total += coefficients[j] * rising;
    rising *= (s + (2 * j + 1)) / q * ((s + (2 * j + 2)) / q);
  }
  return total;
}

// The n-th derivative of psi, (-1)^(n+1) n! zeta(n + 1, x). Below 0 the terms left of 0 are those of another zeta:
// zeta(s, x) = zeta(s, x - floor x) + (-1)^s (zeta(s, ceil x - x) - zeta(s, 1 - x)).
TD_LARGE_FN double td_polygamma_f64(double n, double x) {
  if (n == 0.0) return td_digamma_f64(x);
  if (!(n > 0.0) || TD_LIBM(floor)(n) != n || x != x) return (double)(TD_INF - TD_INF);
  double sign = TD_LIBM(floor)(0.5 * n) * 2.0 == n ? -1.0 : 1.0;
  double s = n + 1.0, zeta, factorial = 1.0, below = TD_LIBM(floor)(x);
  if (x > 0.0) zeta = td_hurwitz_zeta(s, x);
  else if (below == x) zeta = (double)TD_INF;
  else
    zeta =
        td_hurwitz_zeta(s, x - below) + sign * (td_hurwitz_zeta(s, TD_LIBM(ceil)(x) - x) - td_hurwitz_zeta(s, 1.0 - x));
  for (double k = 2.0; k <= n && k < 172.0; k += 1.0) factorial *= k;
  return sign * factorial * zeta;
}

// A first guess (S. Winitzki, 2008), off by some 2e-3, then two steps of Halley's: of erf near 0, and of erfc, which doesn't
// cancel, beyond.
TD_LARGE_FN double td_erfinv_f64(double y) {
  double a = TD_LIBM(fabs)(y), rest = 1.0 - a;
  if (!(rest > 0.0)) return rest == 0.0 ? TD_LIBM(copysign)((double)TD_INF, y) : (double)(TD_INF - TD_INF);
  double l = TD_LIBM(log1p)(-a * a), t = 4.33074675078431723703 + 0.5 * l;  // 2 / (pi 0.147) + log(1 - y^2) / 2
  double root = TD_LIBM(sqrt)(t * t - l * 6.80272108843537414966);
  double x = TD_LIBM(sqrt)(t > 0.0 ? l * -6.80272108843537414966 / (root + t) : root - t);
  for (int i = 0; i < 2; ++i) {
    double error = a < 0.5 ? TD_LIBM(erf)(x) - a : rest - TD_LIBM(erfc)(x);
    double step = error * 0.88622692545275801365 * TD_LIBM(exp)(x * x);  // over erf's slope
    x -= step / (1.0 + x * step);
  }
  return TD_LIBM(copysign)(x, y);
}

TD_FN double td_lgamma_f64(double x) { return TD_LIBM(lgamma)(x); }
TD_FN float td_lgamma_f32(float x) { return (float)TD_LIBM(lgamma)((double)x); }
TD_FN float td_digamma_f32(float x) { return (float)td_digamma_f64((double)x); }
TD_FN float td_polygamma_f32(float n, float x) { return (float)td_polygamma_f64((double)n, (double)x); }
TD_FN float td_erfinv_f32(float y) { return (float)td_erfinv_f64((double)y); }

#ifdef __cplusplus
TD_FLOAT_1(lgamma)
TD_FLOAT_1(digamma)
TD_FLOAT_1(erfinv)
TD_FLOAT_2(polygamma)
#else
#define td_lgamma(x) TD_FLOAT_OF(td_lgamma, x)(x)
#define td_digamma(x) TD_FLOAT_OF(td_digamma, x)(x)
#define td_erfinv(x) TD_FLOAT_OF(td_erfinv, x)(x)
#define td_polygamma(n, x) TD_FLOAT_OF(td_polygamma, x)(n, x)
#endif

#endif
