// A small GPT (Radford et al. 2019) over bytes: trains on any text, then writes some of its own.
//
//   gpt --data input.txt --steps 500 --prompt "ROMEO:"
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

struct Gpt {
  int64_t layers = 4, width = 128, heads = 4, context = 128;
  double dropout = 0;
  nn::Embedding token{256, width}, position{context, width};
  std::vector<nn::TransformerBlock> blocks = make_blocks();
  nn::LayerNorm norm{width};
  nn::Linear output{width, 256, {.bias = false}};

  /// ids [batch, time] to logits [batch, time, 256].
  td::Tensor operator()(const td::Tensor& ids) const {
    td::Tensor x =
        token(ids) + position(td::arange(0, ids.shape()[1], 1, {.dtype = td::int64, .device = ids.device()}));
    for (const nn::TransformerBlock& block : blocks) x = block(x);
    return output(norm(x));
  }

  /// The same of new bytes behind those that the caches, one for each block, have seen.
  td::Tensor operator()(const td::Tensor& ids, std::vector<nn::KeyValueCache>& caches) const {
    const td::Tensor places =
        caches[0].length + td::arange(0, ids.shape()[1], 1, {.dtype = td::int64, .device = ids.device()});
    td::Tensor x = token(ids) + position(places);
    for (size_t i = 0; i < blocks.size(); ++i) x = blocks[i](x, caches[i]);
    return output(norm(x));
  }

 private:
  std::vector<nn::TransformerBlock> make_blocks() const {
    std::vector<nn::TransformerBlock> made;
    for (int64_t i = 0; i < layers; ++i)
      made.emplace_back(width, heads, nn::TransformerBlockOptions{.dropout = dropout, .causal = true});
    return made;
  }
};

/// Mean nats per byte over `limit` windows of a data set at most.
double nats_per_byte(const Gpt& model, const io::ByteText& text, td::Device device, int64_t limit) {
  td::NoGrad guard;
  double total = 0;
  int64_t batches = 0;
  for (auto& [inputs, targets] : io::Loader(text, {.batch_size = std::min<int64_t>(16, limit)})) {
    total += cross_entropy(model(inputs.to(device)).flatten(0, 1), targets.to(device).flatten()).item<float>();
    if (++batches * 16 >= limit) break;
  }
  return total / double(std::max<int64_t>(batches, 1));
}

/// `count` bytes that follow the prompt, drawn from the model one by one. With `cached`, keys and values of bytes before are
/// kept, until the text outgrows the context: from then on every position moves with each byte.
std::string write_text(const Gpt& model, std::string text, int64_t count, double temperature, td::Device device,
                       bool cached) {
  td::NoGrad guard;
  std::vector<nn::KeyValueCache> caches;
  for (const nn::TransformerBlock& block : model.blocks) caches.push_back(block.make_cache({1}, model.context));
  size_t seen = 0;  // bytes that the caches hold
  for (int64_t i = 0; i < count; ++i) {
    const bool fits = cached && text.size() <= static_cast<size_t>(model.context);
    const size_t known = fits ? text.size() - seen : std::min(text.size(), static_cast<size_t>(model.context));
    const std::vector<uint8_t> bytes(text.end() - static_cast<std::ptrdiff_t>(known), text.end());
    const td::Tensor ids = td::tensor(bytes).to(td::int64).reshape({1, -1}).to(device);
    const td::Tensor logits = (fits ? model(ids, caches) : model(ids)).select(1, -1).select(0, 0);
    seen = text.size();
    text += static_cast<char>(td::multinomial(softmax(logits / temperature), 1).item<int64_t>());
  }
  return text;
}

int main(int argc, char** argv) {
  std::string mode = "compiled", device_name = "cpu", save = "gpt.safetensors", losses, prompt = "\n";
  std::vector<std::string> data;
  int64_t layers = 4, width = 128, heads = 4, context = 128, steps = 500, batch = 16, length = 400,
          held_out_windows = 512;
  uint64_t seed = 1;
  double lr = 4e-3, dropout = 0, temperature = 0.8;
  bool uncached = false;
  if (const char* file = std::getenv("TANDEM_TEXT")) data = {file};
  CLI::App app{"Trains a byte-level GPT on text, prints nats per byte on held-out text, and writes some."};
  app.add_option("--data", data, "text files, or a folder of them (default: TANDEM_TEXT; else made-up sentences)");
  app.add_option("--mode", mode, "eager, replay or compiled")->capture_default_str();
  app.add_option("--device", device_name, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--layers", layers, "transformer blocks")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--width", width, "of the residual stream")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--heads", heads, "of attention")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--context", context, "bytes that it sees")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--dropout", dropout, "probability")->check(CLI::Range(0.0, 0.9))->capture_default_str();
  app.add_option("--steps", steps, "batches to train on")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--batch", batch, "windows in a batch")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--lr", lr, "learning rate at its highest")->capture_default_str();
  app.add_option("--prompt", prompt, "what the sample starts with")->capture_default_str();
  app.add_option("--length", length, "bytes to write")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--temperature", temperature, "of sampling")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_flag("--uncached", uncached, "attend to the whole text again for each byte that is written");
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

    Gpt model{.layers = layers, .width = width, .heads = heads, .context = context, .dropout = dropout};
    nn::to(model, device);
    int64_t parameters = 0;
    for (const td::Tensor& parameter : nn::parameters(model)) parameters += parameter.numel();
    std::printf("%lld parameters, %zu bytes of text\n", static_cast<long long>(parameters), training.bytes().size());
    std::fflush(stdout);
    nn::optim::AdamW optimizer(nn::parameters(model), {.lr = lr, .beta2 = 0.95, .weight_decay = 0.1});
    nn::optim::CosineSchedule schedule(
        optimizer, {.steps = steps, .warmup = std::min<int64_t>(steps / 10, 100), .minimum = lr / 10});
    auto step = td::compile(
        [&](const td::Tensor& inputs, const td::Tensor& targets) {
          optimizer.zero_grad();
          td::Tensor loss = cross_entropy(model(inputs).flatten(0, 1), targets.flatten());
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
    if (length > 0)
      std::printf("%s\n----\n", write_text(model, prompt, length, temperature, device, !uncached).c_str());
    const double nats = nats_per_byte(model, held_out, device, held_out_windows);
    std::printf("held-out %.4f nats per byte (%.4f bits)\n", nats, nats / std::log(2.0));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
