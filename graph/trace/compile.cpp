// Specialisations: which trace serves a call, when it is made, checked and given up.
#include "graph/trace/compile.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <sstream>

#include "autograd/anomaly.h"
#include "core/autocast.h"
#include "core/dispatch.h"
#include "graph/passes/pipeline.h"
#include "graph/run/program.h"
#include "graph/trace/signature.h"
#include "graph/trace/tracer.h"

namespace tandem {

Mode parse_mode(const std::string& name) {
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled})
    if (name == name_of(mode)) return mode;
  throw ValueError("no mode is called \"" + name + "\"; there are eager, replay and compiled", Where::current());
}

std::string_view name_of(Mode mode) {
  constexpr std::string_view names[] = {"eager", "replay", "compiled"};
  return names[static_cast<int>(mode)];
}

namespace graph {

namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Specialisation {
  explicit Specialisation(Signature signature) : signature(std::move(signature)) {}

  Signature signature;
  std::vector<bool> differentiable;  ///< of each result: traced from something that requires a gradient
  Graph traced;
  std::unique_ptr<Program> program;
  int64_t calls = 0;
  uint64_t last_used = 0;
  bool reads_numbers = false;  ///< some constant has changed between traces: trace at each call

  /// Results are plain values; those that eagerly would have a tape say so when backward() is called on them.
  Tensors run(const Tensors& given) const {
    Tensors results = program->run(given);
    for (size_t i = 0; i < results.size(); ++i) results[i].impl()->from_graph = differentiable[i];
    return results;
  }
};

std::string describe_node(const Graph& graph, size_t n) {
  if (n >= graph.nodes.size()) return "the end of the function";
  return detail::str(graph.nodes[n].op->name, " at ", to_string(graph.nodes[n].where));
}

/// The first place where two traces differ in more than numbers and in which tensors they read; empty if none.
std::string structural_difference(const Graph& a, const Graph& b) {
  for (size_t n = 0; n < std::max(a.nodes.size(), b.nodes.size()); ++n) {
    const bool same = n < a.nodes.size() && n < b.nodes.size() && a.nodes[n].op == b.nodes[n].op &&
                      a.nodes[n].inputs == b.nodes[n].inputs && a.nodes[n].outputs == b.nodes[n].outputs &&
                      a.nodes[n].attributes == b.nodes[n].attributes;
    if (!same) return detail::str("then: ", describe_node(a, n), "; now: ", describe_node(b, n));
  }
  if (a.leaves.size() != b.leaves.size())
    return detail::str("it read ", a.leaves.size(), " tensors and numbers from outside, now ", b.leaves.size());
  for (size_t i = 0; i < a.leaves.size(); ++i) {
    const Leaf &x = a.leaves[i], &y = b.leaves[i];
    const ValueType &tx = a.type(x.value), &ty = b.type(y.value);
    if (x.kind != y.kind || !(tx == ty))
      return detail::str("then: ", name_of(x.kind), " ", tx, " read at ", to_string(x.where),
                         "; now: ", name_of(y.kind), " ", ty, " read at ", to_string(y.where));
  }
  if (a.outputs != b.outputs || a.draws != b.draws || a.writes.size() != b.writes.size() ||
      a.gradients.size() != b.gradients.size())
    return "its results, assigns or gradients are others";
  for (size_t i = 0; i < a.writes.size(); ++i)
    if (a.writes[i].leaf != b.writes[i].leaf || a.writes[i].value != b.writes[i].value)
      return detail::str("another assign at ", to_string(b.writes[i].where));
  for (size_t i = 0; i < a.gradients.size(); ++i)
    if (a.gradients[i].value != b.gradients[i].value || a.gradients[i].argument != b.gradients[i].argument)
      return "a gradient is another value";
  return {};
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return std::memcmp(a.impl()->data, b.impl()->data, static_cast<size_t>(a.numel() * size_of(a.dtype()))) == 0;
}

}  // namespace

struct CompiledFunction::State {
  CompileOptions options;
  Where where;
  Stats stats;
  std::vector<Stage> stages;
  FusionReport fusion;
  std::vector<std::unique_ptr<Specialisation>> specialisations;
  Specialisation* newest = nullptr;
  uint64_t clock = 0;

  /// The program for a trace: optimised, planned and emitted as far as the mode and the machine allow.
  std::unique_ptr<Program> make_program(const Graph& traced) {
    const auto begin = std::chrono::steady_clock::now();
    std::unique_ptr<Program> program;
    stats.note.clear();
    if (options.mode == Mode::replay) {
      stages = {{"traced", traced}};
      program = Program::build(traced, {.planned = false}, where, nullptr);
      stats.tier = "eager kernels, one by one";
      stats.passes.clear();
      fusion = {};
    } else {
      Optimised optimised = optimise(traced, options.without, where);
      const bool planned = plan_options(options.without, where).memory_plan;
      std::string reason;
      try {
        program = Program::build(optimised.graph, {.planned = planned}, where, &reason);
      } catch (const CompileError& error) { reason = error.message(); }
      if (!program) {  // the tier below: the planned graph on eager kernels
        std::vector<std::string> without = options.without;
        without.push_back("emit");
        optimised = optimise(traced, without, where);
        program = Program::build(optimised.graph, {.planned = planned}, where, nullptr);
        stats.note = reason;
      } else {
        stats.note = program->stats().note;
      }
      const bool cuda = program->source().find("__global__") != std::string::npos;
      stats.tier = !program->stats().fused_kernels ? "eager kernels, planned" : cuda ? "generated CUDA" : "generated C";
      stages = std::move(optimised.stages);
      stats.passes = std::move(optimised.times);
      fusion = std::move(optimised.fusion);
    }
    const ProgramStats& made = program->stats();
    stats.kernels = made.kernels;
    stats.fused_kernels = made.fused_kernels;
    stats.peak_bytes = made.arena_bytes;
    stats.lower_bound_bytes = made.lower_bound_bytes;
    stats.emit_seconds += made.emit_seconds;
    stats.compiler_seconds += made.compiler_seconds;
    stats.compiler_cached = made.compiler_cached;
    stats.pass_seconds += seconds_since(begin) - made.emit_seconds - made.compiler_seconds;
    return program;
  }

  Specialisation* find(const Call& call) {
    if (newest && newest->signature.holds(call)) return newest;
    for (const auto& each : specialisations)
      if (each->signature.holds(call)) return newest = each.get();
    return nullptr;
  }

  Specialisation* specialise(const Call& call, const Function& function) {
    Retrace retrace;
    if (newest) retrace.reason = newest->signature.describe(call);
    if (static_cast<int>(specialisations.size()) >= options.max_specialisations) {
      if (options.on_limit == OnLimit::eager) return nullptr;
      if (options.on_limit == OnLimit::error)
        throw RetraceError(
            detail::str("compiled function: this call needs specialisation ", specialisations.size() + 1,
                        ", the limit is ", options.max_specialisations, ". The newest differs in ", retrace.reason,
                        ". Pad or bucket that argument, raise max_specialisations, or set on_limit to OnLimit::evict "
                        "or OnLimit::eager"),
            where);
      const auto oldest = std::min_element(specialisations.begin(), specialisations.end(),
                                           [](const auto& a, const auto& b) { return a->last_used < b->last_used; });
      specialisations.erase(oldest);
    }
    const auto begin = std::chrono::steady_clock::now();
    auto made = std::make_unique<Specialisation>(Signature(call));
    Traced traced = run_trace(
        call.arguments,
        [&](const Tensors& in) {
          Tensors results = function(in);
          for (const Tensor& result : results) made->differentiable.push_back(result.requires_grad());
          return results;
        },
        where);
    stats.trace_seconds += seconds_since(begin);
    made->traced = std::move(traced.graph);
    made->signature.reads(std::move(traced.flags), std::move(traced.gradients));
    made->program = make_program(made->traced);
    ++stats.traces;
    if (newest) {
      retrace.seconds = seconds_since(begin);
      stats.retraces.push_back(std::move(retrace));
    }
    specialisations.push_back(std::move(made));
    return newest = specialisations.back().get();
  }

  /// Traces again and compares: changed numbers are promoted, other tensors take the place of the old ones,
  /// another structure is an error.
  void check(Specialisation& specialisation, const Tensors& arguments, const Function& function) {
    const Traced now = run_trace(arguments, function, where);
    Graph& then = specialisation.traced;
    if (const std::string difference = structural_difference(then, now.graph); !difference.empty())
      throw TraceError(
          detail::str(
              "compiled function: it does something else than when it was traced, though its arguments are alike: ",
              difference,
              ". A C++ condition or loop has changed under the graph: pass what it depends on as an argument, write it "
              "with where(), or use {.mode = Mode::eager}"),
          where);
    bool promoted = false, rebuild = false;
    for (size_t i = 0; i < then.leaves.size(); ++i) {
      Leaf& leaf = then.leaves[i];
      const Leaf& fresh = now.graph.leaves[i];
      if (leaf.kind == LeafKind::scalar && !leaf.run_time &&
          std::memcmp(&leaf.number, &fresh.number, sizeof(double)) != 0) {
        leaf.run_time = true;
        promoted = true;
        ++stats.promoted;
      } else if (leaf.kind == LeafKind::constant && !same_bytes(leaf.tensor, fresh.tensor)) {
        if (!specialisation.reads_numbers) ++stats.promoted;
        specialisation.reads_numbers = true;
      }
    }
    for (size_t i = 0; i < then.gradients.size(); ++i)
      if (then.gradients[i].tensor.impl() != now.graph.gradients[i].tensor.impl()) {
        then.gradients[i].tensor = now.graph.gradients[i].tensor;
        rebuild = true;
      }
    if (promoted || rebuild) {
      specialisation.reads_numbers |= promoted;
      specialisation.program = make_program(then);
    }
    for (size_t i = 0; i < then.leaves.size(); ++i) {
      Leaf& leaf = then.leaves[i];
      const Leaf& fresh = now.graph.leaves[i];
      if (leaf.kind == LeafKind::scalar && leaf.run_time)
        specialisation.program->set_number(static_cast<int>(i), fresh.number);
      else if (leaf.tensor.impl() != fresh.tensor.impl() && leaf.kind != LeafKind::scalar) {
        leaf.tensor = fresh.tensor;
        specialisation.program->bind(static_cast<int>(i), fresh.tensor);
      }
    }
    specialisation.signature.reads(now.flags, now.gradients);
  }
};

void describe_number(std::string& key, double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g;", value);
  key += text;
}
void describe_string(std::string& key, const std::string& value) {
  key += detail::str('"', value, "\" (", value.size(), ");");
}

CompiledFunction::CompiledFunction(CompileOptions options, Where where) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
  state_->where = user_line(where);
  if (state_->options.max_specialisations < 1)
    throw ValueError(
        detail::str("compile: max_specialisations is ", state_->options.max_specialisations, ", must be at least 1"),
        state_->where);
  plan_options(state_->options.without, state_->where);  // whether all names exist
}
CompiledFunction::~CompiledFunction() = default;
CompiledFunction::CompiledFunction(CompiledFunction&&) noexcept = default;
CompiledFunction& CompiledFunction::operator=(CompiledFunction&&) noexcept = default;

const CompileOptions& CompiledFunction::options() const { return state_->options; }
const Stats& CompiledFunction::stats() const { return state_->stats; }
const std::vector<Stage>& CompiledFunction::stages() const { return state_->stages; }

Tensors CompiledFunction::call(const Tensors& arguments, const std::string& static_key, const Function& function) {
  State& state = *state_;
  if (interceptor()) return function(arguments);          // inside another trace it is part of that graph
  if (AnomalyMode::active()) return function(arguments);  // which needs values at each op
  for (size_t i = 0; i < arguments.size(); ++i)
    if (!arguments[i].defined())
      throw UndefinedError(detail::str("compiled function: argument ", i, " is an undefined Tensor"), state.where);
  ++state.stats.calls;
  const Call call{arguments, static_key};
  Specialisation* specialisation = state.find(call);
  if (!specialisation) {
    specialisation = state.specialise(call, function);
    if (!specialisation) return function(arguments);  // over the limit, and eager was chosen
    specialisation->last_used = ++state.clock;
    specialisation->calls = 1;
    return specialisation->run(arguments);
  }
  specialisation->last_used = ++state.clock;
  const int64_t calls = ++specialisation->calls;
  const bool due = state.options.verify == Verify::every ||
                   (state.options.verify == Verify::powers_of_two && (calls & (calls - 1)) == 0);
  if (specialisation->reads_numbers || due) {
    if (due) ++state.stats.verifications;
    state.check(*specialisation, arguments, function);
  }
  return specialisation->run(arguments);
}

std::string CompiledFunction::source() const {
  return state_->newest ? state_->newest->program->source() : std::string();
}

std::string CompiledFunction::explain() const {
  const State& state = *state_;
  const Stats& s = state.stats;
  std::ostringstream out;
  out << "compiled at " << to_string(state.where) << ", mode " << name_of(state.options.mode) << ": " << s.calls
      << " calls, " << s.traces << " traces, " << s.verifications << " verifications, " << s.promoted
      << " constants promoted\n";
  if (!state.newest) return out.str() + "not called yet\n";
  out << "runs as " << s.tier << ": " << s.kernels << " kernels, " << s.fused_kernels << " of them generated\n";
  if (!s.note.empty()) out << "note: " << s.note << "\n";
  out << "seconds: trace " << s.trace_seconds << ", passes " << s.pass_seconds << ", emit " << s.emit_seconds
      << ", compiler " << s.compiler_seconds << (s.compiler_cached ? " (found in the cache)" : "") << "\n";
  out << "memory: arena " << s.peak_bytes << " bytes, "
      << (s.lower_bound_bytes ? static_cast<double>(s.peak_bytes) / static_cast<double>(s.lower_bound_bytes) : 1.0)
      << " of the lower bound " << s.lower_bound_bytes << "\n";
  out << "passes:\n";
  for (const PassTime& pass : s.passes)
    out << "  " << pass.name << ": " << pass.nodes_before << " -> " << pass.nodes_after << " nodes, "
        << pass.seconds * 1e3 << " ms\n";
  out << "steps:\n";
  std::istringstream steps(state.newest->program->describe());
  for (std::string line; std::getline(steps, line);) out << "  " << line << "\n";
  out << "fused:\n";
  for (const std::string& line : state.fusion.kernels) out << "  " << line << "\n";
  out << "refused:\n";
  for (const std::string& line : state.fusion.refused) out << "  " << line << "\n";
  out << "retraces:\n";
  for (const Retrace& retrace : s.retraces) out << "  " << retrace.reason << " (" << retrace.seconds * 1e3 << " ms)\n";
  return out.str();
}

}  // namespace graph
}  // namespace tandem
