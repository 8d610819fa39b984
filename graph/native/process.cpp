// Child processes by posix_spawn, each in a process group of its own, so that a limit stops all it started.
#include "graph/native/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/descriptor.h"

extern char** environ;

namespace tandem::graph {

namespace {

using tandem::detail::Descriptor;
using Clock = std::chrono::steady_clock;
constexpr size_t kOutputLimit = 256 * 1024;

std::vector<std::string> merged_environment(const std::vector<std::pair<std::string, std::string>>& changes) {
  std::vector<std::string> result;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string text = *entry;
    bool replaced = false;
    for (const auto& [name, value] : changes) replaced |= text.compare(0, name.size() + 1, name + "=") == 0;
    if (!replaced) result.push_back(text);
  }
  for (const auto& [name, value] : changes) result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// posix_spawn's two bags of settings, freed on every way out.
struct SpawnSettings {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;

  explicit SpawnSettings(int output) {
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, output, 1);
    posix_spawn_file_actions_adddup2(&files, output, 2);
    posix_spawnattr_init(&attributes);
    // A compiler's parts rely on default signals; the thread that calls may have blocked or ignored some.
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    for (const int signal : {SIGPIPE, SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGALRM}) sigaddset(&defaults, signal);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  }
};

// Takes what the pipe holds now. False once nobody can write to it any more.
bool drain(int pipe, std::string& output) {
  char buffer[8192];
  for (;;) {
    const ssize_t got = read(pipe, buffer, sizeof buffer);
    if (got > 0) {
      output.append(buffer, std::min<size_t>(got, kOutputLimit - std::min(kOutputLimit, output.size())));
    } else if (got == 0) {
      return false;
    } else if (errno != EINTR) {
      return errno == EAGAIN;
    }
  }
}

enum class Waited { running, ended, unknown };

Waited look(pid_t child, int& status) {
  pid_t got;
  do got = waitpid(child, &status, WNOHANG);
  while (got < 0 && errno == EINTR);
  if (got == 0) return Waited::running;
  // ECHILD: the program ignores SIGCHLD, or reaps all children itself.
  return got == child ? Waited::ended : Waited::unknown;
}

}  // namespace

ProcessResult run_process(const std::vector<std::string>& arguments,
                          const std::vector<std::pair<std::string, std::string>>& environment, double seconds_limit) {
  ProcessResult result;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    result.problem = std::string("pipe: ") + std::strerror(errno);
    return result;
  }
  const Descriptor output(ends[0]);
  Descriptor written(ends[1]);
  fcntl(output.get(), F_SETFL, O_NONBLOCK);
  const std::vector<std::string> variables = merged_environment(environment);
  struct Child {  // stopped, and waited for, on every way out
    pid_t id = 0;
    bool is_gone = true;
    void stop(int& status) {
      kill(-id, SIGKILL);
      while (waitpid(id, &status, 0) < 0 && errno == EINTR) {}
      is_gone = true;
    }
    ~Child() {
      int status = 0;
      if (!is_gone) stop(status);
    }
  } child;
  {
    SpawnSettings settings(written.get());
    const int failure = posix_spawn(&child.id, arguments[0].c_str(), &settings.files, &settings.attributes,
                                    pointers_to(arguments).data(), pointers_to(variables).data());
    written.close();
    if (failure) {
      result.problem = arguments[0] + ": " + std::strerror(failure);
      return result;
    }
    child.is_gone = false;
  }

  const auto deadline = Clock::now() + std::chrono::duration<double>(seconds_limit);
  int status = 0;
  bool open = true;
  Waited state = Waited::running;
  while (state == Waited::running && Clock::now() < deadline) {
    if (open) {
      // Not until the end of the pipe alone: a server left behind by the compiler may hold it open for ever.
      pollfd event{output.get(), POLLIN, 0};
      poll(&event, 1, 20);
      open = drain(output.get(), result.output);
    } else {
      usleep(100);
    }
    state = look(child.id, status);
    child.is_gone = state != Waited::running;
  }
  if (open) drain(output.get(), result.output);

  if (state == Waited::running) {
    child.stop(status);
    char text[64];
    std::snprintf(text, sizeof text, "stopped after %g s", seconds_limit);
    result.outcome = text;
  } else if (state == Waited::unknown) {
    result.succeeded = true;  // as far as anybody can tell; the caller looks for what it was to make
    result.outcome = "exit status unknown";
  } else if (WIFEXITED(status)) {
    result.succeeded = WEXITSTATUS(status) == 0;
    result.outcome = "exit status " + std::to_string(WEXITSTATUS(status));
  } else {
    const int signal = WTERMSIG(status);
    result.outcome = "killed by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
  }
  return result;
}

std::string command_line(const std::vector<std::string>& arguments) {
  std::string line;
  for (const std::string& argument : arguments) {
    if (!line.empty()) line += ' ';
    const bool plain =
        !argument.empty() &&
        argument.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%") ==
            std::string::npos;
    if (plain) {
      line += argument;
      continue;
    }
    line += '\'';
    for (const char c : argument) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

std::vector<std::string> split_arguments(const std::string& text) {
  std::vector<std::string> parts;
  bool inside = false;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (!quote && (c == ' ' || c == '\t' || c == '\n')) {
      inside = false;
      continue;
    }
    if (!inside) parts.emplace_back();
    inside = true;
    if (quote ? c == quote : (c == '\'' || c == '"')) {
      quote = quote ? 0 : c;
    } else if (c == '\\' && quote != '\'' && i + 1 < text.size()) {
      parts.back() += text[++i];
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

}  // namespace tandem::graph
