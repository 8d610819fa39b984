// The subcommands of `tandem`: each adds itself to the command line, and runs when it was chosen.
#pragma once

#include <CLI/CLI.hpp>

namespace tandem::tools {

void add_ops(CLI::App& app);
void add_compare(CLI::App& app);
void add_info(CLI::App& app);

}  // namespace tandem::tools
