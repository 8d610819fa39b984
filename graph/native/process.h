// Runs another program to its end: no shell, no terminal, its words captured, a limit on its time.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tandem::graph {

struct ProcessResult {
  std::string problem;  ///< why it could not be started; empty if it ran
  bool succeeded = false;
  std::string outcome;  ///< "exit status 1", "killed by signal 11 (Segmentation fault)", "stopped after 60 s"
  std::string output;   ///< stdout and stderr together, as far as 256 KiB
};

/// `arguments[0]` is the program's path. Each of `environment` (name, value) replaces or joins this process's
/// own.
ProcessResult run_process(const std::vector<std::string>& arguments,
                          const std::vector<std::pair<std::string, std::string>>& environment, double seconds_limit);

/// Arguments as one would type them into a shell.
std::string command_line(const std::vector<std::string>& arguments);

/// Splits at blanks as a shell does, with '', "" and \, but without expansions: for $CC.
std::vector<std::string> split_arguments(const std::string& text);

}  // namespace tandem::graph
