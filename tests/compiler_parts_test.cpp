// Large generated sources are built in parts, as if they were built whole.
#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "graph/native/system_compiler.h"
#include "kernel_cache.h"

using namespace tandem;
using namespace kernel_cache;
using tandem::detail::str;

TEST_CASE("load_c_source: a large source is built in parts, and the same is found again") {
  const Fresh fresh;
  if (!system_compiler().problem.empty()) return;
  struct Parts {
    Parts(size_t bytes, size_t most) { testing::set_compiler_parts(bytes, most); }
    ~Parts() { testing::set_compiler_parts(0, 0); }
  };
  const auto source_of = [](const std::vector<std::string>& functions, std::vector<size_t>& cuts) {
    std::string source = "static inline float twice(float x) { return x + x; }\n";
    for (const std::string& each : functions) {
      cuts.push_back(source.size());
      source += each;
    }
    return source;
  };
  std::vector<std::string> functions;
  for (int i = 0; i < 5; ++i) functions.push_back(str("float f", i, "(float x) { return twice(x) + ", i, "; }\n"));
  std::vector<size_t> cuts;
  const std::string source = source_of(functions, cuts);
  // A compiler that notes what it is asked for.
  const std::string log = fresh.folder + "/log";
  const Variable cc(
      "CC", fresh.script("noting", str("echo \"$*\" >> ", log, "\nexec ", system_compiler().compiler, " \"$@\"")));
  const auto commands = [&](const std::string& word) {
    size_t n = 0;
    std::istringstream lines(text_of(log));
    for (std::string line; std::getline(lines, line);) n += line.find(word) != std::string::npos;
    fs::remove(log);
    return n;
  };
  std::string key;
  for (const size_t most : {1, 2, 3, 8}) {
    CAPTURE(most);
    const Parts parts(1, most);
    testing::forget_loaded_libraries();
    fs::remove_all(fresh.cache);
    commands("");
    const auto library = load_c_source(source, Where::current(), nullptr, {"f0", "f4"}, cuts);
    for (int i = 0; i < 5; ++i) CHECK(call(library, 1, str("f", i).c_str()) == 2 + i);
    CHECK(commands(" -c ") == (most == 1 ? 0 : std::min<size_t>(most, 5)));
    if (key.empty()) key = fs::path(file_with(fresh.cache, ".so")).filename();
    CHECK(fs::path(file_with(fresh.cache, ".so")).filename() == key);  // whatever it was built of
    CHECK(text_of(file_with(fresh.cache, ".c")) == source);
    CHECK(temporaries(fresh.cache) == 0);
    testing::forget_loaded_libraries();
    CHECK(load_c_source(source, Where::current(), nullptr, {}, cuts)->from_cache);
    testing::forget_loaded_libraries();
    CHECK(call(find_c_source(source), 1, "f2") == 4);
  }
  CHECK(find_c_source(source + "\n") == nullptr);
  // Small ones are not worth it.
  const Parts parts(source.size(), 8);
  testing::forget_loaded_libraries();
  fs::remove_all(fresh.cache);
  commands("");
  CHECK(call(load_c_source(source, Where::current(), nullptr, {}, cuts), 1, "f4") == 6);
  CHECK(commands(" -c ") == 0);
}

TEST_CASE("load_c_source: an error in a part is that of the whole source, in its lines") {
  const Fresh fresh;
  if (!system_compiler().problem.empty()) return;
  std::vector<size_t> cuts;
  std::string source = "typedef float number;\n";
  for (const char* text : {"number f(void) { return 1; }\n", "number g(void) { return oops; }\n"}) {
    cuts.push_back(source.size());
    source += text;
  }
  std::vector<std::string> messages;
  for (const size_t most : {1, 2}) {
    testing::set_compiler_parts(1, most);
    try {
      load_c_source(source, Where::current(), nullptr, {}, cuts);
    } catch (const CompileError& error) { messages.push_back(error.message()); }
    testing::set_compiler_parts(0, 0);
  }
  REQUIRE(messages.size() == 2);
  for (const std::string& message : messages) {
    has(message, "oops");
    has(message, ".c:3:");
    has(message, "The source is kept in " + fresh.cache);
  }
}
