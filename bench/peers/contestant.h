// The C++ side of the contestants' protocol (README.md): commands on stdin, one JSON line each on stdout.
// The same as protocol.py: a table of makers, and timing in blocks of about 10 ms.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace peers {

inline constexpr double block_seconds = 0.01;   // steps are timed in blocks about this long
inline constexpr double warm_seconds = 1.0;     // after the first step, before the first measured slice
inline constexpr double settle_seconds = 0.03;  // at the start of each slice

// Shapes that every peer shares.
inline constexpr int64_t batch = 64;
inline constexpr int64_t batches = 8;
inline constexpr double learning_rate = 0.01;
inline constexpr double momentum = 0.9;
inline constexpr int64_t text_batch = 32, text_steps = 64, text_width = 128, vocabulary = 64;
inline constexpr double adam_rate = 0.001;
inline constexpr int64_t gpt_batch = 16, gpt_context = 128, gpt_width = 128, gpt_heads = 4, gpt_layers = 4,
                         gpt_vocabulary = 256;
inline constexpr double gpt_learning_rate = 3e-4;
inline constexpr int64_t gpt2_batch = 8, gpt2_context = 1024, gpt2_width = 768, gpt2_heads = 12, gpt2_layers = 12,
                         gpt2_vocabulary = 50304;  // 50,257, padded to a multiple of 128
inline constexpr int64_t resnet18_batch = 256;
inline constexpr int64_t pointwise_size = 1 << 20;
inline constexpr int pointwise_repeats = 5;
inline constexpr int64_t add_size = 8;
inline constexpr int chain = 1000;

// One workload in one variant, ready to run. What a program needs to keep alive, its closures own.
struct Program {
  std::function<void()> step;
  std::function<double()> value;              // loss or checksum of the last step, for plausibility
  int units = 1;                              // operations in a step where time per operation is wanted
  std::function<void()> until_compiled = {};  // where compilation goes on behind the first steps: waits for its end
};

using Make = std::function<Program()>;
struct Variant {
  std::string name;
  Make make;
};

using Finish = std::function<void()>;  // waits for all the steps so far, where they may return before they are done

class Measured {
 public:
  Measured(const Make& make, Finish finish) : program_(make()), finish_(std::move(finish)) {
    const double start = now();
    program_.step();
    finish_();
    first_step_seconds_ = now() - start;
    if (program_.until_compiled) {
      program_.until_compiled();
      program_.step();
      finish_();
    }
    first_compiled_seconds_ = now() - start;
    first_value_ = program_.value();
  }

  double first_step_seconds() const { return first_step_seconds_; }
  double first_compiled_seconds() const { return first_compiled_seconds_; }

  // Seconds per step, one entry for each block.
  std::vector<double> run_for(double seconds) {
    std::vector<double> blocks;
    const double end = now() + seconds;
    for (;;) {
      const double start = now();
      if (start >= end && !blocks.empty()) return blocks;
      for (int64_t i = 0; i < block_steps_; ++i) program_.step();
      finish_();
      blocks.push_back((now() - start) / double(block_steps_));
      const auto wanted = static_cast<int64_t>(std::llround(block_seconds / blocks.back()));
      block_steps_ = std::max<int64_t>(1, std::min(block_steps_ * 4, wanted));
    }
  }

  std::string slice(double seconds) {
    run_for(settle_seconds);
    std::vector<double> blocks = run_for(seconds);
    std::sort(blocks.begin(), blocks.end());
    const size_t n = blocks.size();
    const double median = n % 2 ? blocks[n / 2] : 0.5 * (blocks[n / 2 - 1] + blocks[n / 2]);
    std::ostringstream out;
    out.precision(9);
    out << "\"step_ms_median\": " << median * 1e3 << ", \"step_ms_min\": " << blocks[0] * 1e3
        << ", \"ns_per_op\": " << median * 1e9 / program_.units
        << ", \"ns_per_op_min\": " << blocks[0] * 1e9 / program_.units << ", \"steps\": " << int64_t(n) * block_steps_
        << ", \"first_step_s\": " << first_step_seconds_ << ", \"first_value\": " << json(first_value_)
        << ", \"value\": " << json(program_.value());
    return out.str();
  }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  static std::string json(double value) {
    if (!std::isfinite(value)) return "null";
    std::ostringstream out;
    out << value;
    return out.str();
  }

  Program program_;
  Finish finish_;
  int64_t block_steps_ = 1;
  double first_step_seconds_ = 0;
  double first_compiled_seconds_ = 0;
  double first_value_ = 0;
};

// workload -> its variants, in the order in which they are shown
using Table = std::vector<std::pair<std::string, std::vector<Variant>>>;

inline double resident_mib() {
  long total = 0, resident = 0;
  if (std::FILE* statm = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(statm, "%ld %ld", &total, &resident) != 2) resident = 0;
    std::fclose(statm);
  }
  return double(resident) * double(sysconf(_SC_PAGESIZE)) / double(1 << 20);
}

// A line of /proc/self/status, in MiB.
inline double status_mib(const std::string& name) {
  double kib = 0;
  if (std::FILE* status = std::fopen("/proc/self/status", "r")) {
    char line[256];
    while (std::fgets(line, sizeof line, status))
      if (std::string(line).rfind(name + ":", 0) == 0) kib = std::atof(line + name.size() + 1);
    std::fclose(status);
  }
  return kib / 1024;
}

// What a workload adds to a process that has the library loaded: the most resident memory in its making and 20 steps,
// less what was resident before.
inline double added_mib(const Make& make) {
  if (std::FILE* peak = std::fopen("/proc/self/clear_refs", "w")) {  // 5: forget the peak so far
    std::fputs("5", peak);
    std::fclose(peak);
  }
  const double before = status_mib("VmRSS");
  const Program program = make();
  for (int i = 0; i < 20; ++i) program.step();
  program.value();
  return status_mib("VmHWM") - before;
}

inline const Make& find(const Table& table, const std::string& workload, const std::string& variant) {
  for (const auto& [name, variants] : table)
    if (name == workload)
      for (const Variant& each : variants)
        if (each.name == variant) return each.make;
  throw std::invalid_argument("no workload " + workload + " in variant " + variant);
}

inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text.substr(0, text.find('\n')).substr(0, 300)) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

inline std::string hello(const std::string& name, const std::string& version, int threads, const Table& table) {
  std::ostringstream out;
  out << "{\"name\": " << quoted(name) << ", \"version\": " << quoted(version) << ", \"threads\": " << threads
      << ", \"resident_mib\": " << resident_mib() << ", \"workloads\": {";
  for (size_t i = 0; i < table.size(); ++i) {
    out << (i ? ", " : "") << quoted(table[i].first) << ": [";
    for (size_t j = 0; j < table[i].second.size(); ++j) out << (j ? ", " : "") << quoted(table[i].second[j].name);
    out << "]";
  }
  out << "}}";
  return out.str();
}

// Answers commands until `quit` or the end of stdin.
inline int serve(
    const std::string& name, const std::string& version, int threads, const Table& table,
    const Finish& finish = [] {}) {
  std::FILE* answers = fdopen(dup(1), "w");
  dup2(2, 1);  // whatever else is printed must not spoil the answers
  std::map<std::pair<std::string, std::string>, std::unique_ptr<Measured>> programs;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string command, workload, variant;
    double seconds = 1;
    words >> command >> workload >> variant >> seconds;
    if (command.empty()) continue;
    if (command == "quit") break;
    std::ostringstream reply;
    reply.precision(9);
    try {
      if (command == "hello") {
        reply << hello(name, version, threads, table);
      } else {
        const Make& make = find(table, workload, variant);
        if (command == "memory") {
          const double added = added_mib(make);
          reply << "{\"workload\": " << quoted(workload) << ", \"variant\": " << quoted(variant)
                << ", \"added_mib\": " << added << "}";
          std::fprintf(answers, "%s\n", reply.str().c_str());
          std::fflush(answers);
          continue;
        }
        reply << "{\"workload\": " << quoted(workload) << ", \"variant\": " << quoted(variant) << ", ";
        auto& measured = programs[{workload, variant}];
        const bool fresh = !measured || command == "prepare" || command == "cold";
        if (fresh) measured = std::make_unique<Measured>(make, finish);
        if (command == "cold") {
          reply << "\"first_step_s\": " << measured->first_step_seconds()
                << ", \"first_compiled_s\": " << measured->first_compiled_seconds() << "}";
        } else {
          if (fresh) measured->run_for(warm_seconds);
          if (command == "prepare")
            reply << "\"first_step_s\": " << measured->first_step_seconds()
                  << ", \"first_compiled_s\": " << measured->first_compiled_seconds()
                  << ", \"resident_mib\": " << resident_mib() << "}";
          else if (command == "run") reply << measured->slice(seconds) << "}";
          else throw std::invalid_argument("unknown command " + command);
        }
      }
    } catch (const std::exception& error) {  // the driver shows it and goes on without this entry
      programs.erase({workload, variant});
      reply.str("");
      reply << "{\"error\": " << quoted(error.what()) << "}";
    }
    std::fprintf(answers, "%s\n", reply.str().c_str());
    std::fflush(answers);
  }
  std::fclose(answers);
  return 0;
}

}  // namespace peers
