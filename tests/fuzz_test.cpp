// The fuzzers' targets on their seeds, on these cut short or with a byte changed, and on inputs that broke them once.
#include <doctest/doctest.h>

#include <cstring>
#include <random>

#include "fuzz/targets.h"

using namespace tandem;

TEST_CASE("fuzz targets: seeds, their beginnings, and changed bytes") {
  std::mt19937_64 draw(7);
  int64_t runs = 0;
  for (const fuzz::Target& target : fuzz::targets()) {
    CAPTURE(target.name);
    for (const std::string& seed : target.seeds()) {
      target.run(seed);
      for (size_t length = 0; length < seed.size(); length += 1 + seed.size() / 24)
        target.run(seed.substr(0, length)), ++runs;
      for (int i = 0; i < 40; ++i, ++runs) {
        std::string changed = seed;
        changed[draw() % changed.size()] = static_cast<char>(draw());
        target.run(changed);
      }
    }
  }
  CHECK(runs > 1000);
}

TEST_CASE("fuzz targets: what broke them once") {
  const std::pair<const char*, const char*> inputs[] = {
      {"expression", ""},
  };
  for (const auto& [name, input] : inputs)
    for (const fuzz::Target& target : fuzz::targets())
      if (!std::strcmp(target.name, name)) target.run(input);
}
