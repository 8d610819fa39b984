// Initial values beside those that tests/nn_test.cpp draws: constants, identity, gains, cut-off and orthogonal ones.
#include <doctest/doctest.h>

#include <cmath>

#include "tandem.h"

using namespace tandem;
namespace init = tandem::nn::init;

namespace {

double deviation(const Tensor& x) {
  const Tensor centred = x - x.mean();
  return std::sqrt(square(centred).mean().item<double>());
}

}  // namespace

TEST_CASE("init: constants and the identity") {
  CHECK(init::constant({2}, 3).to_vector<float>() == std::vector<float>{3, 3});
  CHECK(init::zeros({2}).to_vector<float>() == std::vector<float>{0, 0});
  CHECK(init::ones({1}, {.dtype = float64}).dtype() == float64);
  const Tensor eye = init::eye(2, 3, {.requires_grad = true});
  CHECK(eye.requires_grad());
  CHECK(eye.to_vector<float>() == std::vector<float>{1, 0, 0, 0, 1, 0});
}

TEST_CASE("init: kaiming by mode and nonlinearity") {
  manual_seed(1);
  const Shape shape{400, 100};
  CHECK(deviation(init::kaiming_normal(shape)) == doctest::Approx(std::sqrt(2.0 / 100)).epsilon(0.02));
  CHECK(deviation(init::kaiming_normal(shape, {.mode = init::Fan::out})) ==
        doctest::Approx(std::sqrt(2.0 / 400)).epsilon(0.02));
  CHECK(deviation(init::kaiming_uniform(shape, {.nonlinearity = init::Nonlinearity::tanh})) ==
        doctest::Approx(5.0 / 3 / 10).epsilon(0.02));
  CHECK(init::gain(init::Nonlinearity::leaky_relu, 1) == doctest::Approx(1));
  CHECK(init::gain(init::Nonlinearity::sigmoid) == 1);
  CHECK(init::gain(init::Nonlinearity::selu) == 0.75);
}

TEST_CASE("init: trunc_normal stays in its bounds, with the deviation that is left") {
  manual_seed(2);
  const Tensor x = init::trunc_normal({20000}, 1, 2, -1, 3);  // one deviation either side
  CHECK(x.max().item<double>() <= 3);
  CHECK((-x).max().item<double>() <= 1);
  CHECK(x.mean().item<double>() == doctest::Approx(1).epsilon(0.03));
  CHECK(deviation(x) == doctest::Approx(2 * std::sqrt(0.2911)).epsilon(0.02));  // 1 - 2 phi(1) / (2 Phi(1) - 1)
  CHECK_THROWS_AS(init::trunc_normal({2}, 0, 1, 2, -2), ValueError);
  CHECK_THROWS_AS(init::trunc_normal({2}, 0, 1e-3, 1, 2), ValueError);
}

TEST_CASE("init: orthogonal rows or columns, whichever are fewer") {
  manual_seed(3);
  for (const Shape& shape : {Shape{4, 7}, Shape{7, 4}, Shape{5, 5}, Shape{3, 2, 2, 2}}) {
    const Tensor x = init::orthogonal(shape, 2, {.dtype = float64}).reshape({shape[0], -1});
    const bool wide = x.size(0) <= x.size(1);
    const Tensor product = wide ? matmul(x, x.transpose(0, 1)) : matmul(x.transpose(0, 1), x);
    const int64_t n = product.size(0);
    CHECK(allclose(product, init::eye(n, n, {.dtype = float64}) * 4, {.rtol = 1e-12, .atol = 1e-12}));
  }
  CHECK_THROWS_AS(init::orthogonal({3}), ShapeError);
}

TEST_CASE("init::set overwrites a parameter in place") {
  nn::Linear layer{3, 2};
  const Tensor weight = layer.weight;
  init::set(layer.weight, init::ones({2, 3}));
  CHECK(weight.sum().item<double>() == 6);
  CHECK(weight.requires_grad());
}
