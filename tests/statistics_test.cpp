// Reductions and orders where generated samples don't reach: gradients at zero, defaults, methods, error texts.
#include <doctest/doctest.h>

#include <cmath>

#include "tandem.h"

namespace td = tandem;
using td::Tensor;
using Floats = std::vector<float>;

namespace {

Floats gradient_of(Tensor x, const std::function<Tensor(const Tensor&)>& f) {
  x.requires_grad(true);
  td::sum(f(x)).backward();
  return x.grad().to_vector<float>();
}

#define RAISES(type, expression, text) CHECK_THROWS_WITH_AS((void)(expression), doctest::Contains(text), td::type)

}  // namespace

TEST_CASE("norm and std have gradient 0, not NaN, where they are 0") {
  for (const double p : {2.0, 3.0, 1.0, static_cast<double>(INFINITY)})
    CHECK(gradient_of(td::zeros({3}), [p](const Tensor& x) { return td::norm(x, {}, {.p = p}); }) == Floats{0, 0, 0});
  CHECK(gradient_of(td::ones({3}), [](const Tensor& x) { return x.std(); }) == Floats{0, 0, 0});
}

TEST_CASE("var and std divide by count - 1 unless told otherwise, and are NaN for one element") {
  const Tensor x = td::tensor({1.0f, 2.0f, 3.0f, 4.0f});
  CHECK(x.var().item<float>() == doctest::Approx(5.0 / 3));
  CHECK(x.var({}, {.correction = 0}).item<float>() == doctest::Approx(1.25));
  CHECK(td::std(x).item<float>() == doctest::Approx(std::sqrt(5.0 / 3)));
  CHECK(std::isnan(td::var(td::ones({1})).item<float>()));
  CHECK(td::var(td::full({1000}, 300, {.dtype = td::float16})).item<float>() == 0);  // sums beyond float16's range
  RAISES(DTypeError, td::var(td::tensor({1, 2})), "var: needs a floating dtype, got int64; cast it with to(float32)");
  RAISES(DimensionError, td::std(x, 1), "std: dim 1 is out of range for [4] (-1 to 0)");
}

TEST_CASE("clamp's gradient is 0 at bounds that are numbers, and neither bound is an error") {
  CHECK(gradient_of(td::tensor({-1.0f, 0.0f, 0.5f, 1.0f, 2.0f}), [](const Tensor& x) { return x.clamp(0, 1); }) ==
        Floats{0, 0, 1, 0, 0});
  CHECK(gradient_of(td::tensor({-1.0f, 0.0f, 0.5f}), [](const Tensor& x) { return x.clamp({.min = 0}); }) ==
        Floats{0, 0, 1});
  CHECK(td::tensor({-1, 5}).clamp({.min = 0}).dtype() == td::int64);
  RAISES(ValueError, td::clamp(td::ones({2}), td::Bounds{}), "clamp: neither min nor max is given");
}

TEST_CASE("prod's and cumprod's gradients are exact where elements are zero") {
  CHECK(gradient_of(td::tensor({2.0f, 0.0f, 3.0f}), [](const Tensor& x) { return x.prod(); }) == Floats{0, 6, 0});
  CHECK(gradient_of(td::tensor({0.0f, 0.0f, 3.0f}), [](const Tensor& x) { return x.prod(); }) == Floats{0, 0, 0});
  CHECK(gradient_of(td::tensor({2.0f, 0.0f, 3.0f}), [](const Tensor& x) { return x.cumprod(0); }) == Floats{1, 8, 0});
}

TEST_CASE("sort, topk and max_with_index: positions, and gradients to them") {
  const Tensor x = td::tensor({{3.0f, 1.0f, 3.0f}, {0.0f, 2.0f, 1.0f}});
  const auto [values, indices] = x.sort(1, {.descending = true});
  CHECK(values.to_vector<float>() == Floats{3, 3, 1, 2, 1, 0});
  CHECK(indices.to_vector<int64_t>() == std::vector<int64_t>{0, 2, 1, 1, 2, 0});
  CHECK(x.argsort(0).to_vector<int64_t>() == std::vector<int64_t>{1, 0, 1, 0, 1, 0});
  const auto [best, at] = td::max_with_index(x, 1);
  CHECK(best.to_vector<float>() == Floats{3, 2});
  CHECK(at.to_vector<int64_t>() == std::vector<int64_t>{0, 1});
  CHECK(gradient_of(x.clone(), [](const Tensor& t) { return td::max_with_index(t, 1).values; }) ==
        Floats{1, 0, 0, 0, 1, 0});
  CHECK(gradient_of(x.clone(), [](const Tensor& t) {
          return t.topk(2, 1).values * td::tensor({1.0f, 10.0f});
        }) == Floats{1, 0, 10, 0, 1, 10});
  RAISES(ValueError, x.topk(4, 1), "topk: k is 4, and dim 1 of [2, 3] has 3 elements");
  RAISES(DimensionError, td::cumsum(x, 2), "cumsum: dim 2 is out of range for [2, 3] (-2 to 1)");
  RAISES(ShapeError, td::linear_recurrence(x, td::ones({3}), 1), "a [2, 3] and b [3] must have one shape");
  RAISES(DTypeError, td::searchsorted(td::arange(3), td::ones({2})),
         "sorted is int64 and the values are float32; cast one of them");
}

TEST_CASE("bitwise operators need integers or bool") {
  const Tensor x = td::tensor({1, 2, 3});
  CHECK(((x > 1) & (x < 3)).to_vector<bool>() == std::vector<bool>{false, true, false});
  CHECK((x ^ 1).to_vector<int>() == std::vector<int>{0, 3, 2});
  RAISES(DTypeError, td::ones({2}) & td::ones({2}), "bitwise_and: needs integers or bool, got float32");
  RAISES(DTypeError, td::floor(x > 1), "floor: not defined for bool");
}
