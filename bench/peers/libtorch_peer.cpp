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
  const std::vector<int64_t> vectors{peers::batch, 784}, images{peers::batch, 1, 28, 28};
  const peers::Table table{
      {"mlp", {{"eager", [=] { return training<Mlp>(vectors, 0.0); }}}},
      {"lenet",
       {{"eager", [=] { return training<LeNet>(images, peers::momentum); }},
        {"eager-nhwc", [=] { return training<LeNet>(images, peers::momentum, true); }}}},
      {"pointwise", {{"eager", pointwise}}},
      {"add8", {{"eager", [] { return adding(false); }}}},
      {"add8_grad", {{"eager", [] { return adding(true); }}}},
      {"add8_chain", {{"eager", chain_of_adds}}},
  };
  return peers::serve("libtorch C++", TORCH_VERSION, threads, table);
}
