// What tracing, passes, emission and planning cost as graphs grow, without the compiler: a table. docs/performance.md
// has one. They should take the same time for each node, however many there are.
//
//   growth [NODES]...        1,000 10,000 100,000 unless given
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "graph/passes/pipeline.h"
#include "graph/run/plan.h"
#include "graph/run/runtime.h"
#include "tandem.h"

using namespace tandem;

namespace {

using Program = std::function<Tensor(const Tensor&)>;

/// Seconds of the processor: all of it runs on one thread, and a busy machine doesn't show.
double now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void measure(const std::string& name, const Program& program, const Tensor& x) {
  double begin = now();
  const Graph traced = trace(program, x);
  const double trace_seconds = now() - begin;

  begin = now();
  graph::Optimised optimised = graph::optimise(traced, {}, Where::current());
  const double pass_seconds = now() - begin;

  begin = now();
  const graph::Plan plan = graph::make_plan(std::move(optimised.graph), {});
  const double plan_seconds = now() - begin;

  begin = now();
  const auto kernels = graph::cpu_runtime().kernels();
  int fused = 0;
  for (const graph::PlanStep& step : plan.steps)
    if (const Node& node = plan.graph.node(step.node); node.fused) kernels->add(*node.fused), ++fused;
  const size_t bytes = kernels->source().size();
  const double emit_seconds = now() - begin;

  const double all = trace_seconds + pass_seconds + plan_seconds + emit_seconds;
  std::printf("| %s | %zu | %.3f | %.3f | %.3f | %.3f | %.2f | %.1f | %d | %.1f |\n", name.c_str(), traced.nodes.size(),
              trace_seconds, pass_seconds, plan_seconds, emit_seconds, all,
              all / static_cast<double>(traced.nodes.size()) * 1e6, fused, static_cast<double>(bytes) / 1e6);
  std::fflush(stdout);
}

/// Each value is made of the last and of one far behind.
Program tangled(int nodes) {
  return [=](const Tensor& x) {
    std::vector<Tensor> made{x, x + 1};
    for (uint32_t i = 2; i < static_cast<uint32_t>(nodes); ++i)
      made.push_back(i % 7 == 0 ? made.back().flip({1}) : made.back() + made[(i * 2654435761u >> 4) % i]);
    return made.back();
  };
}

/// Products between pointwise ops: nothing fuses across them.
Program layers(int nodes, const Tensor& w) {
  return [=](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < nodes / 4; ++i) y = relu(matmul(y, w) + 1) * 0.5f;
    return y;
  };
}

/// All of them live until the end, in sizes that no slot is shared by.
Program kept(int nodes) {
  return [=](const Tensor& x) {
    std::vector<Tensor> made;
    for (int i = 0; i < nodes / 3; ++i) made.push_back(x.slice(0, 0, 1 + i % 8).flip({1}));
    Tensor total = x.slice(0, 0, 1);
    for (int i = static_cast<int>(made.size()) - 1; i >= 0; --i)
      total = total + made[static_cast<size_t>(i)].slice(0, 0, 1).flip({1});
    return total;
  };
}

/// Many means, added up.
Program losses(int nodes) {
  return [=](const Tensor& x) {
    Tensor total = x.mean();
    for (int i = 0; i < nodes / 3; ++i) total = total + (x * static_cast<float>(i)).mean();
    return total;
  };
}

Program unrolled(int turns, const Tensor& w) {
  return [=](const Tensor& x) {
    Tensor h = x;
    for (int i = 0; i < turns; ++i) h = tanh(matmul(h, w) + x);
    return h.sum();
  };
}

Program scanned(int turns, const Tensor& w) {
  return [=](const Tensor& x) {
    const Tensor steps = arange(0, turns);
    const auto turn = [&](const Tensor& h, const Tensor&) {
      const Tensor next = tanh(matmul(h, w) + x);
      return std::pair{next, next.sum()};
    };
    return scan(turn, x, steps).first.sum();
  };
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<int> sizes;
  for (int i = 1; i < count; ++i) sizes.push_back(std::atoi(arguments[i]));
  if (sizes.empty()) sizes = {1000, 10000, 100000};
  const Tensor x = ones({8, 8}), w = full({8, 8}, 0.1);
  std::printf(
      "| program | nodes | trace, s | passes, s | plan, s | emission, s | all, s | a node, µs | kernels | C, MB |\n"
      "|---|---|---|---|---|---|---|---|---|---|\n");
  for (const int nodes : sizes) measure("tangled", tangled(nodes), x);
  for (const int nodes : sizes) measure("layers", layers(nodes, w), x);
  for (const int nodes : sizes) measure("kept", kept(nodes), x);
  for (const int nodes : sizes) measure("losses", losses(nodes), x);
  for (const int parameters : {100, 1000, 10000}) {
    std::vector<Tensor> all;
    for (int i = 0; i < parameters; ++i)
      all.push_back((ones({8, 8}) * (0.01f * static_cast<float>(i % 7))).requires_grad(true));
    nn::optim::AdamW optimizer(all, {.lr = 1e-3});
    measure(
        std::to_string(parameters) + " parameters, AdamW",
        [&](const Tensor& input) {
          optimizer.zero_grad();
          Tensor y = input;
          for (const Tensor& each : all) y = relu(matmul(y, each) + y);
          const Tensor loss = y.mean();
          loss.backward();
          optimizer.step();
          return loss;
        },
        x);
  }
  measure("1,000 turns unrolled", unrolled(1000, w), x);
  measure("1,000 turns by scan", scanned(1000, w), x);
}
