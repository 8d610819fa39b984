// Core: promotion, views, values, printing, assignment, memory and the generator.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <sstream>
#include <thread>

#include "core/ops/ops.h"
#include "core/random.h"
#include "core/threads.h"

namespace td = tandem;
using td::DType, td::Shape, td::Tensor;

namespace {

std::string printed(const Tensor& x) {
  std::ostringstream out;
  out << x;
  return out.str();
}

Tensor counting(const Shape& shape) { return td::arange(0, shape.numel(), 1, {.dtype = td::float32}).reshape(shape); }

}  // namespace

// ---- Promotion.

TEST_CASE("arange counts in doubles where one of its numbers is one") {
  CHECK(td::arange(0, 5, 1.5).to_vector<float>() == std::vector<float>{0, 1.5, 3, 4.5});
  CHECK(td::arange(0.5, 3).to_vector<float>() == std::vector<float>{0.5, 1.5, 2.5});
  CHECK(td::arange(1, 0, -0.25).to_vector<float>() == std::vector<float>{1, 0.75, 0.5, 0.25});
  CHECK(td::arange(2.5).to_vector<float>() == std::vector<float>{0, 1, 2});
  CHECK(td::arange(0, 4, 2).dtype() == td::int64);
  CHECK(td::arange(0.0, 1.0, 0.5, {.dtype = td::float64}).dtype() == td::float64);
  for (const double step : {0.0, -1.0, double(NAN)}) CHECK_THROWS_AS(td::arange(0.0, 1.0, step), td::ValueError);
  CHECK_THROWS_AS(td::arange(0.0, double(INFINITY), 1.0), td::ValueError);
}

TEST_CASE("promotion: the table of torch.promote_types, through the operators") {
  using enum DType;
  constexpr DType table[td::kDTypeCount][td::kDTypeCount] = {
      // columns in the order of rows
      {float32, float64, float32, float32, float32, float32, float32, float32, float32, float32},         // float32
      {float64, float64, float64, float64, float64, float64, float64, float64, float64, float64},         // float64
      {float32, float64, float16, float32, float16, float16, float16, float16, float16, float16},         // float16
      {float32, float64, float32, bfloat16, bfloat16, bfloat16, bfloat16, bfloat16, bfloat16, bfloat16},  // bfloat16
      {float32, float64, float16, bfloat16, int32, int64, int32, int32, int32, int32},                    // int32
      {float32, float64, float16, bfloat16, int64, int64, int64, int64, int64, int64},                    // int64
      {float32, float64, float16, bfloat16, int32, int64, int16, int16, int16, int16},                    // int16
      {float32, float64, float16, bfloat16, int32, int64, int16, int8, int16, int8},                      // int8
      {float32, float64, float16, bfloat16, int32, int64, int16, int16, uint8, uint8},                    // uint8
      {float32, float64, float16, bfloat16, int32, int64, int16, int8, uint8, bool_},                     // bool
  };
  for (int i = 0; i < td::kDTypeCount; ++i) {
    for (int j = 0; j < td::kDTypeCount; ++j) {
      const auto a = static_cast<DType>(i), b = static_cast<DType>(j);
      CAPTURE(a);
      CAPTURE(b);
      CHECK(td::promote(a, b) == table[i][j]);
      const Tensor x = td::ones({2}, {.dtype = a}), y = td::ones({2}, {.dtype = b});
      CHECK((x + y).dtype() == table[i][j]);
      CHECK((x * y).dtype() == table[i][j]);
      CHECK((x == y).dtype() == bool_);
      CHECK(td::where(x == x, x, y).dtype() == table[i][j]);
    }
  }
}

TEST_CASE("promotion: numbers never widen a tensor, they only raise its category") {
  for (const DType type : {td::float16, td::bfloat16, td::float32, td::float64}) {
    const Tensor x = td::ones({3}, {.dtype = type});
    CHECK((x * 2.5).dtype() == type);
    CHECK((3 - x).dtype() == type);
    CHECK((x + true).dtype() == type);
    CHECK(td::maximum(x, 1e300).dtype() == type);
  }
  for (const DType type : {td::uint8, td::int8, td::int16, td::int32, td::int64}) {
    const Tensor x = td::ones({3}, {.dtype = type});
    CHECK((x + 1).dtype() == type);
    CHECK((x * int64_t{1} * true).dtype() == type);
    CHECK((x * 0.5).dtype() == td::float32);
    CHECK((x / 2).dtype() == td::float32);
  }
  CHECK((td::ones({3}, {.dtype = td::bool_}) + 1).dtype() == td::int64);
  CHECK((td::ones({3}, {.dtype = td::bool_}) * 1.5).dtype() == td::float32);
}

TEST_CASE("promotion: a 0-d tensor yields to one with dims of its category, and outranks a number") {
  const Tensor zero_d = td::tensor(2.0, {.dtype = td::float64}), small = td::tensor(1, {.dtype = td::int32});
  CHECK((td::ones({3}) * zero_d).dtype() == td::float32);
  CHECK((td::ones({3}, {.dtype = td::float16}) * zero_d).dtype() == td::float16);
  CHECK((td::ones({3}, {.dtype = td::int32}) * zero_d).dtype() == td::float64);
  CHECK((td::ones({3}, {.dtype = td::uint8}) + td::tensor(int64_t{1})).dtype() == td::uint8);
  CHECK((td::tensor(1.f) * zero_d).dtype() == td::float64);
  CHECK((zero_d * 2).dtype() == td::float64);
  CHECK((small + 2).dtype() == td::int32);
  CHECK((small * 0.5).dtype() == td::float32);
}

TEST_CASE("promotion: float16 arithmetic is done in float32 and rounded once") {
  const Tensor x = td::full({4}, 1.0009765625, {.dtype = td::float16});
  CHECK((x * x).to_vector<float>()[0] == static_cast<float>(td::Float16(1.0009765625f * 1.0009765625f)));
  CHECK(td::full({1}, 300, {.dtype = td::float16}).to(td::float32).item<float>() == 300);
  CHECK(std::isinf((td::full({1}, 300, {.dtype = td::float16}) * 300).item<float>()));
}

// ---- Views.

TEST_CASE("views share storage, and show what is written to their base") {
  Tensor x = counting({4, 6});
  const Tensor views[] = {x.reshape({6, 4}),
                          x.flatten(),
                          x.transpose(0, 1),
                          x.permute({1, 0}),
                          x.slice(1, 1, 6, 2),
                          x[2],
                          x.unsqueeze(1),
                          x.slice(0, 1, 2).squeeze(0),
                          x.slice(0, 1, 2).expand({3, 6}),
                          x.detach()};
  for (const Tensor& view : views) CHECK(view.shares_storage(x));
  CHECK_FALSE(x.clone().shares_storage(x));
  CHECK_FALSE(x.transpose(0, 1).contiguous().shares_storage(x));
  CHECK_FALSE(x.transpose(0, 1).reshape({24}).shares_storage(x));  // strides can't say this
  CHECK(x.contiguous().shares_storage(x));
  x.assign(x + 100);
  CHECK(views[2].to_vector<float>()[1] == 106);
  CHECK(views[4].to_vector<float>() == std::vector<float>{101, 103, 105, 107, 109, 111, 113, 115, 117, 119, 121, 123});
}

TEST_CASE("views: reshape of a strided tensor copies only where strides can't express it") {
  const Tensor x = counting({2, 3, 4});
  CHECK(x.permute({1, 0, 2}).reshape({3, 2, 2, 2}).shares_storage(x));
  CHECK_FALSE(x.permute({1, 0, 2}).reshape({6, 4}).shares_storage(x));
  CHECK(x.slice(2, 0, 4, 2).reshape({6, 2}).shares_storage(x));
  CHECK(x.slice(2, 0, 4, 2).reshape({12}).to_vector<float>() ==
        std::vector<float>{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22});
}

TEST_CASE("views: strides, contiguity, and negative positions") {
  const Tensor x = counting({2, 3, 4});
  CHECK(x.strides() == Shape{12, 4, 1});
  CHECK(x.transpose(-1, -3).strides() == Shape{1, 4, 12});
  CHECK_FALSE(x.transpose(0, 2).is_contiguous());
  CHECK(x.slice(0, 1, 2).is_contiguous());
  CHECK(x.slice(2, -2, 4).shape() == Shape{2, 3, 2});
  CHECK(x[-1][0][3].item<float>() == 15);
  CHECK(x.size(-1) == 4);
  CHECK(td::channels_last_strides({2, 3, 4, 5}) == Shape{60, 1, 15, 3});
  CHECK(td::is_dense({2, 3}, {1, 2}));
  CHECK_FALSE(td::is_dense({2, 3}, {0, 1}));
  CHECK_FALSE(td::is_dense({2, 3}, {6, 2}));
}

// ---- Values.

TEST_CASE("values: from C++ and back, in every dtype") {
  CHECK(td::tensor({1.f, 2.f}).dtype() == td::float32);
  CHECK(td::tensor({1.0, 2.0}).dtype() == td::float32);
  CHECK(td::tensor({1, 2}).dtype() == td::int64);
  CHECK(td::tensor({true, false}).dtype() == td::bool_);
  CHECK(td::tensor({{1, 2, 3}, {4, 5, 6}}).shape() == Shape{2, 3});
  CHECK(td::tensor(std::vector<int64_t>{7, 8}).to_vector<int64_t>() == std::vector<int64_t>{7, 8});
  CHECK(td::tensor(5).item<double>() == 5);
  CHECK(td::tensor(2.75).item<int32_t>() == 2);
  CHECK(td::tensor(0.5f).item<bool>());
  for (int i = 0; i < td::kDTypeCount; ++i) {
    const Tensor x = td::tensor({0, 1, 1}).to(static_cast<DType>(i));
    CHECK(x.to_vector<float>() == std::vector<float>{0, 1, 1});
  }
  const int64_t large = (int64_t{1} << 53) + 1;
  CHECK(td::tensor(large).item<int64_t>() == large);
  CHECK((td::tensor({large}) + 0).item<int64_t>() == large);
}

TEST_CASE("values: data<T>() is the memory itself, and mutable_data counts as a write") {
  Tensor x = counting({2, 2});
  CHECK(x.data<float>().data() == x.impl()->data);
  const uint32_t before = x.impl()->storage->version;
  x.mutable_data<float>()[3] = 9;
  CHECK(x.impl()->storage->version == before + 1);
  CHECK(x.to_vector<float>().back() == 9);
}

TEST_CASE("values: a tensor on the caller's memory") {
  float numbers[6] = {1, 2, 3, 4, 5, 6};
  Tensor x = td::from_blob(numbers, {2, 3});
  CHECK((x * 2).to_vector<float>().back() == 12);
  x.assign(x + 1);
  CHECK(numbers[0] == 2);
}

TEST_CASE("values: handles are cheap, and undefined ones say so") {
  Tensor x;
  CHECK_FALSE(x.defined());
  x = counting({3});
  const Tensor y = x;
  CHECK(y.impl() == x.impl());
  const Tensor moved = std::move(x);
  CHECK(moved.impl() == y.impl());
}

// ---- Printing.

TEST_CASE("printing: values in brackets, then dtype, shape and device") {
  CHECK(printed(td::tensor({1.f, 2.5f, -3.f})) == "[  1, 2.5,  -3] float32[3] cpu");
  CHECK(printed(td::tensor({{1, 2}, {30, 4}})) == "[[ 1,  2],\n [30,  4]] int64[2, 2] cpu");
  CHECK(printed(td::tensor(3.f)) == "3 float32[] cpu");
  CHECK(printed(td::zeros({0, 3})) == "[] float32[0, 3] cpu");
  CHECK(printed(Tensor()) == "undefined");
  CHECK(printed(td::tensor({true, false})) == "[1, 0] bool[2] cpu");
  CHECK(printed(td::tensor({INFINITY, NAN, -INFINITY})) == "[ inf,  nan, -inf] float32[3] cpu");
  CHECK(printed(td::tensor({{1, 2}, {3, 4}}).transpose(0, 1)) == "[[1, 3],\n [2, 4]] int64[2, 2] cpu");
}

TEST_CASE("printing: long tensors are shortened in the middle") {
  const std::string text = printed(td::arange(2000));
  CHECK(text == "[   0,    1,    2, ..., 1997, 1998, 1999] int64[2000] cpu");
  const std::string square = printed(counting({100, 100}));
  CHECK(square.size() < 400);
  CHECK(square.find("...") != std::string::npos);
}

// ---- Assignment.

TEST_CASE("assign: broadcasts, casts, and counts a version") {
  Tensor x = td::zeros({2, 3}, {.dtype = td::float64});
  const uint32_t before = x.impl()->storage->version;
  x.assign(td::tensor({1, 2, 3}));
  CHECK(x.to_vector<double>() == std::vector<double>{1, 2, 3, 1, 2, 3});
  CHECK(x.impl()->storage->version == before + 1);
  x += td::tensor(1.0);
  x *= td::tensor(2.0);
  x -= td::tensor(1.0);
  CHECK(x.to_vector<double>() == std::vector<double>{3, 5, 7, 3, 5, 7});
  CHECK(x.impl()->storage->version == before + 4);
  CHECK(x.transpose(0, 1).impl()->storage->version == x.impl()->storage->version);  // one for all views
}

TEST_CASE("assign: through a view writes to the base") {
  Tensor x = td::zeros({3, 4});
  Tensor column = x.slice(1, 2, 3);
  column.assign(td::tensor({{1.f}, {2.f}, {3.f}}));
  CHECK(x.to_vector<float>() == std::vector<float>{0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0});
  x.transpose(0, 1).assign(counting({4, 3}));
  CHECK(x.to_vector<float>() == std::vector<float>{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11});
}

TEST_CASE("assign: overlapping views are read before they are written") {
  Tensor x = counting({5});
  x.slice(0, 1, 5).assign(x.slice(0, 0, 4));
  CHECK(x.to_vector<float>() == std::vector<float>{0, 0, 1, 2, 3});
  x = counting({5});
  x.slice(0, 0, 4).assign(x.slice(0, 1, 5));
  CHECK(x.to_vector<float>() == std::vector<float>{1, 2, 3, 4, 4});
  Tensor square = counting({3, 3});
  square.assign(square.transpose(0, 1));
  CHECK(square.to_vector<float>() == std::vector<float>{0, 3, 6, 1, 4, 7, 2, 5, 8});
  Tensor row = counting({3, 3});
  row.assign(row[1]);  // the source is a part of the target, repeated
  CHECK(row.to_vector<float>() == std::vector<float>{3, 4, 5, 3, 4, 5, 3, 4, 5});
  Tensor same = counting({3});
  same.assign(same);
  CHECK(same.to_vector<float>() == std::vector<float>{0, 1, 2});
}

// ---- Memory.

TEST_CASE("memory: statistics, peak, reuse and trimming") {
  td::trim_memory();
  td::reset_peak_memory();
  const td::MemoryStats before = td::memory_stats();
  {
    const Tensor x = td::zeros({1024, 1024});
    const td::MemoryStats with = td::memory_stats();
    CHECK(with.in_use - before.in_use >= 4 << 20);
    CHECK(with.in_use - before.in_use < 5 << 20);
    CHECK(with.reserved >= with.in_use);
  }
  const td::MemoryStats after = td::memory_stats();
  CHECK(after.in_use == before.in_use);
  CHECK(after.peak - before.in_use >= 4 << 20);
  const int64_t from_device = after.device_allocations;
  for (int i = 0; i < 10; ++i) (void)td::zeros({1024, 1024});
  CHECK(td::memory_stats().device_allocations == from_device);  // the block was kept
  td::trim_memory();
  CHECK(td::memory_stats().reserved == td::memory_stats().in_use);
  td::reset_peak_memory();
  CHECK(td::memory_stats().peak == td::memory_stats().in_use);
}

TEST_CASE("memory: a limit is kept, and cached blocks are given back before it is called full") {
  td::trim_memory();
  const int64_t limit = td::memory_stats().reserved + (8 << 20);
  td::set_memory_limit(limit);
  { const Tensor x = td::zeros({1 << 20}); }  // 4 MiB, cached when it goes
  CHECK_NOTHROW(td::zeros({3 << 19}));        // 6 MiB: only fits once that is freed
  CHECK_THROWS_AS(td::zeros({1 << 22}), td::OutOfMemoryError);
  CHECK(td::memory_stats().reserved <= limit);
  td::set_memory_limit(0);
  CHECK_NOTHROW(td::zeros({1 << 22}));
}

TEST_CASE("memory: tensors made and dropped on many threads leave nothing behind") {
  const int64_t before = td::memory_stats().in_use;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      Tensor x = td::full({100}, t);
      for (int i = 0; i < 200; ++i) x = x + 1;
      if (x.to_vector<float>()[0] != static_cast<float>(t + 200)) std::abort();
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(td::memory_stats().in_use == before);
}

// ---- Random numbers.

TEST_CASE("random: the same seed draws the same numbers, and each call others") {
  td::manual_seed(7);
  const Tensor a = td::rand({100}), b = td::rand({100}), c = td::randn({100}), d = td::randint(0, 1000, {100}),
               e = td::dropout(td::ones({100}), 0.5);
  td::manual_seed(7);
  CHECK(td::rand({100}).to_vector<float>() == a.to_vector<float>());
  CHECK(td::rand({100}).to_vector<float>() == b.to_vector<float>());
  CHECK(td::randn({100}).to_vector<float>() == c.to_vector<float>());
  CHECK(td::randint(0, 1000, {100}).to_vector<int64_t>() == d.to_vector<int64_t>());
  CHECK(td::dropout(td::ones({100}), 0.5).to_vector<float>() == e.to_vector<float>());
  CHECK(a.to_vector<float>() != b.to_vector<float>());
  td::manual_seed(8);
  CHECK(td::rand({100}).to_vector<float>() != a.to_vector<float>());
  CHECK(td::default_generator().seed() == 8);
  CHECK(td::default_generator().draws() == 1);
}

TEST_CASE("random: an element depends on seed, draw and position alone, not on shape or threads") {
  td::manual_seed(3);
  const std::vector<float> one = td::rand({100000}).to_vector<float>();
  const int threads = td::num_threads();
  td::set_num_threads(1);
  td::manual_seed(3);
  CHECK(td::rand({100, 1000}).to_vector<float>() == one);
  td::set_num_threads(threads);
  td::manual_seed(3);
  const std::vector<float> start = td::rand({17}).to_vector<float>();
  CHECK(std::equal(start.begin(), start.end(), one.begin()));
}

TEST_CASE("random: moments and ranges") {
  td::manual_seed(1);
  constexpr int64_t n = 200000;
  for (const DType type : {td::float32, td::float64}) {
    const std::vector<double> u = td::rand({n}, {.dtype = type}).to_vector<double>(),
                              z = td::randn({n}, {.dtype = type}).to_vector<double>();
    double mean = 0, square = 0, third = 0, fourth = 0, uniform = 0, lowest = 1, highest = 0;
    for (size_t i = 0; i < u.size(); ++i) {
      uniform += u[i] / n;
      lowest = std::min(lowest, u[i]);
      highest = std::max(highest, u[i]);
      mean += z[i] / n;
      square += z[i] * z[i] / n;
      third += z[i] * z[i] * z[i] / n;
      fourth += std::pow(z[i], 4) / n;
    }
    CHECK(uniform == doctest::Approx(0.5).epsilon(0.01));
    CHECK(lowest >= 0);
    CHECK(highest < 1);
    CHECK(std::fabs(mean) < 0.01);
    CHECK(square == doctest::Approx(1).epsilon(0.02));
    CHECK(std::fabs(third) < 0.05);
    CHECK(fourth == doctest::Approx(3).epsilon(0.04));
  }
  const std::vector<int64_t> dice = td::randint(1, 7, {n}).to_vector<int64_t>();
  int64_t counts[8] = {};
  for (const int64_t x : dice) counts[std::clamp<int64_t>(x, 0, 7)]++;
  CHECK(counts[0] + counts[7] == 0);
  for (int face = 1; face <= 6; ++face)
    CHECK(static_cast<double>(counts[face]) == doctest::Approx(n / 6.0).epsilon(0.03));
  std::vector<int64_t> order = td::randperm(1000).to_vector<int64_t>();
  std::sort(order.begin(), order.end());
  CHECK(order == td::arange(1000).to_vector<int64_t>());
  const std::vector<float> kept = td::dropout(td::ones({n}), 0.25).to_vector<float>();
  double sum = 0;
  for (const float x : kept) sum += static_cast<double>(x);
  CHECK(sum / n == doctest::Approx(1).epsilon(0.01));
}
