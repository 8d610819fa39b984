// What the Loader asks of a data set.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <tuple>
#include <utility>

#include "tandem/core/ops.h"
#include "tandem/core/tensor.h"

namespace tandem::io {

enum class Split { train, test };

/// Has size() items and gives each by get(index): a Tensor, or a pair or tuple of Tensors. With a worker, get
/// is called from another thread.
template <class D>
concept Dataset = requires(const D& data, int64_t index) {
  { data.size() } -> std::convertible_to<int64_t>;
  data.get(index);
};

/// A data set that assembles a batch itself, faster than by joining items: what get returns, with a leading
/// dim.
template <class D>
concept BatchedDataset = Dataset<D> && requires(const D& data, std::span<const int64_t> indices) {
  { data.batch(indices) } -> std::same_as<decltype(data.get(0))>;
};

/// Joins items along a new leading dim.
Tensor stack(std::span<const Tensor> items);

namespace detail {

inline Tensor stacked(const std::vector<Tensor>& items) { return stack(items); }
template <class Item>
Item stacked(const std::vector<Item>& items) {
  return [&]<size_t... I>(std::index_sequence<I...>) {
    std::vector<Tensor> columns[sizeof...(I)];
    for (const Item& item : items) (columns[I].push_back(std::get<I>(item)), ...);
    return Item{stack(columns[I])...};
  }
  (std::make_index_sequence<std::tuple_size_v<Item>>());
}

}  // namespace detail

/// The items at `indices` as one batch.
template <Dataset D>
auto batch_of(const D& data, std::span<const int64_t> indices) {
  if constexpr (BatchedDataset<D>) {
    return data.batch(indices);
  } else {
    std::vector<decltype(data.get(0))> items;
    items.reserve(indices.size());
    for (int64_t index : indices) items.push_back(data.get(index));
    return detail::stacked(items);
  }
}

}  // namespace tandem::io
