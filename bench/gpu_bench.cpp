// Kernels of a device against what it can do: the bytes that an op must move (each operand read once, each result written once) over
// the time it takes, beside the rate of the driver's own copy; operations beside the rate of a large product in bfloat16. A table.
//
//   gpu_bench [--device cuda] [--seconds 0.2] [--small] [KERNEL]...        all unless given
//
// Calls are queued, and waited for at the end of a block; what a call costs the host is hidden as long as it is less than the kernel.
// Operands alternate among sets that together exceed the caches. Medians of blocks. TANDEM_MATMUL=own: our own product and
// convolution in the place of the vendor's. --small: sizes for a device that is emulated, whose times mean nothing.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/dispatch.h"
#include "tandem.h"

namespace {

namespace td = tandem;
using td::Tensor;
using td::Tensors;

struct Settings {
  td::Device device;
  double seconds = 0.2;
  bool small = false;
  std::vector<std::string> only;
};
Settings settings;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// One set of operands, ready to be called.
struct Work {
  std::function<void()> call;
  double bytes = 0;       // that must be moved
  double operations = 0;  // of products, if they are what it takes
};
using Make = std::function<Work()>;

/// A size, or what is left of it where the device is emulated.
int64_t n(int64_t size, int64_t small) { return settings.small ? small : size; }

Tensor numbers(const td::Shape& shape, td::DType dtype) {
  return td::randn(shape, {.device = settings.device}).to(dtype);
}
Tensor ids(int64_t end, const td::Shape& shape) { return td::randint(0, end, shape).to(settings.device); }

double size_of(const Tensors& tensors) {
  double bytes = 0;
  for (const Tensor& tensor : tensors)
    bytes += static_cast<double>(tensor.numel()) * static_cast<double>(td::size_of(tensor.dtype()));
  return bytes;
}

/// An op by its name: reads its operands, writes its results.
Work op(const char* name, Tensors inputs, const td::Attributes& attributes = {}, double operations = 0) {
  const td::Op& definition = td::find_op(name);
  const auto results =
      std::make_shared<Tensors>(td::dispatch_all(definition, inputs, attributes, td::Where::current()));
  const double bytes = size_of(inputs) + size_of(*results);
  return {[=, &definition] { *results = td::dispatch_all(definition, inputs, attributes, td::Where::current()); },
          bytes, operations};
}

/// Any function of tensors, and what it must move.
template <class F> Work function(double bytes, F f) {
  auto last = std::make_shared<decltype(f())>();
  return {[=] { *last = f(); }, bytes};
}

Tensors dispatched(const char* name, const Tensors& inputs, const td::Attributes& attributes = {}) {
  return td::dispatch_all(td::find_op(name), inputs, attributes, td::Where::current());
}

Work driver_copy() {
  const int64_t bytes = n(int64_t{1} << 30, 1 << 16);
  const Tensor from = numbers({bytes / 4}, td::float32), to = td::empty({bytes / 4}, {.device = settings.device});
  return {[=] {
            td::backend(settings.device.kind)
                .copy(to.impl()->data, settings.device, from.impl()->data, settings.device, static_cast<size_t>(bytes));
          },
          2.0 * static_cast<double>(bytes)};
}

Work product(int64_t m, int64_t columns, int64_t k, td::DType dtype, bool transposed = false) {
  m = n(m, 64), columns = n(columns, 64), k = n(k, 32);
  const Tensor a = numbers({m, k}, dtype),
               b = transposed ? numbers({columns, k}, dtype).transpose(0, 1) : numbers({k, columns}, dtype);
  return op("matmul", {a, b}, {}, 2.0 * static_cast<double>(m) * static_cast<double>(columns) * static_cast<double>(k));
}

Work convolution() {
  const int64_t images = n(256, 2), channels = n(128, 8), side = n(28, 8);
  const Tensor x = numbers({images, side, side, channels}, td::bfloat16).permute({0, 3, 1, 2}),
               w = numbers({channels, 3, 3, channels}, td::bfloat16).permute({0, 3, 1, 2});
  const auto size = [](const Tensor& tensor) { return static_cast<double>(tensor.numel()); };
  Work work = function(size_of({x, w, x}), [=] { return conv2d(x, w, {}, {.padding = 1}); });
  work.operations = 2 * size(x) * size(w) / static_cast<double>(channels);
  return work;
}

Work attention(bool gradients, td::DType dtype) {
  const int64_t batch = n(8, 1), heads = n(12, 2), time = n(1024, 32), width = 64;
  const auto part = [&] { return numbers({batch, heads, time, width}, dtype).requires_grad(gradients); };
  const Tensor q = part(), k = part(), v = part(), g = numbers({batch, heads, time, width}, dtype);
  Work work = function(size_of({q, k, v, g}) * (gradients ? 3 : 1), [=] {
    const Tensor y = scaled_dot_product_attention(q, k, v, {.causal = true});
    if (gradients) (void)td::grad_of(y, {q, k, v}, {}, g);
    return y;
  });
  const double forward = 2.0 * static_cast<double>(batch * heads * time * time * width);  // two products, half of each
  work.operations = gradients ? 3.5 * forward : forward;
  return work;
}

Work adamw() {
  struct State {
    Tensor p = numbers({n(1 << 26, 1 << 12)}, td::float32).requires_grad(true);
    td::nn::optim::AdamW optimizer{{p}, {.lr = 1e-4}};
  };
  auto state = std::make_shared<State>();
  state->p.set_grad(numbers(state->p.shape(), td::float32));
  return {[state] { state->optimizer.step(); }, 7 * size_of({state->p})};  // p and two moments are read and written
}

std::vector<std::pair<std::string, Make>> table() {
  std::vector<std::pair<std::string, Make>> all;
  for (const td::DType dtype : {td::float32, td::bfloat16}) {
    const std::string suffix = dtype == td::float32 ? "" : ", bfloat16";
    const auto add = [&](const std::string& name, Make make) { all.emplace_back(name + suffix, std::move(make)); };
    const auto rows = [=] { return numbers({n(65536, 64), n(1024, 64)}, dtype); };
    const auto row = [=] { return numbers({n(1024, 64)}, dtype); };
    add("add", [=] { return op("add", {rows(), rows()}); });
    add("exp", [=] { return op("exp", {rows()}); });
    add("gelu", [=] { return op("gelu", {rows()}); });
    add("gelu_grad", [=] { return op("gelu_grad", {rows(), rows()}); });
    add("a row added", [=] { return op("add", {rows(), row()}); });
    add("cast", [=] {
      const Tensor x = rows();
      const td::DType other = dtype == td::float32 ? td::bfloat16 : td::float32;
      return function(size_of({x}) + size_of({x.to(other)}), [=] { return x.to(other); });
    });
    add("sum", [=] { return function(size_of({rows()}), [x = rows()] { return sum(x); }); });
    add("sum of rows", [=] { return function(size_of({rows()}), [x = rows()] { return sum(x, 1); }); });
    add("sum of columns", [=] { return function(size_of({rows()}), [x = rows()] { return sum(x, 0); }); });
    add("softmax", [=] { return function(2 * size_of({rows()}), [x = rows()] { return softmax(x); }); });
    add("softmax_grad", [=] { return op("softmax_grad", {rows(), softmax(rows())}); });
    add("layer_norm", [=] { return op("layer_norm", {rows(), row(), row()}, {{"epsilon", 1e-5}}); });
    add("layer_norm_grad", [=] {
      const Tensor x = rows(), weight = row();
      const Tensors made = dispatched("layer_norm", {x, weight, row()}, {{"epsilon", 1e-5}});
      return op("layer_norm_grad", {rows(), x, weight, made[1], made[2]});
    });
    add("cross_entropy", [=] {
      const int64_t positions = n(8192, 16), vocabulary = n(50304, 256);
      return op("cross_entropy", {numbers({positions, vocabulary}, dtype), ids(vocabulary, {positions})});
    });
    add("cross_entropy and its gradient", [=] {
      const int64_t positions = n(8192, 16), vocabulary = n(50304, 256);
      const Tensor x = numbers({positions, vocabulary}, dtype).requires_grad(true), y = ids(vocabulary, {positions});
      return function(3 * size_of({x}),
                      [=] { return td::grad_of(cross_entropy(x, y), {x}); });  // two reads and a write
    });
    add("embedding", [=] {
      const Tensor weight = numbers({n(50304, 256), n(768, 32)}, dtype), which = ids(weight.shape()[0], {n(65536, 64)});
      return function(
          2.0 * static_cast<double>(which.numel() * weight.shape()[1]) * static_cast<double>(td::size_of(dtype)),
          [=] { return embedding(which, weight); });
    });
    add("its gradient", [=] {
      const Tensor weight = numbers({n(50304, 256), n(768, 32)}, dtype).requires_grad(true),
                   which = ids(weight.shape()[0], {n(65536, 64)}), y = embedding(which, weight),
                   g = numbers(y.shape(), dtype);
      return function(size_of({weight, g}), [=] { return td::grad_of(y, {weight}, {.retain_graph = true}, g); });
    });
    add("transpose", [=] {
      const Tensor x = numbers({n(8192, 64), n(8192, 96)}, dtype);
      return function(2 * size_of({x}), [=] { return x.transpose(0, 1).contiguous(); });
    });
    add("batch_norm, channels last", [=] {
      const int64_t channels = n(128, 8);
      const Tensor x = numbers({n(256, 2), n(28, 6), n(28, 6), channels}, dtype).permute({0, 3, 1, 2}),
                   weight = numbers({channels}, td::float32), bias = numbers({channels}, td::float32);
      const Tensor mean = td::zeros({channels}, {.device = settings.device}),
                   var = td::ones({channels}, {.device = settings.device});
      return function(3 * size_of({x}),  // statistics, then the result
                      [=] { return batch_norm(x, mean, var, weight, bias, {.training = true}); });
    });
    add("max_pool2d, channels last", [=] {
      const Tensor x = numbers({n(256, 2), n(56, 8), n(56, 8), n(64, 8)}, dtype).permute({0, 3, 1, 2});
      return function(1.25 * size_of({x}), [=] { return max_pool2d(x, 2); });
    });
    add("attention", [=] { return attention(false, dtype); });
    add("attention and its gradient", [=] { return attention(true, dtype); });
    const int64_t large = dtype == td::float32 ? 4096 : 8192;
    add("product", [=] { return product(large, large, large, dtype); });
    add("product, right one transposed", [=] { return product(large, large, large, dtype, true); });
    add("product of a GPT-2's layer", [=] { return product(8192, 3072, 768, dtype, true); });
    add("product of few rows", [=] { return product(16, 4096, 4096, dtype, true); });
  }
  all.emplace_back("conv2d 3 x 3, channels last, bfloat16", convolution);
  all.emplace_back("adamw", adamw);
  return all;
}

/// Seconds of one call.
double time_of(const Make& make) {
  std::vector<Work> sets{make()};
  const size_t wanted = settings.small ? 2 : static_cast<size_t>(std::clamp(4e8 / sets[0].bytes, 1.0, 8.0));
  while (sets.size() < wanted) sets.push_back(make());
  size_t turn = 0;
  const auto block = [&](int calls) {
    const double start = now();
    for (int i = 0; i < calls; ++i) sets[turn++ % sets.size()].call();
    td::synchronize(settings.device);
    return (now() - start) / calls;
  };
  block(2);
  const int calls = settings.small ? 1 : static_cast<int>(std::clamp(settings.seconds / 10 / block(4), 1.0, 1000.0));
  std::vector<double> blocks;
  const double end = now() + settings.seconds;
  do blocks.push_back(block(calls));
  while (now() < end && blocks.size() < 100);
  std::nth_element(blocks.begin(), blocks.begin() + static_cast<std::ptrdiff_t>(blocks.size() / 2), blocks.end());
  return blocks[blocks.size() / 2];
}

int run() {
  td::manual_seed(1);
  const double copy_bytes = driver_copy().bytes, copy_rate = copy_bytes / time_of(driver_copy);
  const Make largest = [] { return product(8192, 8192, 8192, td::bfloat16); };
  const double product_rate = largest().operations / time_of(largest);
  std::printf(
      "%s: the driver copies %.0f GB/s, read and written; a product of 8192 in bfloat16 runs at %.1f TFLOP/s\n\n",
      td::to_string(settings.device).c_str(), copy_rate / 1e9, product_rate / 1e12);
  std::printf("| kernel | µs | GB/s | of the copy's | TFLOP/s | of the product's |\n|---|---|---|---|---|---|\n");
  int failures = 0;
  for (const auto& [name, make] : table()) {
    const auto is_asked = [&, &name = name](const std::string& part) { return name.find(part) != std::string::npos; };
    if (!settings.only.empty() && std::none_of(settings.only.begin(), settings.only.end(), is_asked)) continue;
    try {
      const Work work = make();
      const double seconds = time_of(make);
      std::printf("| %s | %.1f | %.0f | %.0f %% |", name.c_str(), seconds * 1e6, work.bytes / seconds / 1e9,
                  100 * work.bytes / seconds / copy_rate);
      if (work.operations > 0)
        std::printf(" %.1f | %.0f %% |\n", work.operations / seconds / 1e12,
                    100 * work.operations / seconds / product_rate);
      else std::printf(" | |\n");
    } catch (const std::exception& error) {
      ++failures;
      std::printf("| %s | FAILED: %s |\n", name.c_str(), error.what());
    }
    std::fflush(stdout);
  }
  return failures > 0;
}

}  // namespace

int main(int count, char** arguments) try {
  std::string device = "cuda";
  for (int i = 1; i < count; ++i) {
    const std::string option = arguments[i];
    const bool more = i + 1 < count;
    if (option == "--device" && more) device = arguments[++i];
    else if (option == "--seconds" && more) settings.seconds = std::stod(arguments[++i]);
    else if (option == "--small") settings.small = true;
    else if (option.starts_with("-")) {
      std::fputs("gpu_bench [--device cuda] [--seconds 0.2] [--small] [KERNEL]...\n", stderr);
      return 2;
    } else settings.only.push_back(option);
  }
  settings.device = td::parse_device(device);
  return run();
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
