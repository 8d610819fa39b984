// Small networks of convolutions trained on cuda(0), eagerly, replayed and compiled, with the losses that training on the CPU has:
// a residual network, a generative adversarial one, and one that halves images and doubles them again.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "tandem.h"

using namespace tandem;

namespace {

/// Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes.
struct Block {
  int64_t in = 0, out = 0, stride = 1;
  nn::Conv2d first{in, out, 3, {.stride = stride, .padding = 1, .bias = false}};
  nn::BatchNorm2d first_norm{out};
  nn::Conv2d second{out, out, 3, {.padding = 1, .bias = false}};
  nn::BatchNorm2d second_norm{out};
  std::optional<nn::Conv2d> shortcut =
      in == out ? std::nullopt : std::optional<nn::Conv2d>({in, out, 1, {.stride = stride, .bias = false}});

  Tensor operator()(const Tensor& x) const {
    const Tensor y = second_norm(second(relu(first_norm(first(x)))));
    return relu(y + (shortcut ? (*shortcut)(x) : x));
  }
};

struct ResNet {
  nn::Conv2d stem{3, 8, 3, {.padding = 1, .bias = false}};
  nn::BatchNorm2d norm{8};
  Block same{8, 8, 1}, halving{8, 16, 2};
  nn::Linear output{16, 5};

  Tensor operator()(const Tensor& x) const {
    const Tensor y = max_pool2d(relu(norm(stem(x))), 3, {.stride = 2, .padding = 1});
    return output(adaptive_avg_pool2d(halving(same(y)), {1, 1}).flatten(1));
  }
};

struct Generator {
  nn::Linear project{6, 16 * 3 * 3};
  nn::BatchNorm2d norm0{16};
  nn::ConvTranspose2d up1{16, 8, 4, {.stride = 2, .padding = 1}};
  nn::BatchNorm2d norm1{8};
  nn::ConvTranspose2d up2{8, 1, 4, {.stride = 2, .padding = 1}};

  Tensor operator()(const Tensor& noise) const {
    const Tensor x = relu(norm0(project(noise).reshape({-1, 16, 3, 3})));
    return tanh(up2(relu(norm1(up1(x)))));
  }
};
struct Discriminator {
  nn::Conv2d down1{1, 8, 4, {.stride = 2, .padding = 1}};
  nn::Conv2d down2{8, 16, 4, {.stride = 2, .padding = 1}};
  nn::BatchNorm2d norm{16};
  nn::Linear judge{16 * 3 * 3, 1};

  Tensor operator()(const Tensor& images) const {
    const Tensor x = leaky_relu(norm(down2(leaky_relu(down1(images), 0.2))), 0.2);
    return judge(x.flatten(1)).flatten();
  }
};

/// Down by average pooling and up by interpolation, with a shortcut, normalised by groups.
struct Hourglass {
  nn::Conv2d first{2, 8, 3, {.padding = 1}};
  nn::GroupNorm first_norm{4, 8};
  nn::Conv2d middle{8, 8, 3, {.padding = 1}};
  nn::GroupNorm middle_norm{2, 8};
  nn::Conv2d last{16, 2, 3, {.padding = 1}};

  Tensor operator()(const Tensor& x) const {
    const Tensor fine = silu(first_norm(first(x))), coarse = silu(middle_norm(middle(avg_pool2d(fine, 2))));
    const Tensor back = interpolate(coarse, {.scale_factor = 2, .mode = Interpolation::bilinear});
    return last(concat({fine, back}, 1));
  }
};

constexpr int kSteps = 4;

std::vector<double> train_resnet(Device device, Mode mode) {
  manual_seed(5);
  ResNet model;
  nn::to(model, device);
  nn::optim::Sgd optimizer(nn::parameters(model), {.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-4});
  auto step = compile(
      [&](const Tensor& x, const Tensor& labels) {
        optimizer.zero_grad();
        Tensor loss = cross_entropy(model(x), labels);
        loss.backward();
        optimizer.step();
        return loss;
      },
      {.mode = mode});
  std::vector<double> values;
  for (int i = 0; i < kSteps; ++i) {
    const Tensor x = randn({4, 3, 12, 10}), labels = randint(0, 5, {4});
    values.push_back(step(x.to(device), labels.to(device)).item<double>());
  }
  CHECK_MESSAGE(step.stats().note.empty(), step.stats().note);  // why it runs on a lower tier than asked for
  // And by the running statistics.
  nn::eval(model);
  const NoGrad guard;
  for (const double logit : model(randn({2, 3, 12, 10}).to(device)).to_vector<double>()) values.push_back(logit);
  return values;
}

std::vector<double> train_adversaries(Device device, Mode mode) {
  manual_seed(6);
  Generator generator;
  Discriminator discriminator;
  nn::to(generator, device);
  nn::to(discriminator, device);
  nn::optim::Adam generator_optimizer(nn::parameters(generator), {.lr = 1e-3, .beta1 = 0.5});
  nn::optim::Adam discriminator_optimizer(nn::parameters(discriminator), {.lr = 1e-3, .beta1 = 0.5});
  auto step = compile(
      [&](const Tensor& real) {
        const Tensor drawn = generator(randn({real.shape()[0], 6}, {.device = device}));
        discriminator_optimizer.zero_grad();
        const Tensor on_real = discriminator(real), on_drawn = discriminator(drawn.detach());
        Tensor judging = bce_with_logits(on_real, ones_like(on_real)) + bce_with_logits(on_drawn, zeros_like(on_drawn));
        judging.backward();
        discriminator_optimizer.step();
        generator_optimizer.zero_grad();
        const Tensor verdict = discriminator(drawn);
        Tensor drawing = bce_with_logits(verdict, ones_like(verdict));
        drawing.backward();
        generator_optimizer.step();
        return std::pair{judging, drawing};
      },
      {.mode = mode});
  std::vector<double> values;
  for (int i = 0; i < kSteps; ++i) {
    const auto [judging, drawing] = step(tanh(randn({4, 1, 12, 12})).to(device));
    values.push_back(judging.item<double>());
    values.push_back(drawing.item<double>());
  }
  CHECK_MESSAGE(step.stats().note.empty(), step.stats().note);
  return values;
}

std::vector<double> train_hourglass(Device device, Mode mode) {
  manual_seed(7);
  Hourglass model;
  nn::to(model, device);
  nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 1e-3});
  auto step = compile(
      [&](const Tensor& x, const Tensor& wanted) {
        optimizer.zero_grad();
        Tensor loss = mse_loss(model(x), wanted);
        loss.backward();
        optimizer.step();
        return loss;
      },
      {.mode = mode});
  std::vector<double> values;
  for (int i = 0; i < kSteps; ++i) {
    const Tensor x = randn({3, 2, 8, 12}), wanted = randn({3, 2, 8, 12});
    values.push_back(step(x.to(device), wanted.to(device)).item<double>());
  }
  CHECK_MESSAGE(step.stats().note.empty(), step.stats().note);
  return values;
}

/// Each mode's numbers are within `bound` of the CPU's eager ones, relative to those or to 1, whichever is greater.
void check_modes(const std::function<std::vector<double>(Device, Mode)>& train, double bound) {
  const std::vector<double> wanted = train(cpu(), Mode::eager);
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    const std::vector<double> got = train(cuda(0), mode);
    REQUIRE(got.size() == wanted.size());
    double furthest = 0;
    for (size_t i = 0; i < got.size(); ++i)
      furthest = std::max(furthest, std::fabs(got[i] - wanted[i]) / std::max(1.0, std::fabs(wanted[i])));
    CHECK(furthest <= bound);
  }
}

}  // namespace

TEST_CASE("cuda: a residual network trains as on the CPU, and runs by its running statistics") {
  check_modes(train_resnet, 1e-5);
}

TEST_CASE("cuda: a generator and a discriminator train as on the CPU") { check_modes(train_adversaries, 1e-5); }

TEST_CASE("cuda: a network of group norms, pooling and interpolation trains as on the CPU") {
  check_modes(train_hourglass, 1e-5);
}
