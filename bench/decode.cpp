// Decoding with keys and values that grow by a row with each token: eagerly, replayed and compiled, token by token in turn.
// docs/performance.md has a table.
//
//   decode [TOKENS] [LAYERS] [WIDTH]        512 2 64 unless given
//
// What is made once (traces, passes, the compiler) is apart: the first four tokens of each mode. Of the others the median, the sum,
// and the median of their last eighth, where the cache is long. Each mode decodes twice; the second time all sizes have been seen.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tandem.h"

namespace {

namespace td = tandem;
namespace nn = tandem::nn;

constexpr size_t kOnce = 4;  ///< tokens until a size is a matter of numbers

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Layer {
  int64_t width, heads;
  nn::LayerNorm attention_norm{width}, mlp_norm{width};
  nn::Linear q{width, width}, k{width, width}, v{width, width}, out{width, width}, expand{width, 4 * width},
      shrink{4 * width, width};

  td::Tensor split(const td::Tensor& x) const { return x.reshape({1, heads, width / heads}).transpose(0, 1); }
  /// Of one position [1, width], which attends to all before it.
  td::Tensor operator()(const td::Tensor& x, td::Tensor& keys, td::Tensor& values) const {
    const td::Tensor y = attention_norm(x);
    keys = td::concat({keys, split(k(y))}, 1);
    values = td::concat({values, split(v(y))}, 1);
    const td::Tensor attended = scaled_dot_product_attention(split(q(y)), keys, values);
    const td::Tensor z = x + out(attended.transpose(0, 1).reshape({1, width}));
    return z + shrink(gelu(expand(mlp_norm(z))));
  }
};

struct Decoder {
  std::vector<Layer> layers;
  nn::Embedding tokens;
  nn::Linear output;

  Decoder(int64_t count, int64_t width) : tokens{256, width}, output{width, 256} {
    for (int64_t i = 0; i < count; ++i) layers.push_back({width, 4});
  }
  /// The next token, and the caches with it.
  std::pair<td::Tensor, std::vector<td::Tensor>> operator()(const td::Tensor& token,
                                                            const std::vector<td::Tensor>& caches) const {
    std::vector<td::Tensor> grown = caches;
    td::Tensor x = tokens(token);
    for (size_t i = 0; i < layers.size(); ++i) x = layers[i](x, grown[2 * i], grown[2 * i + 1]);
    return {argmax(output(x), 1), grown};
  }
};

double median(std::vector<double> all) {
  std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2), all.end());
  return all[all.size() / 2];
}

}  // namespace

int main(int count, char** arguments) {
  const auto argument = [&](int i, int64_t otherwise) { return i < count ? std::atoll(arguments[i]) : otherwise; };
  const int64_t tokens = argument(1, 512), layers = argument(2, 2), width = argument(3, 64);
  if (tokens < 16 || layers < 1 || width < 4 || width % 4) {
    std::fprintf(stderr, "usage: decode [TOKENS >= 16] [LAYERS] [WIDTH, a multiple of 4]\n");
    return 2;
  }
  td::manual_seed(1);
  const td::NoGrad guard;
  const Decoder decoder(layers, width);
  struct Contestant {
    std::string name;
    td::CompileOptions options;
  };
  const std::vector<Contestant> contestants{{"eager", {.mode = td::Mode::eager}},
                                            {"replay", {.mode = td::Mode::replay}},
                                            {"compiled", {}},
                                            {"compiled, no size traced", {.verify = td::Verify::never}}};
  std::vector<td::Compiled<Decoder>> steps;
  for (const Contestant& each : contestants) steps.push_back(td::compile(Decoder(decoder), each.options));

  std::printf(
      "%ld tokens, %ld layers, %ld wide\n| | once, ms | median, µs | last eighth, µs | all others, ms | ÷ eager |\n"
      "|---|---|---|---|---|---|\n",
      static_cast<long>(tokens), static_cast<long>(layers), static_cast<long>(width));
  for (const char* round : {"", ", again"}) {
    std::vector<td::Tensor> token(steps.size(), td::zeros({1}, {.dtype = td::int64}));
    std::vector<std::vector<td::Tensor>> caches(steps.size());
    for (std::vector<td::Tensor>& each : caches)
      for (int64_t i = 0; i < 2 * layers; ++i) each.push_back(td::zeros({4, 2, width / 4}));
    std::vector<std::vector<double>> seconds(steps.size());
    for (int64_t t = 0; t < tokens; ++t)
      for (size_t i = 0; i < steps.size(); ++i) {
        const double begin = now();
        std::tie(token[i], caches[i]) = steps[i](token[i], caches[i]);
        seconds[i].push_back(now() - begin);
      }
    double of_eager = 0;
    for (size_t i = 0; i < steps.size(); ++i) {
      double once = 0, others = 0;
      for (size_t t = 0; t < seconds[i].size(); ++t) (t < kOnce ? once : others) += seconds[i][t];
      const std::vector<double> rest(seconds[i].begin() + kOnce, seconds[i].end());
      const std::vector<double> last(seconds[i].end() - tokens / 8, seconds[i].end());
      if (i == 0) of_eager = others;
      std::printf("| %s%s | %.1f | %.1f | %.1f | %.1f | %.2f |\n", contestants[i].name.c_str(), round, once * 1e3,
                  median(rest) * 1e6, median(last) * 1e6, others * 1e3, others / of_eager);
    }
  }
  for (size_t i = 1; i < steps.size(); ++i) {
    const td::Stats stats = steps[i].stats();
    std::printf("%s: %ld specialisations, %ld sources, %ld sizes, %ld checked\n", contestants[i].name.c_str(),
                static_cast<long>(stats.traces), static_cast<long>(stats.sources), static_cast<long>(stats.resizes),
                static_cast<long>(stats.verifications));
  }
}
