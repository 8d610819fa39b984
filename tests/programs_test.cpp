// Programs that need control flow, each the same text in the three modes: values, and gradients where there are some.
#include <cmath>

#include "autograd/autograd.h"
#include "core/ops/ops.h"
#include "core/random.h"
#include "graph/trace/control_flow.h"
#include "nn/layers/recurrent.h"
#include "nn/reflect.h"
#include "tests/support.h"

using namespace tandem;

namespace {

/// Tensors that `f` gives in each mode are close to those that it gives eagerly; so are the gradients of their sum, of `leaves`.
template <class F> void agree(F&& f, const Tensor& x, const Tensors& leaves, double tolerance = 1e-5) {
  Tensors expected;
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    for (Tensor leaf : leaves) leaf.set_grad({});
    auto step = compile(
        [&](const Tensor& in) {
          Tensors results = f(in);
          Tensor total = zeros({});
          for (const Tensor& each : results)
            if (each.requires_grad()) total = total + each.sum();
          if (!leaves.empty()) total.backward();
          for (Tensor& each : results) each = each.detach();
          return results;
        },
        {.mode = mode});
    Tensors got = step(x);
    for (const Tensor& leaf : leaves) got.push_back(leaf.grad().clone());
    if (mode == Mode::eager) expected = got;
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      CHECK(allclose(got[i], expected[i], {.rtol = tolerance, .atol = tolerance}));
    }
    if (mode != Mode::eager) CHECK(step.stats().traces == 1);
  }
}

}  // namespace

TEST_CASE("programs: an LSTM by scan is nn::Lstm") {
  manual_seed(1);
  const nn::Lstm layer(3, 4);
  const nn::RecurrentWeights& w = layer.weights(0);
  const Tensors leaves{w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh};
  const auto by_scan = [&](const Tensor& x) {
    const auto turn = [&](const LstmState& state, const Tensor& now) {
      const Tensor gates = matmul(now, w.weight_ih.transpose(0, 1)) + w.bias_ih +
                           matmul(state.hidden, w.weight_hh.transpose(0, 1)) + w.bias_hh;
      const LstmState next = lstm_cell(gates, state.cell);
      return std::pair{next, next.hidden};
    };
    const auto scanned = scan(turn, LstmState{zeros({2, 4}), zeros({2, 4})}, x);
    return Tensors{scanned.second, scanned.first.hidden, scanned.first.cell};
  };
  const Tensor x = randn({7, 2, 3});
  const nn::LstmResult expected = layer(x);
  const Tensors got = by_scan(x);
  CHECK(allclose(got[0], expected.output, {.rtol = 1e-5, .atol = 1e-6}));
  CHECK(allclose(got[2], expected.state.cell.reshape({2, 4}), {.rtol = 1e-5, .atol = 1e-6}));
  agree(by_scan, x, leaves);
  Tensors gradients;
  for (Tensor leaf : leaves) gradients.push_back(leaf.grad().clone()), leaf.set_grad({});
  const nn::LstmResult again = layer(x);
  (again.output.sum() + again.state.hidden.sum() + again.state.cell.sum()).backward();
  for (size_t i = 0; i < leaves.size(); ++i)
    CHECK(allclose(leaves[i].grad(), gradients[i], {.rtol = 1e-4, .atol = 1e-5}));
}

TEST_CASE("programs: beam search") {
  manual_seed(2);
  constexpr int64_t beams = 3, words = 6, steps = 5;
  const Tensor logits = log_softmax(randn({words, words}) * 2, -1);  // of the next word, by the last one
  const auto search = [&](const Tensor& first) {
    // Scores of the beams, their last words, and all words so far.
    const auto turn = [&](const std::tuple<Tensor, Tensor, Tensor>& state, const Tensor& step) {
      const Tensor scores = std::get<0>(state), last = std::get<1>(state), text = std::get<2>(state);
      const auto best = topk((scores.unsqueeze(1) + index_select(logits, 0, last)).reshape({beams * words}), beams);
      const Tensor from = floor_divide(best.indices, words), word = best.indices % words;
      const Tensor at = (arange(steps) == step).unsqueeze(0);
      const Tensor longer = where(at, word.unsqueeze(1), index_select(text, 0, from));
      return std::pair{std::tuple{best.values, word, longer}, best.values.max()};
    };
    const Tensor start = where(arange(beams) == 0, 0.0, -1e9).to(float32);
    const auto found =
        scan(turn, std::tuple{start, first.expand({beams}).contiguous(), zeros({beams, steps}, {.dtype = int64})},
             arange(steps));
    return Tensors{std::get<0>(found.first), std::get<2>(found.first), found.second};
  };
  agree(search, tensor<int64_t>(0), {});
  // The best of all sequences, by trying each: a beam of all words is exact for two steps.
  const Tensors got = search(tensor<int64_t>(0));
  CHECK(got[1].shape() == Shape{beams, steps});
  double score = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < steps; ++i) {
    const int64_t word = got[1].select(0, 0).select(0, i).item<int64_t>();
    score += logits.select(0, last).select(0, word).item<double>();
    last = word;
  }
  CHECK(got[0].select(0, 0).item<double>() == doctest::Approx(score).epsilon(1e-4));
}

TEST_CASE("programs: an ODE solver with adaptive steps, and its gradient over a bounded number of them") {
  manual_seed(3);
  const Tensor rate = full({}, 0.7, {.dtype = float64}).requires_grad(true);
  const auto step_of = [&](const Tensor& y, const Tensor& t, const Tensor& step) {
    const Tensor h = minimum(step, 2.0 - t), k1 = -rate * y, euler = y + h * k1, heun = y + h * (k1 - rate * euler) / 2;
    const Tensor good = abs(heun - euler).max() < 1e-3;
    return std::tuple{where(good, heun, y), where(good, t + h, t).detach(), where(good, step * 1.5, step / 2).detach()};
  };
  const auto begin = [](const Tensor& y) {
    return std::tuple{y, zeros({}, {.dtype = float64}), full({}, 0.5, {.dtype = float64})};
  };
  const auto solve = [&](const Tensor& y) {
    const auto [y0, t0, h0] = begin(y);
    const NoGrad no_grad;
    return Tensors{std::get<0>(
        while_loop([](const Tensor&, const Tensor& t, const Tensor&) { return t < 2.0; },
                   [&](const Tensor& y, const Tensor& t, const Tensor& h) { return step_of(y, t, h); }, y0, t0, h0))};
  };
  const auto bounded = [&](const Tensor& y) {
    const auto turn = [&](const std::tuple<Tensor, Tensor, Tensor>& state, const Tensor& number) {
      const auto next = cond(
          std::get<1>(state) < 2.0, [&] { return std::apply(step_of, state); },
          [&] {
            return std::tuple{std::get<0>(state) * 1, std::get<1>(state) * 1, std::get<2>(state) * 1};
          });
      return std::pair{next, number};
    };
    return Tensors{std::get<0>(scan(turn, begin(y), arange(100), {.checkpoint = 10}).first)};
  };
  const Tensor y = tensor(std::vector<double>{1, -2});
  agree(solve, y, {}, 1e-12);
  agree(bounded, y, {rate}, 1e-9);
  CHECK(allclose(solve(y)[0], bounded(y)[0].detach(), {.rtol = 1e-12}));
  CHECK(allclose(solve(y)[0], y * std::exp(-1.4), {.rtol = 1e-2}));
  // d/dr of y exp(-2 r), of both
  CHECK(rate.grad().item<double>() == doctest::Approx(-2 * std::exp(-1.4) * (1 - 2)).epsilon(2e-2));
}

TEST_CASE("programs: a mixture of experts with capacity") {
  manual_seed(4);
  constexpr int64_t tokens = 10, width = 4, experts = 3, capacity = 3;
  const Tensor router = randn({width, experts}).requires_grad(true),
               weights = (randn({experts, width, width}) * 0.5).requires_grad(true);
  const auto mixture = [&](const Tensor& x) {
    const Tensor chances = softmax(matmul(x, router), -1);
    const auto best = max_with_index(chances, -1);
    const Tensor chosen = one_hot(best.indices, experts);                         // [tokens, experts]
    const Tensor place = (cumsum(chosen, 0) * chosen).sum(1) - 1;                 // within its expert's queue
    const Tensor served = place < capacity, slot = minimum(place, capacity - 1);  // the others are passed by
    const Tensor position = best.indices * capacity + slot;
    const Tensor sent = where(served.unsqueeze(1), x, 0.0);
    const Tensor queues =
        scatter_add(zeros({experts * capacity, width}), 0, position.unsqueeze(1).expand({tokens, width}), sent)
            .reshape({experts, capacity, width});
    struct Expert {
      Tensor weight, queue;
    };
    const Tensor done =
        map([](const Expert& each) { return relu(matmul(each.queue, each.weight)); }, Expert{weights, queues});
    const Tensor back = index_select(done.reshape({experts * capacity, width}), 0, position);
    return Tensors{where(served.unsqueeze(1), back * best.values.unsqueeze(1), x), served};
  };
  const Tensor x = randn({tokens, width});
  agree(mixture, x, {router, weights});
  CHECK(!all(mixture(x)[1]).item<bool>());  // some expert was asked by more than it takes
}
