// Compiled functions on cuda(0), emulated or on a GPU: generated kernels, whole steps captured into one graph.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "files.h"
#include "graph/run/cuda_runtime.h"
#include "kernels/cuda/module.h"
#include "tandem.h"
#include "tests/cuda/orders.h"

using namespace tandem;

namespace {

struct Mlp {
  nn::Linear first{20, 16};
  nn::Dropout drop{0.2};
  nn::Linear output{16, 5};
  Tensor operator()(const Tensor& x) const { return output(drop(relu(first(x)))); }
};

// Losses of a few steps of training.
std::vector<double> train(Device device, Mode mode, std::string* source = nullptr) {
  manual_seed(3);
  Mlp model;
  nn::to(model, device);
  nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 1e-2, .weight_decay = 1e-2});
  nn::optim::CosineSchedule schedule(optimizer, {.steps = 10, .warmup = 2});
  auto step = compile(
      [&](const Tensor& x, const Tensor& labels) {
        optimizer.zero_grad();
        Tensor loss = cross_entropy(model(x), labels);
        loss.backward();
        nn::clip_grad_norm(nn::parameters(model), 1.0);
        optimizer.step();
        return loss;
      },
      {.mode = mode});
  std::vector<Tensor> losses;  // all of them held: a result must never be overwritten
  for (int i = 0; i < 7; ++i) {
    const Tensor x = randn({8, 20}), labels = randint(0, 5, {8});
    losses.push_back(step(x.to(device), labels.to(device)));
    schedule.step();
  }
  CHECK_MESSAGE(step.stats().note.empty(), step.stats().note);  // why it runs on a lower tier than asked for
  if (source) *source = step.source();
  std::vector<double> values;
  for (const Tensor& loss : losses) values.push_back(loss.item<double>());
  return values;
}

void check_close(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) CHECK(std::fabs(a[i] - b[i]) <= tolerance * std::fabs(b[i]));
}

}  // namespace

TEST_CASE("cuda: a training step gives the same losses eagerly, replayed and compiled, and as on the CPU") {
  const std::vector<double> wanted = train(cpu(), Mode::eager);
  check_close(train(cuda(0), Mode::eager), wanted, 1e-5);
  check_close(train(cuda(0), Mode::replay), wanted, 1e-5);
  std::string source;
  check_close(train(cuda(0), Mode::compiled, &source), wanted, 1e-5);
  CHECK(source.find("__global__") != std::string::npos);
  // For a look at it, or at what NVRTC makes of it on a machine without a GPU.
  if (const char* path = std::getenv("TANDEM_TEST_DUMP")) std::ofstream(path) << source;
}

TEST_CASE("cuda: fused kernels of every kind agree with eager ones, in any order of lanes") {
  NoGrad guard;
  const auto check = [](const char* what, const std::vector<Shape>& shapes,
                        const std::function<Tensor(const Tensors&)>& f) {
    INFO(what);
    Tensors inputs;
    for (const Shape& shape : shapes) inputs.push_back(randn(shape).to(cuda(0)));
    const std::vector<double> wanted = f(inputs).to_vector<double>();
    auto call = [&](const Tensors& x) {
      if (x.size() == 1) {
        auto g = compile([&](const Tensor& a) { return f({a}); }, {.mode = Mode::compiled});
        return g(x[0]).template to_vector<double>();
      }
      auto g = compile([&](const Tensor& a, const Tensor& b) { return f({a, b}); }, {.mode = Mode::compiled});
      return g(x[0], x[1]).template to_vector<double>();
    };
    in_every_order([&](bool) {
      const std::vector<double> got = call(inputs);
      REQUIRE(got.size() == wanted.size());
      size_t wrong = 0;
      for (size_t i = 0; i < got.size(); ++i)
        wrong += std::fabs(got[i] - wanted[i]) > 1e-5 + 1e-5 * std::fabs(wanted[i]) ? 1 : 0;
      CHECK(wrong == 0);
    });
  };
  check("one number", {{}}, [](const Tensors& x) { return exp(x[0]) + 1; });
  check("chain", {{7, 33}}, [](const Tensors& x) { return tanh(x[0] * 2 + 1) * sigmoid(x[0]); });
  check("broadcast", {{7, 33}, {33}}, [](const Tensors& x) { return gelu(x[0] + x[1]) * x[0].slice(0, 0, 1); });
  check("transposed", {{7, 33}, {33, 7}}, [](const Tensors& x) { return exp(x[0].transpose(0, 1)) - x[1]; });
  check("softmax", {{9, 50}}, [](const Tensors& x) { return softmax(x[0] * 3); });
  check("long softmax", {{2, 3000}}, [](const Tensors& x) { return softmax(x[0] * 3); });
  check("very long softmax", {{2, 9000}}, [](const Tensors& x) { return log_softmax(x[0] * 3); });
  check("layer norm", {{9, 50}}, [](const Tensors& x) { return layer_norm(x[0]) + 1; });
  check("sum of all", {{40, 70}}, [](const Tensors& x) { return sum(square(x[0])) / 3; });
  check("rows", {{40, 70}}, [](const Tensors& x) { return sum(exp(x[0]), 1) * 2; });
  check("row of rows", {{40, 70}}, [](const Tensors& x) { return mean(max(x[0] * 2, 1)); });
  check("columns", {{40, 70}}, [](const Tensors& x) { return sum(square(x[0]), 0); });
}

TEST_CASE("cuda: branches and loops are the host's, of kernels on the device") {
  manual_seed(4);
  const Tensor w = (randn({4, 4}) * 0.5).detach().requires_grad(true), xs = randn({6, 4});
  const auto step_of = [&](const Tensor& weight, Mode mode) {
    return compile(
        [weight](const Tensor& x) {
          const auto [last, all] = scan(
              [&](const Tensor& h, const Tensor& e) {
                const Tensor next = cond(
                    e.sum() > 0, [&] { return tanh(matmul(weight, h) + e); }, [&] { return h * 0.5 + e; });
                return std::pair{next, next * 2};
              },
              zeros({4}, {.device = x.device()}), x);
          const Tensor turns = while_loop([](const Tensor& n) { return n < 3; }, [](const Tensor& n) { return n + 1; },
                                          zeros({}, {.device = x.device()}));
          const Tensor loss = square(all).sum() + last.sum() * turns;
          loss.backward();
          return loss;
        },
        {.mode = mode});
  };
  const double wanted = step_of(w, Mode::eager)(xs).item<double>();
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    Tensor there = w.detach().to(cuda(0)).detach().requires_grad(true);
    auto step = step_of(there, mode);
    for (int call = 0; call < 3; ++call) {  // a recording would be made by the third
      there.set_grad({});
      CHECK(step(xs.to(cuda(0))).item<double>() == doctest::Approx(wanted).epsilon(1e-5));
    }
    CHECK(allclose(there.grad().cpu(), w.grad(), {.rtol = 1e-4, .atol = 1e-5}));
  }
}

TEST_CASE("cuda: generated kernels are kept on disk, and built again where the entry is damaged") {
  const file_tests::TemporaryFolder folder;
  file_tests::Variable directory("TANDEM_CACHE_DIR", folder / "cache"), on("TANDEM_CACHE", std::nullopt);
  const std::string source =
      std::string(gpu::source_prelude) + R"(extern "C" __global__ void seven(float* out) { *out = 7; })";
  const auto build = [&] { return graph::build_cuda_source(source, {"seven"}, cuda(0)); };
  const auto value = [](const std::string& binary) {
    gpu::Module module(binary, cuda(0));
    Tensor out = zeros({1}, {.device = cuda(0)});
    void* to = out.impl()->data;
    void* arguments[] = {&to};
    gpu::launch(module.kernel("seven"), {1}, {1}, 0, arguments, cuda(0));
    return out.cpu().to_vector<float>()[0];
  };
  const graph::CudaBinary built = build(), found = build();
  CHECK_FALSE(built.from_cache);
  CHECK(found.from_cache);
  CHECK(found.bytes == built.bytes);
  CHECK(built.note + found.note == "");
  CHECK(value(found.bytes) == 7);

  int sources = 0;
  for (const auto& entry : file_tests::fs::directory_iterator(folder / "cache")) {
    sources += entry.path().extension() == ".cu";
    if (entry.path().extension() == ".cubin") file_tests::fs::resize_file(entry.path(), 100);
  }
  CHECK(sources == 1);
  const graph::CudaBinary again = build();
  CHECK_FALSE(again.from_cache);
  CHECK(contains(again.note, "is cut short"));
  CHECK(value(again.bytes) == 7);
  CHECK(build().from_cache);

  on.set("0");
  const graph::CudaBinary uncached = build();
  CHECK_FALSE(uncached.from_cache);
  CHECK(contains(uncached.note, "not cached on disk: switched off"));
}
