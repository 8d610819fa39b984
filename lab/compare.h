// compare(): one function run eagerly, replayed, compiled without fusion and compiled, side by side: what each way
// costs, gains and computes.
#pragma once

#include <functional>
#include <iosfwd>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "../graph/trace/compile.h"

namespace tandem {

struct CompareOptions {
  int steps = 100;              ///< steps timed on each rung
  int curve_steps = 50;         ///< steps of the loss curves; at most `steps` of them are run
  std::string name = "step";    ///< what the report calls the function
  CompileOptions compile = {};  ///< for the graph rungs; its mode is not looked at
  Where where = Where::current();
};

/// Seconds, over the steps that were timed.
struct Spread {
  double median = 0, lower_quartile = 0, upper_quartile = 0, least = 0;
  int count = 0;
};

/// A ratio of medians and the interval that holds 95% of its bootstrap replicas (whole rounds of the interleaved
/// measurement are drawn with replacement: Efron 1979).
struct Ratio {
  double value = 1, low = 1, high = 1;
};

/// Seconds spent once, before the first result.
struct OneOffCost {
  double trace = 0, passes = 0, emit = 0, compiler = 0;
  double total() const { return trace + passes + emit + compiler; }
};

struct StageText {
  std::string name;  ///< the pass
  int nodes = 0;
  std::string text;  ///< the graph after it
};

/// One way to run the function.
struct Rung {
  std::string name;     ///< "eager", "replay", "unfused", "compiled"
  std::string meaning;  ///< the same in a few words
  Spread step_seconds;
  Ratio to_eager;             ///< step time over eager's: below 1 is faster
  int64_t kernels = 0;        ///< launches of one step
  int64_t fused_kernels = 0;  ///< of these, generated ones
  OneOffCost cold;            ///< with nothing in the cache of kernels
  OneOffCost warm;            ///< with the kernels found on disk, as in a second run of the program
  int64_t peak_bytes = 0;     ///< most bytes in use during a step, beyond state and arguments
  int64_t arena_bytes = 0, lower_bound_bytes = 0;  ///< of the memory plan
  /// Largest difference of a first step's results from the same step in float64, over the largest number there;
  /// NaN where float64 couldn't be run (Comparison::float64_note says why).
  double error = 0;
  double gradient_error = 0;      ///< the same over all gradients that the step leaves behind; 0 if there are none
  std::vector<double> losses;     ///< the first floating result of each step (its mean) from the same start
  int first_difference = -1;      ///< the first step, from 0, whose results differ from eager's in any bit; -1: none
  double largest_difference = 0;  ///< between this loss curve and eager's, relative
  std::string tier, note;         ///< what it ran on, and why no better
  std::string explain;            ///< of the graph rungs
  std::string source;             ///< generated code
  std::vector<StageText> stages;
};

/// What compare() found. Printed as a table; written as JSON or as a page.
struct Comparison {
  std::string name;
  std::string machine;                 ///< processor, threads, instruction set
  std::vector<std::string> arguments;  ///< "float32[32, 128]"
  int steps = 0;
  int64_t state_bytes = 0;  ///< parameters, moments and what else the function reads or writes beside its arguments
  std::string float64_note;
  std::vector<Rung> rungs;  ///< eager first

  /// ValueError if there is none of that name.
  const Rung& rung(const std::string& name, Where where = Where::current()) const;
  /// Steps after which the rung, its one-off cost included, has taken less time than eager; infinity if it is no
  /// faster. The other counts the cost of a run that finds its kernels on disk.
  double break_even_steps(const std::string& name = "compiled") const;
  double warm_break_even_steps(const std::string& name = "compiled") const;

  std::string to_string() const;  ///< the table
  std::string to_json() const;
  std::string to_html() const;  ///< one page with pictures that needs no network
  /// FileError if it can't be written.
  void write_json(const std::string& path, Where where = Where::current()) const;
  void write_html(const std::string& path, Where where = Where::current()) const;
};
std::ostream& operator<<(std::ostream& out, const Comparison& comparison);

/// Several comparisons in one file: an array, and a page with a section for each.
void write_json(const std::string& path, std::span<const Comparison> comparisons, Where where = Where::current());
void write_html(const std::string& path, std::span<const Comparison> comparisons, Where where = Where::current());

namespace lab {

/// one_off / (eager - graph): when a cost paid once has come in again; infinity if graph >= eager.
double break_even(double one_off, double eager_seconds, double graph_seconds);

/// The part of compare() that doesn't depend on the function's C++ type.
Comparison compare(const graph::Function& function, const Tensors& arguments, CompareOptions options);

template <class F> F& plain_function(F& function) { return function; }
template <class F> F& plain_function(Compiled<F>& compiled) { return compiled.function(); }

}  // namespace lab

/// Runs `step(inputs...)` on every rung of the ladder, in turn, from the same state, and reports. Whatever the step
/// changes outside (parameters, moments, gradients, the random generator) is put back before each measurement and at the
/// end. `step` is any function that compile() takes.
///
///     std::cout << compare(step, {.steps = 100}, images, labels);
template <class F, class... Args> Comparison compare(F&& step, CompareOptions options, const Args&... inputs) {
  auto& function = lab::plain_function(step);
  Tensors tensors;
  std::string key;  // what is static stays as it is
  [[maybe_unused]] graph::Collected collected{tensors, key};
  (graph::for_each_part(inputs, collected), ...);
  return lab::compare([&](const Tensors& in) { return graph::call_with(function, in, nullptr, inputs...); }, tensors,
                      std::move(options));
}

}  // namespace tandem
