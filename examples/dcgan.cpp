// A generative adversarial network of convolutions (Radford, Metz, Chintala 2016, arXiv:1511.06434) on handwritten
// digits: one network draws digits, another tells them from real ones, and each learns from the other. Both steps
// are one function, so that graph modes see them as one graph.
//
//   dcgan --data data/mnist --epochs 5
#include <tandem/tandem.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace td = tandem;
namespace nn = tandem::nn;
namespace io = tandem::io;

constexpr int64_t kLatent = 64;

/// Noise [batch, kLatent] to images [batch, 1, 28, 28] in (-1, 1).
struct Generator {
  nn::Linear project{kLatent, 128 * 7 * 7};
  nn::BatchNorm2d norm0{128};
  nn::ConvTranspose2d up1{128, 64, 4, {.stride = 2, .padding = 1}};
  nn::BatchNorm2d norm1{64};
  nn::ConvTranspose2d up2{64, 1, 4, {.stride = 2, .padding = 1}};

  td::Tensor operator()(const td::Tensor& noise) const {
    const td::Tensor x = relu(norm0(project(noise).reshape({-1, 128, 7, 7})));
    return tanh(up2(relu(norm1(up1(x)))));
  }
};

/// Images to the logit of their being real, [batch].
struct Discriminator {
  nn::Conv2d down1{1, 64, 4, {.stride = 2, .padding = 1}};
  nn::Conv2d down2{64, 128, 4, {.stride = 2, .padding = 1}};
  nn::BatchNorm2d norm{128};
  nn::Linear judge{128 * 7 * 7, 1};

  td::Tensor operator()(const td::Tensor& images) const {
    const td::Tensor x = leaky_relu(norm(down2(leaky_relu(down1(images), 0.2))), 0.2);
    return judge(x.flatten(1)).flatten();
  }
};

int main(int argc, char** argv) {
  std::string mode = "compiled", device_name = "cpu", data, save = "dcgan.safetensors", losses, picture = "dcgan.pgm";
  int64_t steps = 0, epochs = 3, batch = 64;
  uint64_t seed = 1;
  double lr = 2e-4;
  if (const char* folder = std::getenv("TANDEM_DATA")) data = folder;
  CLI::App app{"Trains a generator and a discriminator of handwritten digits against each other."};
  app.add_option("--data", data, "folder with the four files of MNIST (default: TANDEM_DATA; else digits are drawn)");
  app.add_option("--mode", mode, "eager, replay or compiled")->capture_default_str();
  app.add_option("--device", device_name, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--epochs", epochs, "times to go over the data")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--steps", steps, "batches to train on, instead of --epochs");
  app.add_option("--batch", batch, "images in a batch")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--lr", lr, "learning rate of both")->capture_default_str();
  app.add_option("--seed", seed, "of weights, order and noise")->capture_default_str();
  app.add_option("--save", save, "file for the generator's weights; empty: none")->capture_default_str();
  app.add_option("--picture", picture, "file for digits that it makes up; empty: none")->capture_default_str();
  app.add_option("--losses", losses, "file to write each step's losses to, of judging and of drawing");
  CLI11_PARSE(app, argc, argv);
  try {
    const td::Device device = td::parse_device(device_name);
    td::manual_seed(seed);
    io::LabelledImages digits =
        data.empty() ? io::LabelledImages(io::SyntheticDigits({.split = io::Split::train, .seed = seed, .scaling = {}}))
                     : io::LabelledImages(io::Mnist(data, {.split = io::Split::train, .scaling = {}}));
    if (data.empty()) std::puts("(no --data or TANDEM_DATA: the digits are drawn by this program)");
    io::Loader loader(digits, {.batch_size = batch, .shuffle = true, .drop_last = true, .workers = 1, .seed = seed});
    if (steps <= 0) steps = epochs * loader.size();

    Generator generator;
    Discriminator discriminator;
    nn::to(generator, device);
    nn::to(discriminator, device);
    nn::optim::Adam generator_optimizer(nn::parameters(generator), {.lr = lr, .beta1 = 0.5});
    nn::optim::Adam discriminator_optimizer(nn::parameters(discriminator), {.lr = lr, .beta1 = 0.5});
    auto step = td::compile(
        [&](const td::Tensor& real) {
          const int64_t count = real.shape()[0];
          const td::Tensor drawn = generator(td::randn({count, kLatent}, {.device = device}));
          // The discriminator: real ones are 1, drawn ones 0.
          discriminator_optimizer.zero_grad();
          const td::Tensor on_real = discriminator(real), on_drawn = discriminator(drawn.detach());
          td::Tensor judging =
              bce_with_logits(on_real, ones_like(on_real)) + bce_with_logits(on_drawn, zeros_like(on_drawn));
          judging.backward();
          discriminator_optimizer.step();
          // The generator: drawn ones are to be taken for real.
          generator_optimizer.zero_grad();
          const td::Tensor verdict = discriminator(drawn);
          td::Tensor drawing = bce_with_logits(verdict, ones_like(verdict));
          drawing.backward();
          generator_optimizer.step();
          return std::pair{judging, drawing};
        },
        {.mode = td::parse_mode(mode)});

    double judged = 0, drew = 0;
    std::ofstream log;
    if (!losses.empty()) log.open(losses);
    for (int64_t epoch = 0, done = 0; done < steps; ++epoch) {
      td::Progress progress(std::min(loader.size(), steps - done), "epoch " + std::to_string(epoch),
                            {.log = losses.empty() ? nullptr : &log});
      for (auto& [images, labels] : loader) {
        const auto [judging, drawing] = step((images * 2 - 1).to(device));
        progress.update({{"judging", judging}, {"drawing", drawing}});
        if (++done == steps) {
          judged = judging.item<float>(), drew = drawing.item<float>();
          break;
        }
      }
    }
    if (!save.empty()) nn::save(generator, save);
    if (!picture.empty()) {
      nn::eval(generator);
      td::NoGrad guard;
      const td::Tensor made_up = generator(td::randn({64, kLatent}, {.device = device}));
      io::write_image_grid(picture, (made_up.cpu() + 1) * 0.5, {.columns = 8});
      std::printf("digits that it made up: %s\n", picture.c_str());
    }
    std::printf("loss of judging %.4f (1.39 is guessing), of drawing %.4f\n", judged, drew);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
