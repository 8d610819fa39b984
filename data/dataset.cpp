// Joining items to batches.
#include "data/dataset.h"

namespace tandem::io {

Tensor stack(std::span<const Tensor> items) {
  if (items.empty()) throw ValueError("io::stack: there are no items to join", Where::current());
  Tensors rows;
  rows.reserve(items.size());
  for (const Tensor& item : items) {
    if (item.shape() != items.front().shape())
      throw ShapeError(
          tandem::detail::str("io::stack: items of different shapes can't be one batch: ", items.front().shape(),
                              " and ", item.shape(), ": pad or crop them in the data set's get()"),
          Where::current());
    rows.push_back(item.unsqueeze(0));
  }
  return concat(rows, 0);
}

}  // namespace tandem::io
