// Base shapes, and the views that turn them into the layouts.
#include "samples/layouts.h"

#include <algorithm>

namespace tandem::samples {

namespace {

/// The dim that is repeated: the first or last with an extent over one; -1 if there is none.
int repeated_dim(Layout layout, const Shape& shape) {
  int found = -1;
  for (int d = 0; d < shape.size(); ++d)
    if (shape[d] > 1 && (found < 0 || layout == Layout::repeats_last)) found = d;
  return found;
}

}  // namespace

std::string_view name_of(Layout layout) {
  constexpr std::string_view names[] = {"contiguous",    "transposed",   "sliced",
                                        "repeats first", "repeats last", "channels last"};
  return names[static_cast<size_t>(layout)];
}

Layout fitting(Layout wanted, const Shape& shape) {
  bool fits = true;
  switch (wanted) {
    case Layout::contiguous: break;
    case Layout::transposed: fits = shape.size() >= 2; break;
    case Layout::sliced: fits = shape.size() >= 1; break;
    case Layout::repeats_first: fits = repeated_dim(wanted, shape) >= 0; break;
    case Layout::repeats_last: fits = repeated_dim(wanted, shape) > repeated_dim(Layout::repeats_first, shape); break;
    case Layout::channels_last: fits = shape.size() == 4; break;
  }
  return fits ? wanted : Layout::contiguous;
}

Shape base_shape(Layout layout, const Shape& shape) {
  Shape base = shape;
  switch (layout) {
    case Layout::contiguous: break;
    case Layout::transposed: std::reverse(base.begin(), base.end()); break;
    case Layout::sliced:
      base[base.size() - 1] = 2 * base.back() + 1;
      base[0] += 1;
      break;
    case Layout::repeats_first:
    case Layout::repeats_last: base[repeated_dim(layout, shape)] = 1; break;
    case Layout::channels_last: base = {shape[0], shape[2], shape[3], shape[1]}; break;
  }
  return base;
}

Tensor view(Layout layout, const Tensor& base, const Shape& shape) {
  switch (layout) {
    case Layout::contiguous: return base;
    case Layout::transposed: {
      Dims dims;
      for (int d = shape.size() - 1; d >= 0; --d) dims.push_back(d);
      return permute(base, dims);
    }
    case Layout::sliced: {
      const Tensor rows = slice(base, 0, 1, base.shape()[0]);
      const int last = shape.size() - 1;
      // Of rank 1, the base has two elements more than twice the extent.
      return slice(rows, last, shape.size() == 1 ? 0 : 1, (shape.size() == 1 ? 0 : 1) + 2 * shape.back(), 2);
    }
    case Layout::repeats_first:
    case Layout::repeats_last: return expand(base, shape);
    case Layout::channels_last: return permute(base, {0, 3, 1, 2});
  }
  return base;
}

}  // namespace tandem::samples
