// What is said of labels and indices that are out of range, by eager kernels and generated ones alike.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "attributes.h"
#include "shape.h"
#include "tensor.h"

namespace tandem {

struct RangeCheck {
  std::string what = "index";  ///< "label"
  int64_t bound = 0;           ///< those in [0, bound) are fine
  bool classes = false;        ///< of one label a row, for so many classes
  std::optional<int64_t> ignored = {};

  bool allows(int64_t value) const { return (value >= 0 && value < bound) || value == ignored; }
  /// "label 7 at row 3 is out of range for 4 classes (0 to 3)". The position is left out where it isn't known.
  std::string text(int64_t value, const std::optional<Shape>& position) const;
};

struct Op;

/// "range_checked", the op of such views.
Op range_checked_op();
/// A view of the int64 tensor, for decompositions: in generated kernels each element that is read is checked, and
/// DimensionError is raised after the kernel, in the name of `op`.
Tensor range_checked(const char* op, const Tensor& values, const RangeCheck& check);
/// Of the call that made such a view.
RangeCheck range_check_of(const Attributes& attributes);

}  // namespace tandem
