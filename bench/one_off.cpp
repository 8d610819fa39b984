// What the first step of a training costs once, by part: a table. docs/performance.md has one.
//
//   one_off [NETWORK]...        all unless given
//
// Cold: nothing in the kernel cache. Warm: the code is there. Beside: {.wait = false}, cold: the first step, and the seconds
// until the code has taken over. Medians of three. gpt4, gpt12 and gpt48 have so many layers, and a batch of 1.
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "bench/networks.h"
#include "graph/native/system_compiler.h"

namespace {

namespace td = tandem;
namespace nn = tandem::nn;
using networks::Gpt, networks::LeNet, networks::Mlp, networks::ResNet8, networks::TextModel;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Costs {
  double first = 0, trace = 0, passes = 0, emission = 0, compiler = 0, later = 0, taken_over = 0;
  size_t functions = 0, bytes = 0;
};

/// The first steps of a new function.
template <class Model, class Optimizer>
Costs steps_of(Model& model, Optimizer& optimizer, const td::Tensor& x, const td::Tensor& y, bool wait) {
  td::graph::testing::forget_loaded_libraries();
  auto step = td::compile(
      [&](const td::Tensor& inputs, const td::Tensor& labels) {
        optimizer.zero_grad();
        td::Tensor loss = cross_entropy(model(inputs), labels);
        loss.backward();
        optimizer.step();
        return loss;
      },
      {.wait = wait});
  Costs costs;
  const double begin = now();
  step(x, y);
  costs.first = now() - begin;
  if (!wait) {
    step.wait();
    step(x, y);
    costs.taken_over = now() - begin;
  }
  const td::Stats stats = step.stats();
  costs.trace = stats.trace_seconds;
  costs.passes = stats.pass_seconds;
  costs.emission = stats.emit_seconds;
  costs.compiler = stats.compiler_seconds;
  step(x, y);  // grad() is there from the second call on: another trace
  costs.later = 1e9;
  for (int i = 0; i < 3; ++i) {
    const double start = now();
    step(x, y);
    costs.later = std::min(costs.later, now() - start);
  }
  const std::string source = step.source();
  costs.bytes = source.size();
  for (size_t at = 0; (at = source.find("\nvoid ", at)) != std::string::npos; ++at) ++costs.functions;
  return costs;
}

double median(std::vector<Costs> all, double Costs::*part) {
  std::sort(all.begin(), all.end(), [&](const Costs& a, const Costs& b) { return a.*part < b.*part; });
  return all[all.size() / 2].*part;
}

/// A fresh cache for as long as it lives.
struct EmptyCache {
  std::string folder = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "tandem-one-off-XXXXXX").string();
    return std::string(mkdtemp(pattern.data()));
  }();
  EmptyCache() { setenv("TANDEM_CACHE_DIR", folder.c_str(), 1); }
  ~EmptyCache() { std::filesystem::remove_all(folder); }
};

template <class Model, class Optimizer>
void measure(const char* name, Model& model, Optimizer&& optimizer, const td::Tensor& x, const td::Tensor& y) {
  model(x);  // libraries make what they make once
  std::vector<Costs> cold, warm, beside;
  for (int i = 0; i < 3; ++i) {
    const auto fresh = [&] {
      for (td::Tensor& each : nn::parameters(model)) each.set_grad({});
    };
    {
      const EmptyCache cache;
      fresh();
      cold.push_back(steps_of(model, optimizer, x, y, true));
      fresh();
      warm.push_back(steps_of(model, optimizer, x, y, true));
    }
    const EmptyCache cache;
    fresh();
    beside.push_back(steps_of(model, optimizer, x, y, false));
  }
  std::printf("| %s | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %zu | %.0f |\n", name,
              median(cold, &Costs::first), median(cold, &Costs::trace), median(cold, &Costs::passes),
              median(cold, &Costs::emission), median(cold, &Costs::compiler), median(warm, &Costs::first),
              median(warm, &Costs::compiler), median(beside, &Costs::first), median(beside, &Costs::taken_over),
              median(warm, &Costs::later), cold[0].functions, static_cast<double>(cold[0].bytes) / 1e3);
  std::fflush(stdout);
}

template <class Model> void images(const char* name) {
  Model model;
  measure(name, model, nn::optim::Sgd(nn::parameters(model), {.lr = peers::learning_rate, .momentum = Model::momentum}),
          td::randn(Model::input()), td::randint(0, 10, {peers::batch}));
}

void gpt(const char* name, int64_t layers, int64_t batch) {
  Gpt model({.layers = layers});
  const td::Shape shape{batch, peers::gpt_context};
  measure(name, model, nn::optim::AdamW(nn::parameters(model), {.lr = peers::gpt_learning_rate}),
          td::randint(0, peers::gpt_vocabulary, shape), td::randint(0, peers::gpt_vocabulary, {shape.numel()}));
}

void lstm(const char* name) {
  TextModel model;
  const td::Tensor text = td::randint(0, peers::vocabulary, {peers::text_steps + 1, peers::text_batch});
  measure(name, model, nn::optim::AdamW(nn::parameters(model), {.lr = peers::adam_rate}),
          text.slice(0, 0, peers::text_steps), text.slice(0, 1, peers::text_steps + 1).flatten());
}

}  // namespace

int main(int count, char** arguments) {
  td::manual_seed(1);
  const std::vector<std::pair<std::string, std::function<void(const char*)>>> networks{
      {"mlp", images<Mlp>},
      {"lenet", images<LeNet>},
      {"resnet8", images<ResNet8<16>>},
      {"lstm", lstm},
      {"gpt", [](const char* name) { gpt(name, peers::gpt_layers, peers::gpt_batch); }},
      {"gpt4", [](const char* name) { gpt(name, 4, 1); }},
      {"gpt12", [](const char* name) { gpt(name, 12, 1); }},
      {"gpt48", [](const char* name) { gpt(name, 48, 1); }},
  };
  std::printf(
      "| network | cold first step, s | trace | passes and plan | emission | compiler | warm first step, s | its "
      "compiler | "
      "beside: first step, s | until the code took over | a later step, s | functions | C, KB |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const auto& [name, run] : networks)
    if (count < 2 || std::find(arguments + 1, arguments + count, name) != arguments + count) run(name.c_str());
}
