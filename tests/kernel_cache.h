// What tests of the system compiler share: an empty kernel cache, sources, and what is found where.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>

#include "files.h"
#include "graph/native/system_compiler.h"

namespace kernel_cache {

using namespace tandem::graph;
namespace fs = std::filesystem;
using file_tests::Variable;

// An empty cache, no library in memory, and the compiler that the system has.
struct Fresh {
  std::string folder = [] {
    std::string pattern = (fs::temp_directory_path() / "tandem-test-XXXXXX").string();
    return std::string(mkdtemp(pattern.data()));
  }();
  std::string cache = folder + "/cache";
  Variable directory{"TANDEM_CACHE_DIR", cache}, on{"TANDEM_CACHE", std::nullopt}, cc{"CC", std::nullopt};
  Variable limit{"TANDEM_CACHE_LIMIT", std::nullopt};

  Fresh() { testing::forget_loaded_libraries(); }
  ~Fresh() {
    testing::forget_loaded_libraries();
    testing::set_compile_time_limit(60);
    fs::remove_all(folder);
  }
  // A program for CC.
  std::string script(const std::string& name, const std::string& body) const {
    const std::string path = folder + "/" + name;
    std::ofstream(path) << "#!/bin/sh\n" << body << "\n";
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }
};

inline std::string adds(int n) { return "float add(float x) { return x + " + std::to_string(n) + "; }\n"; }

inline float call(const std::shared_ptr<KernelLibrary>& library, float x, const char* name = "add") {
  REQUIRE(library);
  void* address = library->symbol(name);
  REQUIRE(address);
  return reinterpret_cast<float (*)(float)>(address)(x);
}

inline std::string file_with(const std::string& directory, const std::string& ending) {
  std::string found;
  for (const auto& entry : fs::directory_iterator(directory))
    if (entry.path().string().ends_with(ending)) found = entry.path().string();
  REQUIRE(found != "");
  return found;
}

inline std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

inline bool has(const std::string& text, const std::string& part) {
  INFO(text);
  INFO("should hold: " << part);
  const bool found = text.find(part) != std::string::npos;
  CHECK(found);
  return found;
}

inline int temporaries(const std::string& directory) {
  int n = 0;
  for (const auto& entry : fs::directory_iterator(directory))
    n += entry.path().string().find(".tmp-") != std::string::npos;
  return n;
}

inline int count(const std::string& directory, const std::string& ending) {
  int n = 0;
  for (const auto& entry : fs::directory_iterator(directory)) n += entry.path().string().ends_with(ending);
  return n;
}

}  // namespace kernel_cache
