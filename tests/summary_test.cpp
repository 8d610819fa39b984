// nn::summary: the table of a model's layers; and the small layers beside those of tests/nn_test.cpp.
#include <doctest/doctest.h>

#include <sstream>

#include "tandem.h"

using namespace tandem;

namespace {

struct Net {
  nn::Conv2d first{1, 4, 3};
  nn::Dropout drop{0.5};
  std::vector<nn::Linear> heads{{4 * 6 * 6, 10}, {10, 2, {.bias = false}}};
  Tensor scale = ones({2}, {.requires_grad = true});
  Tensor table = ones({3});
  Tensor operator()(const Tensor& x) const { return heads[1](heads[0](drop(relu(first(x))).flatten(1))) * scale; }
};

template <class T> std::string text(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

}  // namespace

TEST_CASE("summary: layers, output shapes, counts") {
  Net net;
  const nn::Summary summary = nn::summary(net, {5, 1, 8, 8});
  REQUIRE(summary.rows.size() == 5);
  CHECK(summary.rows[0].name.empty());
  CHECK(summary.rows[0].type == "Net");
  CHECK(summary.rows[0].parameters == 2);
  CHECK(*summary.rows[0].output == Shape{5, 2});
  CHECK(summary.rows[1].name == "first");
  CHECK(summary.rows[1].type == "Conv2d");
  CHECK(*summary.rows[1].output == Shape{5, 4, 6, 6});
  CHECK(summary.rows[2].type == "Dropout");
  CHECK(!summary.rows[2].output);
  CHECK(summary.rows[3].name == "heads.0");
  CHECK(*summary.rows[3].output == Shape{5, 10});
  CHECK(*summary.rows[4].output == Shape{5, 2});
  CHECK(summary.parameters == 40 + 1450 + 20 + 2);
  CHECK(summary.buffers == 3);
  CHECK(summary.bytes == 4 * (summary.parameters + 3));
  CHECK(text(summary) ==
        "layer    type     output        parameters\n"
        "(model)  Net      [5, 2]                 2\n"
        "first    Conv2d   [5, 4, 6, 6]          40\n"
        "drop     Dropout                          \n"
        "heads.0  Linear   [5, 10]            1,450\n"
        "heads.1  Linear   [5, 2]                20\n"
        "1,512 parameters and 3 elements that aren't trained, 6,060 bytes\n");
}

TEST_CASE("summary: without inputs, with tensors, and of models that return more than a tensor") {
  Net net;
  CHECK(!nn::summary(net).rows[1].output);
  struct Text {
    nn::Embedding embedding{7, 4};
    nn::Lstm lstm{4, 3, {.layers = 2}};
    nn::Sequential head{nn::Linear{3, 5}, relu, nn::LayerNorm{5}};
    Tensor operator()(const Tensor& ids) const { return head(lstm(embedding(ids)).output); }
  } model;
  const nn::Summary summary = nn::summary(model, randint(0, 7, {6, 2}));
  REQUIRE(summary.rows.size() == 4);
  CHECK(summary.rows[1].name == "lstm");
  CHECK(*summary.rows[1].output == Shape{6, 2, 3});
  CHECK(summary.rows[2].name == "head.0");
  CHECK(*summary.rows[3].output == Shape{6, 2, 5});
  CHECK(*nn::summary(model.lstm, {6, 2, 4}).rows[0].output == Shape{6, 2, 3});
}

TEST_CASE("summary: no kernel runs, so a model may be larger than the machine; values are not there") {
  const int64_t before = memory_stats().peak;
  struct Huge {
    nn::Linear a{8, 8};
    Tensor operator()(const Tensor& x) const { return a(x.expand({int64_t{1} << 40, 8})); }
  } huge;
  CHECK(*nn::summary(huge, {1, 8}).rows[0].output == Shape{int64_t{1} << 40, 8});
  CHECK(memory_stats().peak < before + (int64_t{1} << 30));
  struct Asks {
    nn::Linear a{2, 2};
    Tensor operator()(const Tensor& x) const { return a(x) * a(x).sum().item<double>(); }
  } asks;
  CHECK_THROWS_WITH_AS(nn::summary(asks, {1, 2}), doctest::Contains("call nn::summary(model) without inputs"),
                       TraceError);
  CHECK_THROWS_AS(nn::summary(huge, {1, 9}), ShapeError);
}

TEST_CASE("Embedding: the padding row is zero and gets no gradient") {
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    manual_seed(1);
    nn::Embedding layer(4, 3, {.padding_index = 2});
    CHECK(abs(layer.weight[2]).max().item<double>() == 0);
    auto step = compile(
        [&](const Tensor& ids) {
          Tensor loss = layer(ids).sum();
          loss.backward();
          return loss;
        },
        {.mode = mode});
    step(tensor<int64_t>({0, 2, 2, 1}));
    CHECK(layer.weight.grad().sum({1}).to_vector<double>() == std::vector<double>{3, 3, 0, 0});
  }
  CHECK_THROWS_AS(nn::Embedding(4, 3, {.padding_index = 4}), ValueError);
}

TEST_CASE("Dropout2d zeroes whole channels and keeps the mean; Identity keeps all") {
  manual_seed(2);
  nn::Dropout2d layer(0.25);
  const Tensor y = layer(ones({40, 50, 3, 3}));
  const Tensor per_channel = y.sum({2, 3});
  for (const double sum : per_channel.to_vector<double>()) CHECK((sum == 0 || std::abs(sum - 12) < 1e-4));
  CHECK(y.mean().item<double>() == doctest::Approx(1).epsilon(0.05));
  nn::eval(layer);
  CHECK(layer(y).shares_storage(y));
  CHECK(nn::Identity{}(y).shares_storage(y));
  CHECK_THROWS_AS(layer(ones({2, 3})), ShapeError);
  CHECK_THROWS_AS(nn::Dropout2d(1), ValueError);
}
