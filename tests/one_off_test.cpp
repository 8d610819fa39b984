// What a compiled function costs once: layers that are alike share their kernels' code.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "graph/codegen/cuda_source.h"
#include "graph/passes/pipeline.h"
#include "tandem.h"

using namespace tandem;

namespace {

struct Gpt {
  nn::Embedding tokens{16, 8}, positions{4, 8};
  std::vector<nn::TransformerBlock> blocks;
  nn::LayerNorm norm{8};
  nn::Linear output{8, 16, {.bias = false}};

  Gpt(int layers, double dropout) {
    for (int i = 0; i < layers; ++i)
      blocks.emplace_back(8, 2, nn::TransformerBlockOptions{.dropout = dropout, .causal = true});
  }
  Tensor operator()(const Tensor& ids) const {
    Tensor x = tokens(ids) + positions.weight;
    for (const nn::TransformerBlock& block : blocks) x = block(x);
    return output(norm(x)).reshape({-1, 16});
  }
  template <class V> void visit(V&& v) {
    v("tokens", tokens);
    v("positions", positions);
    v("blocks", blocks);
    v("norm", norm);
    v("output", output);
  }
};

/// A model, its optimiser and a step of training.
struct Training {
  Gpt model;
  nn::optim::AdamW optimizer;
  Training(int layers, double dropout)
      : model((manual_seed(5), layers), dropout), optimizer(nn::parameters(model), {.lr = 1e-2}) {}

  Tensor operator()(const Tensor& ids, const Tensor& labels) {
    optimizer.zero_grad();
    Tensor loss = cross_entropy(model(ids), labels);
    loss.backward();
    optimizer.step();
    return loss;
  }
};

size_t functions_in(const std::string& source, const std::string& beginning) {
  size_t count = 0;
  for (size_t at = 0; (at = source.find(beginning, at)) != std::string::npos; ++at) ++count;
  return count;
}

}  // namespace

TEST_CASE("one-off costs: the layers of a GPT share their kernels' code, whatever they draw") {
  for (const double dropout : {0.0, 0.1}) {
    CAPTURE(dropout);
    size_t functions = 0, bytes = 0;
    for (const int layers : {2, 6}) {
      std::vector<std::vector<float>> losses;
      for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
        Training training(layers, dropout);
        auto step =
            compile([&](const Tensor& ids, const Tensor& labels) { return training(ids, labels); }, {.mode = mode});
        const Tensor ids = randint(0, 16, {3, 4}), labels = randint(0, 16, {12});
        losses.emplace_back();
        for (int i = 0; i < 4; ++i) losses.back().push_back(step(ids, labels).item<float>());
        if (mode != Mode::compiled || step.source().empty()) continue;  // no compiler here
        const std::string source = step.source();
        if (layers == 2) {
          functions = functions_in(source, "\nvoid ");
          bytes = source.size();
        }
        CHECK(functions_in(source, "\nvoid ") == functions);
        CHECK(source.size() == bytes);
      }
      CHECK(losses[1] == losses[0]);
      for (size_t i = 0; i < losses[0].size(); ++i) CHECK(losses[2][i] == doctest::Approx(losses[0][i]).epsilon(1e-5));
    }
  }
}

TEST_CASE("one-off costs: the layers of a GPT share their kernels' CUDA code, all but those that draw") {
  std::vector<size_t> functions, kernels;
  for (const int layers : {2, 6}) {
    Training training(layers, 0);
    const Graph traced = trace([&](const Tensor& ids, const Tensor& labels) { return training(ids, labels); },
                               zeros({3, 4}, {.dtype = int64}), zeros({12}, {.dtype = int64}));
    graph::CudaSource source;
    for (const Node& node : graph::optimise(traced, {}, Where::current()).graph.nodes)
      if (node.fused) source.add(*node.fused);
    functions.push_back(functions_in(source.text(), "\nTD_DEVICE void segment"));
    kernels.push_back(functions_in(source.text(), "__global__ void "));
    CHECK(source.kernel_names().size() == kernels.back());
  }
  CHECK(functions[0] > 5);
  CHECK(functions[1] == functions[0]);
  // But for the optimiser's, which has a segment for each parameter.
  CHECK(kernels[1] == kernels[0]);
}
