// The lab: state is put back, the report says what was measured, and docs/ops.md is what the op table says.
#include <doctest/doctest.h>

#include <unistd.h>
#include <cmath>
#include <cstring>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "lab/float64.h"
#include "lab/ops_table.h"
#include "lab/statistics.h"
#include "tandem.h"

namespace {

using namespace tandem;

std::string read(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.shape() == y.shape() &&
         std::memcmp(x.data<float>().data(), y.data<float>().data(), x.data<float>().size_bytes()) == 0;
}

/// A training step with all kinds of state: parameters, moments, a learning rate, gradients, random numbers.
struct Training {
  nn::Linear first{6, 5}, second{5, 3};
  nn::Dropout drop{0.3};
  Tensors parameters{first.weight, first.bias, second.weight, second.bias};
  nn::optim::AdamW optimizer{parameters, {.lr = 1e-2}};

  Tensor operator()(const Tensor& x, const Tensor& y) {
    optimizer.zero_grad();
    Tensor loss = cross_entropy(second(drop(relu(first(x)))), y);
    loss.backward();
    optimizer.step();
    return loss;
  }
};

Comparison compare_small(Training& training) {
  return compare([&](const Tensor& x, const Tensor& y) { return training(x, y); }, {.steps = 6, .name = "small <step>"},
                 randn({4, 6}), randint(0, 3, {4}));
}

}  // namespace

TEST_CASE("compare: four rungs from one start, which is also the state that is left") {
  manual_seed(1);
  Training training;
  std::vector<Tensor> before;
  for (const Tensor& each : training.parameters) before.push_back(each.detach().clone());
  for (const auto& [name, tensor] : training.optimizer.state()) before.push_back(tensor.to(float32).clone());
  const Tensor x = randn({4, 6}), y = randint(0, 3, {4});
  const uint64_t draws = default_generator().draws();

  const Comparison result =
      compare([&](const Tensor& a, const Tensor& b) { return training(a, b); }, {.steps = 6}, x, y);

  CHECK(default_generator().draws() == draws);
  std::vector<Tensor> after = training.parameters;
  for (const auto& [name, tensor] : training.optimizer.state()) after.push_back(tensor.to(float32));
  REQUIRE(after.size() == before.size());
  for (size_t i = 0; i < after.size(); ++i) CHECK(same_bits(after[i], before[i]));
  for (const Tensor& each : training.parameters) CHECK_FALSE(each.grad().defined());

  REQUIRE(result.rungs.size() == 4);
  const char* names[] = {"eager", "replay", "unfused", "compiled"};
  for (size_t i = 0; i < 4; ++i) {
    const Rung& rung = result.rungs[i];
    CAPTURE(rung.name);
    CHECK(rung.name == names[i]);
    CHECK(rung.step_seconds.median > 0);
    CHECK(rung.step_seconds.count == 6);
    CHECK(rung.kernels > 0);
    CHECK(rung.error < 1e-5);
    CHECK(rung.gradient_error < 1e-4);
    REQUIRE(rung.losses.size() == 6);
    CHECK(rung.losses[0] == doctest::Approx(result.rungs[0].losses[0]).epsilon(1e-5));
    CHECK(rung.losses[5] < rung.losses[0] + 1);
  }
  CHECK(result.rungs[0].first_difference == -1);
  CHECK(result.rung("replay").first_difference == -1);
  CHECK(result.rung("compiled").kernels < result.rung("eager").kernels);
  CHECK(result.float64_note.empty());

  // The same numbers as a fresh run of the step by itself.
  CHECK(training(x, y).item<float>() == static_cast<float>(result.rungs[0].losses[0]));
}

TEST_CASE("compare: a step that has been run before keeps its gradients") {
  manual_seed(2);
  Training training;
  const Tensor x = randn({4, 6}), y = randint(0, 3, {4});
  training(x, y);
  const Tensor gradient = training.parameters[0].grad(), values = gradient.clone();
  compare([&](const Tensor& a, const Tensor& b) { return training(a, b); }, {.steps = 2}, x, y);
  CHECK(training.parameters[0].grad().impl() == gradient.impl());
  CHECK(same_bits(gradient, values));
}

TEST_CASE("compare: a step that throws leaves the state alone") {
  manual_seed(3);
  Tensor state = zeros({2});
  int calls = 0;
  const auto step = [&](const Tensor& x) {
    NoGrad guard;
    state.assign(state + x);
    if (++calls == 4) throw ValueError("enough", Where::current());
    return state.sum();
  };
  CHECK_THROWS_AS(compare(step, {.steps = 2}, ones({2})), ValueError);
  CHECK(state.sum().item<float>() == 0);
  CHECK_THROWS_AS(compare(step, {.steps = 0}, ones({2})), ValueError);
  CHECK_THROWS_AS(compare(step, {.steps = 1}, Tensor()), UndefinedError);
}

TEST_CASE("compare: the report as table, JSON and a page that needs no network") {
  manual_seed(4);
  Training training;
  const Comparison result = compare_small(training);
  const std::string table = result.to_string();
  for (const char* word : {"eager", "replay", "unfused", "compiled", "kernels", "Compiling"})
    CHECK(table.find(word) != std::string::npos);
  CHECK_THROWS_AS(result.rung("fast"), ValueError);

  const std::string folder =
      (std::filesystem::temp_directory_path() / ("tandem_lab_test_" + std::to_string(getpid()))).string();
  std::filesystem::create_directory(folder);
  result.write_json(folder + "/a.json");
  result.write_html(folder + "/a.html");
  const std::string json = read(folder + "/a.json"), html = read(folder + "/a.html");
  CHECK_THROWS_AS(result.write_html(folder + "/missing/a.html"), FileError);
  CHECK_THROWS_AS(result.write_json(folder + "/missing/a.json"), FileError);
  std::filesystem::remove_all(folder);

  CHECK(json.find("\"break_even_steps\"") != std::string::npos);
  CHECK(json == result.to_json() + "\n");
  CHECK(std::count(json.begin(), json.end(), '{') == std::count(json.begin(), json.end(), '}'));

  CHECK(html == result.to_html());
  for (const char* outside : {"http:", "https:", "src=", "href=", "@import", "url("}) {
    CAPTURE(outside);
    CHECK(html.find(outside) == std::string::npos);
  }
  CHECK(html.find("<step>") == std::string::npos);  // names are escaped
  CHECK(html.find("small &lt;step&gt;") != std::string::npos);
  CHECK(html.find("=\"nan") == std::string::npos);
  size_t pictures = 0;
  for (size_t at = html.find("<svg"); at != std::string::npos; at = html.find("<svg", at + 1)) ++pictures;
  CHECK(pictures == 4);
}

TEST_CASE("break-even: what is paid once over what each step saves; never, if it saves nothing") {
  CHECK(lab::break_even(3, 0.5, 0.25) == 12);
  CHECK(lab::break_even(0, 2, 1) == 0);
  CHECK(std::isinf(lab::break_even(1, 1, 1)));
  CHECK(std::isinf(lab::break_even(1, 1, 2)));

  Comparison comparison;
  comparison.rungs.resize(2);
  comparison.rungs[0].name = "eager";
  comparison.rungs[0].step_seconds.median = 3;
  comparison.rungs[1].name = "compiled";
  comparison.rungs[1].step_seconds.median = 1;
  comparison.rungs[1].cold = {.trace = 1, .passes = 2, .emit = 3, .compiler = 4};
  comparison.rungs[1].warm = {.trace = 1, .passes = 2, .emit = 3, .compiler = 0};
  CHECK(comparison.break_even_steps() == 5);
  CHECK(comparison.warm_break_even_steps() == 3);
}

TEST_CASE("statistics: quantiles between values, and an interval around the ratio") {
  CHECK(lab::quantile({3, 1, 2}, 0.5) == 2);
  CHECK(lab::quantile({4, 1, 3, 2}, 0.5) == 2.5);
  CHECK(lab::quantile({1, 2}, 0.25) == 1.25);
  const Ratio steady = lab::ratio_of_medians({2, 2, 2}, {1, 1, 1});
  CHECK(steady.value == 0.5);
  CHECK(steady.low == 0.5);
  CHECK(steady.high == 0.5);
  const Ratio noisy = lab::ratio_of_medians({1, 2, 3, 4, 5}, {2, 1, 4, 3, 6});
  CHECK(noisy.low <= noisy.value);
  CHECK(noisy.value <= noisy.high);
}

TEST_CASE("float64: a graph gives what the function gives on float64 arguments, and the same draws") {
  manual_seed(5);
  const Tensor x = randn({8, 16}), w = randn({16, 4});
  const auto function = [](const Tensor& a, const Tensor& b) { return softmax(tanh(matmul(a, b)) * 0.3 + 1).sum({0}); };
  const Graph graph = trace(function, x, w);
  const lab::Float64Results results = lab::run_in_float64(graph, {x, w});
  REQUIRE(results.outputs.size() == 1);
  CHECK(results.outputs[0].dtype() == float64);
  CHECK(allclose(results.outputs[0], function(x.to(float64), w.to(float64)), {.rtol = 1e-12}));
  CHECK(lab::relative_error(function(x, w), results.outputs[0]) < 1e-6);

  const Tensor ones_of_x = ones_like(x);
  const Graph random = trace(
      [](const Tensor& a, const Tensor&) {
        return dropout(a, 0.5) + rand({8, 16});
      },
      ones_of_x, w);
  const lab::Float64Results drawn = lab::run_in_float64(random, {ones_of_x, w});
  const Tensor eager = dropout(ones_of_x, 0.5) + rand({8, 16});
  CHECK(lab::relative_error(eager, drawn.outputs[0]) < 1e-6);

  const auto looped = [](const Tensor& a, const Tensor& b) {
    const auto [last, all] = scan(
        [&](const Tensor& h, const Tensor& e) {
          const Tensor next = cond(
              e.sum() > 0, [&] { return tanh(matmul(e, b) + h * 0.25); }, [&] { return sin(h) + 1; });
          return std::pair{next, next * 1.125};
        },
        zeros({4}, {.dtype = a.dtype()}), a);
    return all + last;
  };
  const lab::Float64Results wide = lab::run_in_float64(trace(looped, x, w), {x, w});
  CHECK(allclose(wide.outputs[0], looped(x.to(float64), w.to(float64)), {.rtol = 1e-12}));
}

TEST_CASE("docs/ops.md is what `tandem ops --markdown` prints") {
  CHECK(read(TANDEM_SOURCE_DIR "/docs/ops.md") == lab::ops_markdown());
}
