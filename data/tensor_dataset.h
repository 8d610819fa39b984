// TensorDataset: tensors whose rows belong together.
#pragma once

#include <array>
#include <tuple>

#include "dataset.h"

namespace tandem::io {

namespace detail {
/// What the rows of `tensors` are, checked and made ready to be read: cut off from the tape, rows without gaps.
int64_t prepare_rows(std::span<Tensor> tensors, Where where);
Tensor rows_of(const Tensor& tensor, std::span<const int64_t> indices, Where where);
Tensor row_of(const Tensor& tensor, int64_t index, Where where);
}  // namespace detail

/// Item i is row i of each tensor; the tensors, one or more, agree in their first extent, and may lie on any device.
///
///   io::TensorDataset data(x, y);  // x [count, 4], y [count]
///   for (auto& [inputs, targets] : io::Loader(data, {.batch_size = 32})) …  // [32, 4] and [32]
///
/// It shares their memory. ShapeError if they have no first dim or differ in it.
template <class... T> class TensorDataset {
  static_assert(sizeof...(T) > 0 && (std::is_same_v<T, Tensor> && ...), "tandem::io::TensorDataset holds Tensors");

 public:
  using Item = std::tuple<T...>;
  explicit TensorDataset(const T&... tensors, Where where = Where::current())
      : tensors_{tensors...}, size_(detail::prepare_rows(tensors_, where)) {}

  int64_t size() const { return size_; }
  /// Rows, each without the first dim.
  Item get(int64_t index, Where where = Where::current()) const {
    return each([&](const Tensor& tensor) { return detail::row_of(tensor, index, where); });
  }
  Item batch(std::span<const int64_t> indices, Where where = Where::current()) const {
    return each([&](const Tensor& tensor) { return detail::rows_of(tensor, indices, where); });
  }

 private:
  template <class F> Item each(F&& f) const {
    return std::apply([&](const auto&... tensor) { return Item{f(tensor)...}; }, tensors_);
  }
  std::array<Tensor, sizeof...(T)> tensors_;
  int64_t size_;
};
template <class... T> TensorDataset(const T&...) -> TensorDataset<T...>;

}  // namespace tandem::io
