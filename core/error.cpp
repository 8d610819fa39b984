// Error text and assertion failures.
#include "core/error.h"

#include <cstdio>
#include <cstdlib>

namespace tandem {

namespace {
std::string describe(const char* class_name, const std::string& message, const Where& where) {
  std::string text = std::string("tandem::") + class_name + ": " + message;
  if (where.line()) text += "\n  at " + to_string(where);
  return text;
}
}  // namespace

std::string to_string(const Where& where) {
  const std::string file = where.file_name();
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(where.line());
}

Error::Error(const char* class_name, const char* code, const std::string& message, Where where)
    : std::runtime_error(describe(class_name, message, where)), code_(code), message_(message), where_(where) {}

void detail::rethrow_named(const char* name, Where where) {
  try {
    throw;
  } catch (const KernelError& error) {
    if (error.where().line()) throw;
    throw KernelError(str(name, ": ", error.message()), where);
  } catch (const OutOfMemoryError& error) {
    if (error.where().line()) throw;
    throw OutOfMemoryError(str(name, ": ", error.message()), where);
  }
}

void detail::assertion_failed(const char* condition, const char* file, int line, const std::string& why) {
  std::fprintf(stderr, "tandem: internal error: %s (%s) at %s:%d\nThis is a bug in Tandem, not in your program.\n",
               condition, why.c_str(), file, line);
  std::abort();
}

}  // namespace tandem
