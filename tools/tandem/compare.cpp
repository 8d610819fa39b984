// tandem compare: the ladder on a training step that is built in.
#include <cstdio>
#include <iostream>
#include <memory>
#include <numeric>

#include "tandem.h"
#include "tools/tandem/commands.h"

namespace tandem::tools {

namespace {

struct Mlp {
  nn::Linear first{784, 256}, second{256, 128}, output{128, 10};
  Tensor operator()(const Tensor& x) const { return output(relu(second(relu(first(x.flatten(1)))))); }
};

struct LeNet {
  nn::Conv2d first{1, 8, 5, {.padding = 2}};
  nn::Conv2d second{8, 16, 5};
  nn::Linear hidden{16 * 5 * 5, 120};
  nn::Dropout drop{0.1};
  nn::Linear output{120, 10};
  Tensor operator()(Tensor x) const {
    x = max_pool2d(relu(first(x)), 2);
    x = max_pool2d(relu(second(x)), 2);
    return output(drop(relu(hidden(x.flatten(1)))));
  }
};

struct Options {
  std::string program, data, device = "cpu", html, json;
  int steps = 100;
  int64_t batch = 64;
  uint64_t seed = 1;
};

/// A batch of digits: the first ones of the files, or drawn.
std::pair<Tensor, Tensor> digits(const Options& options) {
  const io::LabelledImages images =
      options.data.empty() ? io::LabelledImages(io::SyntheticDigits({.count = options.batch, .seed = options.seed}))
                           : io::LabelledImages(io::Mnist(options.data));
  std::vector<int64_t> indices(static_cast<size_t>(std::min(options.batch, images.size())));
  std::iota(indices.begin(), indices.end(), 0);
  const auto [x, y] = images.batch(indices);
  const Device device = parse_device(options.device);
  return {x.to(device), y.to(device)};
}

/// Forward, backward, clipping and update, as examples/mnist.cpp trains.
template <class Model> Comparison compare_training(const char* name, const Options& options) {
  manual_seed(options.seed);
  const auto [images, labels] = digits(options);
  Model model;
  nn::to(model, parse_device(options.device));
  nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 2e-3, .weight_decay = 1e-2});
  const auto step = [&](const Tensor& x, const Tensor& y) {
    optimizer.zero_grad();
    Tensor loss = cross_entropy(model(x), y);
    loss.backward();
    nn::clip_grad_norm(nn::parameters(model), 1.0);
    optimizer.step();
    return loss;
  };
  return compare(step, {.steps = options.steps, .name = name}, images, labels);
}

void run(const Options& options) {
  std::vector<Comparison> comparisons;
  if (options.program != "lenet") comparisons.push_back(compare_training<Mlp>("mlp", options));
  if (options.program != "mlp") comparisons.push_back(compare_training<LeNet>("lenet", options));
  for (const Comparison& each : comparisons) std::cout << (&each == comparisons.data() ? "" : "\n") << each;
  if (!options.json.empty()) write_json(options.json, comparisons);
  if (!options.html.empty()) write_html(options.html, comparisons);
}

}  // namespace

void add_compare(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("compare", "runs a training step eagerly, replayed, compiled without fusion and compiled");
  const auto options = std::make_shared<Options>();
  command->add_option("program", options->program, "mlp, lenet, or mnist for both")
      ->required()
      ->check(CLI::IsMember({"mlp", "lenet", "mnist"}));
  command->add_option("--data", options->data, "folder with the four files of MNIST; without it digits are drawn")
      ->envname("TANDEM_DATA");
  command->add_option("--steps", options->steps, "steps timed in each way")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--batch", options->batch, "images in a batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--device", options->device, "cpu, cuda or cuda:N")->capture_default_str();
  command->add_option("--seed", options->seed, "of weights, dropout and drawn digits")->capture_default_str();
  command->add_option("--html", options->html, "file for the report with pictures");
  command->add_option("--json", options->json, "file for the numbers");
  command->callback([options] { run(*options); });
}

}  // namespace tandem::tools
