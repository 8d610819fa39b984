// Passes and emission do work in proportion to the graph: counted, not timed. bench/growth.cpp has the times.
#include <doctest/doctest.h>

#include <functional>
#include <vector>

#include "graph/passes/pipeline.h"
#include "graph/run/runtime.h"
#include "tandem.h"

using namespace tandem;

namespace {

using Program = std::function<Tensor(const Tensor&)>;

/// Each value is made of the last and of one far behind.
Program tangled(int nodes) {
  return [=](const Tensor& x) {
    std::vector<Tensor> made{x, x + 1};
    for (uint32_t i = 2; i < static_cast<uint32_t>(nodes); ++i)
      made.push_back(i % 7 == 0 ? made.back().flip({1}) : made.back() + made[(i * 2654435761u >> 4) % i]);
    return made.back();
  };
}

Program losses(int nodes) {
  return [=](const Tensor& x) {
    Tensor total = x.mean();
    for (int i = 0; i < nodes / 3; ++i) total = total + (x * static_cast<float>(i)).mean();
    return total;
  };
}

/// What was made first is read last, each beside a long chain that doesn't depend on it.
Program reversed(int nodes) {
  return [=](const Tensor& x) {
    std::vector<Tensor> made;
    for (int i = 0; i < nodes / 3; ++i) made.push_back(x * static_cast<float>(i));
    Tensor y = x;
    for (; !made.empty(); made.pop_back()) y = y.flip({1}) + made.back();
    return y;
  };
}

/// Forward, backward and update.
Program training(int nodes) {
  return [=](const Tensor& x) {
    std::vector<Tensor> parameters;
    for (int i = 0; i < nodes / 16; ++i) parameters.push_back((x * 0.1).detach().requires_grad(true));
    Tensor y = x;
    for (const Tensor& each : parameters) y = relu(matmul(y, each)) + y;
    y.mean().backward();
    Tensor total = x;
    for (const Tensor& each : parameters) total = total + (each - each.grad() * 0.1);
    return total;
  };
}

struct Work {
  int64_t nodes = 0, looked_at = 0, kernels = 0, characters = 0;
};
Work work_of(const Program& program) {
  const Graph traced = trace(program, ones({4, 4}));
  const graph::Optimised optimised = graph::optimise(traced, {}, Where::current());
  const auto kernels = graph::cpu_runtime().kernels();
  Work work{.nodes = static_cast<int64_t>(traced.nodes.size()), .looked_at = optimised.fusion.looked_at};
  for (const Node& node : optimised.graph.nodes)
    if (node.fused) kernels->add(*node.fused), ++work.kernels;
  work.characters = static_cast<int64_t>(kernels->source().size());
  return work;
}

}  // namespace

TEST_CASE("growth: four times the nodes are four times the work") {
  for (const auto program : {tangled, reversed, losses, training}) {
    const Work one = work_of(program(10000)), four = work_of(program(40000));
    CHECK(one.nodes >= 5000);
    CHECK(four.looked_at <= 6 * one.looked_at + 1000);
    CHECK(four.kernels <= 5 * one.kernels);
    CHECK(four.characters <= 5 * one.characters);
  }
}
