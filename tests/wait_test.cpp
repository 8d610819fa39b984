// {.wait = false}: calls run the tier below until the code is there. No test depends on when that is: those that need the tier
// below have a compiler that waits for a file, and the others call wait().
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/warning.h"
#include "files.h"
#include "graph/native/background.h"
#include "graph/native/process.h"
#include "graph/native/system_compiler.h"
#include "tandem.h"

using namespace tandem;
namespace fs = std::filesystem;
using file_tests::Variable;

namespace {

/// An empty cache, and a compiler that begins once it may.
struct HeldCompiler {
  std::string folder = [] {
    std::string pattern = (fs::temp_directory_path() / "tandem-wait-XXXXXX").string();
    return std::string(mkdtemp(pattern.data()));
  }();
  std::string real = graph::system_compiler().compiler;
  Variable directory{"TANDEM_CACHE_DIR", folder + "/cache"}, on{"TANDEM_CACHE", std::nullopt};
  Variable cc{"CC", script()};
  std::vector<std::string> warnings;
  WarningHandler before = set_warning_handler([this](const std::string& text) { warnings.push_back(text); });

  HeldCompiler() { graph::testing::forget_loaded_libraries(); }
  ~HeldCompiler() {
    set_warning_handler(before);
    graph::testing::forget_loaded_libraries();
    fs::remove_all(folder);
  }
  bool there_is_one() const { return !real.empty(); }
  void go() { std::ofstream(folder + "/go") << "go"; }
  void fail() { std::ofstream(folder + "/fail") << "fail"; }

  std::string script() {
    const std::string path = folder + "/cc";
    std::ofstream(path) << "#!/bin/sh\n[ \"$1\" = --version ] && exec " << real << " --version\n: > " << folder
                        << "/begun\nwhile [ ! -e " << folder << "/go ]; do sleep 0.02; done\n"
                        << "case \"$*\" in *probe*) ;; *) [ -e " << folder
                        << "/fail ] && { echo 'no such luck'; exit 1; } ;; esac\nexec " << real << " \"$@\"\n";
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }
};

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = contiguous(a), y = contiguous(b);
  return x.shape() == y.shape() && x.dtype() == y.dtype() &&
         std::memcmp(x.impl()->data, y.impl()->data, static_cast<size_t>(x.numel() * size_of(x.dtype()))) == 0;
}

int64_t calls_of(const Stats& stats, const std::string& tier) {
  for (const TierCalls& each : stats.tiers)
    if (each.tier == tier) return each.calls;
  return 0;
}
constexpr const char* kBelow = "eager kernels, planned";
constexpr const char* kCode = "generated C";

struct Net {
  nn::Linear hidden{8, 16}, output{16, 3};
  Tensor operator()(const Tensor& x) const { return output(dropout(gelu(hidden(x)), 0.25)); }
};
struct Training {
  Net net;
  nn::optim::AdamW optimizer{nn::parameters(net), {.lr = 1e-2}};
  Tensor operator()(const Tensor& x, const Tensor& y) {
    optimizer.zero_grad();
    Tensor loss = cross_entropy(net(x), y);
    loss.backward();
    optimizer.step();
    return loss;
  }
};

}  // namespace

TEST_CASE("wait: state, draws, gradients and the optimiser go on as the tiers would have") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  const auto train = [&](auto&& with) {  // the losses and the parameters
    manual_seed(7);
    Training training;
    auto step = [&](const Tensor& x, const Tensor& y) { return training(x, y); };
    const Tensor x = randn({12, 8}), y = randint(0, 3, {12});
    Tensors all = with(step, x, y);
    for (const auto& each : nn::parameters(training.net)) {
      all.push_back(each.detach().clone());
      all.push_back(each.grad().clone());
    }
    all.push_back(randn({3}));
    return all;
  };
  const Tensors switched = train([&](auto& function, const Tensor& x, const Tensor& y) {
    Tensors losses;
    auto step = compile(function, {.wait = false});
    for (int i = 0; i < 5; ++i) losses.push_back(step(x, y));
    CHECK(!step.ready());
    Stats stats = step.stats();
    CHECK(stats.tier == kBelow);
    CHECK(stats.note == "its code is being compiled");
    CHECK(calls_of(stats, kBelow) == 5);
    CHECK(stats.compiler_seconds == 0);
    CHECK(step.source().find("void s0(") != std::string::npos);
    compiler.go();
    step.wait();
    CHECK(step.ready());
    for (int i = 0; i < 5; ++i) losses.push_back(step(x, y));
    stats = step.stats();
    CHECK(stats.tier == kCode);
    CHECK(stats.note == "");
    CHECK(stats.fused_kernels > 0);
    CHECK(calls_of(stats, kBelow) == 5);
    CHECK(calls_of(stats, kCode) == 5);
    CHECK(stats.calls == 10);
    CHECK(stats.compiler_seconds > 0);
    CHECK(step.explain().find("5 calls ran as generated C") != std::string::npos);
    return losses;
  });
  const Tensors by_tiers = train([&](auto& function, const Tensor& x, const Tensor& y) {
    Tensors losses;
    auto below = compile(function, {.without = {"emit"}});
    for (int i = 0; i < 5; ++i) losses.push_back(below(x, y));
    auto code = compile(function);
    for (int i = 0; i < 5; ++i) losses.push_back(code(x, y));
    return losses;
  });
  REQUIRE(switched.size() == by_tiers.size());
  for (size_t i = 0; i < switched.size(); ++i) {
    CAPTURE(i);
    CHECK(same_bits(switched[i], by_tiers[i]));
  }
  CHECK(compiler.warnings.empty());
}

TEST_CASE("wait: what the cache has is used from the first call on") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  compiler.go();
  const auto function = [](const Tensor& x) { return exp(x) * 2 + x; };
  const Tensor x = randn({5});
  const Tensor wanted = compile(function)(x);
  graph::testing::forget_loaded_libraries();
  auto again = compile(function, {.wait = false});
  CHECK(same_bits(again(x), wanted));
  CHECK(again.ready());
  CHECK(again.stats().tier == kCode);
  CHECK(again.stats().compiler_cached);
  CHECK(calls_of(again.stats(), kCode) == 1);
}

TEST_CASE("wait: a function that is given up, or never called again, stops its compiler") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  {
    auto f = compile([](const Tensor& x) { return exp(x) + 1; }, {.wait = false});
    f(ones({3}));
    CHECK(!f.ready());
  }
  {
    auto f =
        compile([](const Tensor& x) { return exp(x) + 2; },
                {.max_specialisations = 1, .on_limit = OnLimit::evict, .dynamic = DynamicSizes::never, .wait = false});
    for (const int64_t n : {3, 4, 5}) CHECK(f(ones({n})).numel() == n);
    CHECK(f.stats().compiling == 1);
    CHECK(calls_of(f.stats(), kBelow) == 3);
  }
  // What was stopped says nothing of the compiler.
  compiler.go();
  auto f = compile([](const Tensor& x) { return exp(x) + 1; });
  f(ones({3}));
  CHECK(f.stats().tier == kCode);
  CHECK(compiler.warnings.empty());
}

TEST_CASE("wait: where the compiler fails, a warning says so once, and the tier below stays") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  compiler.fail();
  auto f = compile([](const Tensor& x) { return exp(x) + 1; }, {.wait = false});
  const Tensor x = randn({4}), first = f(x);
  compiler.go();
  f.wait();
  for (int i = 0; i < 4; ++i) CHECK(same_bits(f(x), first));
  const Stats stats = f.stats();
  CHECK(stats.tier == kBelow);
  CHECK(stats.note.find("no such luck") != std::string::npos);
  CHECK(calls_of(stats, kBelow) == 5);
  CHECK(stats.compiling == 0);
  REQUIRE(compiler.warnings.size() == 1);
  CHECK(compiler.warnings[0].find("it goes on as eager kernels, planned") != std::string::npos);
  CHECK(compiler.warnings[0].find("no such luck") != std::string::npos);
}

TEST_CASE("wait: gradients of results, across the switch and by tapes from before it") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  manual_seed(3);
  Tensor w = randn({6, 6}, {.requires_grad = true});
  const auto function = [&](const Tensor& x) { return softmax(tanh(matmul(x, w)) * 2, 1); };
  const Tensor x = randn({5, 6}), g = randn({5, 6});
  const auto gradient = [&](const Tensor& y) {
    w.set_grad({});
    (y * g).sum().backward();
    return w.grad().clone();
  };
  auto below = compile(function, {.without = {"emit"}}), f = compile(function, {.wait = false});
  const Tensor wanted_below = gradient(below(x));
  CHECK(same_bits(gradient(f(x)), wanted_below));
  const Tensor early = f(x);
  CHECK(!f.ready());
  compiler.go();
  f.wait();
  auto code = compile(function);
  CHECK(same_bits(gradient(f(x)), gradient(code(x))));
  CHECK(f.stats().tier == kCode);
  CHECK(f.stats().backward_kernels == code.stats().backward_kernels);
  CHECK(same_bits(gradient(early), wanted_below));  // by the program that belongs to it
}

TEST_CASE("wait: numbers that changed, and tensors in the place of others, are the new program's as well") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  float scale = 2;
  Tensor state = full({3}, 1);
  auto f = compile([&](const Tensor& x) { return exp(x) * scale + state; }, {.verify = Verify::every, .wait = false});
  const Tensor x = zeros({3});
  CHECK(f(x).to_vector<float>() == std::vector<float>{3, 3, 3});
  scale = 5;  // from now on it is read at each call
  CHECK(f(x).to_vector<float>() == std::vector<float>{6, 6, 6});
  state = full({3}, 10);
  CHECK(f(x).to_vector<float>() == std::vector<float>{15, 15, 15});
  CHECK(!f.ready());
  compiler.go();
  f.wait();
  CHECK(f(x).to_vector<float>() == std::vector<float>{15, 15, 15});
  CHECK(f.stats().tier == kCode);
  scale = 7;
  state = full({3}, 20);
  CHECK(f(x).to_vector<float>() == std::vector<float>{27, 27, 27});
}

TEST_CASE("wait: sizes that change share one code once it is there") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  const NoGrad guard;
  auto f = compile([](const Tensor& x) { return softmax(x * 2, 1) + x.mean(); }, {.wait = false});
  const auto check = [&](int64_t n) {
    const Tensor x = randn({n, 6});
    CHECK(allclose(f(x), softmax(x * 2, 1) + x.mean()));
  };
  for (const int64_t n : {3, 4, 5, 6}) check(n);
  CHECK(f.stats().resizes == 0);
  compiler.go();
  f.wait();
  for (const int64_t n : {3, 4, 5, 6}) check(n);
  CHECK(f.ready());
  for (const int64_t n : {7, 8, 9, 3, 4, 5, 6}) check(n);
  CHECK(f.stats().resizes >= 3);
  CHECK(f.stats().sources <= 3);
  CHECK(f.stats().tier == kCode);
}

TEST_CASE("wait: branches and loops get their code with the function's") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  const auto function = [](const Tensor& x) {
    const Tensor y = cond(
        x.sum() > 0, [&] { return exp(x) + 1; }, [&] { return tanh(x) * 2 - 1; });
    return scan(
               [](const Tensor& h, const Tensor& e) {
                 return std::pair{tanh(h) + e, h * e};
               },
               y, stack({x, x, x}))
        .first;
  };
  const Tensor x = randn({4});
  auto below = compile(function, {.without = {"emit"}}), f = compile(function, {.wait = false});
  CHECK(same_bits(f(x), below(x)));
  CHECK(!f.ready());
  compiler.go();
  f.wait();
  CHECK(same_bits(f(x), compile(function)(x)));
  CHECK(f.stats().tier == compile(function).stats().tier + kCode);
}

TEST_CASE("wait: several threads call while one becomes the other") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  const Tensor x = randn({64});
  const auto function = [](const Tensor& a) { return exp(a) * 2 + a; };
  const Tensor wanted = function(x);
  auto f = compile(function, {.wait = false});
  f(x);
  std::atomic<bool> stop = false, wrong = false;
  std::atomic<int64_t> calls = 1;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      run_kernels_on_this_thread_alone();
      while (!stop) {
        if (!allclose(f(x), wanted)) wrong = true;
        ++calls;
      }
    });
  compiler.go();
  f.wait();
  f(x);
  ++calls;
  CHECK(f.stats().tier == kCode);
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(!wrong);
  const Stats stats = f.stats();
  CHECK(stats.calls == calls);
  CHECK(calls_of(stats, kBelow) + calls_of(stats, kCode) == calls);
  CHECK(calls_of(stats, kBelow) >= 1);
  CHECK(calls_of(stats, kCode) >= 1);
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TANDEM_NO_FORK  // it follows no threads over a fork
#endif
#endif
#ifndef TANDEM_NO_FORK
TEST_CASE("wait: a child of fork compiles for itself, and exit() stops what is under way") {
  HeldCompiler compiler;
  if (!compiler.there_is_one()) return;
  const Tensor x = randn({4});
  const auto function = [](const Tensor& a) { return exp(a) * 2 + a; };
  auto f = compile(function, {.wait = false});
  const Tensor wanted = f(x);
  CHECK(!f.ready());
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    bool right = same_bits(f(x), wanted) && f.stats().tier == kBelow;
    compiler.go();
    f.wait();
    right = right && allclose(f(x), wanted) && f.stats().tier == kCode && f.stats().calls == 3;
    _exit(right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  f.wait();
  CHECK(allclose(f(x), wanted));
  CHECK(f.stats().tier == kCode);
  fs::remove(compiler.folder + "/go");
  const pid_t exits = fork();
  if (exits == 0) {
    alarm(60);
    // Never deleted, and static so that a leak checker still reaches it from exit().
    static auto* const left = new auto(compile([](const Tensor& a) { return exp(a) * 3 + a; }, {.wait = false}));
    (*left)(x);
    std::exit(left->ready() ? 1 : 0);
  }
  REQUIRE(waitpid(exits, &status, 0) == exits);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif

TEST_CASE("background jobs: done, stopped while they wait for a program, and waited for") {
  std::atomic<int> done = 0;
  {
    graph::BackgroundJob job([&] { ++done; });
    job.wait();
    CHECK(job.done());
    CHECK(!job.lost());
    CHECK(done == 1);
  }
  {
    const graph::BackgroundJob job([&] {
      graph::run_process({"/bin/sh", "-c", "sleep 600"}, {}, 600);
      ++done;
    });
  }
  CHECK(done == 1);
}
