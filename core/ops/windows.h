// Windows that functions made of ops slide over images and volumes: what they refuse, and how many there are.
#pragma once

#include <algorithm>
#include <limits>

#include "composed.h"

namespace tandem {

/// How windows lie along the last dims of x.
struct Windows {
  const char* name;  ///< of the function, in whose name errors are raised
  Shape kernel, stride, dilation, before, after;

  /// Extents of 0 and more than kernels count to are refused.
  void check_numbers(const Arg& x) const {
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    for (int i = 0; i < kernel.size(); ++i) {
      check<ValueError>(kernel[i] >= 1 && stride[i] >= 1 && dilation[i] >= 1 && before[i] >= 0, x, name, ": kernel ",
                        kernel, ", stride ", stride, " and dilation ", dilation, " must be at least 1, padding ",
                        before, " not negative");
      check<ValueError>(std::max({kernel[i], stride[i], dilation[i], before[i]}) <= kMost, x, name, ": kernel ", kernel,
                        ", stride ", stride, ", dilation ", dilation, " and padding ", before, " must be at most ",
                        kMost);
    }
  }
  /// How far dim i reaches, padding included, where the dims have these extents.
  int64_t padded(const Arg& x, const Shape& extents, int i) const {
    return checked_add(extents[i], before[i] + after[i], name, x.where());
  }
  /// How many windows there are along dim i.
  int64_t count(const Arg& x, const Shape& extents, int i, bool ceil_mode = false) const {
    const int64_t reach = dilation[i] * (kernel[i] - 1) + 1, extent = padded(x, extents, i);
    check<ShapeError>(extents[i] >= 0 && extent + (ceil_mode ? stride[i] - 1 : 0) >= reach, x, name, ": kernel ",
                      kernel, " (reach ", reach, ") is larger than the padded input ", extents, " (", extent, ")");
    return (extent - reach) / stride[i] + 1;
  }
};

}  // namespace tandem
