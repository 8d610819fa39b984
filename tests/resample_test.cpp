// Pooling and resizing against PyTorch's numbers, the functions made of other ops, layers in nn::Sequential, and errors.
#include <doctest/doctest.h>

#include <cmath>

#include "tandem.h"

namespace td = tandem;
namespace nn = tandem::nn;

namespace {

td::Tensor counting(const td::Shape& shape) {
  return td::arange(0, shape.numel(), 1, {.dtype = td::float32}).reshape(shape);
}

bool near(const td::Tensor& a, const std::vector<float>& b) {
  return td::allclose(td::contiguous(a).reshape({a.numel()}), td::tensor(b), {.rtol = 1e-5, .atol = 1e-5});
}

}  // namespace

TEST_CASE("interpolate: PyTorch's numbers") {
  const td::Tensor x = counting({1, 1, 2, 2});
  using enum td::Interpolation;
  CHECK(near(td::interpolate(x, {.scale_factor = 2}), {0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3}));
  CHECK(near(td::interpolate(x, {.size = {1, 4}, .mode = bilinear}), {1, 1.25f, 1.75f, 2}));
  CHECK(near(td::interpolate(x, {.size = {3, 3}, .mode = bilinear, .align_corners = true}),
             {0, 0.5f, 1, 1, 1.5f, 2, 2, 2.5f, 3}));
  CHECK(near(td::interpolate(x, {.size = {2, 4}, .mode = bicubic}),
             {-0.10546875f, 0.2265625f, 0.7734375f, 1.10546875f, 1.89453125f, 2.2265625f, 2.7734375f, 3.10546875f}));
  CHECK(td::interpolate(counting({1, 3, 4, 4}), {.scale_factor = 2.5}).shape() == td::Shape{1, 3, 10, 10});
}

TEST_CASE("avg_pool2d: padding counts as zeros, or not at all") {
  const td::Tensor x = counting({1, 1, 2, 2});
  CHECK(near(td::avg_pool2d(x, 2), {1.5f}));
  CHECK(near(td::avg_pool2d(x, 2, {.stride = 2, .padding = 1}), {0, 0.25f, 0.5f, 0.75f}));
  CHECK(near(td::avg_pool2d(x, 2, {.stride = 2, .padding = 1, .count_include_pad = false}), {0, 1, 2, 3}));
}

TEST_CASE("pools of one dim") {
  CHECK(near(td::max_pool1d(counting({1, 1, 6}), 2), {1, 3, 5}));
  CHECK(near(td::avg_pool1d(counting({1, 1, 6}), 3, {.stride = 2}), {1, 3}));
}

TEST_CASE("adaptive pools: even and uneven windows, with gradients") {
  const td::Tensor x = counting({1, 1, 4, 4});
  CHECK(near(td::adaptive_avg_pool2d(x, 1), {7.5f}));
  CHECK(near(td::adaptive_avg_pool2d(x, 2), {2.5f, 4.5f, 10.5f, 12.5f}));
  CHECK(near(td::adaptive_max_pool2d(x, 2), {5, 7, 13, 15}));
  CHECK(near(td::adaptive_avg_pool2d(counting({1, 1, 1, 5}), {1, 2}), {1, 3}));  // 0 1 2 and 2 3 4
  CHECK(near(td::adaptive_max_pool2d(counting({1, 1, 1, 5}), {1, 2}), {2, 4}));
  td::gradcheck(
      [](const td::Tensors& in) {
        return td::adaptive_max_pool2d(in[0], {2, 3});
      },
      {td::randn({1, 2, 5, 7}, {.dtype = td::float64})});
}

TEST_CASE("pixel_shuffle: channels become squares of pixels") {
  CHECK(near(td::pixel_shuffle(counting({1, 4, 1, 2}), 2), {0, 2, 1, 3, 4, 6, 5, 7}));
}

TEST_CASE("layers without parameters stand in nn::Sequential") {
  nn::Sequential body{nn::Conv2d{3, 4, 3, {.padding = 1}},
                      nn::Relu{},
                      nn::MaxPool2d{2},
                      nn::Upsample{{.scale_factor = 2}},
                      nn::AvgPool2d{2},
                      nn::AdaptiveAvgPool2d{2},
                      nn::Flatten{},
                      nn::Tanh{},
                      nn::Gelu{},
                      nn::Sigmoid{}};
  CHECK(body(td::randn({2, 3, 8, 8})).shape() == td::Shape{2, 16});
  CHECK(nn::parameters(body).size() == 2);
  CHECK(near(nn::Sequential{nn::LeakyRelu{0.5}, nn::Silu{}}(td::tensor<float>({-2, 0, 1})),
             {-0.26894142f, 0, 0.73105858f}));
}

TEST_CASE("transposed convolution: shapes and known values") {
  const td::Tensor x = td::ones({1, 1, 2, 2}), weight = counting({1, 1, 2, 2});
  CHECK(near(td::conv_transpose2d(x, weight, {}, {.stride = 2}), {0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1, 2, 3, 2, 3}));
  CHECK(near(td::conv_transpose2d(x, weight), {0, 1, 1, 2, 6, 4, 2, 5, 3}));
  nn::ConvTranspose2d up(8, 3, 4, {.stride = 2, .padding = 1});
  CHECK(up.weight.shape() == td::Shape{8, 3, 4, 4});
  CHECK(up(td::randn({2, 8, 7, 5})).shape() == td::Shape{2, 3, 14, 10});
  CHECK(td::abs(up.weight).max().item<float>() <= 1 / std::sqrt(48.f));
  CHECK(nn::Conv1d(4, 6, 3, {.stride = 2, .padding = 1, .groups = 2})(td::randn({2, 4, 9})).shape() ==
        td::Shape{2, 6, 5});
}

TEST_CASE("pooling, resizing and transposed convolution: misuse is told") {
  const td::Tensor x = td::randn({1, 4, 3, 3});
  CHECK_THROWS_WITH_AS(td::avg_pool2d(x, 4),
                       doctest::Contains("avg_pool2d: kernel [4, 4] is larger than the padded input"), td::ShapeError);
  CHECK_THROWS_WITH_AS(td::interpolate(x, {}), doctest::Contains("neither size nor scale_factor"), td::ValueError);
  CHECK_THROWS_WITH_AS(td::interpolate(x, {.size = 3, .scale_factor = 2}),
                       doctest::Contains("both size and scale_factor"), td::ValueError);
  CHECK_THROWS_WITH_AS(td::interpolate(x, {.size = 3, .align_corners = true}),
                       doctest::Contains("align_corners means nothing to nearest"), td::ValueError);
  CHECK_THROWS_WITH_AS(td::interpolate(x, {.scale_factor = 0.1}), doctest::Contains("both extents must be at least 1"),
                       td::ValueError);
  CHECK_THROWS_WITH_AS(td::adaptive_avg_pool2d(x[0][0], 2),
                       doctest::Contains("adaptive_avg_pool2d: needs x [batch, channels, height, width], got [3, 3]"),
                       td::ShapeError);
  CHECK_THROWS_WITH_AS(td::pixel_shuffle(x, 3),
                       doctest::Contains("4 channels of x [1, 4, 3, 3] don't split into squares of 3 x 3"),
                       td::ValueError);
  CHECK_THROWS_WITH_AS(td::conv_transpose2d(x, td::randn({3, 4, 2, 2})),
                       doctest::Contains("the weight's first extent is that of the input"), td::ShapeError);
  CHECK_THROWS_WITH_AS(td::conv_transpose2d(x, td::randn({4, 4, 2, 2}), {}, {.output_padding = 1}),
                       doctest::Contains("output_padding [1, 1] must be at least 0 and below the stride"),
                       td::ValueError);
  CHECK_THROWS_WITH_AS(td::conv1d(x, td::randn({4, 4, 2})),
                       doctest::Contains("conv1d: needs x [batch, channels, length]"), td::ShapeError);
}
