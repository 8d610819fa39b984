// What the Loader asks of a data set.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "../core/ops/ops.h"
#include "../core/tensor.h"
#include "host_random.h"

namespace tandem::io {

enum class Split { train, test };

/// Where an epoch's random numbers (crops, windows) come from: each item has a generator of its own, keyed on
/// (seed, epoch, index). So nothing depends on which thread asks, nor in what order.
struct EpochRandom {
  uint64_t seed = 0;
  int64_t epoch = 0;
  HostRandom at(int64_t index) const {
    HostRandom epochs(~seed, static_cast<uint64_t>(epoch));  // ~: apart from the streams that order the items
    return HostRandom(epochs.next(), static_cast<uint64_t>(index));
  }
};

/// Has size() items and gives each by get(index): a Tensor, or a pair or tuple of Tensors. With workers, get is
/// called from several threads at once.
template <class D>
concept PlainDataset = requires(const D& data, int64_t index) {
  { data.size() } -> std::convertible_to<int64_t>;
  data.get(index);
};
/// The same for items that are drawn anew in each epoch: get(index, random) takes a generator made for this item.
/// A data set that draws must do so from it, not from randn() and the like, whose one generator counts its draws
/// and would serve threads in the order in which they come.
template <class D>
concept RandomDataset = requires(const D& data, int64_t index, HostRandom& random) {
  { data.size() } -> std::convertible_to<int64_t>;
  data.get(index, random);
};
template <class D>
concept Dataset = PlainDataset<D> || RandomDataset<D>;

/// A data set that assembles a batch itself, faster than by joining items: what get returns, with a leading
/// dim.
template <class D>
concept BatchedDataset = PlainDataset<D> && requires(const D& data, std::span<const int64_t> indices) {
  { data.batch(indices) } -> std::same_as<decltype(data.get(0))>;
};
template <class D>
concept RandomBatchedDataset = Dataset<D> &&
    requires(const D& data, std::span<const int64_t> indices, EpochRandom random) {
  data.batch(indices, random);
};

/// Joins items along a new leading dim.
Tensor stack(std::span<const Tensor> items);

namespace detail {

inline Tensor stacked(const std::vector<Tensor>& items) { return stack(items); }
template <class Item> Item stacked(const std::vector<Item>& items) {
  return [&]<size_t... I>(std::index_sequence<I...>) {
    std::vector<Tensor> columns[sizeof...(I)];
    for (const Item& item : items) (columns[I].push_back(std::get<I>(item)), ...);
    return Item{stack(columns[I])...};
  }
  (std::make_index_sequence<std::tuple_size_v<Item>>());
}

}  // namespace detail

/// The items at `indices` as one batch.
template <Dataset D> auto batch_of(const D& data, std::span<const int64_t> indices, EpochRandom random = {}) {
  if constexpr (RandomBatchedDataset<D>) {
    return data.batch(indices, random);
  } else if constexpr (RandomDataset<D>) {
    HostRandom first = random.at(0);
    std::vector<decltype(data.get(0, first))> items;
    items.reserve(indices.size());
    for (int64_t index : indices) {
      HostRandom own = random.at(index);
      items.push_back(data.get(index, own));
    }
    return detail::stacked(items);
  } else if constexpr (BatchedDataset<D>) {
    return data.batch(indices);
  } else {
    std::vector<decltype(data.get(0))> items;
    items.reserve(indices.size());
    for (int64_t index : indices) items.push_back(data.get(index));
    return detail::stacked(items);
  }
}

}  // namespace tandem::io
