// The differential fuzzer: random programs give in every mode what they give eagerly. TANDEM_FUZZ_PROGRAMS says how many,
// TANDEM_FUZZ_SEED which is the first: scripts/fuzz.
#include <doctest/doctest.h>

#include <cstdlib>

#include "core/warning.h"
#include "fuzz/program.h"

using namespace tandem;

namespace {

uint64_t setting(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

TEST_CASE("random programs give in every mode what they give eagerly") {
  const uint64_t count = setting("TANDEM_FUZZ_PROGRAMS", 500), first = setting("TANDEM_FUZZ_SEED", 1);
  const uint64_t every =
      setting("TANDEM_FUZZ_COMPILE", 10);  // one in so many runs generated C, which the compiler takes time for
  const auto before = set_warning_handler({});
  const std::vector<std::string> passes = pass_names();
  uint64_t refused = 0, failed = 0, compared = 0;
  std::string refusals;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    const fuzz::Program program = fuzz::random_program(seed);
    const fuzz::Outcome eager = fuzz::run(program, {.mode = Mode::eager});
    failed += !eager.error.empty();
    std::vector<CompileOptions> all = {{.mode = Mode::replay},
                                       {.without = {"emit", passes[seed % passes.size()]}},
                                       {.without = {"emit", "memory_plan"}, .verify = Verify::never}};
    if (seed % every == 0) {
      all.push_back({});
      all.push_back({.without = {passes[seed / every % passes.size()]}});
    }
    for (const CompileOptions& options : all) {
      const fuzz::Outcome graph = fuzz::run(program, options);
      refused += graph.error_class == "tandem::TraceError";
      if (graph.error_class == "tandem::TraceError" && std::getenv("TANDEM_FUZZ_REFUSALS"))
        refusals += detail::str(seed, ": ", graph.error, "\n");
      ++compared;
      const std::string difference = fuzz::difference(eager, graph);
      if (difference.empty()) continue;
      const fuzz::Program small = fuzz::minimised(program, options);
      const fuzz::Outcome small_eager = fuzz::run(small, {.mode = Mode::eager});
      std::string text;
      for (const std::string& line : small_eager.text) text += "  " + line + "\n";
      std::string without;
      for (const std::string& name : options.without) without += " " + name;
      FAIL_CHECK("program " << seed << ", " << name_of(options.mode) << ", without" << without << ": "
                            << fuzz::difference(small_eager, fuzz::run(small, options)) << "\n"
                            << text);
    }
  }
  set_warning_handler(before);
  MESSAGE(count << " programs, " << failed << " of them errors eagerly; " << compared << " graph runs, " << refused
                << " refused\n"
                << refusals);
  CHECK(refused * 5 < compared);
}
