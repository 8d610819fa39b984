// Loader: batches of a data set, shuffled, assembled ahead by worker threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "tandem/io/dataset.h"

namespace tandem::io {

struct LoaderOptions {
  int64_t batch_size = 1;
  bool shuffle = false;    ///< another order in each epoch, by (seed, epoch) alone
  bool drop_last = false;  ///< leave out a last batch that is not full
  int workers = 0;         ///< threads that assemble batches ahead; 0: the caller's own
  uint64_t seed = 0;
};

namespace detail {

/// The part of a Loader that doesn't depend on the type of its batches.
class BatchPlan {
 public:
  BatchPlan(int64_t items, const LoaderOptions& options, Where where);
  int64_t batches() const { return batches_; }
  const LoaderOptions& options() const { return options_; }
  /// The order of the items in an epoch.
  std::vector<int64_t> order(int64_t epoch) const;

 private:
  int64_t items_, batches_;
  LoaderOptions options_;
};

/// One epoch's batches, in order, whoever makes them.
class BatchStream {
 public:
  using Make = std::function<std::shared_ptr<void>(std::span<const int64_t> indices)>;
  BatchStream(const BatchPlan& plan, int64_t epoch, Make make);
  ~BatchStream();  ///< stops the workers
  BatchStream(const BatchStream&) = delete;
  BatchStream& operator=(const BatchStream&) = delete;
  /// The next batch, null after the last. What make() threw in a worker is thrown here, for its batch.
  std::shared_ptr<void> next();

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace detail

/// Goes over a data set in batches, once for each `for`:
///
///   io::Loader loader(dataset, {.batch_size = 64, .shuffle = true, .workers = 1});
///   for (auto& [images, labels] : loader) …
///
/// The batches are the same whatever the number of workers. A data set given as an lvalue must outlive the
/// loader; a temporary is moved into it.
template <class D>
class Loader {
 public:
  using Batch =
      decltype(batch_of(std::declval<const std::remove_reference_t<D>&>(), std::span<const int64_t>()));

  explicit Loader(D&& dataset, LoaderOptions options = {}, Where where = Where::current())
      : dataset_(std::forward<D>(dataset)), plan_(static_cast<int64_t>(dataset_.size()), options, where) {}
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Batches in an epoch.
  int64_t size() const { return plan_.batches(); }
  /// How many epochs have begun. Setting it (on resuming a run) chooses the order of the next.
  int64_t epoch() const { return epoch_; }
  void set_epoch(int64_t epoch) { epoch_ = epoch; }

  struct End {};
  class Iterator {
   public:
    Batch& operator*() const { return *batch_; }
    Iterator& operator++() {
      batch_ = std::static_pointer_cast<Batch>(stream_->next());
      return *this;
    }
    bool operator==(End) const { return batch_ == nullptr; }

   private:
    friend class Loader;
    explicit Iterator(std::unique_ptr<detail::BatchStream> stream) : stream_(std::move(stream)) { ++*this; }
    std::unique_ptr<detail::BatchStream> stream_;
    std::shared_ptr<Batch> batch_;
  };
  /// Begins a new epoch.
  Iterator begin() {
    const auto make = [&data = std::as_const(dataset_)](std::span<const int64_t> indices) {
      return std::static_pointer_cast<void>(std::make_shared<Batch>(batch_of(data, indices)));
    };
    return Iterator(std::make_unique<detail::BatchStream>(plan_, epoch_++, make));
  }
  End end() const { return {}; }

 private:
  D dataset_;
  detail::BatchPlan plan_;
  int64_t epoch_ = 0;
};

template <class D>
Loader(D&&, LoaderOptions = {}, Where = {}) -> Loader<D>;

}  // namespace tandem::io
