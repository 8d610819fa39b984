// Runs other programs to their end: no shell, no terminal, their words captured, a limit on their time.
#pragma once

#include <atomic>
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

/// Several side by side, each with that limit; results in the order of the commands.
std::vector<ProcessResult> run_processes(const std::vector<std::vector<std::string>>& commands,
                                         const std::vector<std::pair<std::string, std::string>>& environment,
                                         double seconds_limit);

/// Thrown where a thread is asked to stop while it waits for a program, which is killed.
struct Stopped {};
/// While this lives, the calling thread waits for programs only until `stop` is set, and throws Stopped then.
class StopScope {
 public:
  explicit StopScope(const std::atomic<bool>& stop);
  ~StopScope();
  StopScope(const StopScope&) = delete;
  StopScope& operator=(const StopScope&) = delete;
};

/// Arguments as one would type them into a shell.
std::string command_line(const std::vector<std::string>& arguments);

/// Splits at blanks as a shell does, with '', "" and \, but without expansions: for $CC.
std::vector<std::string> split_arguments(const std::string& text);

}  // namespace tandem::graph
