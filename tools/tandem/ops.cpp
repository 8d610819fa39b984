// tandem ops: every op, and what there is of it.
#include <cstdio>
#include <memory>

#include "lab/ops_table.h"
#include "tools/tandem/commands.h"

namespace tandem::tools {

void add_ops(CLI::App& app) {
  CLI::App* command = app.add_subcommand("ops", "lists all ops: gradient, devices, fusion, ONNX name");
  const auto markdown = std::make_shared<bool>(false);
  command->add_flag("--markdown", *markdown, "as docs/ops.md");
  command->callback([markdown] { std::fputs((*markdown ? lab::ops_markdown() : lab::ops_text()).c_str(), stdout); });
}

}  // namespace tandem::tools
