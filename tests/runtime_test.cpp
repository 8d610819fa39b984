// Plans as text, and the seam between plans and devices: a runtime of the test's own takes the CPU's place.
#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "files.h"
#include "graph/run/plan.h"
#include "graph/run/runtime.h"
#include "support.h"
#include "tandem.h"

using namespace tandem;

namespace {

/// The CPU's kernels, counted; without a compiler if so asked.
class Counting final : public graph::Runtime {
 public:
  explicit Counting(bool compiles) : compiles_(compiles) {}
  const char* tier() const override { return "counted kernels"; }
  std::unique_ptr<graph::Kernels> kernels() const override { return std::make_unique<CountedKernels>(*this); }
  mutable int launches = 0;

 private:
  struct CountedLaunch final : graph::Launch {
    CountedLaunch(std::unique_ptr<graph::Launch> inner, int& count) : inner(std::move(inner)), count(count) {}
    void run() override {
      ++count;
      inner->run();
    }
    std::unique_ptr<graph::Launch> inner;
    int& count;
  };
  struct CountedKernels final : graph::Kernels {
    explicit CountedKernels(const Counting& runtime) : runtime(runtime) {}
    int add(const LoopKernel& kernel) override { return inner->add(kernel); }
    std::string source() const override { return inner->source(); }
    bool compile(Device device, Where where, std::string* reason, graph::CompileCost& cost) override {
      if (!runtime.compiles_ && reason) *reason = "this device has no compiler";
      return runtime.compiles_ && inner->compile(device, where, reason, cost);
    }
    std::unique_ptr<graph::Launch> launch(int kernel, const graph::PointTo& point_to) const override {
      return std::make_unique<CountedLaunch>(inner->launch(kernel, point_to), runtime.launches);
    }
    const Counting& runtime;
    std::unique_ptr<graph::Kernels> inner = graph::cpu_runtime().kernels();
  };
  bool compiles_;
};

struct InPlaceOfTheCpu {
  explicit InPlaceOfTheCpu(const graph::Runtime& runtime) : before(graph::set_runtime(DeviceKind::cpu, runtime)) {}
  ~InPlaceOfTheCpu() { graph::set_runtime(DeviceKind::cpu, before); }
  const graph::Runtime& before;
};

}  // namespace

TEST_CASE("runtime: a device's own runtime makes and launches the kernels of its plans") {
  const Counting runtime(true);
  const Tensor x = randn({4, 3});
  const auto wanted = (exp(x) + 1).to_vector<float>();
  {
    const InPlaceOfTheCpu scope(runtime);
    auto f = compile([](const Tensor& x) { return exp(x) + 1; });
    for (int i = 0; i < 3; ++i) CHECK(f(x).to_vector<float>() == wanted);
    CHECK(f.stats().tier == "counted kernels");
    CHECK(runtime.launches == 3);
    CHECK_FALSE(contains(f.plan(), "calls may overlap"));  // it doesn't say that it takes several at once
  }
  auto f = compile([](const Tensor& x) { return exp(x) + 1; });
  f(x);
  CHECK(f.stats().tier == "generated C");
  CHECK(runtime.launches == 3);
}

TEST_CASE("runtime: where a device can't compile, its plans run on eager kernels, and say why") {
  const Counting runtime(false);
  const InPlaceOfTheCpu scope(runtime);
  const Tensor x = randn({4, 3});
  auto f = compile([](const Tensor& x) { return exp(x) + 1; });
  CHECK(f(x).to_vector<float>() == (exp(x) + 1).to_vector<float>());
  CHECK(f.stats().tier == "eager kernels, planned");
  CHECK(f.stats().note == "this device has no compiler");
  CHECK(runtime.launches == 0);
}

TEST_CASE("plan: its text shows where values lie and what runs, and is the same each time") {
  Tensor state = zeros({4});
  auto f = compile([&](const Tensor& x) {
    state.assign(state + x);
    return matmul(x.reshape({2, 2}), state.reshape({2, 2}));
  });
  CHECK(f.plan() == "");
  f(ones({4}));
  const std::string text = f.plan();
  CAPTURE(text);
  for (const char* part :
       {"plan: 2 steps, 1 of them generated, generated C", "places:", "argument 0: float32[4], 16 bytes",
        "state 1: float32[4], 16 bytes", "result 0: float32[2, 2], 16 bytes", "SHA-256", "= fused {", "= matmul"})
    CHECK(contains(text, part));
  CHECK(contains(f.explain(), text));
  auto again = compile([&](const Tensor& x) {
    state.assign(state + x);
    return matmul(x.reshape({2, 2}), state.reshape({2, 2}));
  });
  again(ones({4}));
  const auto steps = [](const std::string& plan) { return plan.substr(0, plan.find("steps:")); };
  CHECK(steps(again.plan()) != "");
  CHECK(steps(again.plan()) == steps(text));  // below, the lines of this file differ
}

TEST_CASE("plan: made of a graph, it lays intermediate values into one arena, or leaves them to the allocator") {
  const Graph traced = trace([](const Tensor& x) { return exp(matmul(matmul(x, x), x)); }, ones({16, 16}));
  const graph::Plan planned = graph::make_plan(traced, {}), loose = graph::make_plan(traced, {.memory_plan = false});
  REQUIRE(planned.arenas.size() == 1);
  CHECK(planned.arena_bytes() == 16 * 16 * 4);  // the second product lies where the result of exp goes
  CHECK(planned.arena_bytes() == planned.lower_bound_bytes());
  CHECK(loose.arena_bytes() == 0);
  int allocated = 0, released = 0;
  for (const graph::PlanStep& step : loose.steps) {
    allocated += static_cast<int>(step.allocate.size());
    released += static_cast<int>(step.release.size());
  }
  CHECK(allocated == 1);
  CHECK(released == 1);
  CHECK(planned.tier() == "eager kernels, planned");
  CHECK(loose.tier() == "eager kernels, one by one");
}

TEST_CASE("a result lies over the operand whose memory is in use the longest") {
  const Tensor w = randn({16, 16});
  auto f = compile(
      [&](const Tensor& x) {
        const Tensor old = exp(x), made = matmul(old, w);
        return matmul(made - old, w);
      },
      {.mode = Mode::replay});
  const Tensor x = randn({16, 16});
  f(x);
  const std::string text = f.plan();
  const size_t at = text.find(" = sub ");
  REQUIRE(at != std::string::npos);
  const size_t line = text.rfind('\n', at) + 1;
  const std::string result = text.substr(text.find('p', line), at - text.find('p', line));
  CHECK(contains(text.substr(line, text.find('\n', at) - line), ", " + result + " ->"));
  CHECK(!contains(text.substr(line, text.find('\n', at) - line), " = sub " + result + ","));
}
