// libtorch, PyTorch's C++ interface, as a contestant (protocol in README.md): what a C++ user gets, without
// Python.
#include <torch/torch.h>
#include <torch/version.h>

#include "bench/peers/contestant.h"

namespace {

namespace F = torch::nn::functional;

struct Batches {
  std::vector<std::pair<torch::Tensor, torch::Tensor>> items;
  size_t turn = 0;

  explicit Batches(std::vector<int64_t> shape) {
    for (int64_t i = 0; i < peers::batches; ++i)
      items.emplace_back(torch::randn(shape), torch::randint(10, {peers::batch}, torch::kLong));
  }
  const auto& next() { return items[turn++ % items.size()]; }
};

struct MlpImpl : torch::nn::Module {
  torch::nn::Linear hidden{784, 256}, output{256, 10};
  MlpImpl() {
    register_module("hidden", hidden);
    register_module("output", output);
  }
  torch::Tensor forward(const torch::Tensor& x) { return output(torch::relu(hidden(x))); }
};
TORCH_MODULE(Mlp);

struct LeNetImpl : torch::nn::Module {
  torch::nn::Conv2d first{torch::nn::Conv2dOptions(1, 8, 5).padding(2)};
  torch::nn::Conv2d second{torch::nn::Conv2dOptions(8, 16, 5)};
  torch::nn::Linear hidden{400, 120}, output{120, 10};
  LeNetImpl() {
    register_module("first", first);
    register_module("second", second);
    register_module("hidden", hidden);
    register_module("output", output);
  }
  torch::Tensor forward(torch::Tensor x) {
    x = torch::max_pool2d(torch::relu(first(x)), 2);
    x = torch::max_pool2d(torch::relu(second(x)), 2);
    return output(torch::relu(hidden(x.flatten(1))));
  }
};
TORCH_MODULE(LeNet);

struct BlockImpl : torch::nn::Module {
  torch::nn::Conv2d first, second, shortcut{nullptr};
  torch::nn::BatchNorm2d first_norm, second_norm, shortcut_norm{nullptr};
  BlockImpl(int64_t in, int64_t out, int64_t stride)
      : first(torch::nn::Conv2dOptions(in, out, 3).stride(stride).padding(1).bias(false)),
        second(torch::nn::Conv2dOptions(out, out, 3).padding(1).bias(false)), first_norm(out), second_norm(out) {
    register_module("first", first);
    register_module("second", second);
    register_module("first_norm", first_norm);
    register_module("second_norm", second_norm);
    if (in == out && stride == 1) return;
    shortcut =
        register_module("shortcut", torch::nn::Conv2d(torch::nn::Conv2dOptions(in, out, 1).stride(stride).bias(false)));
    shortcut_norm = register_module("shortcut_norm", torch::nn::BatchNorm2d(out));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    auto y = second_norm(second(first_norm(first(x)).relu_()));
    return y.add_(shortcut.is_empty() ? x : shortcut_norm(shortcut(x))).relu_();
  }
};
TORCH_MODULE(Block);

template <int64_t width> struct ResNet8Impl : torch::nn::Module {
  torch::nn::Conv2d stem{torch::nn::Conv2dOptions(3, width, 3).padding(1).bias(false)};
  torch::nn::BatchNorm2d norm{width};
  Block one{width, width, 1}, two{width, 2 * width, 2}, three{2 * width, 4 * width, 2};
  torch::nn::Linear output{4 * width, 10};
  ResNet8Impl() {
    register_module("stem", stem);
    register_module("norm", norm);
    register_module("one", one);
    register_module("two", two);
    register_module("three", three);
    register_module("output", output);
  }
  torch::Tensor forward(torch::Tensor x) {
    x = three(two(one(norm(stem(x)).relu_())));
    return output(x.mean({2, 3}));
  }
};
template <int64_t width> using ResNet8 = torch::nn::ModuleHolder<ResNet8Impl<width>>;

template <class Model>
peers::Program training(const std::vector<int64_t>& shape, double momentum, bool channels_last = false) {
  struct State {
    Model model;
    torch::optim::SGD optimizer;
    Batches data;
    torch::Tensor loss;
    State(const std::vector<int64_t>& shape, double momentum)
        : optimizer(model->parameters(), torch::optim::SGDOptions(peers::learning_rate).momentum(momentum)),
          data(shape) {}
  };
  auto state = std::make_shared<State>(shape, momentum);
  if (channels_last) {
    for (auto& parameter : state->model->parameters())
      if (parameter.dim() == 4) parameter.set_data(parameter.contiguous(torch::MemoryFormat::ChannelsLast));
    for (auto& [x, y] : state->data.items) x = x.contiguous(torch::MemoryFormat::ChannelsLast);
  }
  return {.step =
              [state] {
                const auto& [x, y] = state->data.next();
                state->optimizer.zero_grad();
                state->loss = F::cross_entropy(state->model->forward(x), y);
                state->loss.backward();
                state->optimizer.step();
              },
          .value = [state] { return state->loss.template item<double>(); }};
}

struct TextModelImpl : torch::nn::Module {
  torch::nn::Embedding embedding{peers::vocabulary, peers::text_width};
  torch::nn::LSTM lstm{torch::nn::LSTMOptions(peers::text_width, peers::text_width).num_layers(2)};
  torch::nn::Linear output{peers::text_width, peers::vocabulary};
  TextModelImpl() {
    register_module("embedding", embedding);
    register_module("lstm", lstm);
    register_module("output", output);
  }
  torch::Tensor forward(const torch::Tensor& symbols) {
    return output(std::get<0>(lstm(embedding(symbols))).flatten(0, 1));
  }
};
TORCH_MODULE(TextModel);

peers::Program text_training() {
  struct State {
    TextModel model;
    torch::optim::AdamW optimizer{model->parameters(), torch::optim::AdamWOptions(peers::adam_rate)};
    std::vector<torch::Tensor> texts;
    size_t turn = 0;
    torch::Tensor loss;
    State() {
      for (int64_t i = 0; i < peers::batches; ++i)
        texts.push_back(torch::randint(peers::vocabulary, {peers::text_steps + 1, peers::text_batch}, torch::kLong));
    }
  };
  auto state = std::make_shared<State>();
  return {.step =
              [state] {
                const torch::Tensor& text = state->texts[state->turn++ % state->texts.size()];
                state->optimizer.zero_grad();
                state->loss = F::cross_entropy(state->model->forward(text.slice(0, 0, peers::text_steps)),
                                               text.slice(0, 1).flatten());
                state->loss.backward();
                state->optimizer.step();
              },
          .value = [state] { return state->loss.item<double>(); }};
}

peers::Program pointwise() {
  const auto x = torch::randn({peers::pointwise_size}), a = torch::randn({peers::pointwise_size}),
             b = torch::randn({peers::pointwise_size});
  auto last = std::make_shared<torch::Tensor>();
  return {.step =
              [=] {
                torch::NoGradGuard guard;
                torch::Tensor y = x;
                for (int i = 0; i < peers::pointwise_repeats; ++i) y = torch::sigmoid(torch::tanh(y) * a + b);
                *last = y;
              },
          .value = [last] { return last->sum().item<double>(); }};
}

peers::Program adding(bool gradient) {
  const auto a = torch::randn({peers::add_size}, torch::requires_grad(gradient));
  const auto b = torch::randn({peers::add_size}, torch::requires_grad(gradient));
  auto last = std::make_shared<torch::Tensor>();
  return {.step =
              [=] {
                for (int i = 0; i < peers::chain; ++i) *last = a + b;
              },
          .value = [last] { return last->sum().item<double>(); },
          .units = peers::chain};
}

peers::Program chain_of_adds() {
  const auto a = torch::randn({peers::add_size}, torch::requires_grad());
  const auto b = torch::randn({peers::add_size}, torch::requires_grad());
  return {.step =
              [=] {
                a.mutable_grad().reset();
                b.mutable_grad().reset();
                torch::Tensor y = a;
                for (int i = 0; i < peers::chain; ++i) y = y + b;
                y.sum().backward();
              },
          .value = [b] { return b.grad().sum().item<double>(); },
          .units = peers::chain};
}

}  // namespace

int main() {
  constexpr int threads = 2;
  torch::set_num_threads(threads);
  torch::manual_seed(1);
  const std::vector<int64_t> vectors{peers::batch, 784}, images{peers::batch, 1, 28, 28},
      pictures{peers::batch, 3, 32, 32};
  const peers::Table table{
      {"mlp", {{"eager", [=] { return training<Mlp>(vectors, 0.0); }}}},
      {"lenet",
       {{"eager", [=] { return training<LeNet>(images, peers::momentum); }},
        {"eager-nhwc", [=] { return training<LeNet>(images, peers::momentum, true); }}}},
      {"resnet8",
       {{"eager", [=] { return training<ResNet8<16>>(pictures, peers::momentum); }},
        {"eager-nhwc", [=] { return training<ResNet8<16>>(pictures, peers::momentum, true); }}}},
      {"resnet8_wide",
       {{"eager", [=] { return training<ResNet8<64>>(pictures, peers::momentum); }},
        {"eager-nhwc", [=] { return training<ResNet8<64>>(pictures, peers::momentum, true); }}}},
      {"lstm", {{"eager", text_training}}},
      {"pointwise", {{"eager", pointwise}}},
      {"add8", {{"eager", [] { return adding(false); }}}},
      {"add8_grad", {{"eager", [] { return adding(true); }}}},
      {"add8_chain", {{"eager", chain_of_adds}}},
  };
  return peers::serve("libtorch C++", TORCH_VERSION, threads, table);
}
