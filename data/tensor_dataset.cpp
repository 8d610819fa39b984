// TensorDataset: tensors whose rows belong together.
#include "data/tensor_dataset.h"

#include <cstring>

namespace tandem::io::detail {

using tandem::detail::str;

int64_t prepare_rows(std::span<Tensor> tensors, Where where) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    Tensor& tensor = tensors[i];
    if (tensor.rank(where) == 0)
      throw ShapeError(
          str("io::TensorDataset: tensor ", i, " is 0-d, and has no rows: give it a first dim, one row for each item"),
          where);
    if (tensor.size(0) != tensors[0].size(0))
      throw ShapeError(
          str("io::TensorDataset: tensor ", i, " ", tensor.shape(), " has ", tensor.size(0), " rows, and tensor 0 ",
              tensors[0].shape(), " has ", tensors[0].size(0), ": the first extents must agree"),
          where);
    tensor = tensor.detach().contiguous();
  }
  return tensors[0].size(0);
}

namespace {
void check(const Tensor& tensor, int64_t index, Where where) {
  if (index < 0 || index >= tensor.size(0))
    throw DimensionError(str("io::TensorDataset: there is no item ", index, ", only 0 to ", tensor.size(0) - 1), where);
}
}  // namespace

Tensor row_of(const Tensor& tensor, int64_t index, Where where) {
  check(tensor, index, where);
  return tensor[index];
}

Tensor rows_of(const Tensor& tensor, std::span<const int64_t> indices, Where where) {
  Shape shape = tensor.shape();
  shape[0] = static_cast<int64_t>(indices.size());
  if (!tensor.device().is_cpu()) {
    Tensors rows;
    rows.reserve(indices.size());
    for (int64_t index : indices) rows.push_back(row_of(tensor, index, where));
    return rows.empty() ? empty(shape, {.dtype = tensor.dtype(), .device = tensor.device()}) : io::stack(rows);
  }
  Tensor result = empty(shape, {.dtype = tensor.dtype()});
  const size_t row =
      static_cast<size_t>(tensor.numel() / std::max<int64_t>(tensor.size(0), 1) * size_of(tensor.dtype()));
  const char* const from = static_cast<const char*>(tensor.impl()->data);
  char* to = static_cast<char*>(result.impl()->data);
  for (int64_t index : indices) {
    check(tensor, index, where);
    if (row != 0) std::memcpy(to, from + static_cast<size_t>(index) * row, row);
    to += row;
  }
  return result;
}

}  // namespace tandem::io::detail
