// A recurrent net of 1,000 turns, 16 wide: a scan eagerly, replayed and compiled, and the C++ loop that unrolls.
//
//     scan_bench --benchmark_filter=compiled
#include <benchmark/benchmark.h>
#include <tandem/tandem.h>

namespace td = tandem;

namespace {

constexpr int64_t turns = 1000, width = 16;

struct Net {
  td::Tensor w = td::randn({width, width}) * 0.1, xs = td::randn({turns, width});

  td::Tensor cell(const td::Tensor& h, const td::Tensor& x) const { return tanh(matmul(w, h) + x); }
  td::Tensor scanned(const td::Tensor& xs) const {
    const auto turn = [&](const td::Tensor& h, const td::Tensor& x) {
      const td::Tensor next = cell(h, x);
      return std::pair{next, next};
    };
    return td::scan(turn, td::zeros({width}), xs).second;
  }
  td::Tensor unrolled(const td::Tensor& xs) const {
    td::Tensor h = td::zeros({width});
    td::Tensors all;
    for (int64_t i = 0; i < turns; ++i) all.push_back(h = cell(h, xs.select(0, i)));
    return stack(all, 0);
  }
};

void scan_of(benchmark::State& state, td::Mode mode, bool gradient) {
  td::manual_seed(1);
  Net net;
  net.w.requires_grad(gradient);
  auto step = td::compile(
      [&](const td::Tensor& xs) {
        td::Tensor loss = net.scanned(xs).sum();
        if (gradient) loss.backward();
        return loss;
      },
      {.mode = mode, .verify = td::Verify::never});
  for (int i = 0; i < 3; ++i) step(net.xs);
  for (auto _ : state) benchmark::DoNotOptimize(step(net.xs).item<float>());
}
void unrolled(benchmark::State& state, td::Mode mode) {
  td::manual_seed(1);
  Net net;
  auto step = td::compile([&](const td::Tensor& xs) { return net.unrolled(xs).sum(); },
                          {.mode = mode, .verify = td::Verify::never});
  for (int i = 0; i < 3; ++i) step(net.xs);
  for (auto _ : state) benchmark::DoNotOptimize(step(net.xs).item<float>());
}

BENCHMARK_CAPTURE(scan_of, eager, td::Mode::eager, false)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(scan_of, replay, td::Mode::replay, false)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(scan_of, compiled, td::Mode::compiled, false)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(scan_of, eager_with_gradient, td::Mode::eager, true)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(scan_of, replay_with_gradient, td::Mode::replay, true)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(scan_of, compiled_with_gradient, td::Mode::compiled, true)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(unrolled, replay, td::Mode::replay)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(unrolled, compiled, td::Mode::compiled)->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
