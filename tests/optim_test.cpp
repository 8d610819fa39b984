// The optimisers beside Sgd and AdamW, groups of parameters, averaged weights, clipping by value: formulas, three modes.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <memory>

#include "support.h"
#include "tandem.h"

using namespace tandem;
namespace optim = tandem::nn::optim;

namespace {

using Make = std::function<std::unique_ptr<optim::Optimizer>(Tensors)>;
template <class O, class Options> Make make(Options options) {
  return [options](Tensors parameters) { return std::make_unique<O>(parameters, options); };
}

double gradient_at(int step, int i) { return std::sin(1.3 * step + i) + 0.2 * i; }

/// Six steps on gradients that the reference got as well.
std::vector<double> run(const Make& make, DType dtype = float64) {
  Tensor parameter = tensor({1.0, -2.0, 0.5}, {.dtype = float64}).to(dtype).requires_grad(true);
  const auto optimizer = make({parameter});
  for (int step = 1; step <= 6; ++step) {
    parameter.set_grad(
        tensor({gradient_at(step, 0), gradient_at(step, 1), gradient_at(step, 2)}, {.dtype = float64}).to(dtype));
    optimizer->step();
  }
  return parameter.to_vector<double>();
}

void check_close(const std::vector<double>& got, const std::vector<double>& expected, double tolerance) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(std::fabs(got[i] - expected[i]) <= tolerance * std::max(1.0, std::fabs(expected[i])));
  }
}

std::vector<std::pair<const char*, Make>> all_optimisers() {
  return {{"Sgd", make<optim::Sgd>(optim::SgdOptions{.lr = 0.05, .momentum = 0.9})},
          {"Adam", make<optim::Adam>(optim::AdamOptions{.lr = 0.05, .weight_decay = 0.1})},
          {"AdamW", make<optim::AdamW>(optim::AdamWOptions{.lr = 0.05})},
          {"RmsProp", make<optim::RmsProp>(optim::RmsPropOptions{
                          .lr = 0.05, .alpha = 0.9, .momentum = 0.8, .weight_decay = 0.1, .centered = true})},
          {"Adagrad", make<optim::Adagrad>(
                          optim::AdagradOptions{.lr = 0.1, .lr_decay = 0.2, .weight_decay = 0.1, .initial_sum = 0.3})},
          {"Lion", make<optim::Lion>(optim::LionOptions{.lr = 0.01, .weight_decay = 0.1})},
          {"Muon", make<optim::Muon>(optim::MuonOptions{.lr = 0.02, .weight_decay = 0.1})}};
}

}  // namespace

TEST_CASE("optimisers give what PyTorch's give, step by step") {
  // torch 2.15, float64, lr and the like as below. The rate is float32 here, hence the tolerance.
  const double tolerance = 1e-6;
  check_close(run(make<optim::Adam>(optim::AdamOptions{.lr = 0.05, .weight_decay = 0.1})),
              {0.862699571, -2.038497047, 0.392752672}, tolerance);
  check_close(run(make<optim::RmsProp>(optim::RmsPropOptions{.lr = 0.05})), {0.47624482, -2.658683572, -0.340593114},
              tolerance);
  check_close(run(all_optimisers()[3].second), {0.384941349, -2.160445499, -0.256973699}, tolerance);
  check_close(run(make<optim::Adagrad>(optim::AdagradOptions{.lr = 0.1})), {0.89549636, -2.131065195, 0.332341921},
              tolerance);
  check_close(run(all_optimisers()[4].second), {0.895169993, -2.037712647, 0.412107606}, tolerance);
}

TEST_CASE("Lion follows its formula") {
  const std::vector<double> got = run(make<optim::Lion>(optim::LionOptions{.lr = 0.01, .weight_decay = 0.1}));
  std::vector<double> expected{1, -2, 0.5};
  for (int i = 0; i < 3; ++i) {
    double& p = expected[static_cast<size_t>(i)];
    double m = 0;
    for (int step = 1; step <= 6; ++step) {
      const double g = gradient_at(step, i), c = 0.9 * m + 0.1 * g;
      p = p * (1 - 0.01 * 0.1) - 0.01 * (c > 0 ? 1 : -1);
      m = 0.99 * m + 0.01 * g;
    }
  }
  check_close(got, expected, 1e-6);
}

TEST_CASE("Muon: matrices by Newton and Schulz, the rest by AdamW") {
  Tensor weight =
      tensor({0.5, 0.3, -0.2, 0.8, 0.1, -0.6}, {.dtype = float64}).reshape({3, 2}).contiguous().requires_grad(true);
  Tensor bias = tensor({1.0, 2.0}, {.dtype = float64}).requires_grad(true),
         same = tensor({1.0, 2.0}, {.dtype = float64}).requires_grad(true);
  optim::Muon muon({weight, bias}, {.lr = 0.02, .weight_decay = 0.1, .adamw_lr = 0.01, .adamw_weight_decay = 0.1});
  optim::AdamW adamw({same}, {.lr = 0.01, .beta2 = 0.95, .epsilon = 1e-10, .weight_decay = 0.1});
  for (int step = 1; step <= 3; ++step) {
    std::vector<double> g;
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 2; ++j) g.push_back(std::sin(step + i * 2 + j * 0.7));
    weight.set_grad(tensor(g).reshape({3, 2}));
    bias.set_grad(tensor({g[0], g[1]}, {.dtype = float64}));
    same.set_grad(tensor({g[0], g[1]}, {.dtype = float64}));
    muon.step();
    adamw.step();
  }
  check_close(weight.to_vector<double>(),
              {0.4588793398933278, 0.2888227569290146, -0.2037760008834243, 0.8439826378966855, 0.1416673531861122,
               -0.6276198507146932},
              1e-6);
  check_close(bias.to_vector<double>(), same.to_vector<double>(), 1e-6);
  CHECK(contains(thrown<ShapeError>([] { optim::newton_schulz(ones({3})); }), "needs a matrix, got [3]"));
}

TEST_CASE("newton_schulz brings singular values near 1, for tall and wide matrices") {
  manual_seed(3);
  for (const Shape& shape : {Shape{8, 5}, Shape{5, 8}, Shape{6, 6}}) {
    const Tensor x = optim::newton_schulz(randn(shape));
    REQUIRE(x.shape() == shape);
    const Tensor small = shape[0] > shape[1] ? matmul(x.transpose(0, 1), x) : matmul(x, x.transpose(0, 1));
    const double trace_per_dim = (square(x)).sum().item<double>() / static_cast<double>(small.size(0));
    CHECK(trace_per_dim > 0.5);
    CHECK(trace_per_dim < 1.5);
  }
}

TEST_CASE("optimisers: groups have options and rates of their own") {
  Tensor a = ones({2}, {.requires_grad = true}), b = ones({2}, {.requires_grad = true}),
         c = ones({2}, {.requires_grad = true});
  optim::AdamW optimizer({{{a}, {.lr = 0.1, .weight_decay = 0}}, {{b, c}, {.lr = 0.01, .weight_decay = 0.5}}});
  CHECK(optimizer.group_count() == 2);
  CHECK(optimizer.parameters().size() == 3);
  CHECK(optimizer.initial_lr(1) == 0.01);
  for (Tensor* p : {&a, &b, &c}) p->set_grad(ones({2}));
  optimizer.step();
  CHECK(a.to_vector<double>()[0] == doctest::Approx(0.9).epsilon(1e-5));
  CHECK(b.to_vector<double>()[0] == doctest::Approx(1 - 0.005 - 0.01).epsilon(1e-5));
  std::vector<std::string> names;
  for (const nn::NamedTensor& each : optimizer.state()) names.push_back(each.name);
  CHECK(names == std::vector<std::string>{"lr", "lr.1", "steps", "mean.0", "mean.1", "mean.2", "variance.0",
                                          "variance.1", "variance.2"});

  optim::StepSchedule schedule(optimizer, {.every = 1, .factor = 0.5});
  schedule.step();
  CHECK(optimizer.lr(0).item<double>() == doctest::Approx(0.05));
  CHECK(optimizer.lr(1).item<double>() == doctest::Approx(0.005));
  optimizer.set_group_lr(1, 0);
  for (Tensor* p : {&a, &b, &c}) p->set_grad(ones({2}));
  const Tensor before = b.detach().clone();
  optimizer.step();
  CHECK(allclose(b.detach(), before));
  CHECK(contains(thrown<ValueError>([&] { optimizer.set_group_lr(2, 0.1); }), "there is no group 2: there are 2"));
  CHECK(contains(thrown<ValueError>([&] {
                   optim::Sgd({{{a}, {}}, {{b, a}, {}}});
                 }),
                 "parameter 2 of shape [2] is parameter 0 again"));
  CHECK(contains(thrown<ValueError>([&] {
                   optim::Sgd({{{a}, {}}, {{b}, {.nesterov = true}}});
                 }),
                 "nesterov needs momentum"));
  // Momentum in one group only.
  optim::Sgd mixed({{{a}, {.lr = 0.1}}, {{b}, {.lr = 0.1, .momentum = 0.9}}});
  mixed.step();
  CHECK(mixed.state().size() == 3);
}

TEST_CASE("optimisers: a saved state goes on where it was") {
  for (const auto& [name, make] : all_optimisers()) {
    const std::string which(name);  // clang 14 can't capture a binding
    CAPTURE(which);
    Tensor p = tensor({{1.0, -2.0}, {0.5, 0.1}}, {.dtype = float64}).requires_grad(true),
           q = tensor({{1.0, -2.0}, {0.5, 0.1}}, {.dtype = float64}).requires_grad(true);
    const auto first = make({p}), second = make({q});
    for (int step = 0; step < 3; ++step) {
      p.set_grad(full({2, 2}, 0.3 + step, {.dtype = float64}) * p.detach());
      first->step();
    }
    const auto from = first->state(), to = second->state();
    REQUIRE(from.size() == to.size());
    NoGrad no_grad;
    for (size_t i = 0; i < from.size(); ++i) {
      CHECK(from[i].name == to[i].name);
      Tensor(to[i].tensor).assign(from[i].tensor);
    }
    q.assign(p);
    for (Tensor* each : {&p, &q}) each->set_grad(full({2, 2}, 0.7, {.dtype = float64}));
    first->step();
    second->step();
    CHECK(p.to_vector<double>() == q.to_vector<double>());
  }
}

TEST_CASE("optimisers: three modes agree, and the update of all parameters is one kernel") {
  for (const auto& [name, make] : all_optimisers()) {
    const std::string which(name);  // clang 14 can't capture a binding
    CAPTURE(which);
    const auto train = [&make = make](Mode mode, Stats* stats) {
      manual_seed(3);
      Tensors parameters;
      for (const Shape& shape : {Shape{7}, Shape{2, 3, 2}, Shape{3}})
        parameters.push_back(randn(shape, {.requires_grad = true}));
      const auto optimizer = make(parameters);
      optim::ExponentialSchedule schedule(*optimizer, {.factor = 0.8});
      auto step = compile([&] { optimizer->step(); }, {.mode = mode});
      for (int i = 0; i < 4; ++i) {
        for (const Tensor& p : parameters) Tensor(p).set_grad(p.detach() * 0.5f + 0.1f);
        step();
        schedule.step();
      }
      *stats = step.stats();
      return parameters;
    };
    Stats eager_stats, replay_stats, stats;
    const Tensors eager = train(Mode::eager, &eager_stats), replay = train(Mode::replay, &replay_stats),
                  compiled = train(Mode::compiled, &stats);
    CHECK(stats.kernels == 1);
    CHECK(stats.traces == 1);
    for (size_t i = 0; i < eager.size(); ++i) {
      CHECK(allclose(replay[i].detach(), eager[i].detach(), {.rtol = 1e-6, .atol = 1e-7}));
      CHECK(allclose(compiled[i].detach(), eager[i].detach(), {.rtol = 1e-6, .atol = 1e-7}));
    }
  }
}

TEST_CASE("Muon with matrices agrees in three modes") {
  const auto train = [](Mode mode) {
    manual_seed(3);
    Tensor w = randn({6, 4}, {.requires_grad = true}), b = randn({6}, {.requires_grad = true});
    optim::Muon optimizer({w, b});
    const Tensor x = randn({5, 4});
    auto step = compile(
        [&] {
          optimizer.zero_grad();
          Tensor loss = square(linear(x, w, b)).mean();
          loss.backward();
          optimizer.step();
          return loss;
        },
        {.mode = mode});
    double loss = 0;
    for (int i = 0; i < 30; ++i) loss = step().item<double>();
    return std::pair(loss, w.detach());
  };
  const auto [loss, w] = train(Mode::eager);
  CHECK(loss < 2.5);
  CHECK(allclose(train(Mode::replay).second, w, {.rtol = 1e-5, .atol = 1e-6}));
  CHECK(allclose(train(Mode::compiled).second, w, {.rtol = 1e-4, .atol = 1e-5}));
}

TEST_CASE("optimisers update 16-bit parameters in float32, rounding once") {
  for (const auto& [name, make] : all_optimisers()) {
    const std::string which(name);  // clang 14 can't capture a binding
    CAPTURE(which);
    check_close(run(make, bfloat16), run(make), 0.06);
    check_close(run(make, float16), run(make), 0.01);
  }
}

TEST_CASE("clip_grad_value brings gradients into range") {
  Tensor a = zeros({3}, {.requires_grad = true}), b = zeros({1}, {.requires_grad = true});
  a.set_grad(tensor({-3.f, 0.5f, 2.f}));
  nn::clip_grad_value({a, b}, 1);
  CHECK(a.grad().to_vector<float>() == std::vector<float>{-1, 0.5, 1});
  CHECK(!b.grad().defined());
  CHECK(contains(thrown<ValueError>([&] { nn::clip_grad_value({a}, -1); }), "the limit is -1, need 0 or more"));
}

TEST_CASE("ExponentialMovingAverage: updates, and swaps in and out") {
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    Tensor p = tensor({1.f, 2.f}).requires_grad(true);
    nn::ExponentialMovingAverage average({p}, {.decay = 0.9});
    auto update = compile([&] { average.update(); }, {.mode = mode});
    double expected = 1;
    for (int step = 0; step < 3; ++step) {
      NoGrad no_grad;
      p.assign(p + 1);
      update();
      expected = 0.9 * expected + 0.1 * (2 + step);
    }
    CHECK(average.averages()[0].to_vector<double>()[0] == doctest::Approx(expected));
    {
      const auto averaged = average.use();
      CHECK(p.to_vector<double>()[0] == doctest::Approx(expected));
      CHECK(contains(thrown<ValueError>([&] { average.update(); }), "swap() back"));
    }
    CHECK(p.to_vector<double>()[0] == 4);
  }
  Tensor p = tensor({1.f}).requires_grad(true);
  nn::ExponentialMovingAverage average({p}, {.decay = 0.9, .warmup = true});
  NoGrad no_grad;
  p.assign(tensor({2.f}));
  average.update();  // decay 1/10
  CHECK(average.averages()[0].item<double>() == doctest::Approx(1.9));
  average.update();  // decay 2/11
  CHECK(average.averages()[0].item<double>() == doctest::Approx(2 - 0.1 * 2 / 11));
  CHECK(average.state()[0].tensor.item<double>() == 2);
  CHECK_THROWS_AS(nn::ExponentialMovingAverage({p}, {.decay = 2}), ValueError);
}

namespace {

/// What torch.optim.LBFGS (2.15) has after a step on Rosenbrock's function: the loss it returned, x, y, calls of the closure.
struct Iterate {
  double loss, x, y;
  int calls;
};

void check_rosenbrock(double x, double y, const optim::LbfgsOptions& options, const std::vector<Iterate>& expected) {
  Tensor p = tensor({x, y}, {.dtype = float64}).requires_grad(true);
  optim::Lbfgs optimizer({p}, options);
  int calls = 0;
  for (const Iterate& each : expected) {
    const Tensor loss = optimizer.step([&] {
      ++calls;
      optimizer.zero_grad();
      const Tensor a = p.select(0, 0), b = p.select(0, 1), rest = b - a * a;
      Tensor loss = (1 - a) * (1 - a) + 100 * rest * rest;
      loss.backward();
      return loss;
    });
    check_close({loss.item<double>(), p.to_vector<double>()[0], p.to_vector<double>()[1]}, {each.loss, each.x, each.y},
                1e-7);
    CHECK(calls == each.calls);
  }
}

Tensor filled(const Shape& shape, double salt) {
  std::vector<double> values;
  for (int64_t i = 0; i < shape.numel(); ++i) values.push_back(0.6 * std::sin(1.7 * static_cast<double>(i) + salt));
  return tensor(values).reshape(shape);
}

/// Two layers of fixed weights, and their loss.
struct SmallNet {
  Tensor w1 = filled({3, 2}, 1).requires_grad(true), b1 = filled({3}, 2).requires_grad(true),
         w2 = filled({1, 3}, 3).requires_grad(true), b2 = filled({1}, 4).requires_grad(true);
  Tensor loss() const {
    const Tensor y = linear(tanh(linear(filled({8, 2}, 5), w1, b1)), w2, b2) - filled({8, 1}, 6);
    return mean(y * y);
  }
};

std::vector<double> lbfgs_losses(SmallNet& net, optim::Lbfgs& optimizer, int steps, Mode mode = Mode::eager) {
  auto closure = compile(
      [&] {
        optimizer.zero_grad();
        Tensor loss = net.loss();
        loss.backward();
        return loss;
      },
      {.mode = mode});
  std::vector<double> losses;
  for (int i = 0; i < steps; ++i) losses.push_back(optimizer.step([&] { return closure(); }).item<double>());
  return losses;
}

}  // namespace

TEST_CASE("Lbfgs goes where PyTorch's goes, with as many calls of the closure") {
  check_rosenbrock(-1.2, 1, {.max_iter = 5, .line_search = optim::LineSearch::strong_wolfe},
                   {{24.2, -1.02761776638, 1.05841207827, 6},
                    {4.11181645176, -0.774579735452, 0.547625679232, 12},
                    {3.42316546229, -0.256089576897, 0.0372619816162, 19},
                    {1.6579626409, 0.216827796009, 0.0669188140056, 26},
                    {0.652977696263, 0.513622443137, 0.255815281032, 32}});
  check_rosenbrock(-1.2, 1, {.line_search = optim::LineSearch::strong_wolfe},
                   {{24.2, 0.380622643346, 0.124910131873, 25},
                    {0.423482302438, 0.999981421079, 0.999961965181, 44},
                    {4.22145751126e-10, 0.999981421079, 0.999961965181, 45}});
  check_rosenbrock(-1.2, 1, {.lr = 0.5, .max_iter = 4, .history_size = 3},
                   {{24.2, -1.01001019704, 1.0687408142, 4},
                    {4.27653353335, -1.02380500798, 1.05714621857, 8},
                    {4.10383194677, -1.00561825716, 1.00105056774, 12},
                    {4.0329443474, -0.69786299242, 0.486556937258, 16}});
  check_rosenbrock(0.8, 0.7, {.max_iter = 6, .max_eval = 4},
                   {{0.4, 0.818846671023, 0.682973001541, 4},
                    {0.0483494917735, 0.825820017753, 0.682549839541, 8},
                    {0.0303712860563, 0.890397346629, 0.798663875026, 12}});
}

TEST_CASE("Lbfgs trains a small network as PyTorch's does, also with a compiled closure") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    SmallNet net;
    optim::Lbfgs optimizer({net.w1, net.b1, net.w2, net.b2},
                           {.max_iter = 4, .history_size = 5, .line_search = optim::LineSearch::strong_wolfe});
    check_close(lbfgs_losses(net, optimizer, 6, mode),
                {0.229084949493, 0.162455249263, 0.161015374847, 0.159580104312, 0.157826617765, 0.15487479615}, 1e-7);
    check_close(net.w1.to_vector<double>(),
                {0.350954284874, 1.19253236026, 1.64030388532, -0.899277001943, 0.657652272841, -0.832344481611}, 1e-6);
    SmallNet other;
    optim::Lbfgs plain({other.w1, other.b1, other.w2, other.b2}, {.lr = 0.25, .max_iter = 3});
    check_close(lbfgs_losses(other, plain, 6, mode),
                {0.229084949493, 0.168631968385, 0.16450501632, 0.163191858722, 0.16275357279, 0.162590630899}, 1e-7);
  }
}

TEST_CASE("Lbfgs goes on from a saved state, takes bfloat16, and says what it can't do") {
  SmallNet net, again;
  const optim::LbfgsOptions options{.max_iter = 3, .history_size = 2};
  optim::Lbfgs optimizer({net.w1, net.b1, net.w2, net.b2}, options);
  lbfgs_losses(net, optimizer, 2);
  optim::Lbfgs other({again.w1, again.b1, again.w2, again.b2}, options);
  {
    const NoGrad guard;
    const auto saved = optimizer.state(), own = other.state();
    for (size_t i = 0; i < own.size(); ++i) Tensor(own[i].tensor).assign(saved[i].tensor);
    for (size_t i = 0; i < 4; ++i) Tensor(other.parameters()[i]).assign(optimizer.parameters()[i]);
  }
  CHECK(lbfgs_losses(net, optimizer, 2) == lbfgs_losses(again, other, 2));

  Tensor half = ones({2}, {.dtype = bfloat16}).requires_grad(true);
  optim::Lbfgs of_half({half});
  of_half.step([&] {
    of_half.zero_grad();
    Tensor loss = (half * half).sum();
    loss.backward();
    return loss;
  });
  CHECK(half.to_vector<float>() == std::vector<float>{0, 0});

  net.loss().backward();
  CHECK(contains(thrown<ValueError>([&] { static_cast<optim::Optimizer&>(optimizer).step(); }),
                 "a step calls a closure"));
  CHECK(contains(thrown<ValueError>([&] { optimizer.step([] { return Tensor(); }); }),
                 "the closure must return the loss"));
  CHECK(contains(thrown<ValueError>([&] { optim::Lbfgs({net.w1}, {.history_size = 0}); }), "history_size is 0"));
  for (const Mode mode : kGraphModes) {
    auto step = compile([&] { return optimizer.step([&] { return net.loss(); }); }, {.mode = mode});
    CHECK(contains(thrown<TraceError>([&] { step(); }), "call step() outside of the compiled function"));
  }
}

TEST_CASE("Lbfgs: a loss that is no number, and a closure that throws") {
  const auto rosenbrock = [](const Tensor& p) {
    const Tensor a = p.select(0, 0), b = p.select(0, 1), rest = b - a * a;
    return (1 - a) * (1 - a) + 100 * rest * rest;
  };
  enum class Fault { not_a_number, flat, exception };
  for (const Fault fault : {Fault::not_a_number, Fault::flat, Fault::exception})
    for (const int at : {1, 2, 3, 5}) {
      CAPTURE(static_cast<int>(fault));
      CAPTURE(at);
      Tensor p = tensor({-1.2, 1.0}, {.dtype = float64}).requires_grad(true);
      optim::Lbfgs optimizer({p}, {.max_iter = 4, .history_size = 2, .line_search = optim::LineSearch::strong_wolfe});
      int until_fault = -1;
      const auto step = [&] {
        return optimizer.step([&] {
          optimizer.zero_grad();
          Tensor loss = rosenbrock(p);
          if (--until_fault == 0) {
            if (fault == Fault::exception) throw std::runtime_error("the closure's own");
            if (fault == Fault::not_a_number) loss = loss * NAN;
            if (fault == Fault::flat) {  // the loss alone, its gradient is 0
              (loss * 0).backward();
              return full({}, NAN, {.dtype = float64});
            }
          }
          loss.backward();
          return loss;
        });
      };
      const double before = (step(), step()).item<double>();
      until_fault = at;
      if (fault == Fault::exception) CHECK_THROWS_AS(step(), std::runtime_error);
      else step();
      CHECK(rosenbrock(p).item<double>() <= before);  // an iterate, not where a search was trying
      for (int i = 0; i < 20; ++i) step();
      check_close(p.to_vector<double>(), {1, 1}, 1e-4);
    }
  // A first trial where the logarithm isn't defined.
  Tensor p = tensor({3.0}, {.dtype = float64}).requires_grad(true);
  optim::Lbfgs optimizer({p}, {.lr = 10, .line_search = optim::LineSearch::strong_wolfe});
  for (int i = 0; i < 4; ++i)
    optimizer.step([&] {
      optimizer.zero_grad();
      Tensor loss = (p * 50 - log(p)).sum();
      loss.backward();
      return loss;
    });
  check_close(p.to_vector<double>(), {0.02}, 1e-6);
}
