// Loader: batches of a data set, shuffled, assembled ahead by worker threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "dataset.h"

namespace tandem::io {

struct LoaderOptions {
  int64_t batch_size = 1;
  bool shuffle = false;    ///< another order in each epoch, by (seed, epoch) alone
  bool drop_last = false;  ///< leave out a last batch that is not full
  int workers = 0;    ///< threads that assemble batches ahead, or as many as the system starts; 0: the caller's own
  int prefetch = 2;   ///< batches that each worker may be ahead of the caller, the one in the making included
  uint64_t seed = 0;  ///< of the order, and of what the data set draws for its items
};

/// A place in the course of a run: `batches` of `epoch` have been given out.
struct LoaderPosition {
  int64_t epoch = 0, batches = 0;
  bool operator==(const LoaderPosition&) const = default;
};

namespace detail {

/// The part of a Loader that doesn't depend on the type of its batches.
class BatchPlan {
 public:
  BatchPlan(int64_t items, const LoaderOptions& options, Where where);
  int64_t batches() const { return batches_; }
  const LoaderOptions& options() const { return options_; }
  /// Throws ValueError if there is no such place.
  void check(LoaderPosition position, Where where) const;
  /// The order of the items in an epoch.
  std::vector<int64_t> order(int64_t epoch) const;

 private:
  int64_t items_, batches_;
  LoaderOptions options_;
};

/// One epoch's batches, in order, whoever makes them.
class BatchStream {
 public:
  using Make = std::function<std::shared_ptr<void>(std::span<const int64_t> indices, EpochRandom random)>;
  /// Begins with batch `from.batches` of epoch `from.epoch`.
  BatchStream(const BatchPlan& plan, LoaderPosition from, Make make);
  ~BatchStream();  ///< stops the workers
  BatchStream(const BatchStream&) = delete;
  BatchStream& operator=(const BatchStream&) = delete;
  /// The next batch, null after the last. What make() threw in a worker is thrown here, for its batch; the next call
  /// goes on with the batch after it.
  std::shared_ptr<void> next();

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace detail

/// Goes over a data set in batches, once for each `for`:
///
///   io::Loader loader(dataset, {.batch_size = 64, .shuffle = true, .workers = 2});
///   for (auto& [images, labels] : loader) …
///
/// The batches depend on the seed and the epoch, never on the number of workers. What a worker throws is thrown by the
/// loop, in the place of its batch; the loader can then be iterated again, or destroyed. Leaving a loop early stops the
/// workers. A kernel that a worker calls runs on that worker's thread alone. A data set given as an lvalue must outlive
/// the loader; a temporary is moved into it. One loop at a time.
template <class D> class Loader {
 public:
  using Batch =
      decltype(batch_of(std::declval<const std::remove_reference_t<D>&>(), std::span<const int64_t>(), EpochRandom()));

  explicit Loader(D&& dataset, LoaderOptions options = {}, Where where = Where::current())
      : dataset_(std::forward<D>(dataset)), plan_(static_cast<int64_t>(dataset_.size()), options, where) {}
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Batches in an epoch.
  int64_t size() const { return plan_.batches(); }
  /// How many epochs have begun. Setting it chooses the order of the next.
  int64_t epoch() const { return next_.epoch; }
  void set_epoch(int64_t epoch) { next_ = now_ = {epoch, 0}; }
  /// What has been given out, the batch in hand included. A run that is resumed sets it, and its next loop does the
  /// rest of that epoch.
  LoaderPosition position() const { return now_; }
  void set_position(LoaderPosition position, Where where = Where::current()) {
    plan_.check(position, where);
    next_ = now_ = position;
  }

  struct End {};
  class Iterator {
   public:
    Batch& operator*() const { return *batch_; }
    Iterator& operator++() {
      batch_ = std::static_pointer_cast<Batch>(stream_->next());
      if (batch_) ++now_->batches;
      else *now_ = {now_->epoch + 1, 0};
      return *this;
    }
    bool operator==(End) const { return batch_ == nullptr; }

   private:
    friend class Loader;
    Iterator(std::unique_ptr<detail::BatchStream> stream, LoaderPosition* now) : stream_(std::move(stream)), now_(now) {
      ++*this;
    }
    std::unique_ptr<detail::BatchStream> stream_;
    LoaderPosition* now_;
    std::shared_ptr<Batch> batch_;
  };
  /// Begins a new epoch, or goes on where set_position() said.
  Iterator begin() {
    const auto make = [&data = std::as_const(dataset_)](std::span<const int64_t> indices, EpochRandom random) {
      return std::static_pointer_cast<void>(std::make_shared<Batch>(batch_of(data, indices, random)));
    };
    now_ = next_;
    next_ = {now_.epoch + 1, 0};
    return Iterator(std::make_unique<detail::BatchStream>(plan_, now_, make), &now_);
  }
  End end() const { return {}; }

 private:
  D dataset_;
  detail::BatchPlan plan_;
  LoaderPosition now_, next_;
};

template <class D> Loader(D&&, LoaderOptions = {}, Where = {}) -> Loader<D>;

}  // namespace tandem::io
