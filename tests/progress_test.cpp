// The progress bar, on a terminal and elsewhere.
#include "lab/progress.h"
#include "support.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "files.h"
#include "raises.h"
#include "tandem.h"

using namespace tandem;

namespace {

struct Captured {
  std::FILE* file = std::tmpfile();
  ~Captured() { std::fclose(file); }
  std::string text() const {
    std::string result(static_cast<size_t>(std::ftell(file)), '\0');
    std::rewind(file);
    const size_t read = std::fread(result.data(), 1, result.size(), file);
    CHECK(read == result.size());
    return result;
  }
};

}  // namespace

TEST_CASE("Progress: away from a terminal, a plain last line with the metrics") {
  Captured out;
  {
    Progress progress(3, "epoch 0", {.output = out.file});
    for (int i = 0; i < 3; ++i) progress.update({{"loss", full({}, 0.5 - i * 0.125)}, {"lr", 1e-3}});
    CHECK(progress.done() == 3);
  }
  const std::string text = out.text();
  CHECK(contains(text, "epoch 0  3/3  loss 0.25  lr 0.001  "));
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK(!contains(text, "\x1b"));
}

TEST_CASE("Progress: a loop that is left early still shows where it was") {
  Captured out;
  {
    Progress progress(10, "fit", {.output = out.file});
    progress.update({}, 4);
  }
  CHECK(contains(out.text(), "fit  4/10 (40%)"));
}

TEST_CASE("Progress: a bar rewrites its line and ends it once") {
  Captured out;
  {
    Progress progress(2, "fit", {.output = out.file, .style = ProgressStyle::bar});
    progress.update({{"loss", 1.0}});
    progress.update({{"loss", 0.5}});
  }
  const std::string text = out.text();
  CHECK(text.front() == '\r');
  CHECK(contains(text, "1/2"));
  CHECK(contains(text, "2/2"));
  CHECK(contains(text, "loss 0.5"));
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK(text.back() == '\n');
}

TEST_CASE("Progress: a tensor is read only when it is shown") {
  Captured out;
  Progress progress(1000000, "", {.output = out.file, .style = ProgressStyle::bar});
  const Tensor many = ones({2});                                   // item() of this would throw
  progress.update({{"loss", 1.0}});                                // shown, being the first
  for (int i = 0; i < 10; ++i) progress.update({{"loss", many}});  // within a tenth of a second: not shown
  Progress silent(1, "", {.output = out.file, .style = ProgressStyle::silent});
  silent.update({{"loss", many}});
}

TEST_CASE("Progress: the log has a line for each update, whatever is shown") {
  Captured out;
  for (const ProgressStyle style : {ProgressStyle::lines, ProgressStyle::silent}) {
    std::ostringstream log;
    Progress progress(3, "", {.output = out.file, .style = style, .log = &log});
    progress.update({{"loss", full({}, 0.1)}, {"lr", 1e-3}});
    progress.update({{"loss", full({}, 1.0 / 3, {.dtype = float64})}});
    CHECK(log.str().empty());  // reading a tensor would hold up a GPU
    progress.update({{"loss", 2.0}});
    CHECK(log.str() == "0.100000001 0.001\n0.333333333\n2\n");
  }
  std::ostringstream broken;
  broken.setstate(std::ios::failbit);
  Progress progress(1, "", {.output = out.file, .log = &broken});
  RAISES(FileError, progress.update({{"loss", 1.0}}), "the log can't be written to");
}
