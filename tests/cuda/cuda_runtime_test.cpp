// Devices, streams and recordings: who waits for whom, from several threads and on two devices, and what errors say.
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/capture.h"
#include "kernels/cuda/matmul.h"
#include "tandem.h"
#include "tests/support.h"

#ifdef TANDEM_EMULATOR
#include "cuda_runtime.h"
#endif

using namespace tandem;

namespace {

template <class F> std::string error_of(F f) {
  try {
    f();
  } catch (const KernelError& error) { return error.what(); }
  return "";
}

bool all_are(const Tensor& x, double value) {
  for (const double each : x.to_vector<double>())
    if (each != value) return false;
  return true;
}

bool two_devices() {
  if (cuda_device_count() > 1) return true;
  MESSAGE("one device: not tested");
  return false;
}

}  // namespace

TEST_CASE("cuda: what other threads do during a recording runs, and is no part of it") {
  const NoGrad guard;
  const Device device = cuda(0);
  Tensor state = zeros({100}, {.device = device});
  gpu::Capture step(device);
  double others = 0;
  step.record([&] {
    state.assign(state + 1);
    std::thread([&] {
      const NoGrad guard;
      others = sum(full({3, 500}, 2, {.device = device}) * 3).item<double>();
      trim_memory(device);
    }).join();
    state.assign(state * 2);
  });
  CHECK(others == 9000);
  CHECK(step.nodes() == 4);
  CHECK(all_are(state, 0));
  step.launch();
  step.launch();
  CHECK(all_are(state, 6));
}

TEST_CASE("cuda: several threads train at once, each a step recorded as one launch") {
  const auto train = [](float rate) {
    Tensor w = full({40}, 1, {.device = cuda(0)});
    auto step = compile(
        [&](const Tensor& x) {
          w.assign(w - x * rate);
          return sum(w);
        },
        {.mode = Mode::compiled});
    const Tensor x = ones({40}, {.device = cuda(0)});
    double last = 0;
    for (int i = 0; i < 12; ++i) last = step(x).item<double>();
    return last;
  };
  std::vector<double> results(3);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) threads.emplace_back([&, t] { results[size_t(t)] = train(float(t + 1) * 0.5f); });
  for (std::thread& each : threads) each.join();
  for (int t = 0; t < 3; ++t) CHECK(results[size_t(t)] == 40 * (1 - 12 * (t + 1) * 0.5));

  // And one step that all of them call: no update is lost.
  Tensor w = zeros({40}, {.device = cuda(0)});
  auto shared = compile([&](const Tensor& x) { return w.assign(w + x), sum(w); }, {.mode = Mode::compiled});
  threads.clear();
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      const Tensor x = ones({40}, {.device = cuda(0)});
      for (int i = 0; i < 8; ++i) (void)shared(x).item<double>();
    });
  for (std::thread& each : threads) each.join();
  CHECK(all_are(w, 24));
}

TEST_CASE("cuda: kernels of a recording use the same workspace one after another") {
  const NoGrad guard;
  const Tensor x = arange(0, 5000).to(float32).to(cuda(0));
  const auto recorded = [&](int times, Tensor& out) {
    auto step = std::make_unique<gpu::Capture>(cuda(0));
    step->record([&] {
      for (int i = 0; i < times; ++i) out.assign(sort(x * (i % 2 ? 1 : -1)).values);
    });
    return step;
  };
  Tensor out = empty({5000}, {.device = cuda(0)}), again = empty({5000}, {.device = cuda(0)});
  const auto once = recorded(1, out), often = recorded(6, again);
  REQUIRE(once->workspace_bytes() > 0);
  CHECK(often->workspace_bytes() == once->workspace_bytes());
  once->launch();
  often->launch();
  CHECK(out.to_vector<float>().front() == -4999);
  CHECK(again.to_vector<float>().back() == 4999);
}

TEST_CASE("cuda: during a recording memory may be asked for and given back") {
  const NoGrad guard;
  const Device device = cuda(0);
  Tensor x = ones({3000}, {.device = device}), out = zeros({3000}, {.device = device});
  (void)empty({123457}, {.device = device});  // cached from here on
  const int64_t reserved = memory_stats(device).reserved;
  gpu::Capture step(device);
  Tensor kept;
  step.record([&] {
    trim_memory(device);
    kept = x + 1;
    const Tensor large = empty({1234567}, {.device = device});  // which no cache has
    out.assign(kept * 2);
  });
  CHECK(memory_stats(device).reserved < reserved + 4 * 1234567);
  step.launch();
  CHECK(all_are(out, 4));
}

TEST_CASE("cuda: what a recording can't hold is an error that says so, with the line, and leaves nothing behind") {
  const NoGrad guard;
  Tensor x = ones({10}, {.device = cuda(0)}), state = zeros({10}, {.device = cuda(0)});
  gpu::Capture step(cuda(0));
  const std::string text = error_of([&] { step.record([&] { (void)sum(x).item<double>(); }); });
  CHECK_MESSAGE(contains(text, "transfer: a copy between devices, which a recording of the device's work can't hold"),
                text);
  CHECK_MESSAGE(contains(text, "cuda_runtime_test.cpp:"), text);
  CHECK(contains(error_of([&] { step.record([&] { synchronize(cuda(0)); }); }), "synchronize: waiting for the device"));
  if (two_devices()) {
    const Tensor there = ones({10}, {.device = cuda(1)});
    const std::string other = error_of([&] { step.record([&] { (void)(there + 1); }); });
    CHECK_MESSAGE(contains(other, "add: a recording of cuda:0 can't hold what runs on cuda:1"), other);
  }
  step.record([&] { state.assign(state + x); });
  step.launch();
  CHECK(all_are(state, 1));
}

TEST_CASE("cuda: a copy to another device waits for what uses the memory there") {
  if (!two_devices()) return;
  const NoGrad guard;
  for (const auto& [here, there] : {std::pair{cuda(0), cuda(1)}, std::pair{cuda(1), cuda(0)}}) {
    const Tensor source = full({777}, 5, {.device = here});
    Tensor x = full({777}, 1, {.device = there});
    const Tensor y = x + 1;
    const void* const memory = x.impl()->data;
    x = {};  // for the copy to be written to
    const Tensor z = source.to(there);
    CHECK(z.impl()->data == memory);
    CHECK(all_are(y, 2));
    CHECK(all_are(z, 5));
    CHECK(all_are(z * 2 + 1, 11));
  }
}

TEST_CASE("cuda: kernels with much shared memory run on each device") {
  if (!two_devices()) return;
  const NoGrad guard;
  const Tensor a = full({136, 104}, 0.5, {.dtype = float16}), b = full({104, 144}, 0.25, {.dtype = float16});
  const Tensor q = full({1, 1, 70, 128}, 0.5, {.dtype = float16});
  for (const Device device : {cuda(0), cuda(1)}) {
    const Tensor there = q.to(device);
    CHECK(all_are(matmul(a.to(device), b.to(device)), 13));
    CHECK(all_are(scaled_dot_product_attention(there, there, there), 0.5));
    const Tensor leaf = there.clone().requires_grad(true);
    const EnableGrad gradients;
    sum(scaled_dot_product_attention(leaf, leaf, leaf)).backward();
    CHECK(leaf.grad().defined());
    CHECK(leaf.grad().cpu().shape() == q.shape());
  }
}

TEST_CASE("cuda: a compiled function over two devices runs step by step") {
  if (!two_devices()) return;
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    auto apart = compile(
        [](const Tensor& a, const Tensor& b, Dynamic<float> rate) {
          return std::pair{exp(a * 0) * rate + 1, b * rate - 1};
        },
        {.mode = mode});
    auto across =
        compile([](const Tensor& a, const Tensor& b) { return ((a * 2 + 1).to(b.device()) * b).to(a.device()) + a; },
                {.mode = mode});
    const Tensor a = full({50}, 3, {.device = cuda(0)}), b = full({50}, 4, {.device = cuda(1)});
    for (int call = 0; call < 5; ++call) {
      CAPTURE(call);
      const auto [first, second] = apart(a, b, Dynamic<float>(float(call) * 0.5f));
      CHECK(all_are(first, call * 0.5 + 1));
      CHECK(all_are(second, call * 2 - 1));
      CHECK(all_are(across(a, b), 31));
    }
    if (mode != Mode::compiled) continue;
    CHECK_MESSAGE(!contains(apart.plan(), "recorded as one launch"), apart.plan());
    CHECK_MESSAGE(!contains(across.plan(), "recorded as one launch"), across.plan());
  }
}

TEST_CASE("cuda: a product's batches in several strided parts give what one launch does") {
  const NoGrad guard;
  manual_seed(5);
  // Neither of the three batch dims can be merged with another.
  const Tensor a = randn({2, 5, 3, 8, 6}).to(cuda(0)).permute({0, 2, 1, 3, 4}), b = randn({3, 1, 6, 7}).to(cuda(0));
  const Tensor wanted = matmul(a, b), got = zeros(wanted.shape(), {.device = cuda(0)});
  gpu::MatmulProblem p{};
  p.type = float32, p.m = 8, p.n = 7, p.k = 6;
  p.a = {a.impl()->data, 6, 1}, p.b = {b.impl()->data, 7, 1};
  p.c = got.impl()->data, p.c_row = 7, p.device = cuda(0), p.stream = gpu::stream_of(cuda(0));
  const Shape batch{2, 3, 5}, of_c{15 * 56, 5 * 56, 56}, of_a{a.strides()[0], a.strides()[1], a.strides()[2]},
      of_b{0, 42, 0};
  p.batch = gpu::Iteration(batch, {{&batch, &of_c}, {&batch, &of_a}, {&batch, &of_b}});
  REQUIRE(p.batch.rank > 1);
  int parts = 0;
  gpu::in_strided_batches(p, [&](const gpu::MatmulProblem& part) {
    ++parts;
    CHECK(part.batch.rank == 1);
    gpu::own_matmul(part);
  });
  CHECK(parts == 6);
  CHECK(got.to_vector<float>() == wanted.to_vector<float>());
}

#ifdef TANDEM_EMULATOR
TEST_CASE(
    "cuda: an error of a kernel is told by who waits, and with each launch waited for names the op and its line") {
  const NoGrad guard;
  const Tensor x = ones({10}, {.device = cuda(0)});
  synchronize(cuda(0));
  const auto run = [&] {
    tandem_emulator::fail_launch(2);
    const Tensor y = x * 2 + 1;
    const Tensor z = tanh(y);
    (void)z.cpu();
  };
  const std::string late = error_of(run);
  CHECK_MESSAGE(contains(late, "transfer: CUDA: copy between devices"), late);
  CHECK_MESSAGE(contains(late, "TANDEM_CUDA_SYNC=1"), late);
  CHECK_MESSAGE(contains(late, "cuda_runtime_test.cpp:"), late);

  gpu::set_synchronous(true);
  const std::string text = error_of(run);
  CHECK_MESSAGE(contains(text, "add: CUDA: launch of "), text);
  CHECK_MESSAGE(contains(text, "cudaErrorIllegalAddress"), text);
  CHECK_MESSAGE(contains(text, "cuda_runtime_test.cpp:"), text);
  gpu::set_synchronous(false);

  // In compiled functions likewise; one that is recorded runs step by step then.
  const auto f = [](const Tensor& a) { return sum(exp(a), 0) + sort(a).values; };
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    for (const bool each : {false, true}) {
      gpu::set_synchronous(each);
      auto g = compile(f, {.mode = mode});
      for (int call = 0; call < 3; ++call) (void)g(x).cpu();
      synchronize(cuda(0));
      tandem_emulator::fail_launch(1);
      const std::string said = error_of([&] {
        const Tensor result = g(x);
        synchronize(cuda(0));
      });
      CAPTURE(said);
      CHECK(contains(said, each ? "CUDA: launch of " : "synchronize: CUDA: synchronize: "));
      CHECK(contains(said, "cuda_runtime_test.cpp:"));
      tandem_emulator::fail_launch(0);
      CHECK(g(x).cpu().shape() == x.shape());
      gpu::set_synchronous(false);
    }
  }
}
#endif
