// Warnings.
#include "core/warning.h"

#include <cstdio>
#include <mutex>
#include <utility>

namespace tandem {

namespace {
struct Warnings {
  std::mutex mutex;
  WarningHandler handler = [](const std::string& text) { std::fprintf(stderr, "tandem: warning: %s\n", text.c_str()); };
};
Warnings& warnings() {
  static Warnings* const all = new Warnings;
  return *all;
}
}  // namespace

WarningHandler set_warning_handler(WarningHandler handler) {
  const std::lock_guard lock(warnings().mutex);
  return std::exchange(warnings().handler, std::move(handler));
}

void warn(const std::string& text) {
  WarningHandler handler;
  {
    const std::lock_guard lock(warnings().mutex);
    handler = warnings().handler;
  }
  if (handler) handler(text);
}

}  // namespace tandem
