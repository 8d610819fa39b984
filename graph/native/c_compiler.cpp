// Finds the system compiler, and knows its flags.
#include "graph/native/c_compiler.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <optional>

#include "graph/native/disk_cache.h"
#include "graph/native/shared_object.h"

namespace tandem::graph {

namespace {

using detail::str;

// One rounding per operation of the source, as in the eager kernels; -pipe: no files in between.
std::vector<std::string> flags_for(Isa isa) {
  std::vector<std::string> flags;
  const auto add = [&](std::initializer_list<const char*> more) {
    flags.insert(flags.end(), more.begin(), more.end());
  };
  add({"-O3", "-std=gnu11", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"});
  add({"-fopenmp-simd", "-w", "-pipe"});
#ifdef __x86_64__
  // g++ 12 spills to MMX registers, and leaves none of them to the x87 code of the caller: long doubles become NaN.
  add({"-mno-mmx"});
#endif
  if (isa >= Isa::avx2) add({"-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2"});
  if (isa >= Isa::avx512) add({"-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"});
  return flags;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool is_program(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && access(path.c_str(), X_OK) == 0;
}

std::string find_program(const std::string& name, const std::string& directories) {
  if (name.find('/') != std::string::npos) return is_program(name) ? name : "";
  for (size_t begin = 0; begin <= directories.size();) {
    const size_t end = std::min(directories.find(':', begin), directories.size());
    std::string path = directories.substr(begin, end - begin);
    path = (path.empty() ? "." : path) + "/" + name;
    if (is_program(path)) return path;
    begin = end + 1;
  }
  return "";
}

// Size and time of change: another compiler at the same path is another compiler.
std::string stamp_of(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return "";
  return str(info.st_size, " ", info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec);
}

FoundCompiler look_for_compiler(const std::string& cc, const std::string& path_variable) {
  FoundCompiler found{{}, cc, path_variable, ""};
  SystemCompilerStatus& status = found.status;
  const std::vector<std::string> words = split_arguments(cc);
  const std::string name = words.empty() ? "cc" : words[0];
  if (!words.empty()) status.arguments.assign(words.begin() + 1, words.end());
  const std::string directories = path_variable.empty() ? "/usr/local/bin:/usr/bin:/bin" : path_variable;
  status.compiler = find_program(name, directories);
  if (status.compiler.empty()) {
    const std::string whose =
        words.empty() ? "no C compiler: cc is not in PATH (" + directories + ")"
        : name.find('/') != std::string::npos
            ? "no C compiler: CC is '" + cc + "', and " + name + " is not a program"
            : "no C compiler: CC is '" + cc + "', and " + name + " is not in PATH (" + directories + ")";
    status.problem = whose + "; " + kInstallCompiler;
    return found;
  }
  found.stamp = stamp_of(status.compiler);
  std::vector<std::string> command = {status.compiler};
  command.insert(command.end(), status.arguments.begin(), status.arguments.end());
  command.push_back("--version");
  const ProcessResult result = run_process(command, {{"LC_ALL", "C"}}, 10);
  if (!result.succeeded) {
    const std::string origin = words.empty() ? "" : " (from CC)";
    status.problem = str("the C compiler", origin, " can't be used: ", command_line(command), ": ",
                         result.problem.empty() ? result.outcome : result.problem, "; ", kInstallCompiler);
    if (!result.problem.empty()) found.stamp.clear();  // it could not be started now: ask again
  } else {
    status.version = result.output.substr(0, result.output.find('\n'));
  }
  return found;
}

std::mutex compiler_mutex;
std::optional<FoundCompiler> known_compiler;

// A child of fork finds it free, whatever other threads were at.
[[maybe_unused]] const int registered =
    pthread_atfork([] { compiler_mutex.lock(); }, [] { compiler_mutex.unlock(); }, [] { compiler_mutex.unlock(); });

}  // namespace

FoundCompiler current_compiler() {
  const std::string cc = environment("CC"), path = environment("PATH");
  const std::lock_guard lock(compiler_mutex);
  const bool known = known_compiler && known_compiler->cc == cc && known_compiler->path_variable == path &&
                     !known_compiler->stamp.empty() &&
                     stamp_of(known_compiler->status.compiler) == known_compiler->stamp;
  if (!known) known_compiler = look_for_compiler(cc, path);
  return *known_compiler;
}

void condemn(const FoundCompiler& compiler, const std::string& problem) {
  const std::lock_guard lock(compiler_mutex);
  if (known_compiler && known_compiler->stamp == compiler.stamp && known_compiler->cc == compiler.cc)
    known_compiler->status.problem = problem;
}

namespace {
std::vector<std::string> command_of(const SystemCompilerStatus& compiler, Isa isa,
                                    std::initializer_list<std::vector<std::string>> more) {
  std::vector<std::string> command = {compiler.compiler};
  const auto add = [&](const std::vector<std::string>& words) {
    command.insert(command.end(), words.begin(), words.end());
  };
  add(compiler.arguments);
  add(flags_for(isa));
  for (const std::vector<std::string>& words : more) add(words);
  return command;
}

// libm only if something in the source needs it; a function that nobody defines is said at once.
const std::vector<std::string> kLibraries = {"-Wl,-z,defs", "-Wl,--as-needed", "-lm"};
}  // namespace

std::vector<std::string> command_for(const SystemCompilerStatus& compiler, Isa isa, const std::string& source,
                                     const std::string& output) {
  return command_of(compiler, isa, {{"-shared", "-o", output, source}, kLibraries});
}

std::vector<std::string> command_for_part(const SystemCompilerStatus& compiler, Isa isa, const std::string& source,
                                          const std::string& object) {
  return command_of(compiler, isa, {{"-c", "-o", object, source}});
}

std::vector<std::string> command_to_link(const SystemCompilerStatus& compiler, Isa isa,
                                         const std::vector<std::string>& objects, const std::string& output) {
  return command_of(compiler, isa, {{"-shared", "-o", output}, objects, kLibraries});
}

ProcessResult run_compiler(const std::vector<std::string>& command, const std::string& directory) {
  return std::move(run_compilers({command}, directory)[0]);
}

std::vector<ProcessResult> run_compilers(const std::vector<std::vector<std::string>>& commands,
                                         const std::string& directory) {
  // Their own temporary files go where the result goes: /tmp may be full or not writable. Messages in English.
  return run_processes(commands, {{"LC_ALL", "C"}, {"TMPDIR", directory}}, compile_time_limit());
}

bool can_build_anything(const SystemCompilerStatus& compiler, Isa isa, const std::string& directory) {
  const Workplace work(directory + "/probe");
  if (!work.problem().empty()) return false;
  const std::string input = work.path() + "/probe.c", output = work.path() + "/probe.so";
  std::string library;
  return write_file(input, "int tandem_probe(void) { return 0; }\n").empty() &&
         run_compiler(command_for(compiler, isa, input, output), work.path()).succeeded &&
         read_own_file(output, library).empty() && library_damage(library).empty();
}

std::atomic<double>& compile_time_limit() {
  static std::atomic<double> seconds{60};
  return seconds;
}

SystemCompilerStatus system_compiler() { return current_compiler().status; }

}  // namespace tandem::graph
