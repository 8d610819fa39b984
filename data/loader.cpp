// Loader: the order of the items, and the threads that assemble batches ahead.
#include "data/loader.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <numeric>
#include <system_error>
#include <thread>

#include "core/threads.h"
#include "data/host_random.h"

namespace tandem::io::detail {

BatchPlan::BatchPlan(int64_t items, const LoaderOptions& options, Where where) : items_(items), options_(options) {
  if (options.batch_size < 1)
    throw ValueError(tandem::detail::str("io::Loader: batch_size is ", options.batch_size, ", need at least 1"), where);
  constexpr int64_t kMostWorkers = 1024;
  if (options.workers < 0 || options.workers > kMostWorkers)
    throw ValueError(tandem::detail::str("io::Loader: workers is ", options.workers, ", need 0 to ", kMostWorkers),
                     where);
  if (options.prefetch < 1)
    throw ValueError(tandem::detail::str("io::Loader: prefetch is ", options.prefetch, ", need at least 1"), where);
  batches_ = items / options.batch_size + (!options.drop_last && items % options.batch_size != 0);
}

void BatchPlan::check(LoaderPosition position, Where where) const {
  if (position.epoch < 0 || position.batches < 0 || position.batches > batches_)
    throw ValueError(
        tandem::detail::str("io::Loader: there is no place after ", position.batches, " batches of epoch ",
                            position.epoch, ": an epoch has ", batches_, " batches, and the first epoch is 0"),
        where);
}

std::vector<int64_t> BatchPlan::order(int64_t epoch) const {
  std::vector<int64_t> result(static_cast<size_t>(items_));
  std::iota(result.begin(), result.end(), 0);
  if (options_.shuffle) {
    HostRandom random(options_.seed, static_cast<uint64_t>(epoch));
    for (size_t i = result.size(); i > 1; --i) std::swap(result[i - 1], result[random.below(i)]);
  }
  return result;
}

// Workers take batches in order and put each into its place in a window of batches that begins with the one
// that the caller waits for; so the order doesn't depend on who is faster, and memory is bounded.
struct BatchStream::Shared {
  struct Place {
    std::shared_ptr<void> batch;
    std::exception_ptr error;
    bool ready = false;
  };

  Shared(const BatchPlan& plan, LoaderPosition from, Make make_batch)
      : make(std::move(make_batch)), random{plan.options().seed, from.epoch}, order(plan.order(from.epoch)),
        batch_size(static_cast<size_t>(plan.options().batch_size)), count(static_cast<size_t>(plan.batches())),
        taken(static_cast<size_t>(from.batches)), given(taken) {}
  ~Shared() {
    {
      std::lock_guard lock(mutex);
      stopped = true;
    }
    changed.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  std::shared_ptr<void> batch(size_t index) const {
    const size_t begin = index * batch_size;
    return make(std::span(order).subspan(begin, std::min(batch_size, order.size() - begin)), random);
  }

  void work() {
    run_kernels_on_this_thread_alone();
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return stopped || (taken < count && taken < given + window.size()); });
      if (stopped) return;
      const size_t index = taken++;
      lock.unlock();
      Place place{nullptr, nullptr, true};
      try {
        place.batch = batch(index);
      } catch (...) { place.error = std::current_exception(); }
      lock.lock();
      window[index % window.size()] = std::move(place);
      changed.notify_all();
    }
  }

  const Make make;
  const EpochRandom random;
  const std::vector<int64_t> order;
  const size_t batch_size, count;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Place> window;  // batch i lies at i % size
  size_t taken;               // by workers
  size_t given;               // to the caller
  bool stopped = false;
  std::vector<std::thread> workers;
};

BatchStream::BatchStream(const BatchPlan& plan, LoaderPosition from, Make make)
    : shared_(std::make_unique<Shared>(plan, from, std::move(make))) {
  const size_t left = shared_->count - shared_->given;
  const size_t workers = std::min(static_cast<size_t>(plan.options().workers), left);
  shared_->window.resize(std::min(left, workers * std::min(left, static_cast<size_t>(plan.options().prefetch))));
  try {
    for (size_t i = 0; i < workers; ++i) shared_->workers.emplace_back([shared = shared_.get()] { shared->work(); });
  } catch (const std::system_error&) {
  }  // those that could be started do it all; without one, who asks for a batch makes it
}

BatchStream::~BatchStream() = default;

std::shared_ptr<void> BatchStream::next() {
  Shared& shared = *shared_;
  if (shared.given == shared.count) return nullptr;
  if (shared.workers.empty()) return shared.batch(shared.given++);
  Shared::Place place;
  {
    std::unique_lock lock(shared.mutex);
    Shared::Place& next = shared.window[shared.given % shared.window.size()];
    shared.changed.wait(lock, [&] { return next.ready; });
    place = std::exchange(next, {});
    ++shared.given;
  }
  shared.changed.notify_all();
  if (place.error) std::rethrow_exception(place.error);
  return place.batch;
}

}  // namespace tandem::io::detail
