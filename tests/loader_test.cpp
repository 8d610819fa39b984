// The loader: order, workers, what they throw, and what is drawn.
#include "data/loader.h"
#include "support.h"

#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <thread>

#include "core/threads.h"
#include "files.h"
#include "tandem.h"

using namespace tandem;

namespace {

// Items that know their number; get() can be told to throw or to take its time.
struct Numbers {
  int64_t count = 10;
  int64_t bad = -1;
  bool slow = false;
  int64_t size() const { return count; }
  std::pair<Tensor, Tensor> get(int64_t index) const {
    if (index == bad) throw std::out_of_range("item " + std::to_string(index) + " is bad");
    if (slow) std::this_thread::sleep_for(std::chrono::microseconds(200 * (index % 3)));
    return {full({2}, double(index)), tensor<int64_t>(index)};
  }
};
struct OnlyImages {
  int64_t size() const { return 5; }
  Tensor get(int64_t index) const { return full({1, 2}, double(index)); }
};

template <class Loader> std::vector<int64_t> order_of(Loader&& loader) {
  std::vector<int64_t> order;
  for (auto& [images, labels] : loader) {
    const std::vector<int64_t> batch = labels.template to_vector<int64_t>();
    CHECK(images.size(0) == labels.size(0));
    for (size_t i = 0; i < batch.size(); ++i)
      CHECK(images[static_cast<int64_t>(i)][0].template item<float>() == float(batch[i]));
    order.insert(order.end(), batch.begin(), batch.end());
  }
  return order;
}

}  // namespace

TEST_CASE("Loader: batches in order, the last one short or dropped") {
  Numbers data;
  io::Loader loader(data, {.batch_size = 4});
  CHECK(loader.size() == 3);
  CHECK(order_of(loader) == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  io::Loader full_only(data, {.batch_size = 4, .drop_last = true});
  CHECK(full_only.size() == 2);
  CHECK(order_of(full_only).size() == 8);
  CHECK(order_of(io::Loader(data, {.batch_size = 3})).size() == 10);  // over temporaries
  CHECK(order_of(io::Loader(Numbers{}, {.batch_size = 3})).size() == 10);
  data.count = 0;
  CHECK(io::Loader(data, {.batch_size = 3}).size() == 0);
  CHECK(order_of(io::Loader(data, {.batch_size = 3, .workers = 1})).empty());
}

TEST_CASE("Loader: a shuffle is a permutation, new in each epoch, the same for the same seed") {
  const Numbers data{.count = 50};
  io::Loader loader(data, {.batch_size = 8, .shuffle = true, .seed = 5});
  const std::vector<int64_t> a = order_of(loader), b = order_of(loader);
  CHECK(loader.epoch() == 2);
  CHECK(std::set<int64_t>(a.begin(), a.end()).size() == 50);
  CHECK(a != b);
  io::Loader again(data, {.batch_size = 8, .shuffle = true, .seed = 5}),
      other(data, {.batch_size = 8, .shuffle = true, .seed = 6});
  CHECK(order_of(again) == a);
  CHECK(order_of(other) != a);
  again.set_epoch(1);
  CHECK(order_of(again) == b);
}

TEST_CASE("Loader: workers don't change the order") {
  const Numbers data{.count = 61, .slow = true};
  io::Loader alone(data, {.batch_size = 4, .shuffle = true, .seed = 1});
  const std::vector<int64_t> expected = order_of(alone);
  for (int workers : {1, 2, 5, 40}) {
    io::Loader loader(data, {.batch_size = 4, .shuffle = true, .workers = workers, .seed = 1});
    CHECK(order_of(loader) == expected);
  }
}

TEST_CASE("Loader: leaving early stops the workers, and the next epoch is whole") {
  const Numbers data{.count = 100, .slow = true};
  io::Loader loader(data, {.batch_size = 2, .workers = 2});
  for (auto& [images, labels] : loader) {
    CHECK(labels[0].item<int64_t>() == 0);
    (void)images;
    break;
  }
  CHECK(order_of(loader).size() == 100);
}

TEST_CASE("Loader: what a worker throws reaches the caller whole, after the batches before it") {
  const Numbers data{.count = 20, .bad = 9};
  for (int workers : {0, 1, 3}) {
    io::Loader loader(data, {.batch_size = 2, .workers = workers});
    int64_t batches = 0;
    const std::string text = thrown<std::out_of_range>([&] {
      for (auto& [images, labels] : loader) {
        (void)images, (void)labels;
        ++batches;
      }
    });
    CHECK(text == "item 9 is bad");
    CHECK(batches == 4);
  }
}

TEST_CASE("Loader: items that are one tensor, and options out of range") {
  int64_t rows = 0;
  for (Tensor& batch : io::Loader(OnlyImages{}, {.batch_size = 2})) {
    CHECK(batch.rank() == 3);
    rows += batch.size(0);
  }
  CHECK(rows == 5);
  CHECK(contains(thrown<ValueError>([] { io::Loader(OnlyImages{}, {.batch_size = 0}); }), "batch_size is 0"));
  CHECK(contains(thrown<ValueError>([] { io::Loader(OnlyImages{}, {.workers = -1}); }), "workers is -1"));
  CHECK_THROWS_AS(io::stack({}), ValueError);
  CHECK_THROWS_AS(io::stack(Tensors{ones({2}), ones({3})}), ShapeError);
}

namespace {

// Items that are drawn: the number, and what the item's own generator gives.
struct Drawn {
  int64_t count = 30;
  int64_t size() const { return count; }
  std::pair<Tensor, Tensor> get(int64_t index, io::HostRandom& random) const {
    if (index % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
    return {tensor(static_cast<float>(random.uniform())), tensor<int64_t>(index)};
  }
};

template <class Loader> std::pair<std::vector<float>, std::vector<int64_t>> all_of(Loader& loader) {
  std::pair<std::vector<float>, std::vector<int64_t>> all;
  for (auto& [numbers, indices] : loader) {
    for (float number : numbers.template to_vector<float>()) all.first.push_back(number);
    for (int64_t index : indices.template to_vector<int64_t>()) all.second.push_back(index);
  }
  return all;
}

// Counts the batches that are being made or lie ready.
struct Counted {
  std::atomic<int>* made;
  int64_t size() const { return 100; }
  Tensor get(int64_t) const {
    ++*made;
    return ones({1});
  }
};

struct OwnError : std::runtime_error {
  OwnError(int code, const std::string& text) : std::runtime_error(text), code(code) {}
  int code;
};
struct Throwing {
  bool tandem = false;
  int64_t size() const { return 12; }
  Tensor get(int64_t index) const {
    if (index >= 6 && tandem) throw ShapeError("item " + std::to_string(index), Where::current());
    if (index >= 6) throw OwnError(static_cast<int>(index), "item " + std::to_string(index));
    return ones({1});
  }
};

}  // namespace

TEST_CASE("Loader: what items draw depends on seed, epoch and index alone, whatever the workers and the batch size") {
  const Drawn data;
  io::Loader alone(data, {.batch_size = 4, .shuffle = true, .seed = 7});
  const auto first = all_of(alone), second = all_of(alone);
  CHECK(first.first != second.first);
  CHECK(std::set<float>(first.first.begin(), first.first.end()).size() == 30);
  for (int workers : {0, 1, 2, 3, 8}) {
    io::Loader loader(data,
                      {.batch_size = 4, .shuffle = true, .workers = workers, .prefetch = workers % 2 + 1, .seed = 7});
    CHECK(all_of(loader) == first);
    CHECK(all_of(loader) == second);
  }
  io::Loader wider(data, {.batch_size = 7, .shuffle = true, .workers = 2, .seed = 7}),
      other(data, {.batch_size = 4, .shuffle = true, .seed = 8});
  CHECK(all_of(wider) == first);
  CHECK(all_of(other).first != first.first);

  // Another order, the same draws.
  io::Loader in_order(data, {.batch_size = 4, .seed = 7});
  const auto ordered = all_of(in_order);
  for (size_t i = 0; i < 30; ++i) CHECK(ordered.first[static_cast<size_t>(first.second[i])] == first.first[i]);
}

TEST_CASE("Loader: workers are at most `prefetch` batches each ahead") {
  std::atomic<int> made{0};
  io::Loader loader(Counted{&made}, {.batch_size = 5, .workers = 2, .prefetch = 3});
  auto at = loader.begin();  // holds batch 0; 6 more may be made
  for (int wait = 0; wait < 200 && made < 35; ++wait) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(made == 35);
  ++at;
  for (int wait = 0; wait < 200 && made < 40; ++wait) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(made == 40);
  CHECK(contains(thrown<ValueError>([] { io::Loader(OnlyImages{}, {.prefetch = 0}); }), "prefetch is 0"));
}

TEST_CASE("Loader: an exception keeps its class and members, and the loader can go on, begin again, or go") {
  for (int workers : {0, 1, 3}) {
    io::Loader loader(Throwing{}, {.batch_size = 2, .workers = workers});
    for (int round = 0; round < 2; ++round) {
      try {
        for (Tensor& batch : loader) CHECK(batch.size(0) == 2);
        FAIL("nothing was thrown");
      } catch (const OwnError& error) {
        CHECK(error.code == 6);
        CHECK(std::string(error.what()) == "item 6");
      }
    }
    auto at = loader.begin();  // every batch after the third throws its own
    ++at, ++at;
    for (const char* what : {"item 6", "item 8", "item 10"}) CHECK(thrown<OwnError>([&] { ++at; }) == what);
    ++at;
    CHECK(at == loader.end());
    io::Loader engine(Throwing{.tandem = true}, {.batch_size = 2, .workers = workers});
    const std::string text = thrown<ShapeError>([&] {
      for (Tensor& batch : engine) (void)batch;
    });
    CHECK(contains(text, "tandem::ShapeError: item 6\n  at loader_test.cpp:"));
  }
}

TEST_CASE("Loader: a run is resumed in the middle of an epoch by its position") {
  const Drawn data{.count = 22};
  const io::LoaderOptions options{.batch_size = 4, .shuffle = true, .workers = 2, .seed = 3};
  io::Loader whole(data, options);
  CHECK(whole.position() == io::LoaderPosition{0, 0});
  all_of(whole);
  const auto second = all_of(whole);
  CHECK(whole.position() == io::LoaderPosition{2, 0});

  io::Loader stopped(data, options);
  all_of(stopped);
  io::LoaderPosition place;
  for (auto& batch : stopped) {
    (void)batch;
    place = stopped.position();
    if (place.batches == 2) break;
  }
  CHECK(place == io::LoaderPosition{1, 2});
  io::Loader resumed(data, options);
  resumed.set_position(place);
  CHECK(resumed.position() == place);
  const auto rest = all_of(resumed);
  CHECK(rest.first == std::vector<float>(second.first.begin() + 8, second.first.end()));
  CHECK(resumed.position() == io::LoaderPosition{2, 0});
  resumed.set_position({1, 6});  // after the last batch
  CHECK(all_of(resumed).first.empty());
  CHECK(resumed.epoch() == 2);
  CHECK(contains(thrown<ValueError>([&] {
                   resumed.set_position({1, 7});
                 }),
                 "no place after 7 batches of epoch 1: an epoch has 6 batches"));
}

TEST_CASE("HostRandom: below(1) is 0, and there is nothing below 0") {
  io::HostRandom random(1, 2);
  CHECK(random.below(1) == 0);
  CHECK(random.below(~uint64_t{0}) < ~uint64_t{0});
  CHECK_THROWS_AS(random.below(0), ValueError);
}

TEST_CASE("Loader: a kernel in a worker uses that thread alone") {
  struct Asks {
    int64_t size() const { return 4; }
    Tensor get(int64_t) const { return tensor<int64_t>(int64_t{num_threads()}); }
  };
  for (Tensor& threads : io::Loader(Asks{}, {.batch_size = 4, .workers = 1})) CHECK(threads.max().item<int64_t>() == 1);
}

TEST_CASE("Loader: many short epochs with early ends, to look for races") {
  const Drawn data{.count = 16};
  io::Loader loader(data, {.batch_size = 2, .shuffle = true, .workers = 3, .seed = 1});
  for (int epoch = 0; epoch < 40; ++epoch) {
    int left = epoch % 9;
    for (auto& [numbers, indices] : loader) {
      CHECK((numbers * 2).size(0) == indices.size(0));
      if (left-- == 0) break;
    }
  }
  CHECK(loader.epoch() == 40);
}
