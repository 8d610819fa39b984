// Linear algebra: what the generated tests of the single ops (samples/linalg.cpp) don't show.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>

#include "tandem.h"

namespace td = tandem;
namespace la = tandem::linalg;
using td::Tensor;

namespace {

/// The message of the E that f throws.
template <class E, class F> std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) { return error.message(); }
  return "nothing of that class was thrown";
}

Tensor matrix(std::initializer_list<double> values, const td::Shape& shape) {
  return td::tensor(values, {.dtype = td::float64}).reshape(shape);
}

void check_contains(const std::string& text, const std::string& part) {
  CHECK_MESSAGE(text.find(part) != std::string::npos, text << " has no: " << part);
}

}  // namespace

TEST_CASE("linalg: a singular matrix is a LinAlgError that says which of the batch, except for det") {
  const Tensor good = matrix({2, 1, 1, 3}, {1, 2, 2}), bad = matrix({1, 2, 2, 4}, {1, 2, 2});
  const Tensor batch = td::concat({good, bad});
  check_contains(message_of<td::LinAlgError>([&] { la::inverse(batch); }), "inverse: the matrix at [1] of");
  check_contains(message_of<td::LinAlgError>([&] {
                   la::solve(bad, td::ones({2, 1}, {.dtype = td::float64}));
                 }),
                 "is singular");
  CHECK(la::det(batch).to_vector<double>()[1] == doctest::Approx(0));
  CHECK(la::matrix_rank(batch).to_vector<int64_t>() == std::vector<int64_t>{2, 1});
}

TEST_CASE("linalg: what is not symmetric or not positive definite, not finite or not square is refused") {
  const Tensor skewed = matrix({2, 1, 0, 3}, {2, 2}), indefinite = matrix({1, 2, 2, 1}, {2, 2});
  check_contains(message_of<td::LinAlgError>([&] { la::cholesky(skewed); }), "not symmetric");
  check_contains(message_of<td::LinAlgError>([&] { la::eigh(skewed); }), "not symmetric");
  check_contains(message_of<td::LinAlgError>([&] { la::cholesky(indefinite); }), "cholesky: the matrix");
  const Tensor nan = matrix({1, std::nan(""), 0, 1}, {2, 2});
  check_contains(message_of<td::LinAlgError>([&] { la::svd(nan); }), "not finite");
  CHECK_THROWS_AS(la::inverse(td::ones({2, 3})), td::ShapeError);
  CHECK_THROWS_AS(la::inverse(td::ones({2, 2}, {.dtype = td::int64})), td::DTypeError);
  CHECK_THROWS_AS(la::matrix_norm(indefinite, "max"), td::ValueError);
}

TEST_CASE("linalg: norms, pinv and cond against their definitions") {
  const Tensor a = matrix({3, 0, 4, 5}, {2, 2});  // singular values sqrt(45), sqrt(5)
  const double large = std::sqrt(45.0), least = std::sqrt(5.0), infinity = std::numeric_limits<double>::infinity();
  CHECK(la::matrix_norm(a).item<double>() == doctest::Approx(std::sqrt(50.0)));
  CHECK(la::matrix_norm(a, "nuc").item<double>() == doctest::Approx(large + least));
  CHECK(la::matrix_norm(a, 2).item<double>() == doctest::Approx(large));
  CHECK(la::matrix_norm(a, -2).item<double>() == doctest::Approx(least));
  CHECK(la::matrix_norm(a, 1).item<double>() == doctest::Approx(7));
  CHECK(la::matrix_norm(a, infinity).item<double>() == doctest::Approx(9));
  CHECK(la::cond(a).item<double>() == doctest::Approx(3));
  td::manual_seed(1);
  const Tensor b = td::randn({3, 7, 4}).to(td::float64), p = la::pinv(b);
  CHECK(td::allclose(matmul(matmul(b, p), b), b, {.rtol = 1e-10, .atol = 1e-10}));
  CHECK(td::allclose(matmul(p, b), td::eye(4).to(td::float64).expand({3, 4, 4}), {.rtol = 1e-10, .atol = 1e-10}));
}

TEST_CASE("linalg: a training step through a Cholesky factor is the same in each mode") {
  td::manual_seed(2);
  const Tensor x = td::randn({6, 6}).to(td::float64), y = td::randn({6, 2}).to(td::float64);
  std::vector<double> results;
  for (const td::Mode mode : {td::Mode::eager, td::Mode::replay, td::Mode::compiled}) {
    Tensor w = (matmul(x, x.transpose(0, 1)) + td::eye(6).to(td::float64)).detach();
    w.requires_grad(true);
    auto step = td::compile(
        [&](const Tensor& target) {
          const Tensor spd = (w + w.transpose(0, 1)) * 0.5;
          const Tensor loss =
              la::slogdet(spd).logabsdet + (la::solve(spd, target) * target).sum() + la::cholesky(spd).sum();
          loss.backward();
          return loss;
        },
        {.mode = mode});
    results.push_back(step(y).item<double>());
    results.push_back(w.grad().sum().item<double>());
  }
  for (size_t i = 2; i < results.size(); ++i) CHECK(results[i] == doctest::Approx(results[i % 2]).epsilon(1e-12));
}
