// Trains a residual network (He et al. 2016, arXiv:1512.03385) on small colour photographs of ten kinds of things.
//
//   cifar --data data/cifar10 --layers 8 --epochs 10
//
// Without --data or TANDEM_CIFAR it trains on coloured shapes that it draws itself.
#include <tandem/tandem.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace td = tandem;
namespace nn = tandem::nn;
namespace io = tandem::io;

/// Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes.
struct Block {
  int64_t in = 0, out = 0, stride = 1;
  nn::Conv2d first{in, out, 3, {.stride = stride, .padding = 1, .bias = false}};
  nn::BatchNorm2d first_norm{out};
  nn::Conv2d second{out, out, 3, {.padding = 1, .bias = false}};
  nn::BatchNorm2d second_norm{out};
  std::optional<nn::Conv2d> shortcut =
      in == out ? std::nullopt : std::optional<nn::Conv2d>({in, out, 1, {.stride = stride, .bias = false}});

  td::Tensor operator()(const td::Tensor& x) const {
    const td::Tensor y = second_norm(second(relu(first_norm(first(x)))));
    return relu(y + (shortcut ? (*shortcut)(x) : x));
  }
};

/// layers = 2 + 2 blocks, in three stages of width, 2 width and 4 width channels.
struct ResNet {
  int64_t layers = 8, width = 32;
  nn::Conv2d stem{3, width, 3, {.padding = 1, .bias = false}};
  nn::BatchNorm2d norm{width};
  std::vector<Block> blocks = make_blocks();
  nn::Linear output{4 * width, 10};

  td::Tensor operator()(td::Tensor x) const {
    x = relu(norm(stem(x)));
    for (const Block& block : blocks) x = block(x);
    return output(x.mean({2, 3}));
  }

 private:
  std::vector<Block> make_blocks() const {
    std::vector<Block> made;
    const int64_t count = (layers - 2) / 2;
    for (int64_t i = 0, in = width; i < count; ++i) {
      const int64_t stage = 3 * i / count, out = width << stage;
      made.push_back(Block{.in = in, .out = out, .stride = in == out ? 1 : 2});
      in = out;
    }
    return made;
  }
};

io::LabelledImages pictures(const std::string& data, io::Split split, uint64_t seed) {
  const bool training = split == io::Split::train;
  if (data.empty()) return io::SyntheticShapes({.split = split, .seed = seed});
  return io::Cifar10(data, {.split = split,
                            .augmentation = training ? io::ImageAugmentation{.crop_padding = 4, .horizontal_flip = true}
                                                     : io::ImageAugmentation{}});
}

int main(int argc, char** argv) {
  std::string mode = "compiled", device_name = "cpu", data, save = "cifar.safetensors", losses;
  int64_t layers = 8, width = 32, steps = 0, epochs = 5, batch = 64, held_out_pictures = 0;
  uint64_t seed = 1;
  double lr = 0.05;
  if (const char* folder = std::getenv("TANDEM_CIFAR")) data = folder;
  CLI::App app{"Trains a residual network on CIFAR-10 and prints its accuracy on the held-out pictures."};
  app.add_option("--data", data, "folder with CIFAR-10's binary files (default: TANDEM_CIFAR; else shapes are drawn)");
  app.add_option("--layers", layers, "8, 10, … 18")->check(CLI::Range(8, 18))->capture_default_str();
  app.add_option("--width", width, "channels of the first stage")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--mode", mode, "eager, replay or compiled")->capture_default_str();
  app.add_option("--device", device_name, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--epochs", epochs, "times to go over the data")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--steps", steps, "batches to train on, instead of --epochs");
  app.add_option("--batch", batch, "pictures in a batch")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--lr", lr, "learning rate at its highest")->capture_default_str();
  app.add_option("--seed", seed, "of weights, order and augmentation")->capture_default_str();
  app.add_option("--save", save, "file for the weights; empty: none")->capture_default_str();
  app.add_option("--losses", losses, "file to write each step's loss to, a line each");
  app.add_option("--held-out", held_out_pictures, "pictures to measure on, instead of all");
  CLI11_PARSE(app, argc, argv);
  try {
    const td::Device device = td::parse_device(device_name);
    td::manual_seed(seed);
    if (data.empty()) std::puts("(no --data or TANDEM_CIFAR: trains on shapes that this program draws)");
    const io::LabelledImages training = pictures(data, io::Split::train, seed),
                             held_out = pictures(data, io::Split::test, seed);
    io::Loader loader(training, {.batch_size = batch, .shuffle = true, .drop_last = true, .workers = 1, .seed = seed});
    if (steps <= 0) steps = epochs * loader.size();

    ResNet model{.layers = layers, .width = width};
    nn::to(model, device);
    nn::optim::Sgd optimizer(nn::parameters(model),
                             {.lr = lr, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true});
    nn::optim::CosineSchedule schedule(optimizer, {.steps = steps, .warmup = std::min<int64_t>(steps / 10, 200)});
    auto step = td::compile(
        [&](const td::Tensor& images, const td::Tensor& labels) {
          optimizer.zero_grad();
          td::Tensor loss = cross_entropy(model(images), labels);
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
        progress.update({{"loss", step(images.to(device), labels.to(device))}});
        schedule.step();
        if (++done == steps) break;
      }
    }
    if (!save.empty()) nn::save(model, save);

    nn::eval(model);
    td::NoGrad guard;
    int64_t correct = 0, seen = 0;
    if (held_out_pictures <= 0) held_out_pictures = held_out.size();
    for (auto& [images, labels] : io::Loader(held_out, {.batch_size = std::min<int64_t>(250, held_out_pictures)})) {
      correct += (model(images.to(device)).argmax(1).cpu() == labels).sum().item<int64_t>();
      if ((seen += labels.numel()) >= held_out_pictures) break;
    }
    std::printf("accuracy %.4f\n", double(correct) / double(seen));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
