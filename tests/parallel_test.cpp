// Parallel loops: each kernel family on several threads, and several threads that each run programs of their own. The
// results must not depend on the number of threads, and the thread sanitizer must find nothing (preset `thread`).
#include "kernels/cpu/support/parallel.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "tandem.h"

using namespace tandem;

namespace {

constexpr int kMany = 4;

struct Threads {
  int before = num_threads();
  ~Threads() { set_num_threads(before); }
};

bool are_identical(const Tensor& a, const Tensor& b) {
  const Tensor x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.shape() == y.shape() && x.dtype() == y.dtype() &&
         std::memcmp(x.impl()->data, y.impl()->data, static_cast<size_t>(x.numel() * size_of(x.dtype()))) == 0;
}

// As a part of the largest element.
double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.detach().to_vector<float>(), y = b.detach().to_vector<float>();
  double difference = 0, largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference = std::max(difference, std::abs(double(x[i]) - double(y[i])));
    largest = std::max(largest, std::abs(double(x[i])));
  }
  return difference / largest;
}

// A result and the gradients of its sum, on `count` threads.
Tensors run(const std::function<Tensor(const Tensors&)>& program, const Tensors& inputs, int count) {
  set_num_threads(count);
  Tensors leaves;
  for (const Tensor& input : inputs)
    leaves.push_back(is_floating(input.dtype()) ? input.clone().requires_grad(true) : input);
  manual_seed(5);
  Tensors results{program(leaves)};
  if (results[0].requires_grad()) {
    (results[0] * results[0]).sum().backward();
    for (const Tensor& leaf : leaves)
      if (leaf.requires_grad() && leaf.grad().defined()) results.push_back(leaf.grad());
  }
  return results;
}

// Products sum in an order of their libraries' choice: those agree to rounding, all else bit for bit.
void same_on_any_number(const std::function<Tensor(const Tensors&)>& program, const Tensors& inputs,
                        bool bit_for_bit = true) {
  const Threads restore;
  const Tensors alone = run(program, inputs, 1), many = run(program, inputs, kMany);
  REQUIRE(alone.size() == many.size());
  for (size_t i = 0; i < alone.size(); ++i) {
    CAPTURE(i);
    if (bit_for_bit) CHECK(are_identical(alone[i], many[i]));
    else CHECK(largest_difference(alone[i], many[i]) < 1e-5);
  }
}

}  // namespace

TEST_CASE(
    "parallel_for: each index once, in pieces that begin at multiples of `align`, and nested loops run on one thread") {
  const Threads restore;
  set_num_threads(kMany);
  for (int64_t n : {0, 1, 7, 64, 1000, 1001}) {
    std::vector<int> times(static_cast<size_t>(n));
    std::atomic<int> crooked{0};
    parallel_for(
        n, 1,
        [&](int64_t begin, int64_t end) {
          if (begin % 8 != 0) ++crooked;
          for (int64_t i = begin; i < end; ++i) ++times[static_cast<size_t>(i)];
          if (!omp_in_parallel()) return;  // one piece: the loop is no parallel one
          parallel_for(100, 1, [&](int64_t from, int64_t to) {
            if (from != 0 || to != 100) ++crooked;
          });
        },
        8);
    CHECK(crooked == 0);
    CHECK(std::all_of(times.begin(), times.end(), [](int count) { return count == 1; }));
  }
  CHECK(threads_for(1000, 1) == kMany);
  CHECK(threads_for(1000, 600) == 1);
  CHECK(threads_for(1000, 400) == 2);
}

TEST_CASE("pointwise kernels, views and casts don't depend on the number of threads") {
  manual_seed(1);
  const Tensor x = randn({300, 400}), y = randn({400});
  same_on_any_number([](const Tensors& in) { return tanh(in[0]) * in[1] + exp(in[0] * 0.1); }, {x, y});
  same_on_any_number([](const Tensors& in) { return (in[0].transpose(0, 1) * 2).contiguous(); }, {x});
  same_on_any_number([](const Tensors& in) { return in[0].to(bfloat16).to(float32); }, {x});
  same_on_any_number([](const Tensors& in) { return concat({in[0], in[0] * 2}, 1); }, {x});
  same_on_any_number([](const Tensors& in) { return dropout(in[0], 0.3); }, {x});
}

TEST_CASE("reductions, softmax, norms and losses don't depend on the number of threads") {
  manual_seed(2);
  const Tensor x = randn({512, 300}), weight = randn({300}), bias = randn({300});
  const Tensor labels = (arange(512).to(int64));
  same_on_any_number([](const Tensors& in) { return in[0].sum(); }, {x});
  same_on_any_number([](const Tensors& in) { return in[0].mean({0}); }, {x});
  same_on_any_number([](const Tensors& in) { return in[0].max({1}); }, {x});
  same_on_any_number([](const Tensors& in) { return softmax(in[0], 1); }, {x});
  same_on_any_number([](const Tensors& in) { return layer_norm(in[0], in[1], in[2]); }, {x, weight, bias});
  same_on_any_number([](const Tensors& in) { return cross_entropy(in[0], in[1]); },
                     {x, (labels.to(float32) * 0.5).to(int64)});
}

TEST_CASE("products, convolutions, pools and look-ups don't depend on the number of threads") {
  manual_seed(3);
  same_on_any_number([](const Tensors& in) { return matmul(in[0], in[1]); }, {randn({200, 120}), randn({120, 150})},
                     false);
  same_on_any_number([](const Tensors& in) { return conv2d(in[0], in[1], in[2], {.padding = 1}); },
                     {randn({8, 6, 20, 20}), randn({10, 6, 3, 3}), randn({10})}, false);
  same_on_any_number([](const Tensors& in) { return max_pool2d(in[0], 2); }, {randn({16, 8, 32, 32})});
  const Tensor ids = (arange(6000) * 0.01).to(int64);  // each of 60 rows a hundred times
  same_on_any_number([](const Tensors& in) { return embedding(in[1], in[0]); }, {randn({60, 48}), ids});
}

TEST_CASE("threads that each train a model of their own don't disturb one another") {
  const auto train = [](uint64_t seed, std::vector<float>& losses) {
    std::vector<float> numbers(64 * 20);
    io::HostRandom draw(seed, 0);
    for (float& number : numbers) number = static_cast<float>(draw.normal());
    const Tensor x = tensor(numbers).reshape({64, 20});
    Tensor weight = (arange(40) * 0.01).reshape({20, 2}).clone().requires_grad(true);
    nn::optim::AdamW optimizer({weight}, {.lr = 0.05});
    for (int step = 0; step < 20; ++step) {
      optimizer.zero_grad();
      const Tensor loss = (tanh(matmul(x, weight)) - 0.5).sum();
      (loss * loss).backward();
      optimizer.step();
      losses.push_back(loss.item<float>());
    }
  };
  std::vector<float> expected[3], got[3];
  for (uint64_t i = 0; i < 3; ++i) train(i, expected[i]);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 3; ++i)
    threads.emplace_back([&, i] {
      run_kernels_on_this_thread_alone();
      train(i, got[i]);
    });
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 3; ++i) CHECK(expected[i] == got[i]);
}
