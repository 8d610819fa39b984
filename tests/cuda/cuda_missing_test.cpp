// docs/cuda.md names the ops that have no CUDA kernel: all of them, and no other.
#include <doctest/doctest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "core/op.h"

TEST_CASE("docs/cuda.md lists the ops without a CUDA kernel") {
  std::ifstream file(TANDEM_SOURCE_DIR "/docs/cuda.md");
  std::stringstream page;
  page << file.rdbuf();
  const std::string text = page.str(), opening = "\n```missing\n";
  const size_t begin = text.find(opening) + opening.size();
  REQUIRE(begin > opening.size());
  std::istringstream words(text.substr(begin, text.find("\n```", begin) - begin));
  std::set<std::string> listed, missing;
  for (std::string name; words >> name;) listed.insert(name);
  for (const tandem::Op* op : tandem::op_table().all())
    if (op->kind != tandem::OpKind::view && !op->user && !tandem::kernel_for(*op, {tandem::DeviceKind::cuda}))
      missing.insert(op->name);
  for (const std::string& name : missing)
    CHECK_MESSAGE(listed.count(name), name << " has no CUDA kernel, and docs/cuda.md doesn't say so");
  for (const std::string& name : listed)
    CHECK_MESSAGE(missing.count(name), name << " has a CUDA kernel, or doesn't exist: docs/cuda.md lists it");
}
