// A variational autoencoder (Kingma, Welling 2014, arXiv:1312.6114) of handwritten digits: learns to draw them from 20
// numbers. Writes digits that it made up to an image file.
//
//   vae --data data/mnist --epochs 20
#include <tandem/tandem.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace td = tandem;
namespace nn = tandem::nn;
namespace io = tandem::io;

struct Vae {
  int64_t latent = 20;
  nn::Linear read{784, 400}, mean{400, latent}, log_variance{400, latent};
  nn::Linear write{latent, 400}, pixels{400, 784};

  struct Result {
    td::Tensor logits, mean, log_variance;
  };
  Result operator()(const td::Tensor& images) const {
    const td::Tensor hidden = relu(read(images));
    const td::Tensor m = mean(hidden), v = log_variance(hidden);
    return {decode(m + exp(v * 0.5) * randn_like(m)), m, v};
  }
  td::Tensor decode(const td::Tensor& z) const { return pixels(relu(write(z))); }
};

/// The negative evidence lower bound of an image, in nats (appendix B of the paper for the divergence).
td::Tensor negative_bound(const Vae::Result& result, const td::Tensor& images) {
  const td::Tensor reconstruction = bce_with_logits(result.logits, images, {.reduction = td::Reduction::sum});
  const td::Tensor divergence = (square(result.mean) + exp(result.log_variance) - 1 - result.log_variance).sum() * 0.5;
  return (reconstruction + divergence) / double(images.shape()[0]);
}

int main(int argc, char** argv) {
  std::string mode = "compiled", device_name = "cpu", data, save = "vae.safetensors", losses, picture = "vae.pgm";
  int64_t steps = 0, epochs = 5, batch = 128, held_out = 0;
  uint64_t seed = 1;
  double lr = 1e-3;
  if (const char* folder = std::getenv("TANDEM_DATA")) data = folder;
  CLI::App app{"Trains a variational autoencoder on handwritten digits and prints the bound on held-out ones."};
  app.add_option("--data", data, "folder with the four files of MNIST (default: TANDEM_DATA; else digits are drawn)");
  app.add_option("--mode", mode, "eager, replay or compiled")->capture_default_str();
  app.add_option("--device", device_name, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--epochs", epochs, "times to go over the data")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--steps", steps, "batches to train on, instead of --epochs");
  app.add_option("--batch", batch, "images in a batch")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--lr", lr, "learning rate")->capture_default_str();
  app.add_option("--seed", seed, "of weights, order and noise")->capture_default_str();
  app.add_option("--save", save, "file for the weights; empty: none")->capture_default_str();
  app.add_option("--picture", picture, "file for digits that it makes up; empty: none")->capture_default_str();
  app.add_option("--losses", losses, "file to write each step's loss to, a line each");
  app.add_option("--held-out", held_out, "digits to measure on, instead of all");
  CLI11_PARSE(app, argc, argv);
  try {
    const td::Device device = td::parse_device(device_name);
    td::manual_seed(seed);
    const auto digits = [&](io::Split split) -> io::LabelledImages {
      if (!data.empty()) return io::Mnist(data, {.split = split, .scaling = {}});
      return io::SyntheticDigits({.split = split, .seed = seed, .scaling = {}});
    };
    if (data.empty()) std::puts("(no --data or TANDEM_DATA: the digits are drawn by this program)");
    io::Loader loader(digits(io::Split::train),
                      {.batch_size = batch, .shuffle = true, .drop_last = true, .workers = 1, .seed = seed});
    if (steps <= 0) steps = epochs * loader.size();

    Vae model;
    nn::to(model, device);
    nn::optim::Adam optimizer(nn::parameters(model), {.lr = lr});
    auto step = td::compile(
        [&](const td::Tensor& images) {
          optimizer.zero_grad();
          td::Tensor loss = negative_bound(model(images), images);
          loss.backward();
          optimizer.step();
          return loss;
        },
        {.mode = td::parse_mode(mode)});

    std::ofstream log;
    if (!losses.empty()) log.open(losses);
    for (int64_t epoch = 0, done = 0; done < steps; ++epoch) {
      td::Progress progress(std::min(loader.size(), steps - done), "epoch " + std::to_string(epoch),
                            {.log = losses.empty() ? nullptr : &log});
      for (auto& [images, labels] : loader) {
        progress.update({{"nats", step(images.flatten(1).to(device))}});
        if (++done == steps) break;
      }
    }
    if (!save.empty()) nn::save(model, save);

    td::NoGrad guard;
    if (!picture.empty()) {
      const td::Tensor made_up = sigmoid(model.decode(td::randn({64, model.latent}, {.device = device})));
      io::write_image_grid(picture, made_up.cpu().reshape({64, 1, 28, 28}), {.columns = 8});
      std::printf("digits that it made up: %s\n", picture.c_str());
    }
    const io::LabelledImages test = digits(io::Split::test);
    if (held_out <= 0) held_out = test.size();
    double total = 0, count = 0;
    for (auto& [images, labels] : io::Loader(test, {.batch_size = std::min<int64_t>(500, held_out)})) {
      const td::Tensor x = images.flatten(1).to(device);
      total += negative_bound(model(x), x).item<float>() * double(x.shape()[0]);
      count += double(x.shape()[0]);
      if (count >= double(held_out)) break;
    }
    std::printf("held-out bound %.2f nats an image\n", total / count);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
