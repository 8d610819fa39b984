// The networks that benchmarks train, in the sizes that every peer shares.
#pragma once

#include <optional>
#include <vector>

#include "bench/peers/contestant.h"
#include "tandem.h"

namespace networks {

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

/// He et al. 2015 (arXiv:1512.03385), with the stem that images of 32 x 32 ask for.
struct ResNet18 {
  static constexpr double momentum = peers::momentum;

  nn::Conv2d stem{3, 64, 3, {.padding = 1, .bias = false}};
  nn::BatchNorm2d norm{64};
  std::vector<Block> blocks{{64, 64, 1},   {64, 64, 1},   {64, 128, 2},  {128, 128, 1},
                            {128, 256, 2}, {256, 256, 1}, {256, 512, 2}, {512, 512, 1}};
  nn::Linear output{512, 10};

  td::Tensor operator()(td::Tensor x) const {
    x = relu(norm(stem(x)));
    for (const Block& block : blocks) x = block(x);
    return output(mean(x, {2, 3}));
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

struct GptSize {
  int64_t layers = peers::gpt_layers, width = peers::gpt_width, heads = peers::gpt_heads, context = peers::gpt_context,
          vocabulary = peers::gpt_vocabulary, batch = peers::gpt_batch;
};

/// 124 million parameters and, as no weight is shared, 39 million more for the logits.
inline constexpr GptSize gpt2{peers::gpt2_layers,  peers::gpt2_width,      peers::gpt2_heads,
                              peers::gpt2_context, peers::gpt2_vocabulary, peers::gpt2_batch};

/// A GPT-2: learned positions, blocks normalised before each part, no weight shared.
struct Gpt {
  nn::Embedding tokens, positions;
  std::vector<nn::TransformerBlock> blocks;
  nn::LayerNorm norm;
  nn::Linear output;

  explicit Gpt(const GptSize& size = {})
      : tokens(size.vocabulary, size.width), positions(size.context, size.width), norm(size.width),
        output(size.width, size.vocabulary, {.bias = false}) {
    for (int64_t i = 0; i < size.layers; ++i)
      blocks.emplace_back(size.width, size.heads, nn::TransformerBlockOptions{.causal = true});
  }
  static constexpr int fields = 5;

  /// Ids [batch, context] to logits [batch * context, vocabulary].
  td::Tensor operator()(const td::Tensor& ids) const {
    td::Tensor x = tokens(ids) + positions.weight;
    for (const nn::TransformerBlock& block : blocks) x = block(x);
    return output(norm(x)).flatten(0, 1);
  }
};

}  // namespace networks
