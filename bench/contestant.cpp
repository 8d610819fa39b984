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

td::Device device;  // --device

td::Tensor numbers(const td::Shape& shape) { return td::randn(shape, {.device = device}); }
td::Tensor ids(int64_t end, const td::Shape& shape) { return td::randint(0, end, shape).to(device); }

/// Made on the CPU, as every peer's is where it can't be made elsewhere.
template <class Model> Model moved(Model model) {
  nn::to(model, device);
  return model;
}

template <class Model> struct Training {
  Model model = moved(Model());
  nn::optim::Sgd optimizer{nn::parameters(model), {.lr = peers::learning_rate, .momentum = Model::momentum}};
  std::vector<std::pair<td::Tensor, td::Tensor>> batches;
  size_t turn = 0;
  td::Tensor loss;

  Training() : Training(Model::input()) {}
  explicit Training(const td::Shape& input) {
    for (int64_t i = 0; i < peers::batches; ++i) batches.emplace_back(numbers(input), ids(10, {input[0]}));
  }
};

struct ResNet18Training : Training<ResNet18> {
  ResNet18Training() : Training({peers::resnet18_batch, 3, 32, 32}) {}
};

struct TextTraining {
  TextModel model = moved(TextModel());
  nn::optim::AdamW optimizer{nn::parameters(model), {.lr = peers::adam_rate}};
  std::vector<std::pair<td::Tensor, td::Tensor>> batches;
  size_t turn = 0;
  td::Tensor loss;

  TextTraining() {
    for (int64_t i = 0; i < peers::batches; ++i) {
      const td::Tensor text = ids(peers::vocabulary, {peers::text_steps + 1, peers::text_batch});
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

/// With `half`, products and convolutions in bfloat16.
template <class State, bool half = false> peers::Program training(td::Mode mode) {
  auto state = std::make_shared<State>();
  auto step = share(td::compile(
      [state](const td::Tensor& inputs, const td::Tensor& labels) {
        state->optimizer.zero_grad();
        std::optional<td::Autocast> autocast;
        if (half) autocast.emplace(td::bfloat16);
        td::Tensor loss = cross_entropy(state->model(inputs), labels);
        autocast.reset();
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

  explicit GptTraining(const GptSize& size = {})
      : model(moved(Gpt(size))), optimizer(nn::parameters(model), {.lr = peers::gpt_learning_rate}) {
    const td::Shape shape{size.batch, size.context};
    for (int64_t i = 0; i < peers::batches; ++i)
      batches.emplace_back(ids(size.vocabulary, shape), ids(size.vocabulary, {shape.numel()}));
  }
};

struct Gpt2Training : GptTraining {
  Gpt2Training() : GptTraining(gpt2) {}
};

peers::Program pointwise(td::Mode mode) {
  const td::Shape shape{peers::pointwise_size};
  const td::Tensor x = numbers(shape), a = numbers(shape), b = numbers(shape);
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
  const td::TensorOptions options{.device = device, .requires_grad = gradient};
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
  td::Tensor a = td::randn({peers::add_size}, {.device = device, .requires_grad = true});
  td::Tensor b = td::randn({peers::add_size}, {.device = device, .requires_grad = true});
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

int main(int count, char** arguments) try {
  const std::string option = count > 1 ? arguments[1] : "";
  if (count != 1 && (count != 3 || option != "--device")) {
    std::fputs("contestant [--device DEVICE]    cpu, cuda or cuda:N; then bench/peers/README.md\n", stderr);
    return 2;
  }
  if (count == 3) device = td::parse_device(arguments[2]);
  td::manual_seed(1);
  const peers::Table table{
      {"mlp", each_way<Training<Mlp>>()},
      {"lenet", each_way<Training<LeNet>>()},
      {"resnet8", each_way<Training<ResNet8<16>>>()},
      {"resnet8_wide", each_way<Training<ResNet8<64>>>()},
      {"resnet18", in_each_mode(training<ResNet18Training, true>)},
      {"lstm", each_way<TextTraining>()},
      {"gpt", each_way<GptTraining>()},
      {"gpt2", in_each_mode(training<Gpt2Training, true>)},
      {"pointwise", in_each_mode(pointwise)},
      {"add8", {{"eager", [] { return adding(false); }}}},
      {"add8_grad", {{"eager", [] { return adding(true); }}}},
      {"add8_chain", {{"eager", chain_of_adds}}},
  };
  return peers::serve("Tandem", "of this tree", 2, table, [] { td::synchronize(device); });
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
