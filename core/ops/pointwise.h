// One number in, one out: the functions of core/pointwise.def, operators, and forms with defaults.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Pointwise (core/pointwise.def): operands broadcast and promote as in PyTorch.
#define TANDEM_UNARY(name, ...) Tensor name(const Arg& x);
#define TANDEM_TEST(name, ...) Tensor name(const Arg& x);
#define TANDEM_BINARY(name, ...) Tensor name(const Arg& x, const Arg& y);
#define TANDEM_COMPARE(name, ...) Tensor name(const Arg& x, const Arg& y);
#define TANDEM_TERNARY(name, ...) Tensor name(const Arg& x, const Arg& y, const Arg& z);
#define TANDEM_SELECT(name, ...) Tensor name(const Arg& condition, const Arg& y, const Arg& z);
#include "../pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_TEST
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT

// The defaults of PyTorch, and forms with options.
inline Tensor leaky_relu(const Arg& x) { return leaky_relu(x, 0.01); }
inline Tensor elu(const Arg& x) { return elu(x, 1.0); }
inline Tensor celu(const Arg& x) { return celu(x, 1.0); }
inline Tensor softshrink(const Arg& x) { return softshrink(x, 0.5); }
inline Tensor hardshrink(const Arg& x) { return hardshrink(x, 0.5); }
Tensor tanhshrink(const Arg& x);                                             ///< x - tanh(x)
Tensor threshold(const Arg& x, const Arg& threshold, const Arg& otherwise);  ///< x where it is above, else the other
/// a sigmoid(b) of x's halves a and b along dim (Dauphin et al. 2017).
Tensor glu(const Arg& x, int64_t dim = -1);
/// x, or weight x where it is negative; weight [] or [1], or [channels] of x [batch, channels, ..].
Tensor prelu(const Arg& x, const Tensor& weight);
/// log(1 + exp(beta x)) / beta, and x itself where beta x > threshold.
inline Tensor softplus(const Arg& x, const Arg& beta) { return softplus(x, beta, 20.0); }
inline Tensor softplus(const Arg& x) { return softplus(x, 1.0, 20.0); }
enum class Rounding : uint8_t { trunc, floor };
/// x / y rounded to an integer, in the dtype of the operands: towards zero, or down.
Tensor div(const Arg& x, const Arg& y, Rounding rounding);
/// |a - b| <= atol + rtol |b|, or equal; and NaN with NaN if equal_nan.
Tensor isclose(const Arg& a, const Arg& b, CloseOptions options = {});
Tensor fmax(const Arg& x, const Arg& y);  ///< as maximum and minimum, but a NaN gives way to a number
Tensor fmin(const Arg& x, const Arg& y);
Tensor frac(const Arg& x);  ///< x - trunc(x)
/// log(x / (1 - x)), x first clamped to [epsilon, 1 - epsilon] if that is given.
Tensor logit(const Arg& x, std::optional<double> epsilon = {});
Tensor heaviside(const Arg& x, const Arg& at_zero);  ///< 0 below zero, 1 above
Tensor deg2rad(const Arg& x);
Tensor rad2deg(const Arg& x);
/// bool of x's shape: is the element one of `elements`?
Tensor isin(const Arg& x, const Tensor& elements);
struct NanToNumOptions {
  double nan = 0;
  std::optional<double> posinf = {}, neginf = {};  ///< the greatest and the least number of the dtype, if absent
};
Tensor nan_to_num(const Arg& x, NanToNumOptions options = {});
/// With either bound absent: clamp(x, {.min = 0}).
Tensor clamp(const Arg& x, Bounds bounds);
Tensor hardtanh(const Arg& x, double min = -1, double max = 1);  ///< clamp to bounds in x's dtype
Tensor relu6(const Arg& x);                                      ///< hardtanh(x, 0, 6)
Tensor hardsigmoid(const Arg& x);                                ///< clamp(x + 3, 0, 6) / 6
Tensor bitwise_not(const Arg& x);                                ///< of bool: logical_not
/// x with `value`, in x's dtype, where the mask is true: bool, broadcast to x, whose shape the result has.
Tensor masked_fill(const Arg& x, const Arg& mask, const Arg& value);

inline Tensor operator-(const Arg& x) { return neg(x); }
inline Tensor operator+(const Arg& x, const Arg& y) { return add(x, y); }
inline Tensor operator-(const Arg& x, const Arg& y) { return sub(x, y); }
inline Tensor operator*(const Arg& x, const Arg& y) { return mul(x, y); }
inline Tensor operator/(const Arg& x, const Arg& y) { return div(x, y); }
/// remainder(x, y), of floor_divide.
inline Tensor operator%(const Arg& x, const Arg& y) { return remainder(x, y); }
inline Tensor operator==(const Arg& x, const Arg& y) { return equal(x, y); }
inline Tensor operator!=(const Arg& x, const Arg& y) { return not_equal(x, y); }
inline Tensor operator<(const Arg& x, const Arg& y) { return less(x, y); }
inline Tensor operator<=(const Arg& x, const Arg& y) { return less_equal(x, y); }
inline Tensor operator>(const Arg& x, const Arg& y) { return greater(x, y); }
inline Tensor operator>=(const Arg& x, const Arg& y) { return greater_equal(x, y); }
// Of integers and bool: (x > 0) & (x < 1). There are no && and ||, which would lose their short circuit: for other
// dtypes write logical_and, logical_or.
inline Tensor operator&(const Arg& x, const Arg& y) { return bitwise_and(x, y); }
inline Tensor operator|(const Arg& x, const Arg& y) { return bitwise_or(x, y); }
inline Tensor operator^(const Arg& x, const Arg& y) { return bitwise_xor(x, y); }
inline Tensor operator~(const Arg& x) { return bitwise_not(x); }

}  // namespace tandem
