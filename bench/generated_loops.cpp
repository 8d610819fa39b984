// Generated loops against the eager kernels that they replace: each function run eager and compiled, in slices that take
// turns, and the ratio compiled ÷ eager of each round. docs/performance.md has a table. On one thread the processor's time
// counts, so that a busy machine shows less.
//
//   generated_loops [--rounds N] [--seconds S] [--threads T] [PART]...   rows whose name holds a PART; all unless given
//   generated_loops --source PART                                        what is generated for these rows
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include <tandem/tandem.h>

namespace td = tandem;

namespace {

using Function = std::function<td::Tensor(const td::Tensors&)>;

struct Row {
  std::string name;
  td::Tensors arguments;
  Function function;
};

bool one_thread = true;

double now() {
  if (one_thread) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds of one call, of as many as fill the time.
template <class F> double slice(double seconds, F&& f) {
  const double begin = now();
  int64_t calls = 0;
  double end = begin;
  do {
    f();
    ++calls;
    end = now();
  } while (end - begin < seconds);
  return (end - begin) / static_cast<double>(calls);
}

double median(std::vector<double> numbers) {
  std::sort(numbers.begin(), numbers.end());
  return numbers[numbers.size() / 2];
}

void measure(const Row& row, int rounds, double seconds) {
  td::NoGrad none;
  auto compiled = td::compile([&](const td::Tensors& x) { return row.function(x); }, {.verify = td::Verify::never});
  for (int i = 0; i < 2; ++i) compiled(row.arguments), row.function(row.arguments);
  std::vector<double> eager_times, compiled_times, ratios;
  for (int i = 0; i < rounds; ++i) {
    eager_times.push_back(slice(seconds, [&] { row.function(row.arguments); }));
    compiled_times.push_back(slice(seconds, [&] { compiled(row.arguments); }));
    ratios.push_back(compiled_times.back() / eager_times.back());
  }
  const td::Stats stats = compiled.stats();
  const double eager = *std::min_element(eager_times.begin(), eager_times.end()),
               best = *std::min_element(compiled_times.begin(), compiled_times.end());
  std::printf("| %s | %.1f | %.1f | %.2f | %.2f | %lld of %lld |\n", row.name.c_str(), eager * 1e6, best * 1e6,
              best / eager, median(ratios), static_cast<long long>(stats.fused_kernels),
              static_cast<long long>(stats.kernels));
  std::fflush(stdout);
}

std::vector<Row> rows() {
  using td::Tensor, td::Tensors;
  const auto x = [](const Tensors& t) { return t[0]; };
  const auto f32 = [](td::Shape shape) { return td::randn(shape); };
  std::vector<Row> all;
  const auto add = [&](std::string name, Tensors arguments, Function function) {
    all.push_back({std::move(name), std::move(arguments), std::move(function)});
  };
  const auto chain = [](const Tensors& t) { return relu(t[0] * t[1] + t[0]) - t[1]; };

  add("sum of an outer product 1024x1024", {f32({1024}), f32({1024})},
      [](const Tensors& t) { return (t[0].unsqueeze(1) * t[1].unsqueeze(0)).sum(); });
  for (const td::Shape& shape : {td::Shape{65536, 16}, td::Shape{262144, 4}, td::Shape{16, 65536}})
    add("sum of an outer product " + to_string(shape), {f32({shape[0]}), f32({shape[1]})},
        [](const Tensors& t) { return (t[0].unsqueeze(1) * t[1].unsqueeze(0)).sum(); });
  add("sum of x * row 65536x16", {f32({65536, 16}), f32({16})}, [](const Tensors& t) { return (t[0] * t[1]).sum(); });
  add("row sums of an outer product 1024x1024", {f32({1024}), f32({1024})},
      [](const Tensors& t) { return (t[0].unsqueeze(1) * t[1].unsqueeze(0)).sum(1); });
  add("column sums of an outer product 1024x1024", {f32({1024}), f32({1024})},
      [](const Tensors& t) { return (t[0].unsqueeze(1) * t[1].unsqueeze(0)).sum(0); });
  for (const td::Shape& shape :
       {td::Shape{1024, 1024}, td::Shape{100, 10000}, td::Shape{8192, 64}, td::Shape{16, 65536}})
    add("softmax of rows " + to_string(shape), {f32(shape)}, [=](const Tensors& t) { return softmax(x(t)); });
  for (const td::Shape& shape : {td::Shape{1024, 1024}, td::Shape{64, 8192}, td::Shape{8192, 64}})
    add("softmax over dim 0 " + to_string(shape), {f32(shape)}, [=](const Tensors& t) { return softmax(x(t), 0); });
  add("softmax over dim 1 of [32, 64, 512]", {f32({32, 64, 512})}, [=](const Tensors& t) { return softmax(x(t), 1); });
  add("log_softmax 1024x1024", {f32({1024, 1024})}, [=](const Tensors& t) { return log_softmax(x(t)); });
  for (const td::Shape& shape : {td::Shape{1024, 1024}, td::Shape{8192, 64}, td::Shape{16, 65536}})
    add("softmax of 2 x, rows " + to_string(shape), {f32(shape)}, [=](const Tensors& t) { return softmax(x(t) * 2); });
  for (const td::Shape& shape : {td::Shape{1024, 1024}, td::Shape{8192, 64}})
    add("softmax of 2 x over dim 0 " + to_string(shape), {f32(shape)},
        [=](const Tensors& t) { return softmax(x(t) * 2, 0) * 2; });
  add("softmax of x + mask 1024x1024", {f32({1024, 1024}), f32({1024})},
      [](const Tensors& t) { return softmax(t[0] + t[1]); });
  add("log_softmax of 2 x 1024x1024", {f32({1024, 1024})}, [=](const Tensors& t) { return log_softmax(x(t) * 2); });
  add("layer_norm of x + y 1024x1024", {f32({1024, 1024}), f32({1024, 1024}), f32({1024}), f32({1024})},
      [](const Tensors& t) { return layer_norm(t[0] + t[1], t[2], t[3]); });
  add("layer_norm of x + y 8192x64", {f32({8192, 64}), f32({8192, 64}), f32({64}), f32({64})},
      [](const Tensors& t) { return layer_norm(t[0] + t[1], t[2], t[3]); });
  add("rms_norm of x + y 1024x1024", {f32({1024, 1024}), f32({1024, 1024}), f32({1024})},
      [](const Tensors& t) { return rms_norm(t[0] + t[1], t[2]); });
  add("gelu of x + row 1024x1024", {f32({1024, 1024}), f32({1024})},
      [](const Tensors& t) { return gelu(t[0] + t[1]); });
  add("layer_norm 1024x1024", {f32({1024, 1024}), f32({1024}), f32({1024})},
      [](const Tensors& t) { return layer_norm(t[0], t[1], t[2]); });
  add("layer_norm 8192x64", {f32({8192, 64}), f32({64}), f32({64})},
      [](const Tensors& t) { return layer_norm(t[0], t[1], t[2]); });
  add("rms_norm 1024x1024", {f32({1024, 1024}), f32({1024})}, [](const Tensors& t) { return rms_norm(t[0], t[1]); });
  add("cross_entropy 8192x64", {f32({8192, 64}), td::randint(0, 64, {8192})},
      [](const Tensors& t) { return cross_entropy(t[0], t[1]); });
  for (const td::Shape& shape : {td::Shape{8192, 64}, td::Shape{256, 32000}, td::Shape{64, 10}, td::Shape{256, 1000}})
    add("cross_entropy and its gradient " + to_string(shape), {f32(shape), td::randint(0, 10, {shape[0]})},
        [](const Tensors& t) {
          const td::EnableGrad on;
          Tensor logits = t[0].detach();
          logits.requires_grad(true);
          return td::grad(cross_entropy(logits, t[1]), {logits})[0];
        });
  for (const td::Shape& shape : {td::Shape{8192, 64}, td::Shape{256, 1000}, td::Shape{64, 10}})
    add("cross_entropy of x + row and its gradient " + to_string(shape),
        {f32(shape), td::randint(0, 10, {shape[0]}), f32({shape[1]})}, [](const Tensors& t) {
          const td::EnableGrad on;
          Tensor logits = t[0].detach();
          logits.requires_grad(true);
          return td::grad(cross_entropy(logits + t[2], t[1]), {logits})[0];
        });
  add("batch_norm of x in training [64, 32, 16, 16]", {f32({64, 32, 16, 16}), f32({32}), f32({32})},
      [](const Tensors& t) {
        const Tensor mean = t[0].mean({0, 2, 3}, {.keepdim = true}), centred = t[0] - mean;
        return relu(centred * rsqrt(square(centred).mean({0, 2, 3}, {.keepdim = true}) + 1e-5f) *
                        t[1].reshape({32, 1, 1}) +
                    t[2].reshape({32, 1, 1}));
      });
  add("cross_entropy 256x32000", {f32({256, 32000}), td::randint(0, 32000, {256})},
      [](const Tensors& t) { return cross_entropy(t[0], t[1]); });

  for (const td::DType type : {td::float16, td::bfloat16}) {
    const std::string name = type == td::float16 ? "float16" : "bfloat16";
    add(name + " chain of 4, 1M", {f32({1 << 20}).to(type), f32({1 << 20}).to(type)}, chain);
    add(name + " add, 1M", {f32({1 << 20}).to(type), f32({1 << 20}).to(type)},
        [](const Tensors& t) { return t[0] + t[1]; });
    add(name + " to float32, 1M", {f32({1 << 20}).to(type)},
        [=](const Tensors& t) { return x(t).to(td::float32) * 2; });
    add("float32 to " + name + ", 1M", {f32({1 << 20})}, [=](const Tensors& t) { return (x(t) * 2).to(type); });
    add(name + " gelu(x) * y, 1M", {f32({1 << 20}).to(type), f32({1 << 20}).to(type)},
        [](const Tensors& t) { return gelu(t[0]) * t[1]; });
    add(name + " row sums 1024x1024", {f32({1024, 1024}).to(type)},
        [=](const Tensors& t) { return (x(t) * 2).sum(1); });
    add(name + " softmax 1024x1024", {f32({1024, 1024}).to(type)}, [=](const Tensors& t) { return softmax(x(t)); });
  }
  add("float64 chain of 4, 1M", {f32({1 << 20}).to(td::float64), f32({1 << 20}).to(td::float64)}, chain);
  add("int64 chain of 3, 1M", {td::randint(0, 100, {1 << 20}), td::randint(0, 100, {1 << 20})},
      [](const Tensors& t) { return t[0] * 3 + t[1] - 7; });
  add("int32 chain of 3, 1M",
      {td::randint(0, 100, {1 << 20}).to(td::int32), td::randint(0, 100, {1 << 20}).to(td::int32)},
      [](const Tensors& t) { return t[0] * 3 + t[1] - 7; });
  add("uint8 to float32, scaled, 1M", {td::randint(0, 255, {1 << 20}).to(td::uint8)},
      [=](const Tensors& t) { return x(t).to(td::float32) * (1 / 255.f) - 0.5f; });
  add("float32 chain of 4, 1M", {f32({1 << 20}), f32({1 << 20})}, chain);
  add("float32 chain of 4, 4096", {f32({4096}), f32({4096})}, chain);
  add("gelu chain, 1M", {f32({1 << 20})},
      [=](const Tensors& t) { return gelu(x(t) * 0.5f + 1.f) * sigmoid(x(t)) - tanh(x(t)); });
  add("where with a mask, 1M", {f32({1 << 20}), f32({1 << 20}), f32({1 << 20}) > 0.f},
      [](const Tensors& t) { return where(t[2], t[0], t[1]) * 2; });
  add("where x > y, 1M", {f32({1 << 20}), f32({1 << 20})},
      [](const Tensors& t) { return where(t[0] > t[1], t[0], -t[1]); });
  add("two masks joined, 1M", {f32({1 << 20}), f32({1 << 20})},
      [](const Tensors& t) { return logical_and(t[0] > 0.f, t[1] < 1.f); });
  add("sum of a mask, 1M", {f32({1 << 20})}, [=](const Tensors& t) { return (x(t) > 0.f).sum(); });

  add("transpose to contiguous 1024x1024", {f32({1024, 1024})},
      [=](const Tensors& t) { return x(t).transpose(0, 1).contiguous(); });
  add("transpose, scaled 1024x1024", {f32({1024, 1024})},
      [=](const Tensors& t) { return x(t).transpose(0, 1).contiguous() * 2; });
  add("x + y transposed 1024x1024", {f32({1024, 1024}), f32({1024, 1024})},
      [](const Tensors& t) { return t[0] + t[1].transpose(0, 1); });
  add("x + y transposed 1000x777", {f32({1000, 777}), f32({777, 1000})},
      [](const Tensors& t) { return relu(t[0] + t[1].transpose(0, 1)); });
  add("float16 x + y transposed 1024x1024", {f32({1024, 1024}).to(td::float16), f32({1024, 1024}).to(td::float16)},
      [](const Tensors& t) { return relu(t[0] + t[1].transpose(0, 1)); });
  add("NCHW to NHWC copy [16, 64, 32, 32]", {f32({16, 64, 32, 32})}, [=](const Tensors& t) {
    return x(t).permute({0, 2, 3, 1}).contiguous();
  });
  add("NHWC to NCHW, relu [16, 32, 32, 64]", {f32({16, 32, 32, 64})}, [=](const Tensors& t) {
    return relu(x(t).permute({0, 3, 1, 2}).contiguous());
  });
  add("dims reversed, relu [64, 128, 96]", {f32({64, 128, 96})}, [=](const Tensors& t) {
    return relu(x(t).permute({2, 1, 0}).contiguous());
  });
  add("images of uint8 to NCHW floats [32, 64, 64, 3]", {td::randint(0, 255, {32, 64, 64, 3}).to(td::uint8)},
      [=](const Tensors& t) {
        return x(t).permute({0, 3, 1, 2}).to(td::float32) / 255.f;
      });
  add("flip * 2 1024x1024", {f32({1024, 1024})}, [=](const Tensors& t) { return x(t).flip({1}) * 2; });
  add("row sums of 2 x transposed 1024x1024", {f32({1024, 1024})},
      [=](const Tensors& t) { return (x(t).transpose(0, 1) * 2).sum(1); });
  add("masked scores, softmax [16, 8, 64, 64]", {f32({16, 8, 64, 64}), f32({64, 64}) > 0.f},
      [](const Tensors& t) { return softmax(where(t[1], t[0] * 0.125f, -1e9f)); });
  add("heads to the front [8, 128, 8, 64]", {f32({8, 128, 8, 64})}, [=](const Tensors& t) {
    return x(t).permute({0, 2, 1, 3}).contiguous() * 0.125f;
  });
  add("every second column 1024x1024", {f32({1024, 1024})},
      [=](const Tensors& t) { return x(t).slice(1, 0, 1024, 2) * 2 + 1; });
  add("halves of columns 1024x1024", {f32({1024, 1024})},
      [=](const Tensors& t) { return x(t).slice(1, 0, 512) * sigmoid(x(t).slice(1, 512, 1024)); });
  add("concat of two sums, 1M", {f32({512, 1024}), f32({512, 1024})}, [](const Tensors& t) {
    return td::concat({t[0] + t[1], t[0] - t[1]}, 0) * 2;
  });
  add("copy of a slice 1024x1024", {f32({1024, 1024})},
      [=](const Tensors& t) { return x(t).slice(1, 100, 900).contiguous(); });
  add("single add, 1M", {f32({1 << 20}), f32({1 << 20})}, [](const Tensors& t) { return t[0] + t[1]; });
  add("single exp, 1M", {f32({1 << 20})}, [=](const Tensors& t) { return exp(x(t)); });

  add("add of a row 1024x1024", {f32({1024, 1024}), f32({1024})}, [](const Tensors& t) { return relu(t[0] + t[1]); });
  add("add of a column 1024x1024", {f32({1024, 1024}), f32({1024, 1})},
      [](const Tensors& t) { return relu(t[0] + t[1]); });
  add("add of a row 65536x8", {f32({65536, 8}), f32({8})}, [](const Tensors& t) { return relu(t[0] + t[1]); });
  add("add of a column 65536x3", {f32({65536, 3}), f32({65536, 1})},
      [](const Tensors& t) { return relu(t[0] + t[1]); });
  add("scale and shift of channels [16, 64, 32, 32]", {f32({16, 64, 32, 32}), f32({64, 1, 1}), f32({64, 1, 1})},
      [](const Tensors& t) { return relu(t[0] * t[1] + t[2]); });
  add("scale and shift of channels [16, 1024, 4, 4]", {f32({16, 1024, 4, 4}), f32({1024, 1, 1}), f32({1024, 1, 1})},
      [](const Tensors& t) { return relu(t[0] * t[1] + t[2]); });

  add("sum, 1M", {f32({1 << 20})}, [=](const Tensors& t) { return x(t).sum(); });
  add("sum of squares, 1M", {f32({1 << 20})}, [=](const Tensors& t) { return square(x(t)).sum(); });
  add("mean of abs(x - y), 1M", {f32({1 << 20}), f32({1 << 20})},
      [](const Tensors& t) { return abs(t[0] - t[1]).mean(); });
  add("max, 1M", {f32({1 << 20})}, [=](const Tensors& t) { return x(t).max(); });
  add("max of abs(x), 1M", {f32({1 << 20})}, [=](const Tensors& t) { return abs(x(t)).max(); });
  add("sum of int64, 1M", {td::randint(0, 100, {1 << 20})}, [=](const Tensors& t) { return (x(t) * 2).sum(); });
  add("row sums 1024x1024", {f32({1024, 1024})}, [=](const Tensors& t) { return x(t).sum(1); });
  add("row sums of squares 1024x1024", {f32({1024, 1024})}, [=](const Tensors& t) { return square(x(t)).sum(1); });
  add("row sums of squares 65536x16", {f32({65536, 16})}, [=](const Tensors& t) { return square(x(t)).sum(1); });
  add("row maxima of squares 1024x1024", {f32({1024, 1024})}, [=](const Tensors& t) { return square(x(t)).max(1); });
  add("column sums 1024x1024", {f32({1024, 1024})}, [=](const Tensors& t) { return x(t).sum(0); });
  add("column sums of x * y 1024x1024", {f32({1024, 1024}), f32({1024, 1024})},
      [](const Tensors& t) { return (t[0] * t[1]).sum(0); });
  add("column sums of x * y 65536x16", {f32({65536, 16}), f32({65536, 16})},
      [](const Tensors& t) { return (t[0] * t[1]).sum(0); });
  add("column maxima of abs(x) 1024x1024", {f32({1024, 1024})}, [=](const Tensors& t) { return abs(x(t)).max(0); });
  add("x less column means 1024x1024", {f32({1024, 1024})},
      [=](const Tensors& t) { return x(t) - x(t).mean(0, {.keepdim = true}); });
  add("mean over {0, 2, 3} [16, 64, 32, 32]", {f32({16, 64, 32, 32})}, [=](const Tensors& t) {
    return x(t).mean({0, 2, 3});
  });
  add("mean of squares over {0, 2, 3} [16, 64, 32, 32]", {f32({16, 64, 32, 32})}, [=](const Tensors& t) {
    return square(x(t)).mean({0, 2, 3});
  });

  add("dropout * 2, 1M", {f32({1 << 20})}, [=](const Tensors& t) { return td::dropout(x(t), 0.3) * 2; });
  add("row sums of rand * x 1024x1024", {f32({1024, 1024})}, [=](const Tensors& t) {
    return (td::rand({1024, 1024}) * x(t)).sum(1);
  });
  add("rand - 0.5, 1M", {}, [](const Tensors&) { return td::rand({1 << 20}) - 0.5f; });
  add("RNN of 16 turns, 32x64", {f32({32, 64}), f32({16, 32, 64}), f32({64, 64})}, [](const Tensors& t) {
    Tensor h = t[0];
    for (int64_t i = 0; i < 16; ++i) h = tanh(matmul(h, t[2]) * 0.1f + t[1].select(0, i));
    return h;
  });
  return all;
}

bool chosen(const std::string& name, const std::vector<std::string>& parts) {
  return parts.empty() || std::any_of(parts.begin(), parts.end(),
                                      [&](const std::string& part) { return name.find(part) != std::string::npos; });
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 7, threads = 1;
  double seconds = 0.03;
  bool source = false;
  std::vector<std::string> parts;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--rounds" && i + 1 < argc) rounds = std::atoi(argv[++i]);
    else if (word == "--seconds" && i + 1 < argc) seconds = std::atof(argv[++i]);
    else if (word == "--threads" && i + 1 < argc) threads = std::atoi(argv[++i]);
    else if (word == "--source") source = true;
    else parts.push_back(word);
  }
  td::manual_seed(1);
  td::set_num_threads(threads);
  one_thread = threads == 1;
  if (!source)
    std::printf(
        "| function | eager, µs | compiled, µs | best ÷ best | median ratio | generated kernels "
        "|\n|---|---|---|---|---|---|\n");
  for (const Row& row : rows()) {
    if (!chosen(row.name, parts)) continue;
    if (!source) {
      measure(row, rounds, seconds);
      continue;
    }
    td::NoGrad none;
    auto compiled = td::compile([&](const td::Tensors& x) { return row.function(x); });
    compiled(row.arguments);
    const std::string text = compiled.source();
    const size_t headers = text.rfind("\n#endif\n"), begin = headers == std::string::npos ? 0 : headers + 8;
    std::printf("// %s\n%s\n%s\n", row.name.c_str(), text.substr(begin).c_str(), compiled.explain().c_str());
  }
}
