// Runs an example on the CPU eagerly, then on cuda(0) eagerly, replayed and compiled, and compares what the runs write:
//
//   example_runs BOUND PROGRAM [ARGUMENT...]
//
// RUN in an argument is replaced by a name of each run, for files of its own, and NONE by nothing. What follows --losses is such a file, and is read.
// Its numbers and those of the standard output may differ by BOUND, relative to the CPU's or to 1, whichever is greater; all else
// must be the same. The compiled run must leave kernels in TANDEM_CACHE_DIR: it may not fall back on a lower tier in silence.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <vector>

namespace {

struct Run {
  const char *device, *mode;
  std::string name = std::string(device) + "." + mode;
  std::string output = {};
};

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string replaced(const std::string& text, const std::string& pattern, const std::string& by) {
  return std::regex_replace(text, std::regex(pattern), by);
}

/// What the program writes, losses first, without what it says of the run itself: its device, its mode, its times.
bool execute(Run& run, const std::string& program, const std::vector<std::string>& arguments) {
  std::string command = program, losses;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string argument = arguments[i] == "NONE" ? "" : replaced(arguments[i], "RUN", run.name);
    command += " '" + argument + "'";
    if (i > 0 && arguments[i - 1] == "--losses") losses = argument;
  }
  const std::string output = replaced(program, ".*/", "") + "." + run.name + ".output";
  command += std::string(" --device ") + run.device + " --mode " + run.mode + " >" + output;
  if (!losses.empty()) std::remove(losses.c_str());
  if (std::system(command.c_str()) != 0) return std::printf("failed: %s\n", command.c_str()), false;
  if (!losses.empty()) run.output = read(losses);
  if (!losses.empty() && run.output.empty()) return std::printf("no losses: %s\n", command.c_str()), false;
  run.output += "\n" + read(output);
  run.output = replaced(run.output, replaced(run.name, "\\.", "\\."), "RUN");
  run.output = replaced(run.output, "\\b(cpu|cuda(:0)?|eager|replay|compiled)\\b", "");
  run.output = replaced(run.output, ".*graphs traced.*\n", "");
  return true;
}

bool same(const Run& wanted, const Run& got, double bound) {
  const char *a = wanted.output.c_str(), *b = got.output.c_str();
  double furthest = 0;
  int numbers = 0;
  while (*a && *b) {
    char *after_a, *after_b;
    const double x = std::strtod(a, &after_a), y = std::strtod(b, &after_b);
    if (after_a != a && after_b != b) {
      const double off = std::fabs(x - y) / std::fmax(1, std::fabs(x));
      furthest = off > furthest || std::isnan(off) ? off : furthest;
      ++numbers;
      a = after_a, b = after_b;
    } else if (*a++ != *b++) {
      break;
    }
  }
  std::printf("%s: %d numbers, at most %.1e from those of %s (%.1e is allowed)\n", got.name.c_str(), numbers, furthest,
              wanted.name.c_str(), bound);
  if (*a || *b)
    std::printf("from here they differ:\n--- %s\n%s\n--- %s\n%s\n", wanted.name.c_str(), a, got.name.c_str(), b);
  return numbers > 0 && furthest <= bound && !*a && !*b;
}

bool has_kernels() {
  const char* const folder = std::getenv("TANDEM_CACHE_DIR");
  if (folder && std::filesystem::exists(folder))
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".cubin") return true;
  std::printf("the compiled run has left no kernels in TANDEM_CACHE_DIR\n");
  return false;
}

}  // namespace

int main(int count, char** values) {
  if (count < 3) return 2;
  const std::vector<std::string> arguments(values + 3, values + count);
  Run wanted{"cpu", "eager"};
  if (!execute(wanted, values[2], arguments)) return 1;
  bool all = true;
  for (const char* mode : {"eager", "replay", "compiled"}) {
    Run got{"cuda", mode};
    all = execute(got, values[2], arguments) && same(wanted, got, std::atof(values[1])) && all;
  }
  return all && has_kernels() ? 0 : 1;
}
