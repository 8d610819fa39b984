// Models as plain structs, layers, initial values, gradient clipping, optimisers and schedules.
#include "nn/nn.h"
#include "support.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <variant>

#include "tandem.h"

using namespace tandem;

namespace {

struct Mlp {
  nn::Linear hidden{4, 8};
  nn::Linear output{8, 2};
  Tensor operator()(const Tensor& x) const { return output(relu(hidden(x))); }
};

struct Block {
  nn::Linear up{2, 3}, down{3, 2, {.bias = false}};
};

class Scaled {  // a class with private parts says what it holds
 public:
  explicit Scaled(double scale) : scale_(scale) {}
  template <class V> void visit(V&& v) { v("gain", gain_); }
  Tensor operator()(const Tensor& x) const { return x * gain_ * scale_; }

 private:
  double scale_;
  Tensor gain_ = ones({2}, {.requires_grad = true});
};

enum class Activation { relu, gelu };
struct Config {
  int64_t width = 2;
  std::array<float, 3> rates{};
  Activation activation = Activation::relu;
  nn::Conv2dOptions convolution{.padding = 1};
};

struct Everything {
  Config config;
  nn::Linear sized{config.width, 3};  // configured by an earlier field
  std::vector<nn::Linear> layers;
  std::array<nn::Linear, 2> both{nn::Linear{1, 1}, nn::Linear{1, 1}};
  std::optional<nn::Linear> absent, head;
  std::map<std::string, nn::Linear> named;
  std::map<int, Tensor> numbered;
  std::tuple<nn::Linear, int> mixed{nn::Linear{1, 1}, 7};
  std::pair<Tensor, float> paired;
  std::unique_ptr<Block> owned;
  std::shared_ptr<const Block> shared;
  std::variant<nn::Linear, nn::Dropout> either{nn::Dropout{0.1}};
  std::list<std::vector<Tensor>> deep;
  Scaled scaled{2};
  Tensor running_mean;
  Tensor undefined;
  Pair kernel = 3;
  const char* label = "everything";
  std::string text;
  std::vector<int> sizes;
  Tensor (*function)(const Arg&) = relu;
};

std::vector<std::string> names(const std::vector<nn::NamedTensor>& tensors) {
  std::vector<std::string> result;
  for (const nn::NamedTensor& each : tensors) result.push_back(each.name);
  return result;
}
using Names = std::vector<std::string>;

bool same_tensor(const Tensor& a, const Tensor& b) { return a.impl() == b.impl(); }

double as_number(const Tensor& tensor) { return tensor.item<double>(); }

}  // namespace

TEST_CASE("parameters of a plain struct carry the names of its fields") {
  Mlp model;
  CHECK(names(nn::named_parameters(model)) == Names{"hidden.weight", "hidden.bias", "output.weight", "output.bias"});
  CHECK(nn::named_parameters(model)[2].tensor.shape() == Shape{2, 8});
  CHECK(nn::parameters(model).size() == 4);
  CHECK(same_tensor(nn::parameters(model)[0], model.hidden.weight));
  struct Local {
    nn::Linear only{1, 1};
  };
  CHECK(names(nn::named_parameters(Local{})) == Names{"only.weight", "only.bias"});
}

TEST_CASE("parameters are found in every kind of container, and numbers are passed over") {
  Everything model;
  model.layers.emplace_back(2, 2);
  model.layers.emplace_back(2, 2);
  model.head.emplace(1, 1);
  model.named.emplace("left", nn::Linear{1, 1});
  model.numbered[7] = ones({1}, {.requires_grad = true});
  model.paired.first = ones({1}, {.requires_grad = true});
  model.owned = std::make_unique<Block>();
  model.shared = std::make_shared<const Block>();
  model.deep.push_back({ones({1}, {.requires_grad = true})});
  model.running_mean = zeros({2});
  CHECK(names(nn::named_parameters(model)) ==
        Names{"sized.weight",      "sized.bias",       "layers.0.weight",   "layers.0.bias",      "layers.1.weight",
              "layers.1.bias",     "both.0.weight",    "both.0.bias",       "both.1.weight",      "both.1.bias",
              "head.weight",       "head.bias",        "named.left.weight", "named.left.bias",    "numbered.7",
              "mixed.0.weight",    "mixed.0.bias",     "paired.0",          "owned.up.weight",    "owned.up.bias",
              "owned.down.weight", "shared.up.weight", "shared.up.bias",    "shared.down.weight", "deep.0.0",
              "scaled.gain"});
  CHECK(names(nn::named_buffers(model)) == Names{"running_mean"});

  int tensors = 0;
  nn::for_each(model, [&](const std::string& name, Tensor& tensor) {
    CHECK(!name.empty());
    CHECK(tensor.defined());
    ++tensors;
  });
  CHECK(tensors == 27);
}

TEST_CASE("tied weights are one parameter, and stay tied when the model is moved") {
  struct Tied {
    nn::Linear first{3, 3}, second{3, 3};
  } model;
  model.second.weight = model.first.weight;
  CHECK(names(nn::named_parameters(model)) == Names{"first.weight", "first.bias", "second.bias"});
  const Tensor before = model.first.weight;
  nn::to(model, float64);
  CHECK(same_tensor(model.first.weight, model.second.weight));
  CHECK(!same_tensor(model.first.weight, before));
}

TEST_CASE("a model of more than 32 tensors: each parameter once") {
  std::vector<nn::Linear> layers;
  for (int i = 0; i < 40; ++i) layers.emplace_back(1, 1);
  layers.push_back(layers.front());
  CHECK(nn::parameters(layers).size() == 80);
}

TEST_CASE("to: a new dtype for floating tensors, their gradients and requires_grad; same device, same handles") {
  struct WithBuffers {
    nn::Linear layer{2, 2};
    Tensor counts = zeros({2}, {.dtype = int64});
  } model;
  model.layer(ones({1, 2})).sum().backward();
  const Tensor weight = model.layer.weight;
  nn::to(model, cpu());
  CHECK(same_tensor(model.layer.weight, weight));
  nn::to(model, float64);
  CHECK(model.layer.weight.dtype() == float64);
  CHECK(model.layer.weight.requires_grad());
  CHECK(model.layer.weight.is_leaf());
  CHECK(model.layer.weight.grad().dtype() == float64);
  CHECK(allclose(model.layer.weight.to(float32), weight));
  CHECK(model.counts.dtype() == int64);
  CHECK(contains(thrown<DTypeError>([&] { nn::to(model, int32); }), "must be floating, and int32 isn't"));
}

TEST_CASE("train and eval reach every dropout; copies share the flag") {
  struct Net {
    nn::Dropout first{0.5};
    std::vector<nn::Dropout> more{nn::Dropout{0.25}};
  } model;
  const Net copy = model;
  const Tensor x = ones({1000});
  CHECK(model.first.training);
  CHECK(!same_tensor(model.first(x), x));
  nn::eval(model);
  CHECK(!model.more[0].training);
  CHECK(!copy.first.training);
  CHECK(same_tensor(model.first(x), x));
  nn::train(model);
  CHECK(model.more[0].training);
}

TEST_CASE("dropout zeroes with its probability and keeps the mean") {
  manual_seed(3);
  nn::Dropout drop{0.25};
  const Tensor y = drop(ones({20000}));
  const double kept = as_number((y != 0).sum()) / 20000;
  CHECK(kept == doctest::Approx(0.75).epsilon(0.03));
  CHECK(as_number(y.max()) == doctest::Approx(1 / 0.75));
  CHECK(contains(thrown<ValueError>([] { nn::Dropout{1.5}; }), "probability is 1.5"));
}

TEST_CASE("a training flag is reported to a tracer, with an address that stays") {
  struct Recording : Interceptor {
    std::vector<const bool*> reads;
    void run(const Op&, std::span<const Tensor>, const Attributes&, std::span<Tensor>, Where) override {}
    void assign(const Tensor&, const Tensor&, Where) override {}
    void value_needed(const Tensor&, const char*, Where) override { throw 0; }
    void gradient_read(TensorImpl&) override {}
    void gradient_written(TensorImpl&) override {}
    void flag_read(const bool& flag) override { reads.push_back(&flag); }
    void constant(const Tensor&) override {}
    int64_t draw() override { return 0; }
  } recording;
  const bool* address = nullptr;
  {
    nn::TrainingFlag flag;
    {
      const InterceptorScope installed(&recording);
      const bool value = flag;
      flag.set(false);
      const bool next = flag;
      CHECK(value);
      CHECK(!next);
    }
    REQUIRE(recording.reads.size() == 2);
    CHECK(recording.reads[0] == recording.reads[1]);
    address = recording.reads[0];
  }
  CHECK(*address == false);  // still readable
}

TEST_CASE("layers start as PyTorch's do") {
  manual_seed(1);
  nn::Linear linear(100, 400);
  CHECK(linear.weight.shape() == Shape{400, 100});
  CHECK(as_number(abs(linear.weight).max()) <= 0.1);
  CHECK(as_number(abs(linear.weight).max()) > 0.0999);
  CHECK(as_number(abs(linear.bias).max()) <= 0.1);
  CHECK(as_number(square(linear.weight).mean()) == doctest::Approx(0.01 / 3).epsilon(0.02));  // of U(-b, b): b² / 3
  CHECK(linear.weight.requires_grad());
  CHECK(linear.weight.is_leaf());

  nn::Conv2d conv(4, 8, {3, 5}, {.groups = 2});
  CHECK(conv.weight.shape() == Shape{8, 2, 3, 5});
  CHECK(as_number(abs(conv.weight).max()) <= 1 / std::sqrt(30.0));
  CHECK(as_number(abs(conv.weight).max()) > 0.9 / std::sqrt(30.0));
  CHECK(!nn::Conv2d(1, 1, 3, {.bias = false}).bias.defined());

  nn::Embedding table(500, 40);
  CHECK(as_number(square(table.weight).mean()) == doctest::Approx(1).epsilon(0.03));
  nn::LayerNorm norm(3);
  CHECK(norm.weight.to_vector<float>() == std::vector<float>{1, 1, 1});
  CHECK(norm.bias.to_vector<float>() == std::vector<float>{0, 0, 0});
}

TEST_CASE("init: bounds and deviations of each distribution") {
  const Shape shape{300, 50, 2};  // fan in 100, fan out 600
  CHECK(nn::init::fans(shape).in == 100);
  CHECK(nn::init::fans(shape).out == 600);
  const auto largest = [](const Tensor& t) { return as_number(abs(t).max()); };
  const auto variance = [](const Tensor& t) { return as_number(square(t).mean()); };
  CHECK(largest(nn::init::kaiming_uniform(shape)) == doctest::Approx(std::sqrt(6.0 / 100)).epsilon(0.01));
  CHECK(variance(nn::init::kaiming_normal(shape)) == doctest::Approx(2.0 / 100).epsilon(0.05));
  CHECK(largest(nn::init::xavier_uniform(shape)) == doctest::Approx(std::sqrt(6.0 / 700)).epsilon(0.01));
  CHECK(variance(nn::init::xavier_normal(shape, 2)) == doctest::Approx(8.0 / 700).epsilon(0.05));
  CHECK(as_number(nn::init::normal({30000}, 3, 0.5).mean()) == doctest::Approx(3).epsilon(0.01));
  CHECK(contains(thrown<ShapeError>([] { nn::init::fans({7}); }), "[out, in, …], got [7]"));
}

TEST_CASE("layers compute what their ops compute") {
  const Tensor x = randn({5, 4});
  nn::Linear linear_layer(4, 3);
  CHECK(allclose(linear_layer(x), matmul(x, linear_layer.weight.transpose(0, 1)) + linear_layer.bias, {.atol = 1e-6}));
  nn::LayerNorm norm(4);
  CHECK(allclose(norm(x), layer_norm(x, norm.weight, norm.bias)));
  nn::Embedding table(6, 4);
  CHECK(allclose(table(tensor<int64_t>({1, 5})), concat({table.weight.slice(0, 1, 2), table.weight.slice(0, 5, 6)})));
}

TEST_CASE("misuse of a layer names the user's line") {
  nn::Linear layer(4, 3);
  const Tensor x = ones({2, 5});
  const int line = __LINE__ + 1;
  const std::string text = thrown<ShapeError>([&] { layer(x); });
  CHECK(contains(text, "nn_test.cpp:" + std::to_string(line)));
  CHECK(contains(thrown<ValueError>([] { nn::Linear(0, 3); }), "need at least 1 input and 1 output, got 0 and 3"));
  CHECK(contains(thrown<ValueError>([] { nn::Conv2d(3, 4, 3, {.groups = 2}); }),
                 "3 inputs and 4 outputs don't split into 2"));
}

TEST_CASE("Sequential applies layers, functions and lambdas in turn") {
  nn::Sequential net{nn::Linear{4, 8}, relu, nn::Dropout{0.5}, [](const Tensor& x) { return x * 2; }, nn::Linear{8, 2}};
  CHECK(net.size() == 5);
  CHECK(names(nn::named_parameters(net)) == Names{"0.weight", "0.bias", "4.weight", "4.bias"});
  nn::eval(net);
  const Tensors p = nn::parameters(net);
  const Tensor x = randn({3, 4});
  CHECK(allclose(net(x), linear(relu(linear(x, p[0], p[1])) * 2, p[2], p[3])));
  struct Model {
    nn::Sequential body{nn::Linear{4, 4}, nn::Sequential{gelu, nn::LayerNorm{4}}};
    nn::Linear head{4, 1};
  } model;
  CHECK(names(nn::named_parameters(model)) ==
        Names{"body.0.weight", "body.0.bias", "body.1.1.weight", "body.1.1.bias", "head.weight", "head.bias"});
}

TEST_CASE("clip_grad_norm scales to the largest norm, and leaves shorter gradients alone") {
  Tensor a = zeros({2}, {.requires_grad = true}), b = zeros({}, {.requires_grad = true}),
         c = zeros({3}, {.requires_grad = true});
  a.set_grad(tensor({3.f, 0.f}));
  b.set_grad(tensor(4.f));
  CHECK(as_number(nn::clip_grad_norm({a, b, c}, 10)) == doctest::Approx(5));
  CHECK(a.grad().to_vector<float>() == std::vector<float>{3, 0});
  CHECK(as_number(nn::clip_grad_norm({a, b, c}, 1)) == doctest::Approx(5));
  CHECK(as_number(b.grad()) == doctest::Approx(0.8));
  CHECK(!c.grad().defined());
  CHECK(as_number(nn::clip_grad_norm({c}, 1)) == 0);
  CHECK_THROWS_AS(nn::clip_grad_norm({a}, -1), ValueError);
}

TEST_CASE("clip_grad_norm: leaves that share one gradient are each scaled once") {
  Tensor a = zeros({}, {.requires_grad = true}), b = zeros({}, {.requires_grad = true});
  const Tensor shared = tensor(3.f);
  a.set_grad(shared);
  b.set_grad(shared);
  nn::clip_grad_norm({a, b}, 1);
  CHECK(as_number(a.grad()) == doctest::Approx(1 / std::sqrt(2.0)));
  CHECK(as_number(b.grad()) == doctest::Approx(1 / std::sqrt(2.0)));
}

namespace {

// Gradients of a few steps, the same for engine and reference.
double gradient_at(int step, int i) { return std::sin(1.3 * step + i) + 0.2 * i; }

std::vector<double> run_steps(nn::optim::Optimizer& optimizer, Tensor parameter, int steps) {
  for (int step = 1; step <= steps; ++step) {
    std::vector<float> g;
    for (int i = 0; i < 3; ++i) g.push_back(static_cast<float>(gradient_at(step, i)));
    parameter.set_grad(tensor(g));
    optimizer.step();
  }
  return parameter.to_vector<double>();
}

}  // namespace

TEST_CASE("Sgd follows its formula, with and without momentum, nesterov and decay") {
  for (const nn::optim::SgdOptions o :
       {nn::optim::SgdOptions{.lr = 0.1}, nn::optim::SgdOptions{.lr = 0.1, .weight_decay = 0.05},
        nn::optim::SgdOptions{.lr = 0.1, .momentum = 0.9},
        nn::optim::SgdOptions{.lr = 0.1, .momentum = 0.9, .dampening = 0.3},
        nn::optim::SgdOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.05, .nesterov = true}}) {
    Tensor parameter = tensor({1.f, -2.f, 0.5f}).requires_grad(true);
    nn::optim::Sgd optimizer({parameter}, o);
    const std::vector<double> got = run_steps(optimizer, parameter, 5);
    const double start[] = {1, -2, 0.5};
    for (int i = 0; i < 3; ++i) {
      double p = start[i], b = 0;
      for (int step = 1; step <= 5; ++step) {
        const double g = gradient_at(step, i) + o.weight_decay * p;
        b = o.momentum * b + (1 - o.dampening) * g;
        p -= o.lr * (o.momentum == 0 ? g : o.nesterov ? g + o.momentum * b : b);
      }
      CHECK(got[static_cast<size_t>(i)] == doctest::Approx(p).epsilon(1e-5));
    }
  }
}

TEST_CASE("Adam and AdamW follow their formulas") {
  for (const bool decoupled : {false, true}) {
    Tensor parameter = tensor({1.f, -2.f, 0.5f}).requires_grad(true);
    std::unique_ptr<nn::optim::Optimizer> optimizer;
    if (decoupled)
      optimizer = std::make_unique<nn::optim::AdamW>(Tensors{parameter},
                                                     nn::optim::AdamWOptions{.lr = 0.01, .weight_decay = 0.1});
    else
      optimizer = std::make_unique<nn::optim::Adam>(Tensors{parameter},
                                                    nn::optim::AdamOptions{.lr = 0.01, .weight_decay = 0.1});
    const std::vector<double> got = run_steps(*optimizer, parameter, 8);
    const double start[] = {1, -2, 0.5};
    for (int i = 0; i < 3; ++i) {
      double p = start[i], m = 0, v = 0;
      for (int step = 1; step <= 8; ++step) {
        double g = gradient_at(step, i);
        if (decoupled) p *= 1 - 0.01 * 0.1;
        else g += 0.1 * p;
        m = 0.9 * m + 0.1 * g, v = 0.999 * v + 0.001 * g * g;
        p -= 0.01 / (1 - std::pow(0.9, step)) * m / (std::sqrt(v) / std::sqrt(1 - std::pow(0.999, step)) + 1e-8);
      }
      CHECK(got[static_cast<size_t>(i)] == doctest::Approx(p).epsilon(1e-5));
    }
  }
}

TEST_CASE("optimisers skip parameters without a gradient, and refuse a step where none has one") {
  Tensor used = ones({2}, {.requires_grad = true}), unused = ones({2}, {.requires_grad = true});
  nn::optim::AdamW optimizer({used, unused}, {});
  used.set_grad(ones({2}));
  optimizer.step();
  CHECK(as_number(used.max()) < 1);
  CHECK(as_number(unused.max()) == 1);
  optimizer.zero_grad();
  CHECK(!used.grad().defined());
  const std::string text = thrown<AutogradError>([&] { optimizer.step(); });
  CHECK(contains(text, "none of the 2 parameters has a gradient"));
  CHECK(contains(text, "nn::to(model"));
}

TEST_CASE("optimisers check what they are given") {
  Tensor p = ones({2}, {.requires_grad = true});
  CHECK(contains(thrown<ValueError>([] { nn::optim::Sgd({}, {}); }), "nn::optim::Sgd: there is nothing to optimise"));
  CHECK(contains(thrown<ValueError>([&] { nn::optim::Adam({p}, {.lr = -1}); }), "learning rate is -1"));
  CHECK(contains(thrown<ValueError>([&] { nn::optim::AdamW({p}, {.beta2 = 1}); }), "beta2 is 1"));
  CHECK(contains(thrown<ValueError>([&] { nn::optim::Sgd({p}, {.nesterov = true}); }), "nesterov needs momentum"));
  CHECK(contains(thrown<ValueError>([&] { nn::optim::Sgd({p * 2}, {}); }), "computed from others"));
  CHECK_THROWS_AS(nn::optim::Sgd({Tensor()}, {}), UndefinedError);
  CHECK_THROWS_AS(nn::optim::Sgd({tensor<int64_t>({1, 2})}, {}), ValueError);
}

TEST_CASE("the learning rate is a tensor that set_lr overwrites in place") {
  Tensor p = ones({1}, {.requires_grad = true});
  nn::optim::Sgd optimizer({p}, {.lr = 0.5});
  const Tensor lr = optimizer.lr();
  optimizer.set_lr(0.25);
  CHECK(as_number(lr) == 0.25);
  CHECK(same_tensor(lr, optimizer.lr()));
  CHECK(optimizer.initial_lr() == 0.5);
  p.set_grad(ones({1}));
  optimizer.step();
  CHECK(as_number(p) == 0.75);
  CHECK(names(nn::optim::AdamW({p}, {}).state()) == Names{"lr", "steps", "mean.0", "variance.0"});
}

TEST_CASE("CosineSchedule warms up, falls along half a cosine, and stays at the minimum") {
  Tensor p = ones({1}, {.requires_grad = true});
  nn::optim::Sgd optimizer({p}, {.lr = 1});
  nn::optim::CosineSchedule schedule(optimizer, {.steps = 12, .warmup = 2, .minimum = 0.1});
  const double expected[] = {0.5, 1, 1, 0.1 + 0.45 * (1 + std::cos(0.1 * std::acos(-1.0)))};
  for (double lr : expected) {
    CHECK(as_number(optimizer.lr()) == doctest::Approx(lr));
    schedule.step();
  }
  schedule.set_steps_done(7);
  CHECK(as_number(optimizer.lr()) == doctest::Approx(0.55));
  schedule.set_steps_done(12);
  CHECK(as_number(optimizer.lr()) == doctest::Approx(0.1));
  schedule.step();
  CHECK(as_number(optimizer.lr()) == doctest::Approx(0.1));
  CHECK(contains(thrown<ValueError>([&] { nn::optim::CosineSchedule(optimizer, {}); }), "steps is 0"));
  CHECK_THROWS_AS(nn::optim::CosineSchedule(optimizer, {.steps = 3, .warmup = 4}), ValueError);
}

TEST_CASE("a small network learns exclusive or") {
  manual_seed(2);
  struct Xor {
    nn::Linear hidden{2, 16}, output{16, 2};
    Tensor operator()(const Tensor& x) const { return output(tanh(hidden(x))); }
  } model;
  nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 0.02});
  const Tensor x = tensor({{0.f, 0.f}, {0.f, 1.f}, {1.f, 0.f}, {1.f, 1.f}}), y = tensor<int64_t>({0, 1, 1, 0});
  double loss_value = 0;
  for (int step = 0; step < 300; ++step) {
    optimizer.zero_grad();
    Tensor loss = cross_entropy(model(x), y);
    loss.backward();
    nn::clip_grad_norm(nn::parameters(model), 1.0);
    optimizer.step();
    loss_value = as_number(loss);
  }
  CHECK(loss_value < 0.05);
  CHECK((model(x).argmax(1) == y).sum().item<int64_t>() == 4);
}

namespace {

struct Counted {
  explicit Counted(int64_t width) : first(3, width), second(width, 1) {}
  static constexpr int fields = 3;
  nn::Linear first, second;
  int64_t calls = 0;
};
struct BothLayers {
  nn::Linear first, second;
};
struct Derived : BothLayers {
  explicit Derived(int64_t width) : BothLayers{{3, width}, {width, 1}} {}
  static constexpr int fields = 2;
};

}  // namespace

TEST_CASE("a class with a constructor says how many fields it has, and is walked") {
  const std::vector<std::string> names{"first.weight", "first.bias", "second.weight", "second.bias"};
  const auto names_of = [](const auto& model) {
    std::vector<std::string> result;
    for (const auto& each : nn::named_parameters(model)) result.push_back(each.name);
    return result;
  };
  CHECK(names_of(Counted(4)) == names);
  CHECK(names_of(Derived(4)) == names);
  CHECK(names_of(std::vector<Counted>{Counted(2)})[0] == "0.first.weight");
}
