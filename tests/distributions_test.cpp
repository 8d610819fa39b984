// bernoulli, normal, multinomial, randperm and the _like functions: moments, and the same draws in every mode.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tandem.h"

namespace td = tandem;
using td::Tensor;

namespace {

double mean_of(const Tensor& x) { return td::mean(x.to(td::float64)).item<double>(); }

}  // namespace

TEST_CASE("bernoulli draws ones as often as its probabilities say") {
  td::manual_seed(3);
  const Tensor p = td::tensor({0.0f, 0.25f, 1.0f}).expand({20000, 3});
  const Tensor drawn = td::bernoulli(p);
  CHECK(drawn.dtype() == td::float32);
  const std::vector<float> share = drawn.mean(0).to_vector<float>();
  CHECK(share[0] == 0);
  CHECK(share[1] == doctest::Approx(0.25).epsilon(0.05));
  CHECK(share[2] == 1);
  CHECK(mean_of(td::bernoulli(0.75, {100, 100}, {.dtype = td::bool_}).to(td::float32)) ==
        doctest::Approx(0.75).epsilon(0.05));
  CHECK(td::bernoulli(td::full({10}, 0.5, {.dtype = td::bfloat16})).dtype() == td::bfloat16);
  CHECK_THROWS_AS(td::bernoulli(td::tensor({1, 0})), td::DTypeError);
  CHECK_THROWS_AS(td::bernoulli(1.5, {2}), td::ValueError);
}

TEST_CASE("normal has the mean and the deviation asked for, broadcast") {
  td::manual_seed(4);
  const Tensor x = td::normal(td::tensor({-2.0f, 5.0f}), td::tensor({{1.0f}, {0.1f}}).expand({2, 1}));
  CHECK(x.shape() == td::Shape{2, 2});
  const Tensor many = td::normal(td::tensor({-2.0f, 5.0f}), td::full({50000, 1}, 3));
  const std::vector<float> mean = many.mean(0).to_vector<float>(), deviation = many.std(0).to_vector<float>();
  CHECK(mean[0] == doctest::Approx(-2).epsilon(0.03));
  CHECK(mean[1] == doctest::Approx(5).epsilon(0.03));
  CHECK(deviation[0] == doctest::Approx(3).epsilon(0.03));
  CHECK(td::normal(1, 0, {7}).to_vector<float>() == std::vector<float>(7, 1.0f));
  CHECK_THROWS_AS(td::normal(0, -1, {2}), td::ValueError);
  CHECK_THROWS_AS(td::normal(0, 1, {2}, {.dtype = td::int64}), td::DTypeError);
}

TEST_CASE("multinomial draws by weight, and without replacement no class twice") {
  td::manual_seed(5);
  const Tensor weights = td::tensor({1.0f, 0.0f, 3.0f, 4.0f});
  const std::vector<int64_t> drawn = td::multinomial(weights, 40000, {.replacement = true}).to_vector<int64_t>();
  double share[4] = {};
  for (int64_t each : drawn) share[each] += 1.0 / 40000;
  CHECK(share[0] == doctest::Approx(0.125).epsilon(0.06));
  CHECK(share[1] == 0);
  CHECK(share[3] == doctest::Approx(0.5).epsilon(0.06));
  // The first draw of each row is by weight too.
  const Tensor rows = td::multinomial(weights.expand({20000, 4}), 3);
  CHECK(rows.shape() == td::Shape{20000, 3});
  const std::vector<int64_t> all = rows.to_vector<int64_t>();
  double first_is_last_class = 0;
  for (size_t i = 0; i < all.size(); i += 3) {
    std::vector<int64_t> row(all.begin() + static_cast<std::ptrdiff_t>(i),
                             all.begin() + static_cast<std::ptrdiff_t>(i) + 3);
    first_is_last_class += row[0] == 3 ? 1.0 / 20000 : 0;
    std::sort(row.begin(), row.end());
    REQUIRE(row == std::vector<int64_t>{0, 2, 3});
  }
  CHECK(first_is_last_class == doctest::Approx(0.5).epsilon(0.05));
  CHECK_THROWS_WITH_AS(td::multinomial(weights, 4),
                       doctest::Contains("a row has fewer than 4 weights above zero, too few to draw 4"),
                       td::ValueError);
  CHECK_THROWS_WITH_AS(td::multinomial(weights, 5),
                       doctest::Contains("can't draw 5 of 4 classes; with .replacement = true it can"), td::ValueError);
  CHECK_THROWS_WITH_AS(td::multinomial(td::tensor({1.0f, -1.0f}), 1), doctest::Contains("negative or not finite"),
                       td::ValueError);
  CHECK_THROWS_AS(td::multinomial(td::ones({2, 2, 2}), 1), td::ShapeError);
}

TEST_CASE("randperm is a permutation; the _like functions follow their model") {
  std::vector<int64_t> order = td::randperm(1000).to_vector<int64_t>();
  CHECK_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i) REQUIRE(order[i] == static_cast<int64_t>(i));
  const Tensor like = td::ones({2, 3}, {.dtype = td::float64});
  for (const Tensor& each : {td::rand_like(like), td::randn_like(like), td::full_like(like, 4), td::empty_like(like)}) {
    CHECK(each.shape() == like.shape());
    CHECK(each.dtype() == td::float64);
  }
  CHECK(td::full_like(like, 4).to_vector<double>() == std::vector<double>(6, 4.0));
  CHECK(td::eye(2, 3, {.dtype = td::int32}).to_vector<int>() == std::vector<int>{1, 0, 0, 0, 1, 0});
  CHECK(td::eye(2).to_vector<float>() == std::vector<float>{1, 0, 0, 1});
}

TEST_CASE("the three modes draw the same bernoulli, normal, multinomial and randperm") {
  const auto draws = [](const Tensor& p) {
    return td::Tensors{td::bernoulli(p),
                       td::normal(p, p + 1),
                       td::multinomial(p, 2),
                       td::multinomial(p, 9, {.replacement = true}),
                       td::randperm(20),
                       td::rand_like(p),
                       td::eye(3)};
  };
  const Tensor p = td::tensor({{0.5f, 0.1f, 0.9f}, {0.2f, 0.3f, 0.4f}});
  td::manual_seed(11);
  td::Tensors eager = draws(p);
  for (const Tensor& each : draws(p)) eager.push_back(each);
  for (const td::Mode mode : {td::Mode::replay, td::Mode::compiled}) {
    auto compiled = td::compile(draws, {.mode = mode});
    td::manual_seed(11);
    td::Tensors results = compiled(p);
    for (const Tensor& each : compiled(p)) results.push_back(each);
    for (size_t i = 0; i < eager.size(); ++i) {
      CAPTURE(i);
      CHECK(results[i].to_vector<double>() == eager[i].to_vector<double>());
    }
  }
}
