// A recurrent network over bytes (an LSTM; Karpathy 2015, "The unreasonable effectiveness of recurrent neural
// networks"): trains on any text, then writes some of its own, carrying its state from byte to byte.
//
//   char_rnn --data input.txt --steps 500 --prompt "ROMEO:"
//
// Without --data or TANDEM_TEXT it trains on sentences that it makes up.
#include <tandem/tandem.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace td = tandem;
namespace nn = tandem::nn;
namespace io = tandem::io;

struct CharRnn {
  int64_t width = 256, layers = 2;
  double dropout = 0;
  nn::Embedding token{256, 64};
  nn::Lstm lstm{64, width, {.layers = layers, .batch_first = true, .dropout = dropout}};
  nn::Linear output{width, 256};

  /// ids [batch, time] to logits [batch, time, 256], and the state after them.
  std::pair<td::Tensor, td::LstmState> operator()(const td::Tensor& ids, const td::LstmState& state = {}) const {
    const auto [hidden, next] = lstm(token(ids), state);
    return {output(hidden), next};
  }
};

/// Mean nats per byte over `limit` windows of a data set at most.
double nats_per_byte(const CharRnn& model, const io::ByteText& text, td::Device device, int64_t limit) {
  td::NoGrad guard;
  double total = 0;
  int64_t batches = 0;
  for (auto& [inputs, targets] : io::Loader(text, {.batch_size = std::min<int64_t>(16, limit)})) {
    total += cross_entropy(model(inputs.to(device)).first.flatten(0, 1), targets.to(device).flatten()).item<float>();
    if (++batches * 16 >= limit) break;
  }
  return total / double(std::max<int64_t>(batches, 1));
}

/// `count` bytes that follow the prompt, drawn from the model one by one.
std::string write_text(const CharRnn& model, std::string text, int64_t count, double temperature, td::Device device) {
  td::NoGrad guard;
  const std::vector<uint8_t> prompt(text.begin(), text.end());
  auto [logits, state] = model(td::tensor(prompt).to(td::int64).reshape({1, -1}).to(device));
  for (int64_t i = 0; i < count; ++i) {
    const td::Tensor next = td::multinomial(softmax(logits.select(1, -1).select(0, 0) / temperature), 1);
    text += static_cast<char>(next.item<int64_t>());
    std::tie(logits, state) = model(next.reshape({1, 1}), state);
  }
  return text;
}

int main(int argc, char** argv) {
  std::string mode = "compiled", device_name = "cpu", save = "char_rnn.safetensors", losses, prompt = "\n";
  std::vector<std::string> data;
  int64_t layers = 2, width = 256, context = 64, steps = 500, batch = 32, length = 400, held_out_windows = 512;
  uint64_t seed = 1;
  double lr = 4e-3, dropout = 0, temperature = 0.8;
  if (const char* file = std::getenv("TANDEM_TEXT")) data = {file};
  CLI::App app{"Trains a byte-level LSTM on text, prints nats per byte on held-out text, and writes some."};
  app.add_option("--data", data, "text files, or a folder of them (default: TANDEM_TEXT; else made-up sentences)");
  app.add_option("--mode", mode, "eager, replay or compiled")->capture_default_str();
  app.add_option("--device", device_name, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--layers", layers, "of LSTM")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--width", width, "of the hidden state")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--context", context, "bytes in a window")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--dropout", dropout, "between layers")->check(CLI::Range(0.0, 0.9))->capture_default_str();
  app.add_option("--steps", steps, "batches to train on")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--batch", batch, "windows in a batch")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--lr", lr, "learning rate at its highest")->capture_default_str();
  app.add_option("--prompt", prompt, "what the sample starts with")->capture_default_str();
  app.add_option("--length", length, "bytes to write")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--temperature", temperature, "of sampling")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seed", seed, "of weights, windows and the sample")->capture_default_str();
  app.add_option("--save", save, "file for the weights; empty: none")->capture_default_str();
  app.add_option("--losses", losses, "file to write each step's loss to, a line each");
  app.add_option("--held-out", held_out_windows, "windows of held-out text to measure on")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const td::Device device = td::parse_device(device_name);
    td::manual_seed(seed);
    if (data.empty()) std::puts("(no --data or TANDEM_TEXT: trains on sentences that this program makes up)");
    const auto text = [&](io::Split split, io::Windows windows) {
      const io::ByteTextOptions options{.context = context,
                                        .windows = windows,
                                        .split = split,
                                        .samples = windows == io::Windows::random ? steps * batch : 0};
      return data.empty() ? io::ByteText::of(io::synthetic_text(), options) : io::ByteText(data, options);
    };
    const io::ByteText training = text(io::Split::train, io::Windows::random),
                       held_out = text(io::Split::test, io::Windows::sequential);

    CharRnn model{.width = width, .layers = layers, .dropout = dropout};
    nn::to(model, device);
    nn::optim::AdamW optimizer(nn::parameters(model), {.lr = lr, .weight_decay = 1e-2});
    nn::optim::CosineSchedule schedule(
        optimizer, {.steps = steps, .warmup = std::min<int64_t>(steps / 10, 50), .minimum = lr / 20});
    auto step = td::compile(
        [&](const td::Tensor& inputs, const td::Tensor& targets) {
          optimizer.zero_grad();
          td::Tensor loss = cross_entropy(model(inputs).first.flatten(0, 1), targets.flatten());
          loss.backward();
          nn::clip_grad_norm(nn::parameters(model), 1.0);
          optimizer.step();
          return loss;
        },
        {.mode = td::parse_mode(mode)});
    std::ofstream log;
    if (!losses.empty()) log.open(losses);
    {
      td::Progress progress(steps, "train", {.log = losses.empty() ? nullptr : &log});
      for (auto& [inputs, targets] : io::Loader(training, {.batch_size = batch, .workers = 1, .seed = seed})) {
        progress.update({{"nats", step(inputs.to(device), targets.to(device))}});
        schedule.step();
      }
    }
    if (!save.empty()) nn::save(model, save);
    nn::eval(model);
    if (length > 0) std::printf("%s\n----\n", write_text(model, prompt, length, temperature, device).c_str());
    const double nats = nats_per_byte(model, held_out, device, held_out_windows);
    std::printf("held-out %.4f nats per byte (%.4f bits)\n", nats, nats / std::log(2.0));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
