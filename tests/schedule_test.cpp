// Schedules of the learning rate, against the numbers that PyTorch's schedulers of the same settings give.
#include <doctest/doctest.h>

#include <cmath>

#include "tandem.h"

using namespace tandem;
namespace optim = tandem::nn::optim;
using Rates = std::vector<double>;

namespace {

struct Fixture {
  Tensor parameter = ones({1}, {.requires_grad = true});
  optim::Sgd optimizer{Tensors{parameter}, {.lr = 0.5}};
  double lr() const { return optimizer.lr().item<double>(); }
};

void check_rates(const Fixture& f, optim::Schedule& schedule, const Rates& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK(f.lr() == doctest::Approx(expected[i]).epsilon(1e-6));
    CHECK(schedule.lr_after(static_cast<int64_t>(i)) == doctest::Approx(expected[i]).epsilon(1e-8));
    schedule.step();
  }
  CHECK(schedule.steps_done() == static_cast<int64_t>(expected.size()));
  schedule.set_steps_done(1);
  CHECK(f.lr() == doctest::Approx(expected[1]).epsilon(1e-6));
}

template <class F> bool complains(F&& f, const std::string& part) {
  try {
    f();
  } catch (const ValueError& error) { return std::string(error.what()).find(part) != std::string::npos; }
  return false;
}

}  // namespace

TEST_CASE("schedules give the rates of PyTorch's") {
  Fixture f;
  SUBCASE("StepLR") {
    optim::StepSchedule schedule(f.optimizer, {.every = 3});
    check_rates(f, schedule, {0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.005, 0.005});
  }
  SUBCASE("MultiStepLR") {
    optim::MultiStepSchedule schedule(f.optimizer, {.milestones = {2, 5, 5}});
    check_rates(f, schedule, {0.5, 0.5, 0.05, 0.05, 0.05, 0.0005, 0.0005, 0.0005});
  }
  SUBCASE("ExponentialLR") {
    optim::ExponentialSchedule schedule(f.optimizer, {.factor = 0.9});
    check_rates(f, schedule, {0.5, 0.45, 0.405, 0.3645});
  }
  SUBCASE("OneCycleLR") {
    optim::OneCycleSchedule schedule(f.optimizer, {.steps = 10});
    check_rates(
        f, schedule,
        {0.02, 0.26, 0.5, 0.475242316, 0.405872827, 0.305631011, 0.194370989, 0.09412917303, 0.02475968399, 2e-06});
  }
  SUBCASE("OneCycleLR in three phases") {
    optim::OneCycleSchedule schedule(
        f.optimizer,
        {.steps = 10, .rising = 0.4, .curve = optim::OneCycleOptions::Curve::linear, .three_phases = true});
    check_rates(f, schedule, {0.02, 0.18, 0.34, 0.5, 0.34, 0.18, 0.02, 0.013334, 0.006668, 2e-06, 2e-06});
  }
  SUBCASE("LambdaLR") {
    optim::LambdaSchedule schedule(f.optimizer, [](int64_t n) { return 1.0 / (1.0 + static_cast<double>(n)); });
    check_rates(f, schedule, {0.5, 0.25, 0.1666666667, 0.125});
  }
  SUBCASE("LinearLR before StepLR") {
    optim::StepSchedule after(f.optimizer, {.every = 2});
    optim::WarmupSchedule schedule(after, {.steps = 4, .start = 0.2});
    check_rates(f, schedule, {0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.05, 0.05, 0.005});
  }
}

TEST_CASE("PlateauSchedule gives the rates of ReduceLROnPlateau") {
  const Rates figures{1, 0.9, 0.9, 0.95, 0.8999999, 0.92, 0.93, 0.5, 0.6, 0.7, 0.8, 0.9};
  const auto check_rates = [&](optim::PlateauOptions options, const Rates& expected) {
    Fixture f;
    optim::PlateauSchedule schedule(f.optimizer, options);
    for (size_t i = 0; i < figures.size(); ++i) {
      CAPTURE(i);
      schedule.step(figures[i]);
      CHECK(f.lr() == doctest::Approx(expected[i]).epsilon(1e-6));
    }
  };
  check_rates({.factor = 0.5, .patience = 2}, {0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125, 0.125});
  check_rates({.factor = 0.5,
               .patience = 1,
               .threshold = 0.05,
               .threshold_is = optim::PlateauOptions::Threshold::absolute,
               .cooldown = 2,
               .minimum = 0.1},
              {0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125});
  check_rates({.better = optim::PlateauOptions::Better::greater, .factor = 0.5, .patience = 1},
              {0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625, 0.03125, 0.03125, 0.015625, 0.015625});
}

TEST_CASE("PlateauSchedule: its state goes on where it was, and tensors are read") {
  Fixture f, g;
  optim::PlateauSchedule first(f.optimizer, {.factor = 0.5, .patience = 1}),
      second(g.optimizer, {.factor = 0.5, .patience = 1});
  first.step(1.0);
  first.step(tensor(1.f));
  first.step(1.0);
  CHECK(f.lr() == 0.25);
  first.step(2.0);
  second.set_state(first.state());
  CHECK(g.lr() == 0.25);
  first.step(2.0);
  second.step(2.0);
  CHECK(f.lr() == 0.125);
  CHECK(g.lr() == 0.125);
}

TEST_CASE("schedules trace nothing anew") {
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    Fixture f;
    optim::OneCycleSchedule schedule(f.optimizer, {.steps = 6});
    auto step = compile(
        [&] {
          f.optimizer.zero_grad();
          Tensor loss = f.parameter.sum();
          loss.backward();
          f.optimizer.step();
        },
        {.mode = mode});
    double expected = 1;
    for (int i = 0; i < 6; ++i) {
      expected -= schedule.lr_after(i);
      step();
      schedule.step();
    }
    CHECK(f.parameter.item<double>() == doctest::Approx(expected).epsilon(1e-5));
    if (mode != Mode::eager) CHECK(step.stats().traces == 1);
  }
}

TEST_CASE("schedules check what they are given") {
  Fixture f;
  CHECK(complains([&] { optim::StepSchedule(f.optimizer, {}); }, "every is 0"));
  CHECK(complains([&] { optim::MultiStepSchedule(f.optimizer, {.milestones = {3, 1}}); }, "don't ascend"));
  CHECK(complains([&] { optim::ExponentialSchedule(f.optimizer, {.factor = -1}); }, "factor is -1"));
  CHECK(complains([&] { optim::OneCycleSchedule(f.optimizer, {}); }, "steps is 0"));
  CHECK(complains([&] { optim::OneCycleSchedule(f.optimizer, {.steps = 5, .rising = 2}); }, "rising is 2"));
  CHECK(complains([&] { optim::LambdaSchedule(f.optimizer, {}); }, "the function is empty"));
  CHECK(complains([&] { optim::PlateauSchedule(f.optimizer, {.factor = 1}); }, "factor is 1"));
}
