// Layouts: ways for a tensor to lie in memory. A base tensor of another shape is made, and viewed as wanted.
#pragma once

#include <array>

#include "core/ops/ops.h"

namespace tandem::samples {

enum class Layout : uint8_t {
  contiguous,
  transposed,     ///< dims in reverse order: dense, but column-major
  sliced,         ///< every second element of the last dim, from the second of the first
  repeats_first,  ///< stride 0 along the first dim that has an extent
  repeats_last,   ///< and along the last
  channels_last,  ///< of rank 4
};
inline constexpr std::array kLayouts = {Layout::contiguous,    Layout::transposed,   Layout::sliced,
                                        Layout::repeats_first, Layout::repeats_last, Layout::channels_last};
std::string_view name_of(Layout layout);

/// The layout that stands for `wanted` where that means nothing for a shape: contiguous.
Layout fitting(Layout wanted, const Shape& shape);
/// The shape of the base tensor of which view() makes one of `shape`. The layout must be fitting.
Shape base_shape(Layout layout, const Shape& shape);
Tensor view(Layout layout, const Tensor& base, const Shape& shape);

}  // namespace tandem::samples
