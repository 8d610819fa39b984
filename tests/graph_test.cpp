// Graph mode: text and verification, tracing, specialisation, training in the three modes, memory.
#include "graph/ir/graph.h"
#include "support.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <locale>
#include <optional>
#include <sstream>

#include "graph/native/system_compiler.h"
#include "graph/run/program.h"
#include "tandem.h"

using namespace tandem;

namespace {

struct Mlp {
  nn::Linear hidden{12, 16};
  nn::Dropout drop{0.25};
  nn::Linear output{16, 4};
  Tensor operator()(const Tensor& x) const { return output(drop(relu(hidden(x.flatten(1))))); }
};
struct ConvNet {
  nn::Conv2d first{1, 4, 3, {.padding = 1}};
  nn::Dropout drop{0.25};
  nn::Linear output{4 * 3 * 2, 4};
  Tensor operator()(const Tensor& x) const { return output(drop(max_pool2d(relu(first(x)), 2)).flatten(1)); }
};

/// Losses of 20 steps with dropout, clipping, AdamW and a schedule; then the generator's next numbers.
template <class Model> std::vector<double> train(CompileOptions options, Stats* stats = nullptr) {
  manual_seed(21);
  Model model;
  nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 1e-2});
  nn::optim::CosineSchedule schedule(optimizer, {.steps = 20, .warmup = 3});
  auto step = compile(
      [&](const Tensor& images, const Tensor& labels) {
        optimizer.zero_grad();
        Tensor loss = cross_entropy(model(images), labels);
        loss.backward();
        nn::clip_grad_norm(nn::parameters(model), 1.0);
        optimizer.step();
        return loss;
      },
      std::move(options));
  std::vector<double> losses;
  for (int i = 0; i < 20; ++i) {
    const Tensor images = randn({8, 1, 6, 4}).slice(2, 0, std::is_same_v<Model, Mlp> ? 3 : 6),
                 labels = randint(0, 4, {8});
    losses.push_back(step(images.contiguous(), labels).template item<double>());
    schedule.step();
  }
  losses.push_back(rand({}).item<double>());
  if (stats) *stats = step.stats();
  return losses;
}

}  // namespace

TEST_CASE("text: a graph prints, parses and prints the same") {
  manual_seed(22);
  Tensor w = randn({4, 3}, {.requires_grad = true});
  const auto check = [](const Graph& graph) {
    const std::string text = graph.to_string();
    CAPTURE(text);
    const Graph parsed = parse_graph(text);
    CHECK(parsed.to_string() == text);
    CHECK_NOTHROW(verify(parsed));
    CHECK(parsed.size() == graph.size());
    CHECK(parsed.draws == graph.draws);
    CHECK(contains(graph.to_dot(), "digraph {"));
  };
  check(trace([&](const Tensor& x) { return gelu(matmul(x, w.transpose(0, 1))).sum({0}, {.keepdim = true}); },
              randn({2, 3})));
  check(trace([](const Tensor& x) { return x * 0.1 + tensor({1.5f, -2e-30f}) + x.to(float64) - 1e20; }, randn({2})));
  const Graph large = trace(
      [](const Tensor& x) {
        return x + tensor<int64_t>({(int64_t{1} << 53) + 1, -3});
      },
      arange(2));
  check(large);
  CHECK(contains(large.to_string(), "{9007199254740993, -3}"));  // which no double is
  check(trace(
      [](const Tensor& x) {
        return conv2d(x, ones({2, 1, 3, 3}), {}, {.stride = 2, .padding = 1});
      },
      randn({1, 1, 5, 5})));
  check(trace(
      [](const Tensor& x) {
        return concat({x, dropout(x, 0.3).slice(1, 0, 2)}, 1);
      },
      randn({2, 3}).transpose(0, 1).contiguous()));
  check(trace([](const Tensor& x) { return x + 1; }, randn({3, 2}).transpose(0, 1)));
  check(trace([](const Tensor& x) { return x * 2; }, zeros({0, 3})));
  nn::optim::AdamW optimizer({w}, {});
  check(trace(
      [&](const Tensor& x) {
        optimizer.zero_grad();
        Tensor loss = dropout(matmul(x, w.transpose(0, 1)), 0.5).sum();
        loss.backward();
        optimizer.step();
        return loss;
      },
      randn({2, 3})));
}

/// A graph's text without the kernels that fusion has chosen, which are a comment.
static std::string without_kernels(const Graph& graph) {
  std::istringstream in(graph.to_string());
  std::string text;
  for (std::string line; std::getline(in, line); text += line + "\n")
    if (const size_t kernel = line.rfind(" kernel "); kernel != line.npos)
      line.resize(line.compare(kernel - 1, 1, "#") == 0 ? kernel - 3 : kernel);
  text.pop_back();
  return text;
}

TEST_CASE("text: what each pass leaves, of networks that train, parses and prints the same") {
  struct Sequence {
    nn::Embedding embedding{11, 12};
    nn::LayerNorm norm{12};
    nn::MultiheadAttention attention{12, 3, {.causal = true}};
    nn::Lstm lstm{12, 8};
    nn::Linear output{8, 11};
    Tensor operator()(const Tensor& ids) const {
      const Tensor h = embedding(ids);
      return output(lstm(h + attention(norm(h))).output).reshape({-1, 11});
    }
  };
  const auto check = [](auto model, const Tensor& x, const Tensor& y, const std::vector<std::string>& without) {
    nn::optim::AdamW optimizer(nn::parameters(model), {.lr = 1e-2});
    auto step = compile(
        [&](const Tensor& in, const Tensor& labels) {
          optimizer.zero_grad();
          const Tensor loss = cross_entropy(model(in), labels) + one_hot(labels, 11).to(float32).mean() * 1e-3;
          loss.backward();
          nn::clip_grad_norm(nn::parameters(model), 1.0);
          optimizer.step();
          return loss;
        },
        {.without = without});
    step(x, y);
    int parsed = 0;
    for (const Stage& stage : step.stages()) {
      CAPTURE(stage.name);
      const bool has_kernels = std::any_of(stage.graph.nodes.begin(), stage.graph.nodes.end(),
                                           [](const Node& node) { return node.fused != nullptr; });
      if (has_kernels) {  // which aren't in the text
        CHECK_THROWS_AS(parse_graph(stage.graph.to_string()), GraphError);
        continue;
      }
      const std::string text = without_kernels(stage.graph);
      const Graph again = parse_graph(stage.graph.to_string());
      CHECK(again.to_string() == text);
      CHECK_NOTHROW(verify(again));
      ++parsed;
    }
    CHECK(parsed >= 4);
  };
  const Tensor labels = randint(0, 4, {8});
  for (const std::vector<std::string>& without :
       {std::vector<std::string>{}, {"emit"}, {"fold"}, {"simplify", "common_subexpressions"}, {"horizontal"}}) {
    check(Mlp(), randn({8, 12}), labels, without);
    check(ConvNet(), randn({8, 1, 6, 4}), labels, without);
    check(Sequence(), randint(0, 11, {2, 5}), randint(0, 11, {10}), without);
  }
}

TEST_CASE("text: attributes of any characters, numbers under any locale, checked ranges") {
  const Op op =
      custom_op("text_attribute", {.infer = [](Infer& op) { op.output(op.input(0).shape(), op.input(0).dtype()); },
                                   .cpu = [](KernelContext&) {},
                                   .grad = not_differentiable,
                                   .inputs = 1,
                                   .attributes = {{"t", AttributeType::text}}});
  for (const std::string text : {"", "plain", "a \"quoted\" word", "back\\slash\\", "two\nlines", "}, # %0"}) {
    const Graph graph = trace([&](const Tensor& x) { return op(x, {{"t", text}}); }, randn({2}));
    const Graph again = parse_graph(graph.to_string());
    CHECK(again.nodes[0].attributes.text("t") == text);
    CHECK(again.to_string() == graph.to_string());
  }
  const Graph graph = trace([](const Tensor& x) { return x * 0.5 + 12345.25; }, randn({2}));
  const std::string text = graph.to_string();
  struct Comma : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new Comma));
  const std::string now = graph.to_string(), again = parse_graph(text).to_string();
  const Tensor x = randn({4});
  auto compiled = compile([](const Tensor& x) { return exp(x) * 0.5 + 12345.25; });
  const Tensor got = compiled(x);
  std::locale::global(before);
  CHECK(now == text);
  CHECK(again == text);
  CHECK(same(got, exp(x) * 0.5 + 12345.25));
  CHECK(compiled.stats().note == "");
  for (const char* bad : {"float32[2]", "int64[2]"})
    CHECK_THROWS_AS(
        parse_graph(detail::str("graph {\n  %0: ", bad, " = argument 0\n  %1: ", bad,
                                " = range_checked(%0) {op=\"a\", what=\"b\", bound=-1, classes=0}\n  return %1\n}")),
        GraphError);
}

TEST_CASE("text: what can't be parsed is a GraphError that names its line, never a crash") {
  const char* const broken[] = {
      "",
      "graph {",
      "graph {\n  %0",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[2] = exp(%7)\n  return %1\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[3] = exp(%0)\n  return %1\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[2] = nosuchop(%0)\n  return %1\n}",
      "graph {\n  %0: float99[2] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2] = constant {1, 2, 3, 4, 5, 6, 7, 8, 9}\n  return %0\n}",
      "graph {\n  %0: float32[2] = constant {1}\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 0  # a.cpp:3",
      "graph {\n  %0: float32[2] = argument 0  #",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[2] = exp(%0)\n  assign %1 = %0\n  return %1\n}",
      "graph {\n  %0: float32[2] = argument 0\n  assign none = %0\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 0\n  assign %0 = none\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 0\n  return none\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[2] = exp(none)\n  return %1\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[2] = add(%0)\n  return %1\n}",
      "graph {\n  %0: float32[-2] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument -5\n  return %0\n}",
      "graph {\n  %0: float32[2] on banana = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2] on cuda:300 = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[] = sum(%0)\n  return %1\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[] = sum(%0) {dims=1.5, keepdim=0}\n  return %1\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[] = sum(%0) {dims=[0], axis=0}\n  return %1\n}",
      "graph {\n  %0: float32[2] = argument 4294967296\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 1048576\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[2] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %0: float32[2] = exp(%0)\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 0\n  %1: float32[2], %1: float32[2] = exp(%0)\n  return %0\n}",
      "graph {\n  %0: float32[2], %1: float32[2] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 0\n  return %0\n}\nand more",
      "graph {\n  %0: float32[99999999999999999999] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[4294967296, 4294967296] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[0, 4294967296, 4294967296] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[1, 1, 1, 1, 1, 1, 1, 1, 1] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2, 3] strides [1] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2, 3] strides [3, -1] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2, 3] strides [9223372036854775807, 9223372036854775807] = argument 0\n  return %0\n}",
      "graph {\n  %0: float32[2, 2] = argument 0\n  %1: float32[2, 2] strides [1, 9] = exp(%0)\n  return %1\n}",
      ("graph {\n  %0: float32[2] = argument 0\n  %1: float32[3] = argument 1\n  %2: float32[2] = add(%0, %1)\n"
       "  return %2\n}"),
      ("graph {\n  %0: float32[2] = argument 0\n  %1: float64[2] = argument 1\n  %2: float64[2] = add(%0, %1)\n"
       "  return %2\n}"),
      "graph {\n  %0: int64[2] = argument 0\n  %1: int64[2] = exp(%0)\n  return %1\n}",
      ("graph {\n  %0: float32[3, 2, 5] = argument 0\n  %1: float32[4, 4] = argument 1\n  %2: float32[2, 5] = argument "
       "2\n"
       "  %3: float32[3, 2, 5], %4: float32[2, 5] = rnn_grad(%0, %0, %1, %2) {reverse=0, relu=0}\n  return %3\n}"),
      "graph {\n  %0: float32[2] = argument 0\n  draws -1\n  return %0\n}",
      "graph {\n  %0: float32[2] = argument 0\n  gradient argument -3 = %0\n  return %0\n}",
      "graph {\n  %0: float32[2] = state\n  %1: float32[3] = argument 0\n  assign %0 = %1\n  return %1\n}",
      "graph {\n  %0: float32[2] = state\n  assign %0 = %0\n  assign %0 = %0\n  return\n}",
      "graph {\n  %0: uint8[1] = constant {256}\n  return %0\n}",
      "graph {\n  %0: int32[1] = constant {1e30}\n  return %0\n}",
      "graph {\n  %0: int64[] = scalar nan\n  return %0\n}",
      "graph {\n  %0: float32[2] = scalar 1\n  return %0\n}",
  };
  for (const char* text : broken) {
    CAPTURE(text);
    try {
      parse_graph(text);
      FAIL("parsed");
    } catch (const GraphError& error) {
      CHECK(contains(error.message(), "line "));
    } catch (const std::exception& error) { FAIL("another error: ", error.what()); }
  }
}

TEST_CASE("text: a parsed graph runs with the arguments that it was made for, and no others") {
  const auto built = [](const std::string& text, bool planned) {
    return graph::Program::build(parse_graph(text), {.memory_plan = planned}, Where::current(), nullptr);
  };
  const auto refused = [](graph::Program& program, const Tensors& arguments, const std::string& reason) {
    try {
      program.run(arguments);
      FAIL("it ran");
    } catch (const GraphError& error) {
      CAPTURE(error.message());
      CHECK(contains(error.message(), reason));
    }
  };
  for (const bool planned : {false, true}) {
    const auto sums = built(
        "graph {\n  %0: float32[2] = argument 0\n  %1: float32[2] = argument 1\n  %2: float32[2] = add(%0, %1)\n"
        "  return %2\n}",
        planned);
    CHECK(sums->run({ones({2}), ones({2})})[0].to_vector<float>() == std::vector<float>{2, 2});
    refused(*sums, {}, "argument 0 of the graph is missing, 0 are given");
    refused(*sums, {ones({2})}, "argument 1 of the graph is missing");
    refused(*sums, {ones({2}), ones({3})}, "argument 1 is float32[3], and the graph was made for float32[2]");
    refused(*sums, {ones({2}), ones({2}, {.dtype = float64})}, "argument 1 is float64[2]");
    refused(*sums, {ones({2}), ones({2, 1})}, "argument 1 is float32[2, 1]");
    refused(*sums, {ones({2}), ones({2, 2}).slice(1, 0, 1).squeeze(1)}, "argument 1 is float32[2] strides [2]");
    refused(*sums, {ones({2}), Tensor()}, "argument 1 is an undefined tensor");

    const auto reads = built(
        "graph {\n  %0: float32[2] = state\n  %1: float32[2] = exp(%0)\n  assign %0 = %1\n  return %1\n}", planned);
    refused(*reads, {}, "its state float32[2] has no tensor: bind it first");
    CHECK_THROWS_AS(reads->bind(0, ones({3})), GraphError);
    CHECK_THROWS_AS(reads->bind(0, Tensor()), GraphError);
    reads->bind(0, zeros({2}));
    CHECK(reads->run({})[0].to_vector<float>() == std::vector<float>{1, 1});

    refused(*built("graph {\n  %0: float32[2] = gradient\n  return %0\n}", planned), {}, "its gradient float32[2]");
    refused(*built("graph {\n  %0: float32[2] = constant\n  return %0\n}", planned), {}, "its constant float32[2]");
    refused(*built("graph {\n  %0: float32[2] = argument 0\n  gradient state 0 = %0\n  return\n}", planned),
            {ones({2})}, "it writes the gradient of a state");
    refused(*built("graph {\n  %0: float32[2] = argument 0\n  gradient argument 7 = %0\n  return\n}", planned),
            {ones({2})}, "argument 7 of the graph is missing");
    CHECK_THROWS_WITH_AS(built("graph {\n  %0: float32[2] on cuda:100 = argument 0\n  return %0\n}", planned),
                         doctest::Contains("the graph has a value on cuda:100, which is not here"), GraphError);

    const Graph large = trace([](const Tensor& x) { return exp(x.expand({1 << 25, 2})); }, ones({2}));
    trim_memory();
    set_memory_limit(memory_stats().reserved + (1 << 20));
    CHECK_THROWS_AS(built(large.to_string(), planned)->run({ones({2})}), OutOfMemoryError);
    set_memory_limit(0);
  }
}

TEST_CASE("verify: a broken graph is caught") {
  const auto made = [] { return trace([](const Tensor& x) { return exp(x) + 1.f; }, randn({2})); };
  Graph graph = made();
  CHECK_NOTHROW(verify(graph));
  std::swap(graph.nodes[0], graph.nodes[1]);
  CHECK_THROWS_AS(verify(graph), GraphError);
  graph = made();
  graph.values[static_cast<size_t>(graph.nodes[0].outputs[0])].type.dtype = float64;
  CHECK_THROWS_AS(verify(graph, "a pass"), GraphError);
  graph = made();
  graph.nodes[0].inputs[0] = 99;
  CHECK_THROWS_AS(verify(graph), GraphError);
  graph = made();
  graph.outputs[0] = 99;
  CHECK_THROWS_AS(verify(graph), GraphError);
  for (const int64_t stride : {0, 2}) {  // no view, and yet repeated or with gaps
    graph = made();
    graph.type(graph.nodes[0].outputs[0]).strides = {stride};
    CHECK_THROWS_WITH_AS(verify(graph), doctest::Contains("only views may leave gaps"), GraphError);
  }
}

TEST_CASE("training: losses and random numbers of the three modes are the same, bit for bit") {
  Stats stats;
  const auto check = [&](auto model) {
    using Model = decltype(model);
    const std::vector<double> eager = train<Model>({.mode = Mode::eager});
    CHECK(eager[19] != eager[0]);
    CHECK(train<Model>({.mode = Mode::replay}) == eager);
    const std::vector<double> compiled = train<Model>({}, &stats);
    CHECK(stats.traces == 1);
    CHECK(stats.promoted == 0);
    for (size_t i = 0; i < 20; ++i) CHECK(compiled[i] == doctest::Approx(eager[i]).epsilon(1e-5));
    CHECK(compiled[20] == eager[20]);
  };
  SUBCASE("an MLP") { check(Mlp()); }
  SUBCASE("a convolutional net") { check(ConvNet()); }
}

TEST_CASE("passes: fusion chooses kernels, which lower makes loops of") {
  auto f = compile([](const Tensor& x) { return sum(exp(x * 2) + 1, -1); });
  f(randn({4, 8}));
  std::vector<std::string> names;
  for (const Stage& stage : f.stages()) names.push_back(stage.name);
  CHECK(names == std::vector<std::string>{"traced", "invariants", "decompose", "fold", "simplify",
                                          "common_subexpressions", "dead_code", "prune", "recompute", "row_pipelines",
                                          "dead_code", "regions", "fusion", "horizontal", "lower", "dead_code",
                                          "schedule"});
  const auto stage = [&](const char* name) {
    return std::find_if(f.stages().begin(), f.stages().end(), [&](const Stage& s) { return s.name == name; })->graph;
  };
  for (const Node& node : stage("dead_code").nodes) CHECK(node.kernel == -1);
  for (const Node& node : stage("fusion").nodes) CHECK(node.kernel == 0);
  CHECK(contains(stage("fusion").to_string(), " kernel 0\n"));
  REQUIRE(stage("lower").nodes.size() == 1);
  CHECK(stage("lower").nodes[0].fused);
}

TEST_CASE("passes: each can be left out, results stay; an unknown name lists them") {
  const std::vector<double> whole = train<Mlp>({});
  std::vector<std::string> names = pass_names();
  names.insert(names.end(), {"memory_plan", "emit"});  // switches, which are left out likewise
  for (const std::string& pass : names) {
    CAPTURE(pass);
    const std::vector<double> losses = train<Mlp>({.without = {pass}});
    for (size_t i = 0; i < whole.size(); ++i) CHECK(losses[i] == doctest::Approx(whole[i]).epsilon(1e-5));
  }
  try {
    compile([](const Tensor& x) { return x; }, {.without = {"fusoin"}});
    FAIL("no error");
  } catch (const ValueError& error) {
    CHECK(contains(error.message(), "\"fusoin\""));
    for (const std::string& pass : names) CHECK(contains(error.message(), pass));
  }
}

TEST_CASE("no compiler: the planned graph runs on eager kernels, and says why") {
  const char* const before = std::getenv("CC");
  const std::optional<std::string> saved = before ? std::optional<std::string>(before) : std::nullopt;
  graph::testing::forget_loaded_libraries();
  setenv("CC", "/nonexistent", 1);
  Stats stats;
  const std::vector<double> without = train<Mlp>({}, &stats);
  saved ? setenv("CC", saved->c_str(), 1) : unsetenv("CC");
  graph::testing::forget_loaded_libraries();
  CHECK(stats.fused_kernels == 0);
  CHECK(stats.peak_bytes > 0);
  CHECK(contains(stats.note, "/nonexistent"));
  CHECK(without == train<Mlp>({.mode = Mode::eager}));
}

TEST_CASE("tracing: a trace that throws leaves gradients, state and draws as they were") {
  for (const Mode mode : kGraphModes) {
    Tensor w = ones({2}, {.requires_grad = true}), state = zeros({2});
    const Tensor gradient = full({2}, 3);
    w.set_grad(gradient);
    manual_seed(23);
    const uint64_t draws = default_generator().draws();
    auto f = compile(
        [&](const Tensor& x) {
          (dropout(x, 0.5) * w).sum().backward();
          state.assign(x);
          return tensor({x.sum().item<float>()});
        },
        {.mode = mode});
    CHECK_THROWS_AS(f(ones({2})), TraceError);
    CHECK(w.grad().impl() == gradient.impl());
    CHECK(same(gradient, full({2}, 3)));
    CHECK(same(state, zeros({2})));
    CHECK(default_generator().draws() == draws);
    CHECK(compile([](const Tensor& x) { return x + 1; }, {.mode = mode})(ones({1})).item<float>() == 2);
  }
}

TEST_CASE("tracing: values are refused with their origin and the remedy; leaked tensors too") {
  for (const Mode mode : kGraphModes) {
    const auto refused = [&](auto f) {
      try {
        compile(f, {.mode = mode})(ones({2}));
        FAIL("no error");
      } catch (const TraceError& error) {
        CAPTURE(error.what());
        CHECK(contains(error.message(),
                       " at graph_test.cpp:"));  // the op; which one may depend on the order of evaluation
        CHECK(contains(error.message(), "graph_test.cpp:"));
        CHECK(contains(error.message(), "Mode::eager"));
      }
    };
    refused(
        [](const Tensor& x) { return x * exp(x).sum({}, {}).expand({2})[0].item<float>() + exp(x).data<float>()[0]; });
    refused([](const Tensor& x) {
      exp(x).to_vector<float>();
      return x;
    });
    refused([](const Tensor& x) {
      std::ostringstream out;
      out << exp(x);
      return x;
    });
    Tensor leaked;
    auto f = compile(
        [&](const Tensor& x) {
          leaked = x * 2;
          return x + 1;
        },
        {.mode = mode});
    f(ones({2}));
    CHECK_THROWS_AS(leaked + 1, TraceError);
    CHECK_THROWS_AS(leaked.to_vector<float>(), TraceError);
    auto g = compile([&](const Tensor& x) { return x + leaked; }, {.mode = mode});
    CHECK_THROWS_AS(g(ones({2})), TraceError);
  }
}

TEST_CASE("state: assigned in the trace, shared by two functions, int64, and a view of it") {
  for (const Mode mode : kGraphModes) {
    Tensor count = zeros({}, {.dtype = int64}), table = zeros({3, 2});
    auto add = compile(
        [&](const Tensor& x) {
          count.assign(count + 1);
          count.assign(count * 2);
          return x + count;
        },
        {.mode = mode});
    auto subtract = compile([&] { count.assign(count - 1); }, {.mode = mode});
    int64_t expected = 0;
    for (int i = 0; i < 4; ++i) {
      expected = (expected + 1) * 2;
      CHECK(add(zeros({}, {.dtype = int64})).item<int64_t>() == expected);
      subtract();
      CHECK(count.item<int64_t>() == --expected);
    }
    Tensor row = table[1];
    auto put = compile([&](const Tensor& x) { row.assign(x); }, {.mode = mode});
    put(tensor({1.f, 2.f}));
    put(tensor({3.f, 4.f}));
    CHECK(same(table.flatten(), tensor({0.f, 0.f, 3.f, 4.f, 0.f, 0.f})));
    Tensor a = ones({2}), b = zeros({2});
    auto swap = compile(
        [&] {
          Tensor old = a * 1;
          a.assign(b);
          b.assign(old);
        },
        {.mode = mode});
    for (int i = 1; i < 4; ++i) {
      swap();
      CHECK(same(a, full({2}, i % 2 ? 0 : 1)));
      CHECK(same(b, full({2}, i % 2 ? 1 : 0)));
    }
  }
}

TEST_CASE("specialisation: by shape, dtype, layout, requires_grad and aliasing, with the reason") {
  auto f = compile([](const Tensor& a, const Tensor& b) { return a * 2 + b; });
  const Tensor x = ones({4, 4}), y = ones({4, 4});
  const auto newest = [&](const Tensor& a, const Tensor& b) {
    f(a, b);
    return f.stats().retraces.back().reason;
  };
  f(x, y);
  CHECK(newest(ones({2, 4}), ones({2, 4})) == "argument 0: shape [4, 4] -> [2, 4]");
  f(x, y);
  CHECK(newest(ones({4, 4}, {.dtype = float64}), y) == "argument 0: dtype float32 -> float64");
  f(x, y);
  CHECK(newest(x, ones({4, 4}).transpose(0, 1)) == "argument 1: strides [4, 1] -> [1, 4]");
  f(x, y);
  CHECK(newest(ones({4, 4}, {.requires_grad = true}), y) == "argument 0: requires_grad 0 -> 1");
  f(x, y);
  CHECK(contains(newest(x, x), "argument 1: is the same tensor"));
  CHECK(f.stats().traces == 6);
  f(x, y);
  CHECK(f.stats().traces == 6);
}

TEST_CASE("specialisation: over the limit it is an error, the oldest goes, or the call is eager") {
  for (const OnLimit what : {OnLimit::error, OnLimit::evict, OnLimit::eager}) {
    auto f =
        compile([](const Tensor& x) { return x * 2; },
                {.mode = Mode::replay, .max_specialisations = 2, .on_limit = what, .dynamic = DynamicSizes::never});
    f(ones({1}));
    f(ones({2}));
    if (what == OnLimit::error) CHECK_THROWS_AS(f(ones({3})), RetraceError);
    else CHECK(same(f(ones({3})), full({3}, 2)));
    CHECK(f.stats().traces == (what == OnLimit::evict ? 3 : 2));
  }
}

TEST_CASE("specialisation: nn::eval traces once more, a learning rate never") {
  Mlp model;
  auto f = compile([&](const Tensor& x) { return model(x); }, {.mode = Mode::replay});
  const Tensor x = randn({2, 12});
  f(x), f(x);
  nn::eval(model);
  CHECK(same(f(x), model(x).detach()));
  f(x);
  nn::train(model);
  f(x);
  CHECK(f.stats().traces == 2);
}

TEST_CASE("calls: results of any kind, no arguments, nested functions, empty tensors, one tensor twice") {
  for (const Mode mode : kGraphModes) {
    const CompileOptions o{.mode = mode};
    const Tensor x = ones({2});
    auto [a, b] = compile([](const Tensor& t) { return std::tuple{t + 1, t + 2}; }, o)(x);
    CHECK(same(b, full({2}, 3)));
    CHECK(same(compile([](const Tensor& t) { return std::array{t + 1, t + 2}; }, o)(x)[1], b));
    CHECK(compile([](const Tensor& t) { return Tensors{t + 1, t + 2, t}; }, o)(x).size() == 3);
    CHECK(same(compile([] { return ones({2}) + 2; }, o)(), b));
    auto inner = compile([](const Tensor& t) { return t * 3; }, o);
    auto outer = compile([&](const Tensor& t) { return inner(t) - 1; }, o);
    CHECK(same(outer(x), full({2}, 2)));
    CHECK(inner.stats().traces == 0);
    CHECK(compile([](const Tensor& t) { return relu(t) * 2; }, o)(zeros({0, 3})).shape() == Shape{0, 3});
    CHECK(compile([](const Tensor& t) { return t.sum(); }, o)(zeros({0})).item<float>() == 0);
    CHECK(same(compile([](const Tensor& s, const Tensor& t) { return s - t * 2; }, o)(x, x), full({2}, -1)));
  }
}

TEST_CASE("memory: the plan is near its lower bound, and a step allocates its outputs only") {
  Stats stats;
  train<Mlp>({}, &stats);
  CHECK(stats.peak_bytes >= stats.lower_bound_bytes);
  CHECK(static_cast<double>(stats.peak_bytes) <=
        2 * static_cast<double>(stats.lower_bound_bytes));  // slots: see memory_plan.h
  Mlp model;
  nn::optim::Sgd optimizer(nn::parameters(model), {.lr = 0.1, .momentum = 0.9});
  auto step = compile(
      [&](const Tensor& x) {
        optimizer.zero_grad();
        Tensor loss = square(model(x)).mean();
        loss.backward();
        optimizer.step();
        return loss;
      },
      {.verify = Verify::never});
  const Tensor x = randn({8, 12});
  for (int i = 0; i < 3; ++i) step(x);
  const int64_t before = memory_stats().allocations;
  for (int i = 0; i < 10; ++i) step(x);
  CHECK(memory_stats().allocations - before == 10);
}
