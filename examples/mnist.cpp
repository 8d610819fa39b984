// Trains an MLP or a LeNet on handwritten digits, in any of the three modes.
//
//   mnist --model lenet --mode compiled --data data/mnist
//
// Without --data or TANDEM_DATA it trains on digits that it draws itself.
#include <tandem/tandem.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace td = tandem;
namespace nn = tandem::nn;
namespace io = tandem::io;

struct Mlp {
  nn::Linear first{784, 256};
  nn::Linear second{256, 128};
  nn::Linear output{128, 10};

  td::Tensor operator()(const td::Tensor& x) const { return output(relu(second(relu(first(x.flatten(1)))))); }
};

struct LeNet {
  nn::Conv2d first{1, 8, 5, {.padding = 2}};
  nn::Conv2d second{8, 16, 5};
  nn::Linear hidden{16 * 5 * 5, 120};
  nn::Dropout drop{0.1};
  nn::Linear output{120, 10};

  td::Tensor operator()(td::Tensor x) const {
    x = max_pool2d(relu(first(x)), 2);
    x = max_pool2d(relu(second(x)), 2);
    return output(drop(relu(hidden(x.flatten(1)))));
  }
};

struct Options {
  std::string model = "mlp", data, device = "cpu", mode = "compiled", losses;
  uint64_t seed = 1;
  int64_t steps = 0, epochs = 5, batch = 64, held_out = 0;
  double lr = 2e-3;
};

io::LabelledImages digits(const Options& options, io::Split split) {
  if (!options.data.empty()) return io::Mnist(options.data, {.split = split});
  return io::SyntheticDigits({.split = split, .seed = options.seed});
}

template <class Model> void run(const Options& options) {
  const td::Mode mode = td::parse_mode(options.mode);
  const td::Device device = td::parse_device(options.device);
  td::manual_seed(options.seed);

  const io::LabelledImages training = digits(options, io::Split::train), held_out = digits(options, io::Split::test);
  std::printf("%s on %lld %s digits, %s, %s\n", options.model.c_str(), static_cast<long long>(training.size()),
              options.data.empty() ? "drawn" : "handwritten", options.device.c_str(), options.mode.c_str());
  if (options.data.empty()) std::puts("(no --data or TANDEM_DATA: the digits are drawn by this program)");
  std::fflush(stdout);

  Model model;
  nn::to(model, device);
  io::Loader loader(
      training, {.batch_size = options.batch, .shuffle = true, .drop_last = true, .workers = 1, .seed = options.seed});
  const int64_t steps = options.steps > 0 ? options.steps : options.epochs * loader.size();
  nn::optim::AdamW optimizer(nn::parameters(model), {.lr = options.lr, .weight_decay = 1e-2});
  nn::optim::CosineSchedule schedule(optimizer, {.steps = steps, .warmup = std::min<int64_t>(20, steps)});

  auto step = td::compile(
      [&](const td::Tensor& images, const td::Tensor& labels) {
        optimizer.zero_grad();
        td::Tensor loss = cross_entropy(model(images), labels);
        loss.backward();
        nn::clip_grad_norm(nn::parameters(model), 1.0);
        optimizer.step();
        return loss;
      },
      {.mode = mode});

  std::ofstream log;
  if (!options.losses.empty()) log.open(options.losses);
  for (int64_t epoch = 0, done = 0; done < steps; ++epoch) {
    td::Progress progress(std::min(loader.size(), steps - done), "epoch " + std::to_string(epoch),
                          {.log = options.losses.empty() ? nullptr : &log});
    for (auto& [images, labels] : loader) {
      td::Tensor loss = step(images.to(device), labels.to(device));
      schedule.step();  // the rate is state: no retrace
      progress.update({{"loss", loss}});
      if (++done == steps) break;
    }
  }

  nn::eval(model);  // dropout off
  td::NoGrad guard;
  auto predict = td::compile([&](const td::Tensor& images) { return model(images).argmax(1); }, {.mode = mode});
  const int64_t limit = options.held_out > 0 ? options.held_out : held_out.size();
  int64_t correct = 0, seen = 0;
  for (auto& [images, labels] : io::Loader(held_out, {.batch_size = std::min<int64_t>(500, limit)})) {
    correct += (predict(images.to(device)).cpu() == labels).sum().template item<int64_t>();
    if ((seen += labels.numel()) >= limit) break;
  }
  std::printf("accuracy %.4f\n", double(correct) / double(seen));
}

int main(int argc, char** argv) {
  Options options;
  if (const char* data = std::getenv("TANDEM_DATA")) options.data = data;
  CLI::App app{"Trains a network on handwritten digits and prints its accuracy on held-out ones."};
  app.add_option("--model", options.model, "mlp or lenet")
      ->check(CLI::IsMember({"mlp", "lenet"}))
      ->capture_default_str();
  app.add_option("--data", options.data, "folder with the four files of MNIST (default: TANDEM_DATA)");
  app.add_option("--device", options.device, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--mode", options.mode, "eager, replay or compiled")->capture_default_str();
  app.add_option("--seed", options.seed, "of weights, order, dropout and drawn digits")->capture_default_str();
  app.add_option("--epochs", options.epochs, "times to go over the data")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--steps", options.steps, "batches to train on, instead of --epochs");
  app.add_option("--batch", options.batch, "images in a batch")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--lr", options.lr, "learning rate, before the schedule")->capture_default_str();
  app.add_option("--losses", options.losses, "file to write each step's loss to, a line each");
  app.add_option("--held-out", options.held_out, "digits to measure on, instead of all");
  CLI11_PARSE(app, argc, argv);
  try {
    if (options.model == "mlp") run<Mlp>(options);
    else run<LeNet>(options);
  } catch (const td::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
