// Tandem as a contestant in bench/peers (protocol in bench/peers/README.md): the workloads that every peer
// runs, in each of the three modes.
#include <memory>
#include <optional>

#include "bench/networks.h"
#include "bench/peers/contestant.h"
#include "tandem.h"

namespace {

namespace td = tandem;
namespace nn = tandem::nn;
using namespace networks;

template <class Model> struct Training {
  Model model;
  nn::optim::Sgd optimizer{nn::parameters(model), {.lr = peers::learning_rate, .momentum = Model::momentum}};
  std::vector<std::pair<td::Tensor, td::Tensor>> batches;
  size_t turn = 0;
  td::Tensor loss;

  Training() {
    for (int64_t i = 0; i < peers::batches; ++i)
      batches.emplace_back(td::randn(Model::input()), td::randint(0, 10, {peers::batch}));
  }
};

struct TextTraining {
  TextModel model;
  nn::optim::AdamW optimizer{nn::parameters(model), {.lr = peers::adam_rate}};
  std::vector<std::pair<td::Tensor, td::Tensor>> batches;
  size_t turn = 0;
  td::Tensor loss;

  TextTraining() {
    for (int64_t i = 0; i < peers::batches; ++i) {
      const td::Tensor text = td::randint(0, peers::vocabulary, {peers::text_steps + 1, peers::text_batch});
      batches.emplace_back(text.slice(0, 0, peers::text_steps), text.slice(0, 1, peers::text_steps + 1).flatten());
    }
  }
};

/// A Program's closures can be copied, a compiled function can't.
template <class F> std::shared_ptr<F> share(F&& function) { return std::make_shared<F>(std::move(function)); }

/// Where backward() stands when the rest of a step is eager: inside the compiled function, or outside.
enum class Backward { inside, outside };

template <class State> peers::Program training_in_parts(Backward backward) {
  auto state = std::make_shared<State>();
  auto compute = share(td::compile([state, backward](const td::Tensor& inputs, const td::Tensor& labels) {
    td::Tensor loss = cross_entropy(state->model(inputs), labels);
    if (backward == Backward::inside) loss.backward();
    return loss;
  }));
  return {.step =
              [state, compute, backward] {
                const auto& [inputs, labels] = state->batches[state->turn++ % state->batches.size()];
                state->optimizer.zero_grad();
                state->loss = (*compute)(inputs, labels);
                if (backward == Backward::outside) state->loss.backward();
                state->optimizer.step();
              },
          .value = [state] { return state->loss.template item<double>(); }};
}

template <class State> peers::Program training(td::Mode mode) {
  auto state = std::make_shared<State>();
  auto step = share(td::compile(
      [state](const td::Tensor& inputs, const td::Tensor& labels) {
        state->optimizer.zero_grad();
        td::Tensor loss = cross_entropy(state->model(inputs), labels);
        loss.backward();
        state->optimizer.step();
        return loss;
      },
      {.mode = mode}));
  return {.step =
              [state, step] {
                const auto& [inputs, labels] = state->batches[state->turn++ % state->batches.size()];
                state->loss = (*step)(inputs, labels);
              },
          .value = [state] { return state->loss.template item<double>(); }};
}

struct GptTraining {
  Gpt model;
  nn::optim::AdamW optimizer;
  std::vector<std::pair<td::Tensor, td::Tensor>> batches;
  size_t turn = 0;
  td::Tensor loss;

  GptTraining() : model(peers::gpt_layers), optimizer(nn::parameters(model), {.lr = peers::gpt_learning_rate}) {
    const td::Shape shape{peers::gpt_batch, peers::gpt_context};
    for (int64_t i = 0; i < peers::batches; ++i)
      batches.emplace_back(td::randint(0, peers::gpt_vocabulary, shape),
                           td::randint(0, peers::gpt_vocabulary, {shape.numel()}));
  }
};

peers::Program pointwise(td::Mode mode) {
  const td::Shape shape{peers::pointwise_size};
  const td::Tensor x = td::randn(shape), a = td::randn(shape), b = td::randn(shape);
  auto chain = share(td::compile(
      [a, b](td::Tensor y) {
        for (int i = 0; i < peers::pointwise_repeats; ++i) y = sigmoid(tanh(y) * a + b);
        return y;
      },
      {.mode = mode}));
  auto last = std::make_shared<td::Tensor>();
  return {.step = [chain, last, x] { *last = (*chain)(x); },
          .value = [last] { return last->sum().template item<double>(); }};
}

peers::Program adding(bool gradient) {
  const td::TensorOptions options{.requires_grad = gradient};
  const td::Tensor a = td::randn({peers::add_size}, options), b = td::randn({peers::add_size}, options);
  auto last = std::make_shared<td::Tensor>();
  return {.step =
              [=] {
                for (int i = 0; i < peers::chain; ++i) *last = a + b;
              },
          .value = [last] { return last->sum().template item<double>(); },
          .units = peers::chain};
}

peers::Program chain_of_adds() {
  td::Tensor a = td::randn({peers::add_size}, {.requires_grad = true});
  td::Tensor b = td::randn({peers::add_size}, {.requires_grad = true});
  return {.step =
              [=]() mutable {
                a.set_grad({});
                b.set_grad({});
                td::Tensor y = a;
                for (int i = 0; i < peers::chain; ++i) y = y + b;
                y.sum().backward();
              },
          .value = [b] { return b.grad().sum().item<double>(); },
          .units = peers::chain};
}

std::vector<peers::Variant> in_each_mode(peers::Program (*make)(td::Mode)) {
  std::vector<peers::Variant> variants;
  for (const char* mode : {"eager", "replay", "compiled"})
    variants.push_back({mode, [=] { return make(td::parse_mode(mode)); }});
  return variants;
}

/// A network's step in each mode, and with only its loss, or loss and gradients, compiled.
template <class State> std::vector<peers::Variant> each_way() {
  std::vector<peers::Variant> variants = in_each_mode(training<State>);
  variants.push_back({"backward_inside", [] { return training_in_parts<State>(Backward::inside); }});
  variants.push_back({"backward_outside", [] { return training_in_parts<State>(Backward::outside); }});
  return variants;
}

}  // namespace

int main() {
  td::manual_seed(1);
  const peers::Table table{
      {"mlp", each_way<Training<Mlp>>()},
      {"lenet", each_way<Training<LeNet>>()},
      {"resnet8", each_way<Training<ResNet8<16>>>()},
      {"resnet8_wide", each_way<Training<ResNet8<64>>>()},
      {"lstm", each_way<TextTraining>()},
      {"gpt", each_way<GptTraining>()},
      {"pointwise", in_each_mode(pointwise)},
      {"add8", {{"eager", [] { return adding(false); }}}},
      {"add8_grad", {{"eager", [] { return adding(true); }}}},
      {"add8_chain", {{"eager", chain_of_adds}}},
  };
  return peers::serve("Tandem", "of this tree", 2, table);
}
