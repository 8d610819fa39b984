// Recurrent layers and cells on cuda(0) against the CPU, emulated or on a GPU, in every order of lanes: batches of less than a
// tile and of several, widths that can and can't be read 16 bytes at a time, with fewer terms than a slab and with several; and
// a character model in all modes.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "core/dispatch.h"
#include "tandem.h"
#include "tests/cuda/orders.h"

using namespace tandem;

namespace {

/// Numbers in [-1, 1) that are the same at every run.
Tensor numbers(const Shape& shape, DType type, uint32_t seed, float scale = 1) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  uint32_t state = seed * 2654435761u + 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = scale * static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  }
  return tensor(values).reshape(shape).to(type);
}

double tolerance_of(DType type) {
  if (type == float64) return 1e-13;
  if (type == float16) return 4e-3;
  return type == bfloat16 ? 2.5e-2 : 1e-5;  // states are rounded between steps
}

/// Results of the op on both devices: against the CPU, and one bit for bit in all orders.
void compare(const char* name, const Tensors& inputs, const Attributes& attributes = {}) {
  NoGrad guard;
  const Op& op = find_op(name);
  const Tensors wanted = dispatch_all(op, inputs, attributes, Where::current());
  Tensors moved, before;
  for (const Tensor& input : inputs) moved.push_back(input.to(cuda(0)));
  in_every_order([&](bool first) {
    Tensors got = dispatch_all(op, moved, attributes, Where::current());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      got[i] = got[i].cpu();
      REQUIRE(got[i].shape() == wanted[i].shape());
      const std::vector<double> a = got[i].to_vector<double>(), b = (first ? wanted[i] : before[i]).to_vector<double>();
      const double tolerance = first ? tolerance_of(wanted[i].dtype()) : 0;
      double worst = 0;
      for (size_t k = 0; k < a.size(); ++k) {
        const double off = std::fabs(a[k] - b[k]) / std::fmax(1, std::fabs(b[k]));
        if (!(off <= worst)) worst = off;
      }
      CHECK(worst <= tolerance);
    }
    if (first) before = got;
  });
}

struct Extents {
  int64_t time, batch, width;
};
constexpr Extents kExtents[] = {{3, 1, 5}, {2, 5, 16}, {3, 17, 40}, {2, 33, 130}, {1, 40, 24}};
constexpr DType kFloats[] = {float32, float64, float16, bfloat16};

/// f(type, extents, scale of weights) for all of them.
void over_layers(const std::function<void(DType, Extents, float)>& f) {
  for (const DType type : kFloats)
    for (const Extents& e : kExtents) {
      CAPTURE(name_of(type));
      CAPTURE(e.batch);
      CAPTURE(e.width);
      f(type, e, 1 / std::sqrt(static_cast<float>(e.width)));
    }
}

}  // namespace

TEST_CASE("cuda: an LSTM layer and its gradient") {
  over_layers([](DType type, Extents e, float scale) {
    const auto [time, batch, width] = e;
    const Tensor x = numbers({time, batch, 4 * width}, type, 1, 2),
                 weight = numbers({4 * width, width}, type, 2, scale), h = numbers({batch, width}, type, 3),
                 c = numbers({batch, width}, type, 4), bias = numbers({4 * width}, type, 5);
    compare("lstm", {x, weight, h, c}, {{"reverse", true}});
    compare("lstm", {x, weight, h, c, bias}, {{"reverse", false}});
    const Tensors made =
        dispatch_all(find_op("lstm"), Tensors{x, weight, h, c}, {{"reverse", false}}, Where::current());
    const Tensor dh = numbers({time, batch, width}, type, 6), dc = numbers({time, batch, width}, type, 7);
    compare("lstm_grad", {dh, made[1], made[2], weight, c, dc}, {{"reverse", false}});
    compare("lstm_grad", {dh, made[1], made[2], weight, c}, {{"reverse", true}});
  });
}

TEST_CASE("cuda: a GRU layer and its gradient") {
  over_layers([](DType type, Extents e, float scale) {
    const auto [time, batch, width] = e;
    const Tensor x = numbers({time, batch, 3 * width}, type, 1, 2),
                 weight = numbers({3 * width, width}, type, 2, scale), bias = numbers({3 * width}, type, 5),
                 h = numbers({batch, width}, type, 3), dh = numbers({time, batch, width}, type, 6);
    compare("gru", {x, weight, bias, h}, {{"reverse", true}});
    const Tensors made =
        dispatch_all(find_op("gru"), Tensors{x, weight, bias, h}, {{"reverse", false}}, Where::current());
    compare("gru_grad", {dh, made[0], made[1], weight, h}, {{"reverse", false}});
    compare("gru_grad", {dh, made[0], made[1], weight, h}, {{"reverse", true}});
  });
}

TEST_CASE("cuda: an RNN layer and its gradient") {
  over_layers([](DType type, Extents e, float scale) {
    const auto [time, batch, width] = e;
    const Tensor x = numbers({time, batch, width}, type, 1, 2), weight = numbers({width, width}, type, 2, scale),
                 h = numbers({batch, width}, type, 3), dh = numbers({time, batch, width}, type, 6);
    for (const bool relu : {false, true}) {
      const Attributes attributes{{"reverse", relu}, {"relu", relu}};
      compare("rnn", {x, weight, h}, attributes);
      const Tensors made = dispatch_all(find_op("rnn"), Tensors{x, weight, h}, attributes, Where::current());
      compare("rnn_grad", {dh, made[0], weight, h}, attributes);
    }
  });
}

TEST_CASE("cuda: cells and their gradients") {
  for (const DType type : kFloats)
    for (const int64_t width : {3, 24})
      for (const int64_t rows : {1, 50}) {
        const auto of = [&](int64_t gates, uint32_t seed) { return numbers({rows, gates * width}, type, seed, 2); };
        compare("lstm_cell", {of(4, 1), of(1, 2)});
        compare("lstm_cell_grad", {of(1, 1), of(1, 2), of(4, 3), of(1, 4), of(1, 5)});
        compare("gru_cell", {of(3, 1), of(3, 2), of(1, 3)});
        compare("gru_cell_grad", {of(1, 1), of(3, 2), of(3, 3), of(1, 4)});
      }
}

TEST_CASE("cuda: views of a layer's operands") {
  const Tensor x = numbers({4, 3, 20}, float32, 1), weight = numbers({20, 6}, float32, 2);
  const Tensor states = numbers({2, 3, 5}, float32, 3);
  const auto run = [&](Device device) {
    NoGrad guard;
    const Tensor w = weight.to(device).slice(1, 1, 6), s = states.to(device);
    const LstmState made =
        lstm(x.to(device).transpose(0, 1), w, {s[0].slice(0, 0, 1).expand({4, 5}), zeros({4, 5}, {.device = device})});
    return concat({made.hidden, made.cell}, 0).cpu();
  };
  CHECK(allclose(run(cuda(0)), run(cpu()), {.rtol = 1e-5, .atol = 1e-6}));
}

namespace {

/// Output and gradients of a layer in both directions over sequences of several lengths.
template <class Layer> Tensors both_directions(Device device, DType type) {
  manual_seed(11);
  Layer layer(5, 9, {.layers = 2, .bidirectional = true, .dtype = type});
  const Tensor x = numbers({6, 3, 5}, type, 1).to(device).detach().requires_grad(true);
  nn::to(layer, device);
  const Tensor output = layer(x, nn::Lengths({6, 2, 4})).output;
  sum(output * sin(output.detach() * 3 + 1)).backward();
  Tensors results{output.detach().cpu(), x.grad().cpu()};
  for (const Tensor& each : nn::parameters(layer)) results.push_back(each.grad().cpu());
  return results;
}
template <class Layer> void check_both_directions() {
  for (const DType type : {float32, float64}) {
    const Tensors wanted = both_directions<Layer>(cpu(), type), got = both_directions<Layer>(cuda(0), type);
    REQUIRE(got.size() == wanted.size());
    const double tolerance = type == float32 ? 1e-5 : 1e-12;
    for (size_t i = 0; i < got.size(); ++i) CHECK(allclose(got[i], wanted[i], {.rtol = tolerance, .atol = tolerance}));
  }
}

}  // namespace

TEST_CASE("cuda: layers of layers, in both directions, over sequences of several lengths") {
  SUBCASE("rnn") { check_both_directions<nn::Rnn>(); }
  SUBCASE("lstm") { check_both_directions<nn::Lstm>(); }
  SUBCASE("gru") { check_both_directions<nn::Gru>(); }
}

namespace {

struct CharacterModel {
  nn::Embedding embedding{11, 12};
  nn::Lstm recurrent{12, 20, {.layers = 2}};
  nn::Linear output{20, 11};
  Tensor operator()(const Tensor& ids) const {
    const Tensor hidden = recurrent(embedding(ids)).output;
    return output(reshape(hidden, {hidden.shape()[0] * hidden.shape()[1], 20}));
  }
};

/// Losses of a few steps of training on sequences [time, batch].
std::vector<double> train(Device device, Mode mode) {
  manual_seed(5);
  CharacterModel model;
  nn::to(model, device);
  nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 1e-2});
  auto step = compile(
      [&](const Tensor& ids, const Tensor& labels) {
        optimizer.zero_grad();
        Tensor loss = cross_entropy(model(ids), labels);
        loss.backward();
        optimizer.step();
        return loss;
      },
      {.mode = mode});
  std::vector<double> losses;
  for (int i = 0; i < 6; ++i) {
    const Tensor text = randint(0, 11, {8, 3});
    losses.push_back(
        step(text.slice(0, 0, 7).contiguous().to(device), flatten(text.slice(0, 1, 8)).to(device)).item<double>());
  }
  CHECK_MESSAGE(step.stats().note.empty(), step.stats().note);
  return losses;
}

}  // namespace

TEST_CASE("cuda: a character model has the CPU's losses in every mode") {
  const std::vector<double> wanted = train(cpu(), Mode::eager);
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    CAPTURE(name_of(mode));
    const std::vector<double> got = train(cuda(0), mode);
    REQUIRE(got.size() == wanted.size());
    for (size_t i = 0; i < got.size(); ++i) CHECK(std::fabs(got[i] - wanted[i]) <= 1e-5 * wanted[i]);
  }
}
