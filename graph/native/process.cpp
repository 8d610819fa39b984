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
#include <deque>

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

/// A program that runs: stopped, and waited for, on every way out.
class Running {
 public:
  Running(const std::vector<std::string>& arguments, const std::vector<std::string>& variables) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
      result.problem = std::string("pipe: ") + std::strerror(errno);
      return;
    }
    output_ = Descriptor(ends[0]);
    Descriptor written(ends[1]);
    fcntl(output_.get(), F_SETFL, O_NONBLOCK);
    SpawnSettings settings(written.get());
    const int failure = posix_spawn(&id_, arguments[0].c_str(), &settings.files, &settings.attributes,
                                    pointers_to(arguments).data(), pointers_to(variables).data());
    written.close();
    if (failure) result.problem = arguments[0] + ": " + std::strerror(failure);
    is_over_ = failure != 0;
    is_open_ = !failure;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() {
    if (!is_over_) kill_and_wait();
  }

  ProcessResult result;

  bool is_over() const { return is_over_; }
  /// Where it writes to; -1 once nobody can any more.
  int output() const { return is_open_ ? output_.get() : -1; }

  /// Takes what it has written, and its status if it has ended.
  void look() {
    if (is_open_) is_open_ = drain(output_.get(), result.output);
    int status = 0;
    const Waited state = graph::look(id_, status);
    if (state == Waited::running) return;
    is_over_ = true;
    if (is_open_) drain(output_.get(), result.output);
    if (state == Waited::unknown) {
      result.succeeded = true;  // as far as anybody can tell; the caller looks for what it was to make
      result.outcome = "exit status unknown";
    } else if (WIFEXITED(status)) {
      result.succeeded = WEXITSTATUS(status) == 0;
      result.outcome = "exit status " + std::to_string(WEXITSTATUS(status));
    } else {
      const int signal = WTERMSIG(status);
      result.outcome = "killed by signal " + std::to_string(signal) + " (" + strsignal(signal) + ")";
    }
  }
  void stop_late(double seconds_limit) {
    if (is_open_) drain(output_.get(), result.output);
    kill_and_wait();
    char text[64];
    std::snprintf(text, sizeof text, "stopped after %g s", seconds_limit);
    result.outcome = text;
  }

 private:
  void kill_and_wait() {
    int status = 0;
    kill(-id_, SIGKILL);
    while (waitpid(id_, &status, 0) < 0 && errno == EINTR) {}
    is_over_ = true;
  }

  pid_t id_ = 0;
  Descriptor output_;
  bool is_over_ = true, is_open_ = false;
};

thread_local const std::atomic<bool>* asked_to_stop = nullptr;

}  // namespace

StopScope::StopScope(const std::atomic<bool>& stop) { asked_to_stop = &stop; }
StopScope::~StopScope() { asked_to_stop = nullptr; }

std::vector<ProcessResult> run_processes(const std::vector<std::vector<std::string>>& commands,
                                         const std::vector<std::pair<std::string, std::string>>& environment,
                                         double seconds_limit) {
  const std::vector<std::string> variables = merged_environment(environment);
  const auto deadline = Clock::now() + std::chrono::duration<double>(seconds_limit);
  std::deque<Running> all;
  for (const std::vector<std::string>& command : commands) all.emplace_back(command, variables);
  std::vector<pollfd> events;
  for (;;) {
    if (asked_to_stop && asked_to_stop->load(std::memory_order_relaxed)) throw Stopped();
    events.clear();
    bool runs = false;
    for (const Running& each : all) {
      if (each.is_over()) continue;
      runs = true;
      if (each.output() >= 0) events.push_back({each.output(), POLLIN, 0});
    }
    if (!runs || Clock::now() >= deadline) break;
    // Not until the end of the pipes alone: a server left behind by the compiler may hold one open for ever.
    if (events.empty()) usleep(100);
    else poll(events.data(), events.size(), 20);
    for (Running& each : all)
      if (!each.is_over()) each.look();
  }
  std::vector<ProcessResult> results;
  for (Running& each : all) {
    if (!each.is_over()) each.stop_late(seconds_limit);
    results.push_back(std::move(each.result));
  }
  return results;
}

ProcessResult run_process(const std::vector<std::string>& arguments,
                          const std::vector<std::pair<std::string, std::string>>& environment, double seconds_limit) {
  return std::move(run_processes({arguments}, environment, seconds_limit)[0]);
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
