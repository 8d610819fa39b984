// libFuzzer's entry: TANDEM_FUZZ_TARGET names the target. Its seeds are written to the first folder that is given.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/memory.h"
#include "fuzz/targets.h"

using namespace tandem;

namespace {
const fuzz::Target& chosen() {
  const char* const name = std::getenv("TANDEM_FUZZ_TARGET");
  for (const fuzz::Target& target : fuzz::targets())
    if (name && !std::strcmp(name, target.name)) return target;
  std::fprintf(stderr, "TANDEM_FUZZ_TARGET must be one of:");
  for (const fuzz::Target& target : fuzz::targets()) std::fprintf(stderr, " %s", target.name);
  std::fprintf(stderr, "\n");
  std::exit(2);
}
}  // namespace

extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  set_memory_limit(int64_t{512} << 20);
  for (int i = 1; i < *count; ++i) {
    if ((*arguments)[i][0] == '-') continue;
    int number = 0;
    for (const std::string& seed : chosen().seeds()) {
      const std::string path = std::string((*arguments)[i]) + "/seed" + std::to_string(number++);
      if (std::FILE* const file = std::fopen(path.c_str(), "wb")) {
        std::fwrite(seed.data(), 1, seed.size(), file);
        std::fclose(file);
      }
    }
    break;
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fuzz::Target& target = chosen();
  target.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
