// Tandem as a contestant in bench/peers (protocol in bench/peers/README.md): the workloads that every peer
// runs, in each of the three modes.
#include <memory>
#include <optional>

#include "bench/peers/contestant.h"
#include "tandem.h"

namespace {

namespace td = tandem;
namespace nn = tandem::nn;

struct Mlp {
  static constexpr double momentum = 0.0;
  static td::Shape input() { return {peers::batch, 784}; }

  nn::Linear hidden{784, 256};
  nn::Linear output{256, 10};

  td::Tensor operator()(const td::Tensor& x) const { return output(relu(hidden(x))); }
};

struct LeNet {
  static constexpr double momentum = peers::momentum;
  static td::Shape input() { return {peers::batch, 1, 28, 28}; }

  nn::Conv2d first{1, 8, 5, {.padding = 2}};
  nn::Conv2d second{8, 16, 5};
  nn::Linear hidden{16 * 5 * 5, 120};
  nn::Linear output{120, 10};

  td::Tensor operator()(td::Tensor x) const {
    x = max_pool2d(relu(first(x)), 2);
    x = max_pool2d(relu(second(x)), 2);
    return output(relu(hidden(x.flatten(1))));
  }
};

/// He et al. 2015 (arXiv:1512.03385) for CIFAR: two 3 x 3 convolutions beside a shortcut.
struct Block {
  nn::Conv2d first, second;
  nn::BatchNorm2d first_norm, second_norm;
  std::optional<nn::Conv2d> shortcut;
  std::optional<nn::BatchNorm2d> shortcut_norm;

  Block(int64_t in, int64_t out, int64_t stride)
      : first(in, out, 3, {.stride = stride, .padding = 1, .bias = false}),
        second(out, out, 3, {.padding = 1, .bias = false}), first_norm(out), second_norm(out) {
    if (in == out && stride == 1) return;
    shortcut.emplace(in, out, 1, nn::Conv2dOptions{.stride = stride, .bias = false});
    shortcut_norm.emplace(out);
  }
  td::Tensor operator()(const td::Tensor& x) const {
    const td::Tensor y = second_norm(second(relu(first_norm(first(x)))));
    return relu(y + (shortcut ? (*shortcut_norm)((*shortcut)(x)) : x));
  }
  template <class V> void visit(V&& v) {
    v("first", first);
    v("second", second);
    v("first_norm", first_norm);
    v("second_norm", second_norm);
    v("shortcut", shortcut);
    v("shortcut_norm", shortcut_norm);
  }
};

template <int64_t width> struct ResNet8 {
  static constexpr double momentum = peers::momentum;
  static td::Shape input() { return {peers::batch, 3, 32, 32}; }

  nn::Conv2d stem{3, width, 3, {.padding = 1, .bias = false}};
  nn::BatchNorm2d norm{width};
  std::vector<Block> blocks{{width, width, 1}, {width, 2 * width, 2}, {2 * width, 4 * width, 2}};
  nn::Linear output{4 * width, 10};

  td::Tensor operator()(td::Tensor x) const {
    x = relu(norm(stem(x)));
    for (const Block& block : blocks) x = block(x);
    return output(mean(x, {2, 3}));
  }
};

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

struct TextModel {
  nn::Embedding embedding{peers::vocabulary, peers::text_width};
  nn::Lstm lstm{peers::text_width, peers::text_width, {.layers = 2}};
  nn::Linear output{peers::text_width, peers::vocabulary};

  /// Symbols [time, batch] to logits [time * batch, vocabulary].
  td::Tensor operator()(const td::Tensor& symbols) const {
    return output(lstm(embedding(symbols)).output.flatten(0, 1));
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

/// A GPT-2 in small: learned positions, blocks normalised before each part, no weight shared.
struct Gpt {
  nn::Embedding tokens{peers::gpt_vocabulary, peers::gpt_width};
  nn::Embedding positions{peers::gpt_context, peers::gpt_width};
  std::vector<nn::TransformerBlock> blocks;
  nn::LayerNorm norm{peers::gpt_width};
  nn::Linear output{peers::gpt_width, peers::gpt_vocabulary, {.bias = false}};

  /// Ids [batch, context] to logits [batch * context, vocabulary].
  td::Tensor operator()(const td::Tensor& ids) const {
    td::Tensor x = tokens(ids) + positions.weight;
    for (const nn::TransformerBlock& block : blocks) x = block(x);
    return output(norm(x)).reshape({-1, peers::gpt_vocabulary});
  }
};

struct GptTraining {
  Gpt model;
  nn::optim::AdamW optimizer;
  std::vector<std::pair<td::Tensor, td::Tensor>> batches;
  size_t turn = 0;
  td::Tensor loss;

  static Gpt make() {
    Gpt gpt;
    for (int64_t i = 0; i < peers::gpt_layers; ++i)
      gpt.blocks.emplace_back(peers::gpt_width, peers::gpt_heads, nn::TransformerBlockOptions{.causal = true});
    return gpt;
  }
  GptTraining() : model(make()), optimizer(nn::parameters(model), {.lr = peers::gpt_learning_rate}) {
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
