// Losses and indexing beyond the generated cases: numbers that PyTorch gives, what is not a number, gradients through kinks and
// repeated positions, and training steps in the three modes.
#include <doctest/doctest.h>

#include <cmath>

#include "core/threads.h"
#include "tandem.h"

using namespace tandem;

namespace {

double value(const Tensor& x) { return x.item<double>(); }
Tensor labels_of(std::vector<int64_t> values) { return tensor(values); }

/// f and the gradients of its sum by each leaf agree in all modes.
template <class F> void check_modes(const char* name, const Tensors& leaves, F&& f) {
  CAPTURE(name);
  std::vector<std::vector<double>> expected;
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    CAPTURE(static_cast<int>(mode));
    auto step = compile(
        [&] {
          for (const Tensor& leaf : leaves) Tensor(leaf).set_grad({});
          Tensor result = f();
          result.sum().backward();
          return result.detach();
        },
        {.mode = mode});
    step();
    std::vector<std::vector<double>> all = {step().template to_vector<double>()};
    for (const Tensor& leaf : leaves) all.push_back(leaf.grad().template to_vector<double>());
    if (mode == Mode::eager) {
      expected = all;
      continue;
    }
    for (size_t k = 0; k < all.size(); ++k) {
      REQUIRE(all[k].size() == expected[k].size());
      for (size_t i = 0; i < all[k].size(); ++i) CHECK(all[k][i] == doctest::Approx(expected[k][i]).epsilon(1e-5));
    }
  }
}

}  // namespace

TEST_CASE("cross_entropy: the numbers that PyTorch gives") {
  const Tensor x = tensor({{1.0, 2.0, 0.5}, {-1.0, 0.25, 3.0}}, {.dtype = float64}), labels = labels_of({1, 0}),
               weight = tensor({0.5, 2.0, 1.0}, {.dtype = float64});
  CHECK(value(cross_entropy(x, labels)) == doctest::Approx(2.2717025).epsilon(1e-6));
  CHECK(value(cross_entropy(x, labels, {.reduction = Reduction::sum})) == doctest::Approx(4.5434050).epsilon(1e-6));
  CHECK(value(cross_entropy(x, labels, {.weight = weight})) == doctest::Approx(1.1873023).epsilon(1e-6));
  CHECK(value(cross_entropy(x, labels, {.ignore_index = 0})) == doctest::Approx(0.4643688).epsilon(1e-6));
  CHECK(value(cross_entropy(x, labels, {.label_smoothing = 0.1})) == doctest::Approx(2.2258692).epsilon(1e-6));
  CHECK(value(cross_entropy(x, labels, {.weight = weight, .ignore_index = 2, .label_smoothing = 0.2})) ==
        doctest::Approx(1.2538929).epsilon(1e-6));
  const Tensor p = tensor({{0.2, 0.5, 0.3}, {0.1, 0.1, 0.8}}, {.dtype = float64});
  CHECK(value(cross_entropy(x, p)) == doctest::Approx(0.9342025).epsilon(1e-6));
  CHECK(value(cross_entropy(x, p, {.weight = weight, .label_smoothing = 0.1})) ==
        doctest::Approx(1.1049289).epsilon(1e-6));
}

TEST_CASE("cross_entropy: ignored rows count for nothing, and all of them ignored is the mean of nothing") {
  manual_seed(31);
  const Tensor x = randn({4, 5}, {.requires_grad = true});
  cross_entropy(x, labels_of({3, -100, 0, -100}), {.ignore_index = -100}).backward();
  const std::vector<float> g = x.grad().to_vector<float>();
  for (size_t c = 0; c < 5; ++c) CHECK((g[5 + c] == 0 && g[15 + c] == 0 && g[c] != 0));
  CHECK(std::isnan(value(cross_entropy(x, labels_of({1, 1, 1, 1}), {.ignore_index = 1}))));
  CHECK(value(cross_entropy(x, labels_of({1, 1, 1, 1}), {.ignore_index = 1, .reduction = Reduction::sum})) == 0);
}

TEST_CASE("binary cross-entropy, kl_div and cosine_similarity at their edges") {
  Tensor x = tensor({-90.0f, -20.0f, 0.0f, 20.0f, 90.0f}).requires_grad(true);
  const Tensor zeros_ = zeros({5}), ones_ = ones({5});
  CHECK(binary_cross_entropy_with_logits(x, zeros_, {.reduction = Reduction::none}).to_vector<float>()[4] == 90);
  CHECK(binary_cross_entropy_with_logits(x, ones_, {.reduction = Reduction::none}).to_vector<float>()[0] == 90);
  CHECK(binary_cross_entropy_with_logits(x, zeros_, {.reduction = Reduction::none}).to_vector<float>()[1] ==
        doctest::Approx(std::exp(-20.0)));
  CHECK(binary_cross_entropy_with_logits(x, ones_, {.reduction = Reduction::none}).to_vector<float>()[3] ==
        doctest::Approx(std::exp(-20.0)));
  CHECK(value(binary_cross_entropy_with_logits(tensor({0.0f}), ones({1}))) == doctest::Approx(std::log(2.0)));
  bce_with_logits(x, ones_, {.reduction = Reduction::sum}).backward();
  const std::vector<float> g = x.grad().to_vector<float>();
  CHECK(g[0] == doctest::Approx(-1));
  CHECK(g[2] == doctest::Approx(-0.5));
  CHECK(g[4] == doctest::Approx(0));

  Tensor p = tensor({0.0f, 1.0f}).requires_grad(true);
  const Tensor loss = binary_cross_entropy(p, tensor({1.0f, 0.0f}), {.reduction = Reduction::none});
  CHECK(loss.to_vector<float>() == std::vector<float>{100, 100});  // not infinite
  binary_cross_entropy(p, tensor({0.0f, 1.0f})).backward();
  for (const float v : p.grad().to_vector<float>()) CHECK(std::isfinite(v));

  Tensor t = tensor({{0.0f, 1.0f}, {0.5f, 0.5f}}).requires_grad(true);
  const Tensor log_q = log(tensor({{0.5f, 0.5f}, {0.25f, 0.75f}}));
  const Tensor divergence = kl_div(log_q, t, {.reduction = Reduction::batchmean});
  CHECK(value(divergence) == doctest::Approx((std::log(2.0) + 0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3)) / 2));
  divergence.backward();
  for (const float v : t.grad().to_vector<float>()) CHECK(std::isfinite(v));

  Tensor zero = zeros({1, 3}, {.requires_grad = true});
  const Tensor similarity = cosine_similarity(zero, ones({1, 3}));
  CHECK(value(similarity) == 0);
  similarity.backward(ones({1}));
  for (const float v : zero.grad().to_vector<float>()) CHECK(std::isfinite(v));
}

TEST_CASE("scatter: the last of equal places wins, and only it gets the gradient") {
  Tensor x = zeros({3}, {.requires_grad = true}), src = tensor({1.0f, 2.0f, 3.0f}).requires_grad(true);
  const Tensor y = scatter(x, 0, labels_of({2, 0, 2}), src);
  CHECK(y.to_vector<float>() == std::vector<float>{2, 0, 3});
  y.backward(tensor({10.0f, 20.0f, 30.0f}));
  CHECK(x.grad().to_vector<float>() == std::vector<float>{0, 20, 0});
  CHECK(src.grad().to_vector<float>() == std::vector<float>{0, 10, 30});
}

TEST_CASE("index_add: the same sums whatever the number of threads") {
  manual_seed(32);
  const Tensor x = randn({50, 300}), src = randn({4000, 300}), index = randint(0, 50, {4000});
  const int before = num_threads();
  set_num_threads(1);
  const std::vector<float> one = index_add(x, 0, index, src).to_vector<float>();
  set_num_threads(2);
  CHECK(index_add(x, 0, index, src).to_vector<float>() == one);
  set_num_threads(before);
}

TEST_CASE("losses, indexing and einsum in the three modes, with gradients") {
  manual_seed(33);
  const Tensor x = randn({6, 5}, {.requires_grad = true}), y = randn({6, 5}, {.requires_grad = true});
  const Tensor labels = randint(0, 5, {6}), some = labels_of({0, 2, -1, 4, -1, 1}), weight = rand({5}) + 0.5,
               rows = labels_of({5, 0, 0, 3});
  const Tensor image = randn({2, 5, 3, 3}, {.requires_grad = true}), pixels = randint(0, 5, {2, 3, 3});
  check_modes("ignore_index", {x}, [&] { return cross_entropy(x, some, {.ignore_index = -1}); });
  check_modes("weights", {x},
              [&] { return cross_entropy(x, some, {.weight = weight, .ignore_index = -1, .label_smoothing = 0.1}); });
  check_modes("pixels", {image}, [&] { return cross_entropy(image, pixels); });
  check_modes("probabilities", {x, y}, [&] { return cross_entropy(x, softmax(y)); });
  check_modes("nll", {x}, [&] { return nll_loss(log_softmax(x), labels, {.reduction = Reduction::none}); });
  check_modes("mse", {x, y}, [&] { return mse_loss(x, y); });
  check_modes("huber", {x, y}, [&] { return huber_loss(x, y, {.delta = 0.5}); });
  check_modes("bce", {x}, [&] { return bce_with_logits(x, sigmoid(y.detach()), {.pos_weight = weight}); });
  check_modes("kl", {x, y}, [&] { return kl_div(log_softmax(x), softmax(y), {.reduction = Reduction::batchmean}); });
  check_modes("cosine", {x, y}, [&] { return cosine_similarity(x, y); });
  check_modes("index_select", {x}, [&] { return square(index_select(x, 0, rows)) * 2; });
  check_modes("index_add", {x, y}, [&] { return square(index_add(x, 0, rows, y.slice(0, 0, 4))); });
  check_modes("scatter", {x, y}, [&] { return square(scatter(x, 1, unsqueeze(labels, 1), y.slice(1, 0, 1))); });
  check_modes("pad and roll", {x}, [&] {
    return square(roll(pad(x, {1, 2, 0, 1}, {.mode = PadMode::reflect}), {1, 2}, {0, 1}));
  });
  check_modes("diagonal", {x}, [&] { return exp(x.diagonal(1)); });
  check_modes("triangle", {x, y},
              [&] { return tril(matmul(x, y.transpose(0, 1)), -1) + triu(matmul(y, x.transpose(0, 1))); });
  check_modes("pieces", {x}, [&] {
    const Tensors parts = x.chunk(2, 1);
    return parts[0].sum(1) * parts[1].sum(1) + stack(x.unbind(1), 0).flip(0).sum(0);
  });
  check_modes("repeat", {x}, [&] { return square(x.repeat({2, 1, 3})) + 1; });
  check_modes("einsum", {x, y}, [&] { return einsum("ij,kj,k->ik", {x, y, y.slice(1, 0, 1).squeeze(1)}); });
  auto training = compile([&] { return one_hot(labels, 5).to(float32).sum(0); });
  CHECK(training().sum().item<float>() == 6);
}

TEST_CASE("cross_entropy with ignore_index is three kernels with its gradient: the rows are counted first") {
  manual_seed(34);
  const Tensor x = randn({16, 10}, {.requires_grad = true}), labels = randint(0, 10, {16});
  auto step = compile([&] {
    Tensor loss = cross_entropy(x, labels, {.ignore_index = 3});
    loss.backward();
    return loss;
  });
  step();
  CHECK(step.stats().kernels <= 3);
}
