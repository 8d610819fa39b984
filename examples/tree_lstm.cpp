// A tree-structured LSTM (Tai, Socher, Manning 2015, arXiv:1503.00075, section 3.2) learns to evaluate expressions such
// as (7 max (2 + 9)), modulo 10. Each batch has a tree of another shape, and the network is folded along it by plain
// recursion in C++: the case that eager mode is for. In the other modes the shape is a static argument, each new one
// is traced (and compiled) anew, and the last lines say what that cost.
//
//   tree_lstm --mode eager
//   tree_lstm --mode compiled --leaves 4
#include <tandem/tandem.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <random>

namespace td = tandem;
namespace nn = tandem::nn;

constexpr int64_t kWidth = 96, kOperations = 3;  // max, min, sum modulo 10

/// A binary tree as text: a leaf is ".", an inner node "(" left right ")". Leaves and inner nodes count from the left.
std::string draw_shape(int64_t leaves, std::mt19937_64& random) {
  if (leaves == 1) return ".";
  const int64_t left = std::uniform_int_distribution<int64_t>(1, leaves - 1)(random);
  return "(" + draw_shape(left, random) + draw_shape(leaves - left, random) + ")";
}

/// Folds a tree: leaf(i) for its leaves, node(i, left, right) for the others.
template <class Leaf, class Node> class Fold {
 public:
  Fold(const std::string& shape, Leaf leaf, Node node) : next_(shape.begin()), leaf_(leaf), node_(node) {}
  auto operator()() -> std::invoke_result_t<Leaf, int64_t> {
    if (*next_++ == '.') return leaf_(leaves_++);
    const auto left = (*this)(), right = (*this)();
    ++next_;  // )
    return node_(nodes_++, left, right);
  }

 private:
  std::string::const_iterator next_;
  Leaf leaf_;
  Node node_;
  int64_t leaves_ = 0, nodes_ = 0;
};

/// The value of each expression, computed the plain way: what the network is to learn.
td::Tensor evaluate(const std::string& shape, const td::Tensor& digits, const td::Tensor& operations) {
  const auto leaf = [&](int64_t i) { return digits.select(1, i); };
  const auto node = [&](int64_t i, const td::Tensor& a, const td::Tensor& b) {
    const td::Tensor operation = operations.select(1, i), sum = a + b;
    return where(operation == 0, maximum(a, b), where(operation == 1, minimum(a, b), where(sum > 9, sum - 10, sum)));
  };
  return Fold(shape, leaf, node)();
}

struct TreeLstm {
  nn::Embedding digit{10, kWidth}, operation{kOperations, kWidth};
  nn::Linear leaf{kWidth, 3 * kWidth}, node{3 * kWidth, 5 * kWidth};
  nn::Linear output{kWidth, 10};

  /// digits [batch, leaves] and operations [batch, leaves - 1] to logits [batch, 10].
  td::Tensor operator()(const std::string& shape, const td::Tensor& digits, const td::Tensor& operations) const {
    struct State {
      td::Tensor hidden, cell;  // [batch, kWidth]
    };
    const auto at_leaf = [&](int64_t i) {
      const td::Tensors gates = td::chunk(leaf(digit(digits.select(1, i))), 3, 1);
      const td::Tensor cell = sigmoid(gates[0]) * tanh(gates[1]);
      return State{sigmoid(gates[2]) * tanh(cell), cell};
    };
    const auto at_node = [&](int64_t i, const State& a, const State& b) {
      const td::Tensor what = operation(operations.select(1, i));
      const td::Tensors gates = td::chunk(node(td::concat({a.hidden, b.hidden, what}, 1)), 5, 1);
      const td::Tensor cell =
          sigmoid(gates[0]) * tanh(gates[1]) + sigmoid(gates[2]) * a.cell + sigmoid(gates[3]) * b.cell;
      return State{sigmoid(gates[4]) * tanh(cell), cell};
    };
    return output(Fold(shape, at_leaf, at_node)().hidden);
  }
};

int main(int argc, char** argv) {
  std::string mode = "eager", device_name = "cpu", data, save = "tree_lstm.safetensors", losses;
  int64_t steps = 1000, leaves = 5, batch = 128;
  uint64_t seed = 1;
  CLI::App app{"Trains a tree-structured LSTM to evaluate expressions; each batch has a tree of another shape."};
  app.add_option("--data", data, "file of shapes to draw from, a line each, such as ((..).) (default: any shape)");
  app.add_option("--mode", mode, "eager, replay or compiled")->capture_default_str();
  app.add_option("--device", device_name, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--steps", steps, "batches to train on")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--leaves", leaves, "most digits in an expression")->check(CLI::Range(2, 12))->capture_default_str();
  app.add_option("--batch", batch, "expressions in a batch")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seed", seed, "of weights and expressions")->capture_default_str();
  app.add_option("--save", save, "file for the weights; empty: none")->capture_default_str();
  app.add_option("--losses", losses, "file to write each step's loss and share of right answers to, a line each");
  CLI11_PARSE(app, argc, argv);
  try {
    const td::Device device = td::parse_device(device_name);
    td::manual_seed(seed);
    std::mt19937_64 random(seed);
    std::vector<std::string> shapes;
    std::ifstream file(data);
    if (!data.empty() && !file)
      throw std::runtime_error("tree_lstm: " + data + " can't be read; --data takes a file of shapes such as ((..).)");
    for (std::string line; std::getline(file, line);)
      if (!line.empty()) shapes.push_back(line);

    TreeLstm model;
    nn::to(model, device);
    nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 3e-3});
    nn::optim::CosineSchedule schedule(optimizer, {.steps = steps, .warmup = std::min<int64_t>(20, steps)});
    auto step = td::compile(
        [&](const std::string& shape, const td::Tensor& digits, const td::Tensor& operations) {
          optimizer.zero_grad();
          const td::Tensor logits = model(shape, digits, operations), wanted = evaluate(shape, digits, operations);
          td::Tensor loss = cross_entropy(logits, wanted);
          loss.backward();
          optimizer.step();
          return std::pair{loss, (logits.argmax(1) == wanted).to(td::float32).mean()};
        },
        {.mode = td::parse_mode(mode), .max_specialisations = 64, .on_limit = td::OnLimit::evict});

    double right = 0;
    int64_t counted = 0;
    std::ofstream log;
    if (!losses.empty()) log.open(losses);
    {
      td::Progress progress(steps, "expressions", {.log = losses.empty() ? nullptr : &log});
      for (int64_t i = 0; i < steps; ++i) {
        const std::string shape = shapes.empty()
                                      ? draw_shape(std::uniform_int_distribution<int64_t>(2, leaves)(random), random)
                                      : shapes[random() % shapes.size()];
        const int64_t count = std::count(shape.begin(), shape.end(), '.');
        const auto [loss, accuracy] = step(shape, td::randint(0, 10, {batch, count}).to(device),
                                           td::randint(0, kOperations, {batch, count - 1}).to(device));
        schedule.step();
        progress.update({{"loss", loss}, {"right", accuracy}});
        if (i >= steps - steps / 10) right += accuracy.item<float>(), ++counted;
      }
    }
    if (!save.empty()) nn::save(model, save);
    if (const td::Stats& stats = step.stats(); stats.calls)
      std::printf("%lld graphs traced for %lld calls: %.2f s of tracing, %.2f s of compiling for the newest\n",
                  static_cast<long long>(stats.traces), static_cast<long long>(stats.calls), stats.trace_seconds,
                  stats.compiler_seconds);
    std::printf("right %.4f of the expressions in the last tenth of the steps\n",
                right / double(std::max<int64_t>(counted, 1)));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
