// What is said of labels, indices and numbers that are out of range, by eager kernels and generated ones alike.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "attributes.h"
#include "shape.h"
#include "tensor.h"

namespace tandem {

/// Of floats: those in [low, high] are fine. A NaN is in none.
struct Interval {
  double low, high;
};

struct RangeCheck {
  std::string what = "index";  ///< "label"
  int64_t bound = 0;           ///< those in [0, bound) are fine
  bool classes = false;        ///< of one label a row, for so many classes
  std::optional<int64_t> ignored = {};
  bool lengths = false;  ///< of sequences, one each: those in [0, bound] are fine, others are a ValueError
  std::optional<Interval> interval = {};  ///< of floats, in place of all that; `what` is the text of the ValueError

  bool allows(int64_t value) const { return (value >= 0 && value < bound + (lengths ? 1 : 0)) || value == ignored; }
  /// "label 7 at row 3 is out of range for 4 classes (0 to 3)". The position is left out where it isn't known.
  std::string text(int64_t value, const std::optional<Shape>& position) const;
};

/// A check of a tensor's values that is carried out elsewhere: in a generated kernel, or on another device.
struct ValueCheck {
  RangeCheck range;
  std::string op;  ///< in whose name it is raised
  Where where;
  Shape shape;  ///< of the values

  /// DimensionError of the value at that place, counted in row-major order; of a length or an interval ValueError.
  [[noreturn]] void fail(int64_t value, int64_t place) const;
  /// The same where it isn't known which value it was.
  [[noreturn]] void fail() const;
};

struct Op;

/// "range_checked", the op of such views.
Op range_checked_op();
/// A view of the tensor, int64 unless the check has an interval, for decompositions whose pointwise ops read all of it: in
/// generated kernels each element that is read is checked, and DimensionError (ValueError) is raised after the kernel, in the
/// name of `op`. Nothing else checks: a decomposition that returns the view returns a copy of it.
Tensor range_checked(const char* op, const Tensor& values, const RangeCheck& check);
/// Of the call that made such a view.
RangeCheck range_check_of(const Attributes& attributes);

}  // namespace tandem
