// Fits y = x W + b to noisy points by gradient descent, and compares with what made them.
//
//   linear_regression --steps 300 --mode replay
#include <tandem/tandem.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>

namespace td = tandem;
namespace nn = tandem::nn;

int main(int argc, char** argv) {
  std::string mode = "eager", device_name = "cpu", losses;
  int64_t steps = 200;
  uint64_t seed = 1;
  CLI::App app{"Fits a line through noisy points in three dimensions."};
  app.add_option("--mode", mode, "eager, replay or compiled")->capture_default_str();
  app.add_option("--device", device_name, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--steps", steps, "of gradient descent")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seed", seed, "of points, noise and first weights")->capture_default_str();
  app.add_option("--losses", losses, "file to write each step's loss to, a line each");
  CLI11_PARSE(app, argc, argv);

  try {
    const td::Device device = td::parse_device(device_name);
    td::manual_seed(seed);

    // Points of a plane that we pretend not to know.
    const td::Tensor true_weight = td::tensor({{2.f, -1.f, 0.5f}}, {.device = device});
    const double true_bias = 0.3;
    const td::Tensor x = td::randn({256, 3}, {.device = device});
    const td::Tensor noise = td::randn({256, 1}, {.device = device}) * 0.05;
    const td::Tensor y = linear(x, true_weight) + true_bias + noise;

    nn::Linear model(3, 1, {.device = device});
    nn::optim::Sgd optimizer(nn::parameters(model), {.lr = 0.05, .momentum = 0.9});
    auto step = td::compile(
        [&](const td::Tensor& x, const td::Tensor& y) {
          optimizer.zero_grad();
          td::Tensor loss = square(model(x) - y).mean();
          loss.backward();
          optimizer.step();
          return loss;
        },
        {.mode = td::parse_mode(mode)});

    std::ofstream log;
    if (!losses.empty()) log.open(losses);
    td::Tensor loss;
    {
      td::Progress progress(steps, "fit", {.log = losses.empty() ? nullptr : &log});
      for (int64_t i = 0; i < steps; ++i) {
        loss = step(x, y);
        progress.update({{"loss", loss}});
      }
    }

    std::cout << "weight " << model.weight << "\nbias " << model.bias << "\n";
    td::NoGrad guard;
    const float error = abs(model.weight - true_weight).max().item<float>();
    std::printf("loss %.5f (the noise alone is %.5f), largest error of a weight %.4f\n", loss.item<float>(),
                square(noise).mean().item<float>(), error);
  } catch (const td::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
