// The tables of docs/coming-from-*.md: what stands in their right column exists. (Their programs are run: tests/docs.cmake. The names in
// the left column are checked against the installed libraries by bench/peers/names.py.)
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

template <class F> void for_each_match(const std::string& text, const std::regex& pattern, F&& f) {
  for (std::sregex_iterator match(text.begin(), text.end(), pattern), end; match != end; ++match) f(*match);
}

/// Every word of the public headers, comments left out.
std::set<std::string> names_in_headers(const fs::path& source) {
  const std::regex comment("//[^\n]*"), word("[A-Za-z_][A-Za-z0-9_]*");
  std::set<std::string> names;
  for (const char* folder : {"core", "autograd", "graph", "nn", "data", "formats", "lab"}) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(source / folder)) {
      const fs::path extension = entry.path().extension();
      if (extension != ".h" && extension != ".def") continue;
      std::istringstream lines(text_of(entry.path()));
      for (std::string line; std::getline(lines, line);)
        for_each_match(line.substr(0, line.find("//")), word,
                       [&](const std::smatch& match) { names.insert(match.str()); });
    }
  }
  return names;
}

}  // namespace

TEST_CASE("coming from elsewhere: every function, class and option that the tables name exists") {
  const fs::path source = TANDEM_SOURCE_DIR;
  const std::set<std::string> names = names_in_headers(source);
  const std::set<std::string> readers = {"guard"};  // the reader's own names
  const std::regex code("`([^`]*)`");
  // What is qualified, called, or set by name.
  const std::regex used("(?:[a-z]+::)+([A-Za-z_][A-Za-z0-9_]*)|([A-Za-z_][A-Za-z0-9_]*)[({<]|\\.([a-z_0-9]+) =");
  int pages = 0, checked = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(source / "docs")) {
    const std::string page = entry.path().filename().string();
    if (!page.starts_with("coming-from-")) continue;
    ++pages;
    std::istringstream lines(text_of(entry.path()));
    for (std::string line; std::getline(lines, line);) {
      const size_t column = line.find(" | ");
      if (!line.starts_with("|") || column == std::string::npos) continue;
      for_each_match(line.substr(column + 3), code, [&](const std::smatch& span) {
        for_each_match(span[1].str(), used, [&](const std::smatch& match) {
          const std::string name = match[1].matched   ? match[1].str()
                                   : match[2].matched ? match[2].str()
                                                      : match[3].str();
          ++checked;
          CHECK_MESSAGE((names.count(name) || readers.count(name)),
                        page << " names " << name << ", which no header has: " << span.str());
        });
      });
    }
  }
  CHECK(pages >= 3);
  CHECK(checked > 400);
}
