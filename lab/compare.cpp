// The ladder: rungs are built and looked at one by one, then timed in turn.
#include "lab/compare.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>

#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "core/threads.h"
#include "graph/native/system_compiler.h"
#include "graph/trace/tracer.h"
#include "kernels/cpu/support/isa.h"
#include "lab/float64.h"
#include "lab/snapshot.h"
#include "lab/statistics.h"

namespace tandem {

namespace lab {

namespace {

using Clock = std::chrono::steady_clock;

/// The cache of kernels on disk is an empty directory of our own while this lives.
class EmptyCache {
 public:
  EmptyCache() : directory_(make_directory()) {
    set("TANDEM_CACHE", directory_.empty() ? "0" : nullptr, previous_switch_);
    set("TANDEM_CACHE_DIR", directory_.empty() ? nullptr : directory_.c_str(), previous_directory_);
    graph::testing::forget_loaded_libraries();
  }
  ~EmptyCache() {
    restore("TANDEM_CACHE", previous_switch_);
    restore("TANDEM_CACHE_DIR", previous_directory_);
    std::error_code ignored;
    if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
    graph::testing::forget_loaded_libraries();
  }
  EmptyCache(const EmptyCache&) = delete;
  EmptyCache& operator=(const EmptyCache&) = delete;

 private:
  static std::string make_directory() {
    std::error_code failed;
    std::string name = (std::filesystem::temp_directory_path(failed) / "tandem-compare-XXXXXX").string();
    return failed || !mkdtemp(name.data()) ? std::string() : name;
  }
  static void set(const char* name, const char* value, std::optional<std::string>& previous) {
    if (const char* old = std::getenv(name)) previous = old;
    if (value) setenv(name, value, 1);
    else unsetenv(name);
  }
  static void restore(const char* name, const std::optional<std::string>& previous) {
    if (previous) setenv(name, previous->c_str(), 1);
    else unsetenv(name);
  }
  std::string directory_;
  std::optional<std::string> previous_switch_, previous_directory_;
};

/// What makes a rung.
struct Way {
  const char* name;
  const char* meaning;
  Mode mode;
  std::vector<std::string> without;
};
const std::vector<Way>& ladder() {
  static const std::vector<Way> ways = {
      {"eager", "op by op, as the function runs", Mode::eager, {}},
      {"replay", "traced once, its ops run one by one", Mode::replay, {}},
      {"unfused", "optimised and memory-planned, no fusion", Mode::compiled, {"fusion", "horizontal"}},
      {"compiled", "all passes: fused into generated kernels", Mode::compiled, {}},
  };
  return ways;
}

uint64_t hash_of(const Tensors& tensors) {  // FNV-1a: any changed bit changes it
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const Tensor& tensor : tensors) {
    NoGrad guard;
    const Tensor plain = tensor.detach().cpu().contiguous();
    const auto* bytes = static_cast<const unsigned char*>(plain.impl()->data);
    for (int64_t i = 0; i < plain.numel() * size_of(plain.dtype()); ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
  }
  return hash;
}

/// The mean of the first floating result.
double loss_of(const Tensors& results) {
  NoGrad guard;
  for (const Tensor& result : results)
    if (is_floating(result.dtype()) && result.numel() > 0) return result.detach().to(float64).mean().item<double>();
  return std::numeric_limits<double>::quiet_NaN();
}

class Ladder {
 public:
  Ladder(const graph::Function& function, const Tensors& arguments, CompareOptions options)
      : function_(function), arguments_(arguments), options_(std::move(options)) {
    options_.where = user_line(options_.where);
    if (options_.steps < 1)
      throw ValueError(detail::str("compare: steps is ", options_.steps, ", must be at least 1"), options_.where);
    for (size_t i = 0; i < arguments_.size(); ++i)
      if (!arguments_[i].defined())
        throw UndefinedError(detail::str("compare: argument ", i, " is an undefined Tensor"), options_.where);
  }

  Comparison run() {
    const WhereScope scope(options_.where);
    learn_state();
    const EmptyCache cache;
    for (const Way& way : ladder()) build(way);
    judge_by_float64();
    follow_losses();
    measure_times();
    snapshot_.restore();
    result_.name = options_.name;
    result_.machine = detail::str(device_, ", ", num_threads(), num_threads() == 1 ? " thread, " : " threads, ",
                                  name_of(current_isa()));
    for (const Tensor& argument : arguments_) result_.arguments.push_back(detail::str(graph::type_of(argument)));
    result_.steps = options_.steps;
    result_.state_bytes = snapshot_.state_bytes();
    return std::move(result_);
  }

  /// Whatever happens, the caller's tensors are as they were.
  void put_back() const { snapshot_.restore(); }

 private:
  struct Running {
    std::unique_ptr<graph::CompiledFunction> compiled;  ///< null: eager
    std::vector<double> seconds, round_medians;
    std::vector<uint64_t> hashes;
  };

  /// What the step touches: looked up in a trace at the start, and in another one step later, for the first step
  /// finds no gradients and may find other things absent too.
  void learn_state() {
    snapshot_.add(arguments_);
    first_ = graph::run_trace(arguments_, function_, options_.where);
    snapshot_.add(first_);
    function_(arguments_);
    snapshot_.add(graph::run_trace(arguments_, function_, options_.where));
    snapshot_.restore();
    for (const Tensor& argument : arguments_) device_ = argument.device();
    for (const Leaf& leaf : first_.graph.leaves)
      if (leaf.kind == LeafKind::state && !leaf.tensor.impl()->is_scalar) device_ = leaf.tensor.device();
  }

  Tensors step(Running& running) {
    if (!running.compiled) return function_(arguments_);
    return running.compiled->call(arguments_, "", function_);
  }

  std::unique_ptr<graph::CompiledFunction> make(const Way& way) const {
    if (way.mode == Mode::eager) return nullptr;
    CompileOptions options = options_.compile;
    options.mode = way.mode;
    options.without.insert(options.without.end(), way.without.begin(), way.without.end());
    return std::make_unique<graph::CompiledFunction>(std::move(options), options_.where);
  }

  static OneOffCost cost_of(const Stats& stats) {
    return {stats.trace_seconds, stats.pass_seconds, stats.emit_seconds, stats.compiler_seconds};
  }

  /// Calls beyond the first: the second is verified, which may turn constants into run-time scalars; by the third
  /// all has settled.
  void settle(Running& running) {
    for (int call = 0; call < 3; ++call) step(running);
  }

  void build(const Way& way) {
    Rung rung;
    rung.name = way.name;
    rung.meaning = way.meaning;
    Running running;
    snapshot_.restore();
    const int64_t before = memory_stats(device_).in_use;
    running.compiled = make(way);
    settle(running);
    reset_peak_memory(device_);
    step(running);
    step(running);
    synchronize(device_);
    rung.peak_bytes = std::max<int64_t>(0, memory_stats(device_).peak - before);

    if (!running.compiled) {
      for (const Node& node : first_.graph.nodes) rung.kernels += node.op->kind != OpKind::view;
      rung.tier = "eager kernels";
    } else {
      const Stats& stats = running.compiled->stats();
      rung.kernels = stats.kernels;
      rung.fused_kernels = stats.fused_kernels;
      rung.arena_bytes = stats.peak_bytes;
      rung.lower_bound_bytes = stats.lower_bound_bytes;
      rung.tier = stats.tier;
      rung.note = stats.note;
      rung.cold = cost_of(stats);
      snapshot_.restore();
      graph::testing::forget_loaded_libraries();  // the next finds them on disk, as another process would
      Running again;
      again.compiled = make(way);
      settle(again);
      rung.warm = cost_of(again.compiled->stats());
      rung.explain = running.compiled->explain();
      rung.source = running.compiled->source();
      for (const Stage& stage : running.compiled->stages())
        rung.stages.push_back({stage.name, static_cast<int>(stage.graph.size()), stage.graph.to_string()});
    }
    result_.rungs.push_back(std::move(rung));
    running_.push_back(std::move(running));
  }

  void judge_by_float64() {
    constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
    snapshot_.restore();
    Float64Results reference;
    try {
      reference = run_in_float64(first_.graph, arguments_);
    } catch (const Error& error) { result_.float64_note = error.message(); }
    for (size_t i = 0; i < running_.size(); ++i) {
      Rung& rung = result_.rungs[i];
      if (!result_.float64_note.empty()) {
        rung.error = rung.gradient_error = unknown;
        continue;
      }
      snapshot_.restore();
      const Tensors results = step(running_[i]);
      for (size_t k = 0; k < results.size(); ++k)
        rung.error = std::max(rung.error, relative_error(results[k], reference.outputs[k]));
      for (size_t k = 0; k < reference.gradients.size(); ++k) {
        const GradientWrite& write = first_.graph.gradients[k];
        const Tensor& owner = write.argument >= 0 ? arguments_[static_cast<size_t>(write.argument)] : write.tensor;
        const Tensor& gradient = owner.impl()->grad;
        if (reference.gradients[k].defined() && gradient.defined())
          rung.gradient_error = std::max(rung.gradient_error, relative_error(gradient, reference.gradients[k]));
      }
    }
  }

  void follow_losses() {
    const int steps = std::min(options_.steps, std::max(1, options_.curve_steps));
    for (size_t i = 0; i < running_.size(); ++i) {
      Rung& rung = result_.rungs[i];
      const Rung& eager = result_.rungs[0];
      snapshot_.restore();
      for (int k = 0; k < steps; ++k) {
        const Tensors results = step(running_[i]);
        rung.losses.push_back(loss_of(results));
        running_[i].hashes.push_back(hash_of(results));
        const size_t at = static_cast<size_t>(k);
        if (running_[i].hashes[at] == running_[0].hashes[at]) continue;
        if (rung.first_difference < 0) rung.first_difference = k;
        const double scale = std::max(std::abs(eager.losses[at]), std::numeric_limits<double>::min());
        rung.largest_difference =
            std::max(rung.largest_difference, std::abs(rung.losses[at] - eager.losses[at]) / scale);
      }
    }
  }

  /// Blocks of steps of each rung in turn, so that what else the machine does falls on all of them alike. Each
  /// block starts from the same state, after a step that isn't counted.
  void measure_times() {
    const int block = std::clamp(options_.steps / 10, 1, 10);
    const int rounds = (options_.steps + block - 1) / block;
    for (int round = 0; round < rounds; ++round) {
      const int count = std::min(block, options_.steps - round * block);
      for (size_t k = 0; k < running_.size(); ++k) {
        Running& running = running_[(k + static_cast<size_t>(round)) % running_.size()];
        snapshot_.restore();
        step(running);
        synchronize(device_);
        std::vector<double> seconds;
        for (int i = 0; i < count; ++i) {
          const auto begin = Clock::now();
          step(running);
          synchronize(device_);
          seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
        }
        running.round_medians.push_back(quantile(seconds, 0.5));
        running.seconds.insert(running.seconds.end(), seconds.begin(), seconds.end());
      }
    }
    for (size_t i = 0; i < running_.size(); ++i) {
      result_.rungs[i].step_seconds = spread(running_[i].seconds);
      result_.rungs[i].to_eager = ratio_of_medians(running_[0].round_medians, running_[i].round_medians);
    }
  }

  const graph::Function& function_;
  const Tensors& arguments_;
  CompareOptions options_;
  Device device_;
  Snapshot snapshot_;
  graph::Traced first_;
  std::vector<Running> running_;
  Comparison result_;
};

}  // namespace

Comparison compare(const graph::Function& function, const Tensors& arguments, CompareOptions options) {
  if (interceptor()) throw TraceError("compare: can't be traced; call it outside of compiled functions", options.where);
  Ladder ladder(function, arguments, std::move(options));
  try {
    return ladder.run();
  } catch (...) {
    ladder.put_back();
    throw;
  }
}

}  // namespace lab

const Rung& Comparison::rung(const std::string& wanted, Where where) const {
  std::string all;
  for (const Rung& each : rungs) {
    if (each.name == wanted) return each;
    all += (all.empty() ? "" : ", ") + each.name;
  }
  throw ValueError("Comparison::rung: no rung is called \"" + wanted + "\"; there are " + all, where);
}

double Comparison::break_even_steps(const std::string& wanted) const {
  const Rung& graph = rung(wanted);
  return lab::break_even(graph.cold.total(), rungs.front().step_seconds.median, graph.step_seconds.median);
}

double Comparison::warm_break_even_steps(const std::string& wanted) const {
  const Rung& graph = rung(wanted);
  return lab::break_even(graph.warm.total(), rungs.front().step_seconds.median, graph.step_seconds.median);
}

}  // namespace tandem
