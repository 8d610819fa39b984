// Batch normalisation as a layer with running statistics, in each mode; its errors; RmsNorm and GroupNorm as layers.
#include <doctest/doctest.h>

#include <cmath>

#include "tandem.h"

namespace td = tandem;
namespace nn = tandem::nn;

namespace {

/// Two images of two channels of 1 x 2.
td::Tensor images() { return td::reshape(td::tensor<float>({1, 3, 2, 2, 5, 7, 4, 8}), {2, 2, 1, 2}); }

bool near(const td::Tensor& a, const std::vector<float>& b) {
  return td::allclose(td::contiguous(a).reshape({a.numel()}), td::tensor(b), {.rtol = 1e-5, .atol = 1e-5});
}

}  // namespace

TEST_CASE("BatchNorm2d: trains on the batch's statistics, and then predicts from the running ones") {
  nn::BatchNorm2d norm(2, {.epsilon = 0});
  {
    const td::NoGrad no_grad;
    norm.weight.assign(td::tensor<float>({1, 2}));
  }
  // Channel 0 has 1 3 5 7 (mean 4, variance 5, unbiased 20/3), channel 1 has 2 2 4 8 (mean 4, variance 6, unbiased 8).
  const td::Tensor y = norm(images());
  CHECK(near(y, {-1.341641f, -0.447214f, -1.632993f, -1.632993f, 0.447214f, 1.341641f, 0, 3.265986f}));
  CHECK(near(norm.running_mean, {0.4f, 0.4f}));
  CHECK(near(norm.running_var, {0.9f + 0.1f * 20 / 3, 0.9f + 0.8f}));
  CHECK(!norm.running_mean.requires_grad());
  nn::eval(norm);
  const td::Tensor before = norm.running_mean.clone();
  CHECK(td::allclose(norm(images()), td::batch_norm(images(), norm.running_mean, norm.running_var, norm.weight,
                                                    norm.bias, {.epsilon = 0})));
  CHECK(td::allclose(norm.running_mean, before));
  CHECK(near(td::select(norm(images()), 1, 0), {0.6f / std::sqrt(1.566667f), 2.6f / std::sqrt(1.566667f),
                                                4.6f / std::sqrt(1.566667f), 6.6f / std::sqrt(1.566667f)}));
}

TEST_CASE("BatchNorm: channels-last comes out channels-last, for images and for what Conv1d gives") {
  nn::BatchNorm2d two(3);
  const td::Tensor image = td::permute(td::randn({2, 4, 5, 3}), {0, 3, 1, 2});
  const td::Tensor y = two(image);
  CHECK(y.strides() == image.strides());
  CHECK(td::allclose(y, nn::BatchNorm2d(3)(td::contiguous(image)), {.rtol = 1e-5, .atol = 1e-6}));
  nn::Conv1d filter(2, 3, 3);
  const td::Tensor line = filter(td::randn({2, 2, 9}));
  CHECK(nn::BatchNorm1d(3)(line).strides() == line.strides());
}

TEST_CASE("channels-last stays so beside what is expanded, as the gradient of a mean over pixels is") {
  const td::Tensor x = td::permute(td::randn({2, 4, 5, 3}), {0, 3, 1, 2});
  const td::Tensor each = td::randn({2, 3, 1, 1}).expand(x.shape());
  for (const td::Tensor& y : {x * each, each - x, td::where(x > 0, each, x)}) CHECK(y.strides() == x.strides());
  CHECK(td::allclose(x * each, td::contiguous(x) * td::contiguous(each)));
  td::Tensor leaf = x.detach().requires_grad(true);
  td::relu(leaf).mean({2, 3}).sum().backward();
  CHECK(leaf.grad().strides() == x.strides());
  CHECK((td::contiguous(x) + each).is_contiguous());
}

TEST_CASE("BatchNorm: the modes train alike, running statistics included") {
  const auto train = [](td::Mode mode) {
    td::manual_seed(7);
    struct Model {
      nn::Conv2d first{2, 4, 3, {.padding = 1, .bias = false}};
      nn::BatchNorm2d norm{4};
      nn::Linear last{4, 3};
      td::Tensor operator()(const td::Tensor& x) const { return last(td::mean(td::relu(norm(first(x))), {2, 3})); }
    };
    auto model = std::make_shared<Model>();
    auto optimizer =
        std::make_shared<nn::optim::Sgd>(nn::parameters(*model), nn::optim::SgdOptions{.lr = 0.1, .momentum = 0.9});
    auto step = td::compile(
        [=](const td::Tensor& x, const td::Tensor& labels) {
          optimizer->zero_grad();
          const td::Tensor loss = td::cross_entropy((*model)(x), labels);
          loss.backward();
          optimizer->step();
          return loss;
        },
        {.mode = mode});
    td::Tensors results;
    const td::Tensor x = td::randn({8, 2, 6, 6}), labels = td::randint(0, 3, {8});
    for (int i = 0; i < 5; ++i) results.push_back(step(x, labels).clone());
    nn::eval(*model);
    results.push_back((*model)(x));
    results.push_back(model->norm.running_mean);
    results.push_back(model->norm.running_var);
    return results;
  };
  const td::Tensors eager = train(td::Mode::eager);
  CHECK(eager[0].item<float>() > eager[4].item<float>());
  for (const td::Mode mode : {td::Mode::replay, td::Mode::compiled}) {
    const td::Tensors other = train(mode);
    for (size_t i = 0; i < eager.size(); ++i) CHECK(td::allclose(other[i], eager[i], {.rtol = 1e-4, .atol = 1e-5}));
  }
}

TEST_CASE("BatchNorm: misuse is told") {
  CHECK_THROWS_WITH_AS(nn::BatchNorm2d(0), doctest::Contains("need at least 1 channel, got 0"), td::ValueError);
  CHECK_THROWS_WITH_AS(nn::BatchNorm2d(3)(td::randn({2, 3, 4})), doctest::Contains("use nn::BatchNorm1d"),
                       td::ShapeError);
  CHECK_THROWS_WITH_AS(nn::BatchNorm1d(3)(td::randn({2, 3, 4, 4})), doctest::Contains("use nn::BatchNorm2d"),
                       td::ShapeError);
  CHECK_THROWS_WITH_AS(nn::BatchNorm1d(3)(td::randn({1, 3})),
                       doctest::Contains("one value per channel in x [1, 3] has no variance"), td::ValueError);
  CHECK_THROWS_WITH_AS(nn::BatchNorm1d(3)(td::randn({4, 5})),
                       doctest::Contains("weight [3] for 5 channels of x [4, 5]"), td::ShapeError);
  CHECK_THROWS_WITH_AS(td::batch_norm(td::randn({4, 5}), {}, {}),
                       doctest::Contains("needs running_mean and running_var"), td::UndefinedError);
  CHECK_THROWS_WITH_AS(td::batch_norm(td::randn({4}), {}, {}),
                       doctest::Contains("needs x [batch, channels, …], got [4]"), td::ShapeError);
  CHECK_THROWS_WITH_AS(td::group_norm(td::randn({2, 4, 3}), 3),
                       doctest::Contains("groups 3 don't divide the 4 channels"), td::ValueError);
  CHECK_THROWS_WITH_AS(nn::GroupNorm(3, 4), doctest::Contains("4 channels don't split into 3 groups"), td::ValueError);
}

TEST_CASE("BatchNorm2d: has parameters and buffers with PyTorch's names, and works in bfloat16") {
  nn::BatchNorm2d norm(2);
  CHECK(nn::parameters(norm).size() == 2);
  CHECK(nn::named_buffers(norm).size() == 2);
  const td::Tensor y = norm(images().to(td::bfloat16));  // float32 weights, as under autocast
  CHECK(y.dtype() == td::bfloat16);
  CHECK(near(td::select(y.to(td::float32), 1, 0), {-1.34375f, -0.447265625f, 0.447265625f, 1.34375f}));
}

TEST_CASE("RmsNorm and GroupNorm: known values, and names of parameters") {
  CHECK(near(nn::RmsNorm(2, {.epsilon = 0})(td::tensor<float>({3, 4})), {3 / std::sqrt(12.5f), 4 / std::sqrt(12.5f)}));
  nn::GroupNorm group(1, 2, {.epsilon = 0});
  // One image at a time: 1 3 2 2 has mean 2 and variance 1/2; 5 7 4 8 has mean 6 and variance 5/2.
  const float a = std::sqrt(2.0f), b = 1 / std::sqrt(2.5f);
  CHECK(near(group(images()), {-a, a, 0, 0, -b, b, -2 * b, 2 * b}));
  CHECK(nn::named_parameters(group).size() == 2);
  CHECK(td::allclose(td::instance_norm(images()), td::group_norm(images(), 2)));
}
