// Samples: for every op of the table, calls with inputs and the result in plain double arithmetic, from which
// tests/generated_test.cpp makes its cases. Each family of core/families.def adds its own in
// tests/samples/<family>.cpp. A sample says nothing of layouts: its operands are tried in all of them.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "core/ops/ops.h"

namespace tandem::samples {

/// A tensor as numbers, row-major: what references read and write.
struct Numbers {
  Shape shape;
  std::vector<double> values;
  DType dtype = DType::float32;
  /// What an error of values[i] is measured against, where that is more than |values[i]|: for a sum, the sum of |x|.
  std::vector<double> scale = {};

  Numbers() = default;
  Numbers(const Shape& shape, DType dtype) : shape(shape), values(static_cast<size_t>(shape.numel())), dtype(dtype) {}
  double& operator[](int64_t i) { return values[static_cast<size_t>(i)]; }
  double operator[](int64_t i) const { return values[static_cast<size_t>(i)]; }
  /// Adds the scale, all zeros.
  std::vector<double>& make_scale() {
    scale.assign(values.size(), 0.0);
    return scale;
  }
  int64_t numel() const { return shape.numel(); }
};
using NumberLists = std::vector<Numbers>;

/// Element i of an operand.
using Generator = std::function<double(int64_t)>;
/// Distinct values spread over [low, high); each salt gives others.
Generator spread(double low, double high, int salt = 0);
/// Values of both signs in [low, high) from zero: for ops with a kink at 0.
Generator away_from_zero(double low, double high, int salt = 0);
/// Integers in [low, high).
Generator integers(int64_t low, int64_t high, int salt = 0);
/// These, over and over.
Generator repeat(std::vector<double> values);

struct Operand {
  Shape shape;
  Generator value;
  std::optional<DType> dtype = {};  ///< else the case's
  bool differentiable = true;
  bool fixed_layout = false;  ///< always contiguous
  bool may_repeat = true;     ///< false: not in layouts of stride 0, where the op has a kink or a pole
};

using Call = std::function<Tensors(const Tensors&)>;
using Reference = std::function<NumberLists(const NumberLists&)>;

/// Which orders of gradient finite differences confirm.
enum class Gradients : uint8_t { none, first, second };
/// How the modes agree: bit for bit, or to 1e-5 where sums may be taken in another order.
enum class Agreement : uint8_t { exact, close };

struct Sample {
  std::string op;
  std::string label;  ///< what is special about it
  std::vector<Operand> operands = {};
  std::vector<DType> dtypes;  ///< of the operands that don't fix their own
  Call call;
  Reference reference;  ///< its outputs; fewer than the call's leave the others unchecked
  double ulps = 4;      ///< units in the last place that a float32 or float64 result may be off
  Gradients gradients = Gradients::none;
  Agreement agreement = Agreement::exact;
  bool large = false;  ///< skipped where the device is emulated
};
using Samples = std::vector<Sample>;

/// Where the operands lie: the CPU, or what TANDEM_TEST_DEVICE names.
Device test_device();

/// All samples, family by family.
Samples all_samples();

#define TANDEM_FAMILY(family) void add_##family##_samples(Samples& samples);
#include "core/families.def"
#undef TANDEM_FAMILY

// ---- For the families.

/// What references sum in: a plain sum of doubles would be off by more than a kernel's.
using Real = long double;

inline const std::vector<DType> kFloats = {float32, float64, float16, bfloat16};
inline const std::vector<DType> kNumbers = {float32, float64, float16, bfloat16, int32, int64, int16, int8, uint8};
inline const std::vector<DType> kAll = {float32, float64, float16, bfloat16, int32, int64, int16, int8, uint8, bool_};

/// Row-major position as one index for each dim, and back.
Shape unravel(int64_t position, const Shape& shape);
int64_t ravel(const Shape& index, const Shape& shape);
/// The position in a tensor of shape `from` that broadcasting reads for `position` of shape `to`.
int64_t broadcast_position(int64_t position, const Shape& to, const Shape& from);
Shape broadcast_shapes(const Shape& a, const Shape& b);

/// A call of an op that has no public function of its own.
Call call_op(const char* name, Attributes attributes = {});

}  // namespace tandem::samples
