// CPU kernels alone: inputs and outputs exist, no dispatch. Threads by OMP_NUM_THREADS, instruction set by
// TANDEM_ISA, matrix library by TANDEM_MATMUL.  ./kernels --benchmark_filter=linear
#include <benchmark/benchmark.h>

#include <functional>

#include "core/ops/ops.h"
#include "core/random.h"

using namespace tandem;

namespace {

Tensor channels_last(const Tensor& x) { return x.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2}); }

/// Runs the kernel of an op over and over on the same operands.
void run(benchmark::State& state, const char* name, const std::vector<Tensor>& inputs, const Attributes& attributes) {
  const Op& op = find_op(name);
  const Tensors outputs = dispatch_all(op, inputs, attributes, Where::current());
  for (auto _ : state) {
    KernelContext context(op, inputs, attributes, outputs, Where::current());
    kernel_for(op, cpu())(context);
  }
  int64_t bytes = 0;
  for (const Tensor& each : inputs) bytes += each.numel() * size_of(each.dtype());
  for (const Tensor& each : outputs) bytes += each.numel() * size_of(each.dtype());
  state.SetBytesProcessed(state.iterations() * bytes);
}

void add(const std::string& label, const char* name, std::function<std::vector<Tensor>()> inputs,
         Attributes attributes = {}) {
  benchmark::RegisterBenchmark(label.c_str(), [=](benchmark::State& state) { run(state, name, inputs(), attributes); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

Attributes dims(const Shape& shape) { return {{"dims", shape}, {"keepdim", false}}; }
Attributes convolution(int64_t padding) {
  return {{"stride", Shape{1, 1}}, {"padding", Shape{padding, padding}}, {"dilation", Shape{1, 1}}, {"groups", 1}};
}
Attributes with_shape(Attributes attributes, const Shape& shape) {
  attributes.set({"shape", shape});
  return attributes;
}

void add_all() {
  using V = std::vector<Tensor>;
  add("add/8", "add", [] { return V{randn({8}), randn({8})}; });
  add("add/64x10+10", "add", [] { return V{randn({64, 10}), randn({10})}; });
  add("add/1000x1000+1000", "add", [] { return V{randn({1000, 1000}), randn({1000})}; });
  add("add/4M", "add", [] { return V{randn({4 << 20}), randn({4 << 20})}; });
  add("add/1024x1024 transposed", "add", [] { return V{randn({1024, 1024}), randn({1024, 1024}).transpose(0, 1)}; });
  for (const char* name : {"exp", "tanh", "sigmoid", "gelu", "log", "relu", "erf"}) {
    add(std::string(name) + "/64K", name, [] { return V{randn({64 * 1024})}; });
    add(std::string(name) + "/1M", name, [] { return V{randn({1000 * 1000})}; });
  }
  add("exp/1M bfloat16", "exp", [] { return V{randn({1 << 20}).to(bfloat16)}; });
  add("add/1M bfloat16", "add", [] { return V{randn({1 << 20}).to(bfloat16), randn({1 << 20}).to(bfloat16)}; });

  add(
      "sum/4M", "sum", [] { return V{randn({4 << 20})}; }, dims({0}));
  add(
      "sum/64x10 columns", "sum",
      [] {
        return V{randn({64, 10})};
      },
      dims({0}));
  add(
      "sum/4096x1024 columns", "sum",
      [] {
        return V{randn({4096, 1024})};
      },
      dims({0}));
  add(
      "sum/4096x1024 rows", "sum",
      [] {
        return V{randn({4096, 1024})};
      },
      dims({1}));
  add(
      "sum/64x8x28x28 over images", "sum",
      [] {
        return V{channels_last(randn({64, 8, 28, 28}))};
      },
      dims({0, 2, 3}));
  add(
      "max/4096x1024 rows", "max",
      [] {
        return V{randn({4096, 1024})};
      },
      dims({1}));

  add("contiguous/2048x2048 transposed", "contiguous", [] { return V{randn({2048, 2048}).transpose(0, 1)}; });
  add("contiguous/64x64x32x32 to channels-last", "contiguous", [] {
    return V{randn({64, 64, 32, 32}).permute({0, 2, 3, 1})};
  });

  add("linear/64x784x256", "linear", [] { return V{randn({64, 784}), randn({256, 784}), randn({256})}; });
  add("linear/64x256x10", "linear", [] { return V{randn({64, 256}), randn({10, 256}), randn({10})}; });
  add("matmul/64x10x256", "matmul", [] { return V{randn({64, 10}), randn({10, 256})}; });
  add("matmul/10x64'x256", "matmul", [] { return V{randn({64, 10}).transpose(0, 1), randn({64, 256})}; });
  add("matmul/256x64'x784", "matmul", [] { return V{randn({64, 256}).transpose(0, 1), randn({64, 784})}; });
  for (int64_t n : {16, 32, 64, 128, 256, 512, 1024})
    add("matmul/" + std::to_string(n), "matmul", [n] { return V{randn({n, n}), randn({n, n})}; });
  add("matmul/512 float64", "matmul", [] {
    return V{randn({512, 512}, {.dtype = float64}), randn({512, 512}, {.dtype = float64})};
  });
  add("matmul/512 bfloat16", "matmul", [] {
    return V{randn({512, 512}).to(bfloat16), randn({512, 512}).to(bfloat16)};
  });
  add("matmul/64 heads of 128x32x128", "matmul", [] {
    return V{randn({64, 128, 32}), randn({64, 128, 32}).transpose(1, 2)};
  });
  add("matmul/32 of 128x64x128", "matmul", [] { return V{randn({32, 128, 64}), randn({32, 64, 128})}; });
  add("matmul/256 heads of 128x32x128", "matmul", [] { return V{randn({64, 4, 128, 32}), randn({64, 4, 32, 128})}; });
  add("matmul/1024 of 8x8x8", "matmul", [] { return V{randn({1024, 8, 8}), randn({1024, 8, 8})}; });
  add("matmul/1024x1024 by vector", "matmul", [] { return V{randn({1024, 1024}), randn({1024, 1})}; });

  // LeNet's two convolutions, and one of ResNet's.
  add(
      "conv2d/64x1x28x28 to 8", "conv2d",
      [] {
        return V{randn({64, 1, 28, 28}), randn({8, 1, 5, 5}), randn({8})};
      },
      convolution(2));
  add(
      "conv2d_weight_grad/64x1x28x28 to 8", "conv2d_weight_grad",
      [] {
        return V{channels_last(randn({64, 8, 28, 28})), randn({64, 1, 28, 28})};
      },
      with_shape(convolution(2), {8, 1, 5, 5}));
  add(
      "conv2d_input_grad/64x1x28x28 to 8", "conv2d_input_grad",
      [] {
        return V{channels_last(randn({64, 8, 28, 28})), randn({8, 1, 5, 5})};
      },
      with_shape(convolution(2), {64, 1, 28, 28}));
  add(
      "conv2d/64x8x14x14 to 16", "conv2d",
      [] {
        return V{channels_last(randn({64, 8, 14, 14})), randn({16, 8, 5, 5}), randn({16})};
      },
      convolution(0));
  add(
      "conv2d_weight_grad/64x8x14x14 to 16", "conv2d_weight_grad",
      [] {
        return V{channels_last(randn({64, 16, 10, 10})), channels_last(randn({64, 8, 14, 14}))};
      },
      with_shape(convolution(0), {16, 8, 5, 5}));
  add(
      "conv2d_input_grad/64x8x14x14 to 16", "conv2d_input_grad",
      [] {
        return V{channels_last(randn({64, 16, 10, 10})), randn({16, 8, 5, 5})};
      },
      with_shape(convolution(0), {64, 8, 14, 14}));
  add(
      "conv2d/64x64x32x32 to 64", "conv2d",
      [] {
        return V{channels_last(randn({64, 64, 32, 32})), randn({64, 64, 3, 3})};
      },
      convolution(1));

  const Attributes pool{{"kernel", Shape{2, 2}}, {"stride", Shape{2, 2}}, {"padding", Shape{0, 0}}};
  add(
      "max_pool2d/64x8x28x28", "max_pool2d",
      [] {
        return V{channels_last(randn({64, 8, 28, 28}))};
      },
      pool);
  add(
      "max_pool2d/64x8x28x28 planes", "max_pool2d",
      [] {
        return V{randn({64, 8, 28, 28})};
      },
      pool);
  add(
      "max_unpool2d/64x8x28x28", "max_unpool2d",
      [pool] {
        const std::vector<Tensor> x{channels_last(randn({64, 8, 28, 28}))};
        const Tensors out = dispatch_all(find_op("max_pool2d"), x, pool, Where::current());
        return V{out[0], out[1]};
      },
      with_shape(pool, {64, 8, 28, 28}));

  add("softmax/4096x1024", "softmax", [] { return V{randn({4096, 1024})}; });
  add("softmax/64x10", "softmax", [] { return V{randn({64, 10})}; });
  add("layer_norm/4096x1024", "layer_norm",
      [] {
        return V{randn({4096, 1024}), randn({1024}), randn({1024})};
      },
      {{"epsilon", 1e-5}});
  add("layer_norm_grad/4096x1024", "layer_norm_grad", [] {
    return V{randn({4096, 1024}), randn({4096, 1024}), randn({1024}), randn({4096}), randn({4096})};
  });
  add("cross_entropy/64x10", "cross_entropy", [] { return V{randn({64, 10}), randint(0, 10, {64})}; });
  add("cross_entropy/4096x1024", "cross_entropy", [] { return V{randn({4096, 1024}), randint(0, 1024, {4096})}; });
  add("cross_entropy_grad/64x10", "cross_entropy_grad", [] {
    return V{ones({}), randn({64, 10}), randint(0, 10, {64}), ones({64})};
  });
  add("softmax_grad/4096x1024", "softmax_grad", [] { return V{randn({4096, 1024}), softmax(randn({4096, 1024}))}; });
  add("log_softmax/4096x1024", "log_softmax", [] { return V{randn({4096, 1024})}; });
  const Attributes causal{{"scale", 0.177}, {"causal", true}, {"masked", false}, {"p", 0.0}},
      dropped{{"scale", 0.177}, {"causal", true}, {"masked", false}, {"p", 0.1}, {"site", 0}};
  const auto together = [] {
    return randn({16, 128, 3, 4, 32}).permute({2, 0, 3, 1, 4});
  };  // as a fused projection lies
  // With dropout last, after the draw's key. `--benchmark_enable_random_interleaving` for the ratio of the two.
  for (const bool drops : {false, true}) {
    const std::string of = drops ? "/16x4 heads, 128x32, dropout" : "/16x4 heads, 128x32";
    const Attributes attributes = drops ? dropped : causal;
    const auto operands = [together, drops] {
      V inputs{together()};
      if (drops) inputs.push_back(tensor(std::vector<int64_t>{1, 2}));
      return inputs;
    };
    add("attention_qkv" + of, "attention_qkv", operands, attributes);
    add(
        "attention_qkv_grad" + of, "attention_qkv_grad",
        [operands, attributes] {
          const V in = operands();
          const Tensors made = dispatch_all(find_op("attention_qkv"), in, attributes, Where::current());
          V all{randn({16, 128, 4, 32}).transpose(1, 2), in[0], made[0], made[1]};
          all.insert(all.end(), in.begin() + 1, in.end());
          return all;
        },
        attributes);
  }
  add("embedding/4096 of 128", "embedding", [] { return V{randint(0, 1000, {4096}), randn({1000, 128})}; });
  add("embedding_grad/4096 of 128", "embedding_grad",
      [] {
        return V{randn({4096, 128}), randint(0, 1000, {4096})};
      },
      {{"count", 1000}});
  const Attributes last{{"dim", 1}};
  add(
      "gather/4096x64 of 1024", "gather",
      [] {
        return V{randn({4096, 1024}), randint(0, 1024, {4096, 64})};
      },
      last);
  add("scatter/4096x64 of 1024", "scatter",
      [] {
        return V{randn({4096, 1024}), randint(0, 1024, {4096, 64}), randn({4096, 64})};
      },
      {{"dim", 1}, {"add", false}});
  add("scatter/4096x64 of 1024 added", "scatter",
      [] {
        return V{randn({4096, 1024}), randint(0, 1024, {4096, 64}), randn({4096, 64})};
      },
      {{"dim", 1}, {"add", true}});
  add("index_select/4096 of 128", "index_select",
      [] {
        return V{randn({1000, 128}), randint(0, 1000, {4096})};
      },
      {{"dim", 0}});
  add("index_add/4096 of 128", "index_add",
      [] {
        return V{randn({1000, 128}), randint(0, 1000, {4096}), randn({4096, 128})};
      },
      {{"dim", 0}});
  add("pad/64x64x32x32 by 1", "pad",
      [] {
        return V{randn({64, 64, 32, 32})};
      },
      {{"before", Shape{0, 0, 1, 1}}, {"after", Shape{0, 0, 1, 1}}, {"value", 0.0}});
  add("flip/4096x1024", "flip", [] { return V{randn({4096, 1024})}; }, {{"dims", Shape{1}}});
  add("tril/1024x1024", "tril", [] { return V{randn({1024, 1024})}; }, {{"diagonal", 0}});

  // 64 steps of 32 rows, width 128, as in the peers' `lstm`.
  const Attributes forwards{{"reverse", false}};
  const auto state = [] { return randn({32, 128}); };
  const auto steps = [](int64_t gates) { return randn({64, 32, gates * 128}); };
  add(
      "lstm/64x32x128", "lstm",
      [=] {
        return V{steps(4), randn({512, 128}), state(), state()};
      },
      forwards);
  add(
      "lstm_grad/64x32x128", "lstm_grad",
      [=] {
        return V{steps(1), steps(1), sigmoid(steps(4)), randn({512, 128}), state()};
      },
      forwards);
  add(
      "gru/64x32x128", "gru",
      [=] {
        return V{steps(3), randn({384, 128}), randn({384}), state()};
      },
      forwards);
  add(
      "gru_grad/64x32x128", "gru_grad",
      [=] {
        return V{steps(1), steps(1), sigmoid(steps(4)), randn({384, 128}), state()};
      },
      forwards);
  add("rnn/64x32x128", "rnn",
      [=] {
        return V{steps(1), randn({128, 128}), state()};
      },
      {{"reverse", false}, {"relu", false}});
  add("rnn_grad/64x32x128", "rnn_grad",
      [=] {
        return V{steps(1), steps(1), randn({128, 128}), state()};
      },
      {{"reverse", false}, {"relu", false}});
  add("lstm_cell/1024x128", "lstm_cell", [] { return V{randn({1024, 512}), randn({1024, 128})}; });
  add("gru_cell/1024x128", "gru_cell", [] { return V{randn({1024, 384}), randn({1024, 384}), randn({1024, 128})}; });

  const Attributes drawn{{"shape", Shape{1 << 20}}, {"dtype", float32}, {"device", std::string("cpu")}, {"site", 0}};
  const auto key = [] { return V{tensor(std::vector<int64_t>{1, 2})}; };
  add("random_uniform/1M", "random_uniform", key, drawn);
  add("random_normal/1M", "random_normal", key, drawn);
  add("sgd/200K momentum", "sgd",
      [] {
        return V{randn({200704}), randn({200704}), randn({200704}), full({}, 0.1)};
      },
      {{"momentum", 0.9}, {"dampening", 0.0}, {"weight_decay", 0.0}, {"nesterov", false}});
  add("sgd/200K plain", "sgd",
      [] {
        return V{randn({200704}), randn({200704}), randn({200704}), full({}, 0.1)};
      },
      {{"momentum", 0.0}, {"dampening", 0.0}, {"weight_decay", 0.0}, {"nesterov", false}});
  add("adamw/1M", "adamw",
      [] {
        return V{randn({1 << 20}), randn({1 << 20}), randn({1 << 20}), ones({1 << 20}),
                 full({}, 0.1),    full({}, 0.1),    full({}, 0.1)};
      },
      {{"beta1", 0.9}, {"beta2", 0.999}, {"epsilon", 1e-8}, {"weight_decay", 0.01}, {"decoupled", true}});
}

}  // namespace

int main(int argc, char** argv) {
  manual_seed(1);
  add_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
