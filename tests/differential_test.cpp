// The differential fuzzer: random programs give in every mode what they give eagerly. TANDEM_FUZZ_PROGRAMS says how many,
// TANDEM_FUZZ_SEED which is the first: scripts/fuzz. What it has found stands below, as programs.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>

#include "any_size.h"
#include "core/warning.h"
#include "fuzz/program.h"

using namespace tandem;

namespace {

uint64_t setting(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// Warnings of changed numbers are what some programs are about.
struct Quiet {
  WarningHandler before = set_warning_handler({});
  ~Quiet() { set_warning_handler(before); }
};

struct Tally {
  uint64_t errors = 0, compared = 0, refused = 0, no_way_back = 0, failures = 0, resized = 0;
  std::map<std::string, uint64_t> ops;
};

void complain(Tally& tally, const fuzz::Program& program, const fuzz::Setting& setting, const std::string& difference) {
  if (++tally.failures > 5) return;  // the rest may have the same cause
  const fuzz::Program small =
      fuzz::minimised(program, [&](const fuzz::Program& each) { return !fuzz::difference(each, setting).empty(); });
  FAIL_CHECK("program " << program.seed << ": " << difference << "\n"
                        << fuzz::difference(small, setting) << "\n"
                        << fuzz::printed(small, setting));
}

}  // namespace

TEST_CASE("random programs give in every mode what they give eagerly") {
  const AnySize any_size;
  const uint64_t count = setting("TANDEM_FUZZ_PROGRAMS", 2000), first = setting("TANDEM_FUZZ_SEED", 1);
  constexpr size_t kAtOnce = 20;                              // so many programs are one function, for the compiler
  const uint64_t every = setting("TANDEM_FUZZ_COMPILE", 10);  // one in so many runs as generated C
  const bool show = std::getenv("TANDEM_FUZZ_SHOW");          // before it is run: where it ends the process
  const Quiet quiet;
  const std::vector<std::string> passes = pass_names();
  Tally tally;
  std::vector<fuzz::Program> fixed, changing;  // in size; the second kind needs a third size to have one given in place
  uint64_t ill_conditioned = 0, changing_programs = 0;
  const auto compile_together = [&](std::vector<fuzz::Program>& together, const std::string& without) {
    if (together.empty()) return;
    for (const fuzz::Setting& each : {fuzz::Setting{}, fuzz::Setting{.options = {.without = {without}}}}) {
      ++tally.compared;
      const fuzz::Outcome eager = fuzz::run(together, {.options = {.mode = Mode::eager}}),
                          compiled = fuzz::run(together, each);
      bool alone = false;
      const std::vector<size_t> differ = fuzz::differing(together, eager, compiled, each);
      for (const size_t one : differ) {
        const std::string difference = fuzz::difference(together[one], each);
        if (!difference.empty()) complain(tally, together[one], each, difference);
        alone = alone || !difference.empty();
      }
      if (!differ.empty() && !alone) ill_conditioned += differ.size();
    }
    together.clear();
  };
  for (uint64_t seed = first; seed < first + count; ++seed) {
    const fuzz::Program program = fuzz::random_program(seed);
    for (const fuzz::Statement& statement : program.body)
      if (statement.action == fuzz::Action::op) ++tally.ops[statement.name];
    std::vector<fuzz::Setting> settings = {{.options = {.mode = Mode::replay}},
                                           {.options = {.without = {"emit", passes[seed % passes.size()]}}},
                                           {.options = {.without = {"emit", "memory_plan"}, .verify = Verify::never}}};
    if (seed % 4 == 0) settings.push_back({.options = {.without = {"emit"}}, .threads = 2});
    settings.push_back(
        {.options = {.mode = seed % 2 ? Mode::replay : Mode::compiled, .without = {"emit"}}, .backward_outside = true});
    if (show) std::cout << fuzz::printed(program, settings[0]) << std::endl;
    bool fine = true;
    for (const fuzz::Setting& each : settings) {
      ++tally.compared;
      const std::string difference = fuzz::difference(program, each);
      fine = fine && difference.empty();
      if (!difference.empty()) complain(tally, program, each, difference);
    }
    if (seed % 4 == 1) {
      const std::string difference = fuzz::difference(fuzz::in_float64(program), settings[1]);
      if (!difference.empty()) complain(tally, fuzz::in_float64(program), settings[1], difference);
    }
    changing_programs += !program.extents.empty();
    const fuzz::Outcome graph = fuzz::run(program, settings[0]);
    tally.resized += graph.resizes > 0;
    tally.errors += !graph.error.empty();
    tally.refused += graph.error_class == "E020";
    tally.no_way_back += graph.error.empty() && fuzz::run(program, settings.back()).error_class == "E010";
    if (!fine || !graph.error.empty() || seed % every) continue;
    std::vector<fuzz::Program>& together = program.extents.empty() ? fixed : changing;
    together.push_back(program);
    together.back().calls = program.extents.empty() ? 2 : 4;
    if (together.size() == kAtOnce) compile_together(together, passes[seed / every % passes.size()]);
  }
  compile_together(fixed, passes[first % passes.size()]);
  compile_together(changing, passes[count % passes.size()]);
  MESSAGE(count << " programs of " << tally.ops.size() << " ops, " << changing_programs << " of sizes that change, "
                << tally.resized << " of them given a size without passes; " << tally.compared << " comparisons, "
                << tally.errors << " with an error, " << tally.refused << " of them refusals; " << tally.no_way_back
                << " gradients refused outside; of the compiled ones " << ill_conditioned
                << " beyond bounds, as float64 is");
  CHECK(tally.failures == 0);
  CHECK(tally.refused * 5 < count);  // what is refused is not compared
  CHECK(tally.no_way_back * 20 < count);
  CHECK(tally.resized * 4 >= changing_programs);
}

TEST_CASE("a wrong pass is found, its program is shrunk to a line, and printed") {
  const Quiet quiet;
  // simplify will take softsign(x) for x.
  Op& planted = op_table().at("softsign");
  planted.keeps_values = true;
  const fuzz::Setting setting{.options = {.without = {"emit"}}};
  std::string found;
  fuzz::Program program;
  for (uint64_t seed = 1; found.empty() && seed < 1000; ++seed) {
    program = fuzz::random_program(seed);
    found = fuzz::difference(program, setting);
  }
  REQUIRE(!found.empty());
  program =
      fuzz::minimised(program, [&](const fuzz::Program& each) { return !fuzz::difference(each, setting).empty(); });
  planted.keeps_values = false;
  CHECK(fuzz::difference(program, setting).empty());
  CHECK(program.body.size() == 1);
  CHECK(program.inputs.size() == 1);
  CHECK(program.inputs[0].shape.numel() == 1);
  CHECK(program.calls == 1);
  const std::string text =
      fuzz::printed(program, setting, "td::op_table().at(\"softsign\").keeps_values = true;  // planted");
  CHECK(text.find("find_op(\"softsign\")") != std::string::npos);
  // tests/CMakeLists.txt compiles and runs it.
  if (const char* path = std::getenv("TANDEM_FUZZ_PRINT")) std::ofstream(path) << text;
}

TEST_CASE("a wrong kernel is found in generated code") {
  const Quiet quiet;
  Op& planted = op_table().at("softsign");
  const char* const right = planted.pointwise.expression;
  std::string found;
  for (uint64_t seed = 1; found.empty() && seed < 2000; ++seed) {
    const fuzz::Program program = fuzz::random_program(seed);
    if (std::none_of(program.body.begin(), program.body.end(),
                     [&](const fuzz::Statement& statement) { return statement.name == "softsign"; }))
      continue;
    planted.pointwise.expression = "td_abs(x)";
    found = fuzz::difference(program, {});
    planted.pointwise.expression = right;
  }
  CHECK(!found.empty());
}

TEST_CASE("a seed is a program") {
  CHECK(fuzz::printed(fuzz::random_program(12), {}) == fuzz::printed(fuzz::random_program(12), {}));
  CHECK(fuzz::printed(fuzz::random_program(12), {}) != fuzz::printed(fuzz::random_program(13), {}));
}

// ---- What it has found.

TEST_CASE("found: reshape by name of a layout that needs a copy ended the process") {
  const Tensor x = zeros({2, 3}).transpose(0, 1);
  CHECK_THROWS_WITH_AS(find_op("reshape")(x, {{"shape", Shape{6}}}),
                       doctest::Contains("can't be seen as [6] without a copy"), ShapeError);
}

TEST_CASE("found: an op that nobody reads raises no error in a graph") {
  const auto f = [](const Tensor& x, const Tensor& at) {
    (void)gather(x, 0, at);
    return x * 2;
  };
  const Tensor x = ones({2}), at = tensor({5});
  CHECK_THROWS_AS(f(x, at), DimensionError);
  auto graph = compile(f);
  CHECK(allclose(graph(x, at), x * 2));
}

TEST_CASE("found: eagerly the results of a scan are computed from one another, in a graph by one node") {
  const Tensor xs = tensor({{1.0}, {2.0}}, {.requires_grad = true});
  const auto f = [](const Tensor& x) {
    const auto [last, all] = scan(
        [](const Tensor& h, const Tensor& each) {
          const Tensor next = h + each;
          return std::pair{next, next * each};
        },
        zeros({1}), x);
    const Tensor gradient = grad_of(sum(all), {last}, {.allow_unused = true})[0];
    return gradient.defined() ? gradient : zeros_like(last);
  };
  CHECK(f(xs).item<float>() == 2);
  auto graph = compile(f);
  CHECK(graph(xs).item<float>() == 0);
}

TEST_CASE("found: a branch that writes to state and reads it through a view made in the function gave the old value") {
  Tensor state = ones({2});
  const auto f = [&](const Tensor& x) {
    const Tensor view = state.slice(0, 0, 1);
    return cond(
        sum(x) > 0,
        [&] {
          state.assign(state * 0.5);
          return x * view;
        },
        [&] { return x - view; });
  };
  CHECK(f(ones({1})).item<float>() == 0.5);
  auto graph = compile(f);
  CHECK_THROWS_WITH_AS(graph(ones({1})), doctest::Contains("read there through another view of its memory"),
                       TraceError);
}
