// The tandem command.
#include <cstdio>

#include "core/error.h"
#include "tools/tandem/commands.h"

int main(int argc, char** argv) {
  CLI::App app{"Looks at Tandem: its ops, what this machine offers, and what the three modes cost and gain."};
  app.require_subcommand(1);
  tandem::tools::add_ops(app);
  tandem::tools::add_compare(app);
  tandem::tools::add_info(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) { return app.exit(error); } catch (const tandem::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
