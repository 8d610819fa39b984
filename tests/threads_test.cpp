// What docs/contract.md says of threads and exceptions.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/threads.h"
#include "files.h"
#include "support.h"
#include "tandem.h"

using namespace tandem;

namespace {

constexpr int kThreads = 4;

/// Runs f(thread) on each of four threads.
void together(const std::function<void(int)>& f) {
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) threads.emplace_back(f, t);
  for (std::thread& thread : threads) thread.join();
}

struct Mlp {
  nn::Linear first{16, 32};
  nn::Linear output{32, 4};
  Tensor operator()(const Tensor& x) const { return softmax(output(relu(first(x)))); }
};

}  // namespace

TEST_CASE("threads: calls of one compiled function run side by side, each with results of its own") {
  const NoGrad guard;
  const Mlp model;
  Tensors inputs, wanted;
  for (int t = 0; t < kThreads; ++t) {
    inputs.push_back(randn({8, 16}));
    wanted.push_back(model(inputs.back()));
  }
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    auto f = compile([&](const Tensor& x) { return model(x); }, {.mode = mode});
    auto reference = compile([&](const Tensor& x) { return model(x); }, {.mode = mode});
    std::vector<std::vector<float>> bits;
    for (int t = 0; t < kThreads; ++t) {
      CHECK(allclose(reference(inputs[t]), wanted[t]));
      bits.push_back(reference(inputs[t]).to_vector<float>());
    }
    std::atomic<int> wrong = 0;
    together([&](int t) {
      const NoGrad here;
      for (int i = 0; i < 1000; ++i) wrong += f(inputs[t]).to_vector<float>() != bits[t];
    });
    CHECK(wrong == 0);
    CHECK(f.stats().traces == 1);
    CHECK(f.stats().calls == kThreads * 1000);
    CHECK(contains(f.plan(), "calls may overlap"));
  }
}

TEST_CASE("threads: branches and loops of one compiled function run side by side") {
  const NoGrad guard;
  const Tensor w = randn({16});
  const auto walk = [&](const Tensor& x) {
    const Tensor start = cond(
        x.sum() > 0, [&] { return x.select(0, 0) * w; }, [&] { return tanh(x.select(0, 1) - w); });
    const auto step = [&](const Tensor& carry, const Tensor& row) {
      const Tensor next = sigmoid(carry * w + row);
      return std::pair(next, next.sum());
    };
    const auto [last, sums] = scan(step, start, x);
    return concat({last, sums}, 0);
  };
  Tensors inputs;
  for (int t = 0; t < kThreads; ++t) inputs.push_back(randn({8, 16}) + (t % 2 ? 2 : -2));
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    auto f = compile(walk, {.mode = mode}), reference = compile(walk, {.mode = mode});
    std::vector<std::vector<float>> bits;
    for (int t = 0; t < kThreads; ++t) {
      CHECK(allclose(reference(inputs[t]), walk(inputs[t])));
      bits.push_back(reference(inputs[t]).to_vector<float>());
    }
    std::atomic<int> wrong = 0;
    together([&](int t) {
      const NoGrad here;
      for (int i = 0; i < 200; ++i) wrong += f(inputs[t]).to_vector<float>() != bits[t];
    });
    CHECK(wrong == 0);
    CHECK(f.stats().traces == 1);
    CHECK(contains(f.plan(), "calls may overlap"));
  }
}

TEST_CASE("threads: each trains a model of its own, eagerly and compiled, as one thread alone would") {
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    Tensors inputs, labels;
    for (int i = 0; i < 3; ++i) inputs.push_back(randn({8, 16})), labels.push_back(randint(0, 4, {8}));
    const Mlp start;
    const auto train = [&] {
      const Mlp model = nn::clone(start);
      nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 0.01});
      auto step = compile(
          [&](const Tensor& x, const Tensor& y) {
            optimizer.zero_grad();
            const Tensor loss = cross_entropy(checkpoint([&](const Tensor& in) { return model(in); }, x), y);
            loss.backward();
            nn::clip_grad_norm(nn::parameters(model), 1.0);
            optimizer.step();
            return loss.detach();
          },
          {.mode = mode});
      std::vector<float> result;
      for (int epoch = 0; epoch < 4; ++epoch)
        for (size_t i = 0; i < inputs.size(); ++i) result.push_back(step(inputs[i], labels[i]).item<float>());
      for (const Tensor& each : nn::parameters(model)) result.push_back(each.detach().sum().item<float>());
      return result;
    };
    const std::vector<float> wanted = train();
    std::atomic<int> wrong = 0;
    together([&](int) { wrong += train() != wanted; });
    CHECK(wrong == 0);
  }
}

TEST_CASE("threads: several compiled functions, and eager code, read the same parameters") {
  const Mlp model;
  const Tensor x = randn({8, 16}), y = randint(0, 4, {8});
  const auto loss = [&](const Tensor& in) { return cross_entropy(model(in), y); };
  const auto gradients = [&](const Tensor& in) { return grad_of(loss(in), nn::parameters(model)); };
  auto replayed = compile(loss, {.mode = Mode::replay});
  auto compiled = compile(loss, {.mode = Mode::compiled});
  auto differentiated = compile(gradients, {.mode = Mode::replay});
  const auto value = [](const Tensor& tensor) { return tensor.detach().to_vector<float>(); };
  const auto wanted = value(loss(x)), from_compiled = value(compiled(x)), gradient = value(gradients(x)[0]);
  std::atomic<int> wrong = 0;
  together([&](int t) {
    for (int i = 0; i < 100; ++i) {
      if (t == 0) wrong += value(loss(x)) != wanted;
      if (t == 1) wrong += value(replayed(x)) != wanted;
      if (t == 2) wrong += value(compiled(x)) != from_compiled;
      if (t == 3) wrong += value(i % 2 ? differentiated(x)[0] : gradients(x)[0]) != gradient;
    }
  });
  CHECK(wrong == 0);
}

TEST_CASE("threads: a loader's batches are trained on by several threads, each with a loop of its own") {
  const Tensor x = randn({64, 16}), y = randint(0, 4, {64});
  const io::TensorDataset data(x, y);
  const Mlp model;
  const auto pass = [&] {
    const NoGrad here;
    io::Loader loader(data, {.batch_size = 8, .shuffle = true, .workers = 2, .seed = 3});
    float total = 0;
    for (const auto& [in, labels] : loader) total += cross_entropy(model(in), labels).item<float>();
    return total;
  };
  const float wanted = pass();
  std::atomic<int> wrong = 0;
  together([&](int) {
    for (int i = 0; i < 5; ++i) wrong += pass() != wanted;
  });
  CHECK(wrong == 0);
}

TEST_CASE("threads: specialisations are made, given up and verified while others call") {
  const NoGrad guard;
  const Tensor w = randn({16});
  auto f = compile([&](const Tensor& x) { return x * w + 1; },
                   {.mode = Mode::replay, .max_specialisations = 2, .on_limit = OnLimit::evict});
  std::atomic<int> wrong = 0;
  together([&](int t) {
    const NoGrad here;
    const Tensor x = ones({t + 1, 16});
    const auto wanted = (x * w + 1).to_vector<float>();
    for (int i = 0; i < 100; ++i) {
      wrong += f(x).to_vector<float>() != wanted;
      wrong += f.stats().calls < i;
    }
  });
  CHECK(wrong == 0);
  CHECK(f.stats().calls == kThreads * 100);
}

TEST_CASE("threads: a step that assigns state is run by one thread at a time, and none is lost") {
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    Tensor total = zeros({64}), count = zeros({});
    auto add = compile(
        [&](const Tensor& x) {
          total.assign(total + x);
          count.assign(count + 1);
          return count + 0;
        },
        {.mode = mode});
    std::atomic<int> last = 0;
    together([&](int t) {
      const Tensor x = full({64}, t + 1.0);
      for (int i = 0; i < 250; ++i)
        if (const int now = static_cast<int>(add(x).item<float>()); now == kThreads * 250) last = now;
    });
    CHECK(last == kThreads * 250);
    CHECK(total.to_vector<float>() == std::vector<float>(64, 250 * (1 + 2 + 3 + 4)));
    CHECK_FALSE(contains(add.plan(), "calls may overlap"));
  }
}

TEST_CASE("threads: a training step is shared by threads") {
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    Tensor w = zeros({8});
    w.requires_grad(true);
    nn::optim::Sgd optimizer({w}, {.lr = 1});
    auto step = compile(
        [&](const Tensor& x) {
          optimizer.zero_grad();
          const Tensor loss = sum(w * x);
          loss.backward();
          optimizer.step();
          return loss;
        },
        {.mode = mode});
    together([&](int t) {
      const Tensor x = full({8}, t + 1.0);
      for (int i = 0; i < 100; ++i) step(x);
    });
    CHECK(w.detach().to_vector<float>() == std::vector<float>(8, -100 * (1 + 2 + 3 + 4)));
  }
}

TEST_CASE("threads: calls of one function that draws never use a draw twice") {
  manual_seed(5);
  auto f = compile([&](const Tensor& x) { return x + rand({4}); }, {.mode = Mode::replay});
  const uint64_t before = default_generator().draws();
  together([&](int) {
    const Tensor x = zeros({4});
    for (int i = 0; i < 50; ++i) f(x);
  });
  CHECK(default_generator().draws() == before + kThreads * 50);
}

TEST_CASE("threads: backward of several threads adds up on the leaves that they share") {
  Tensor w = ones({8}, {.requires_grad = true}), v = ones({}, {.requires_grad = true});
  constexpr int kCalls = 300;
  together([&](int t) {
    for (int i = 0; i < kCalls; ++i) (w * v * static_cast<float>(t + 1)).sum().backward();
  });
  CHECK(w.grad().to_vector<float>() == std::vector<float>(8, kCalls * (1 + 2 + 3 + 4)));
  CHECK(v.grad().item<float>() == 8 * kCalls * (1 + 2 + 3 + 4));
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TANDEM_NO_FORK  // it follows no threads over a fork
#endif
#endif
#ifndef TANDEM_NO_FORK
TEST_CASE("fork: a child process computes after kernels have run on several threads") {
  const Tensor x = randn({512, 512});
  const auto compute = [&] { return matmul(x, x).sum().item<double>() + exp(x).mean().item<double>(); };
  auto f = compile([](const Tensor& a) { return softmax(a * 2, 1) + matmul(a, a); });
  const double wanted = compute(), compiled = f(x).to(float64).sum().item<double>();
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    bool right = num_threads() == 1 && compute() == wanted && f(x).to(float64).sum().item<double>() == compiled;
    const Tensor image = ones({4, 8, 32, 32}), kernel = ones({8, 8, 3, 3});
    right = right && conv2d(image, kernel).numel() == 4 * 8 * 30 * 30;
    auto g = compile([](const Tensor& a) { return (a + 1).sum(); }, {.mode = Mode::replay});
    right = right && g(ones({3})).item<float>() == 6;
    _exit(right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(compute() == wanted);
}
#endif

TEST_CASE("threads: a function may ask for its own statistics while it is traced") {
  std::function<int64_t()> traces;
  auto f = compile(
      [&](const Tensor& x) {
        CHECK(traces() == 0);
        return x + 1;
      },
      {.mode = Mode::replay, .verify = Verify::never});
  traces = [&] { return f.stats().traces; };
  f(zeros({2}));
  CHECK(traces() == 1);
}

TEST_CASE("exceptions: a call that throws leaves the function and the state as they were") {
  for (const Mode mode : {Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    bool fail = true;
    Tensor state = zeros({2});
    auto f = compile(
        [&](const Tensor& x) {
          state.assign(state + 1);
          if (fail) throw std::runtime_error("not today");
          return x + state;
        },
        {.mode = mode});
    CHECK_THROWS_WITH_AS(f(zeros({2})), "not today", std::runtime_error);
    CHECK(state.to_vector<float>() == std::vector<float>{0, 0});
    fail = false;
    CHECK(f(zeros({2})).to_vector<float>() == std::vector<float>{1, 1});
    CHECK_THROWS_AS(f(Tensor()), UndefinedError);
    CHECK(f(zeros({2})).to_vector<float>() == std::vector<float>{2, 2});
  }
}
