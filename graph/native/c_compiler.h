// The system's C compiler as system_compiler.cpp uses it: where it is, how it is called, whether it works.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "graph/native/process.h"
#include "graph/native/system_compiler.h"
#include "kernels/cpu/support/isa.h"

namespace tandem::graph {

constexpr const char* kInstallCompiler = "install a C compiler (Debian: apt-get install gcc libc6-dev) or set CC";

struct FoundCompiler {
  SystemCompilerStatus status;
  std::string cc, path_variable;  ///< what it was looked for with
  std::string stamp;              ///< size and time of change: another file at that path is another compiler
};

/// The compiler of now; asks it for its version only when something changed.
FoundCompiler current_compiler();
/// A compiler that answers but can't build the smallest library is as good as none, and isn't asked again.
void condemn(const FoundCompiler& compiler, const std::string& problem);

/// The command that builds the C file `source` as a shared library `output`.
std::vector<std::string> command_for(const SystemCompilerStatus& compiler, Isa isa, const std::string& source,
                                     const std::string& output);
/// The commands that build it in parts: one file of it, and the library of what came of them.
std::vector<std::string> command_for_part(const SystemCompilerStatus& compiler, Isa isa, const std::string& source,
                                          const std::string& object);
std::vector<std::string> command_to_link(const SystemCompilerStatus& compiler, Isa isa,
                                         const std::vector<std::string>& objects, const std::string& output);
/// Runs it, within the time limit; its temporary files go to `directory`.
ProcessResult run_compiler(const std::vector<std::string>& command, const std::string& directory);
/// The same for several at once.
std::vector<ProcessResult> run_compilers(const std::vector<std::vector<std::string>>& commands,
                                         const std::string& directory);
/// Whether it builds an empty function there: tells a refused source from a compiler or a place that is no
/// use.
bool can_build_anything(const SystemCompilerStatus& compiler, Isa isa, const std::string& directory);

std::atomic<double>& compile_time_limit();  ///< seconds

}  // namespace tandem::graph
