// What takes text or files from elsewhere, each as a function of bytes: libFuzzer's programs (scripts/fuzz) and
// tests/fuzz_test.cpp call them. Whatever the bytes are, a target returns: errors of the engine are the right answer.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::fuzz {

struct Target {
  const char* name;
  void (*run)(std::string_view bytes);
  std::vector<std::string> (*seeds)();  ///< small inputs that are right, to start from
};

std::span<const Target> targets();

}  // namespace tandem::fuzz
