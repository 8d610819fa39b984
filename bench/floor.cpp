// How far a training step lies above its floor: the time that its products and convolutions would take at the rate of the best
// product of square matrices, measured in the same rounds. What lies above is the excess, which a compiled graph can make less. Then
// the memory that a step adds to model and optimiser state, gradients included, and what half of that costs in time.
//
//   floor [NETWORK]...        mlp, lenet, resnet8, lstm, gpt; all unless given
//
// Lower quartiles of interleaved rounds. Floating-point operations are counted in the traced step: a product's and a convolution's multiplications
// and additions, attention's (half of them where it is causal) and those of a recurrence with its weight. Inference: the model alone, without
// gradients. docs/performance.md has the tables.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bench/networks.h"

namespace {

namespace td = tandem;
namespace nn = tandem::nn;
using networks::Gpt, networks::LeNet, networks::Mlp, networks::ResNet8, networks::TextModel;

constexpr int kRounds = 25;
constexpr double kBlockSeconds = 0.05;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Of machines that are shared: what other guests take makes rounds longer, never shorter.
double lower_quartile(std::vector<double> all) {
  std::sort(all.begin(), all.end());
  return all[all.size() / 4];
}

/// Of one node, by the shapes of its operands and results.
double operations(const td::Graph& graph, const td::Node& node) {
  const auto in = [&](int i) -> const td::Shape& { return graph.type(node.inputs[static_cast<size_t>(i)]).shape; };
  const td::Shape& out = graph.type(node.outputs[0]).shape;
  const auto size = [](const td::Shape& shape) { return static_cast<double>(shape.numel()); };
  const auto filter = [&](const td::Shape& weight) { return size(weight) / static_cast<double>(weight[0]); };
  const auto attention = [&](const td::Shape& heads, double products) {  // [.., heads, time, width]
    const bool causal = node.attributes.flag("causal");
    return 2 * products * size(heads) * static_cast<double>(heads[heads.size() - 2]) * (causal ? 0.5 : 1);
  };
  const std::map<std::string, std::function<double()>> counts{
      {"matmul", [&] { return 2 * size(out) * static_cast<double>(in(0).back()); }},
      {"linear", [&] { return 2 * size(out) * static_cast<double>(in(0).back()); }},
      {"conv2d", [&] { return 2 * size(out) * filter(in(1)); }},
      {"conv2d_input_grad", [&] { return 2 * size(in(0)) * filter(in(1)); }},
      {"conv2d_weight_grad", [&] { return 2 * size(in(0)) * filter(out); }},
      {"attention_qkv", [&] { return attention(out, 2); }},
      {"attention_qkv_grad", [&] { return attention(in(0), 5); }},
      {"lstm", [&] { return 2 * size(in(0)) * static_cast<double>(in(1).back()); }},
      {"lstm_grad", [&] { return 2 * size(in(2)) * static_cast<double>(in(3).back()); }},
  };
  if (const auto found = counts.find(node.op->name); found != counts.end()) return found->second();
  if (node.op->kind == td::OpKind::contract)
    throw std::logic_error(std::string("floor: the operations of ") + node.op->name + " are not counted");
  return 0;
}

double operations(const td::Graph& graph) {
  double sum = 0;
  for (const td::Node& node : graph.nodes) sum += operations(graph, node);
  return sum;
}

/// Calls in blocks of about kBlockSeconds, timed in turns with others'.
struct Timed {
  std::function<void()> call;
  int block = 1;
  std::vector<double> seconds = {};  // of a call, for each round

  void warm_up() {
    for (int i = 0; i < 3; ++i) call();
    const double start = now();
    call();
    block = std::max(1, static_cast<int>(kBlockSeconds / (now() - start)));
  }
  void round() {
    const double start = now();
    for (int i = 0; i < block; ++i) call();
    seconds.push_back((now() - start) / block);
  }
};

/// The most bytes in use during a later call, above those before the first: state is there, gradients and plans are not.
template <class Step, class Optimizer>
int64_t added_bytes(Step&& step, Optimizer& optimizer, const td::Tensor& x, const td::Tensor& y) {
  optimizer.zero_grad();
  const int64_t before = td::memory_stats().in_use;
  for (int i = 0; i < 3; ++i) step(x, y);
  td::reset_peak_memory();
  step(x, y);
  const int64_t most = td::memory_stats().peak - before;
  optimizer.zero_grad();
  return most;
}

std::string memory_table;

template <class Step, class Optimizer>
void measure_memory(const char* name, Step& step, Optimizer& optimizer, const td::Tensor& x, const td::Tensor& y) {
  const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  const double eager = mib(added_bytes(step, optimizer, x, y));
  auto compiled = td::compile(step), half = td::compile(step, {.memory_budget = 0.5});
  const double whole_bytes = mib(added_bytes(compiled, optimizer, x, y)),
               half_bytes = mib(added_bytes(half, optimizer, x, y));
  const td::Stats stats = compiled.stats();
  std::vector<Timed> both{{[&] { compiled(x, y); }}, {[&] { half(x, y); }}};
  for (Timed& each : both) each.warm_up();
  for (int round = 0; round < kRounds; ++round)
    for (Timed& each : both) each.round();
  char line[200];
  std::snprintf(line, sizeof line, "| %s | %.3f | %.3f | %.2f | %.2f | %.3f | %.2f | %.2f |\n", name, eager,
                whole_bytes, whole_bytes / eager,
                static_cast<double>(stats.peak_bytes) / static_cast<double>(stats.lower_bound_bytes), half_bytes,
                half_bytes / eager, lower_quartile(both[1].seconds) / lower_quartile(both[0].seconds));
  memory_table += line;
}

template <class Model, class Optimizer>
void measure(const char* name, Model& model, Optimizer&& optimizer, const td::Tensor& x, const td::Tensor& y) {
  const auto step = [&](const td::Tensor& inputs, const td::Tensor& labels) {
    optimizer.zero_grad();
    td::Tensor loss = cross_entropy(model(inputs), labels);
    loss.backward();
    optimizer.step();
    return loss;
  };
  const auto infer = [&](const td::Tensor& inputs) {
    const td::NoGrad off;
    return model(inputs);
  };
  step(x, y);  // the optimiser has its state
  measure_memory(name, step, optimizer, x, y);
  const double count = operations(td::trace(step, x, y));
  auto compiled_step = td::compile(step);
  auto compiled_infer = td::compile(infer);

  constexpr int64_t sides[] = {512, 768, 1024};
  std::vector<td::Tensor> squares;
  for (const int64_t side : sides) squares.push_back(td::randn({side, side}));
  std::vector<Timed> all{
      {[&] { step(x, y); }}, {[&] { compiled_step(x, y); }}, {[&] { infer(x); }}, {[&] { compiled_infer(x); }}};
  for (const td::Tensor& square : squares)
    all.push_back({[&square] {
      const td::NoGrad off;
      matmul(square, square);
    }});
  for (Timed& each : all) each.warm_up();
  for (int round = 0; round < kRounds; ++round)
    for (Timed& each : all) each.round();

  double rate = 0;
  for (size_t i = 0; i < squares.size(); ++i) {
    const auto side = static_cast<double>(sides[i]);
    const std::vector<double>& seconds = all[4 + i].seconds;
    rate = std::max(rate, 2 * side * side * side / *std::min_element(seconds.begin(), seconds.end()));
  }
  const double floor = count / rate;
  double times[4];
  for (size_t i = 0; i < 4; ++i) times[i] = lower_quartile(all[i].seconds) * 1e3;
  const double least = floor * 1e3;
  std::printf("| %s | %.3f | %.1f | %.3f | %.3f | %.3f | %.3f | %.2f | %.3f | %.3f | %.3f |\n", name, count * 1e-9,
              rate * 1e-9, least, times[0], times[1], times[1] / times[0], (times[1] - least) / (times[0] - least),
              times[2], times[3], times[3] / times[2]);
  std::fflush(stdout);
}

template <class Model> void images(const char* name) {
  Model model;
  measure(name, model, nn::optim::Sgd(nn::parameters(model), {.lr = peers::learning_rate, .momentum = Model::momentum}),
          td::randn(Model::input()), td::randint(0, 10, {peers::batch}));
}

void lstm(const char* name) {
  TextModel model;
  const td::Tensor text = td::randint(0, peers::vocabulary, {peers::text_steps + 1, peers::text_batch});
  measure(name, model, nn::optim::AdamW(nn::parameters(model), {.lr = peers::adam_rate}),
          text.slice(0, 0, peers::text_steps), text.slice(0, 1, peers::text_steps + 1).flatten());
}

void gpt(const char* name) {
  Gpt model;
  const td::Shape shape{peers::gpt_batch, peers::gpt_context};
  measure(name, model, nn::optim::AdamW(nn::parameters(model), {.lr = peers::gpt_learning_rate}),
          td::randint(0, peers::gpt_vocabulary, shape), td::randint(0, peers::gpt_vocabulary, {shape.numel()}));
}

}  // namespace

int main(int count, char** arguments) {
  td::manual_seed(1);
  const std::vector<std::pair<std::string, void (*)(const char*)>> networks{
      {"mlp", images<Mlp>}, {"lenet", images<LeNet>}, {"resnet8", images<ResNet8<16>>}, {"lstm", lstm}, {"gpt", gpt}};
  std::printf(
      "| network | GFLOP | best product, GF/s | floor, ms | eager, ms | compiled, ms | ÷ eager | excess ÷ eager's | "
      "inference: eager, ms | "
      "compiled, ms | ÷ eager |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const auto& [name, run] : networks)
    if (count < 2 || std::find(arguments + 1, arguments + count, name) != arguments + count) run(name.c_str());
  std::printf(
      "\n| network | a step adds: eager, MiB | compiled, MiB | ÷ eager | plan ÷ lower bound | budget of half: MiB | ÷ "
      "eager | "
      "time ÷ compiled |\n|---|---|---|---|---|---|---|---|\n%s",
      memory_table.c_str());
}
