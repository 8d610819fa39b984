// Programs of specialisations: made, compiled beside the calls, put in each other's place.
#include "graph/trace/programs.h"

#include <algorithm>
#include <chrono>

#include "core/warning.h"
#include "graph/passes/partition.h"
#include "graph/passes/pipeline.h"
#include "graph/run/program.h"

namespace tandem::graph {

namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// The planned graph on eager kernels: what runs where there is no code.
std::shared_ptr<Program> program_below(const Graph& traced, const CompileOptions& options, Where where,
                                       Optimised& optimised) {
  std::vector<std::string> without = options.without;
  without.push_back("emit");
  optimised = optimise(traced, without, where);
  return Program::build(optimised.graph, plan_options(options.without, where), where, nullptr);
}

/// How many leaves the function has: those of the cotangents, which its program alone lacks, are the last ones.
size_t leaves_of(const Specialisation& of) {
  const std::vector<Leaf>& leaves = of.traced.leaves;
  size_t count = leaves.size();
  while (count && leaves[count - 1].kind == LeafKind::argument && leaves[count - 1].argument >= of.parts.arguments)
    --count;
  return count;
}

}  // namespace

Tensors Specialisation::run(const Tensors& given) const {
  Tensors results = program->run(given);
  if (gradient) attach(gradient, traced.leaves, given, results);
  return results;
}

std::string Specialisation::plan() const {
  return program->plan().to_string() + (backward() ? "backward:\n" + backward()->plan().to_string() : std::string());
}

std::string Specialisation::source() const {
  const Program *function = program.get(), *of_results = backward();
  if (upgrade && !upgrade->lost()) upgrade->programs(function, of_results);
  return function->source() + (of_results ? of_results->source() : std::string());
}

struct Programs::Built {
  std::shared_ptr<Program> program;  ///< runs now
  std::shared_ptr<Program> later;  ///< is to take its place, once it is compiled; null: `program` is as good as it gets
  std::string note = {};
  Optimised optimised = {};
};

/// The program of a graph: optimised, planned and emitted as far as the mode and the machine allow. Its code serves the
/// other sizes of `whose`, if that is given, or it has these no more.
Programs::Built Programs::build(const Graph& traced, Specialisation* whose) {
  const auto begin = std::chrono::steady_clock::now();
  Built built;
  const auto serve_sizes = [&](Graph& graph, const Sizes::Optimise& optimise) {
    if (!whose || !whose->sizes) return;
    if (const std::string difference = whose->sizes->lower(graph, optimise); !difference.empty())
      one_per_size(*whose, difference);
  };
  if (options.mode == Mode::replay) {
    built.optimised.stages = {{"traced", traced}};
    Graph graph = traced;
    serve_sizes(graph, [](const Graph& other) { return other; });
    built.program = Program::build(std::move(graph), {.memory_plan = false}, where, nullptr);
  } else {
    const Compile when = options.wait ? Compile::now : Compile::later;
    std::vector<std::string> without = options.without;
    Choices* choices = nullptr;
    if (whose && whose->sizes && whose->sizes->several()) {
      choices = &whose->sizes->choices();
      without.emplace_back("row_pipelines");
    }
    built.optimised = optimise(traced, without, where, when, choices, options.memory_budget);
    serve_sizes(built.optimised.graph, [&](const Graph& other) {
      return optimise(other, without, where, when, choices, options.memory_budget).graph;
    });
    std::string reason;
    try {
      std::shared_ptr<Program> whole =
          Program::prepare(built.optimised.graph, plan_options(options.without, where), where, &reason);
      if (whole && !options.wait && !whole->find()) {
        built.later = std::move(whole);
      } else if (whole && (!options.wait || whole->compile(&reason))) {
        whole->make_ready();
        built.program = std::move(whole);
      }
    } catch (const CompileError& error) { reason = error.message(); }
    if (built.program) {
      built.note = built.program->cost().note;
    } else if (built.later) {
      Optimised below;
      built.program = program_below(traced, options, where, below);
      built.note = "its code is being compiled";
      if (whose && whose->sizes) whose->sizes->not_built();
    } else {
      built.program = program_below(traced, options, where, built.optimised);
      built.note = reason;
      if (whose && whose->sizes) one_per_size(*whose, reason);
    }
  }
  const Program& whole = built.later ? *built.later : *built.program;
  const BuildCost& cost = whole.cost();
  stats.emit_seconds += cost.emit_seconds;
  stats.compiler_seconds += cost.compiler_seconds;
  stats.pass_seconds += seconds_since(begin) - cost.emit_seconds - cost.compiler_seconds;
  for (const GeneratedCode& code : whole.plan().code) sources_.insert(code.hash);
  return built;
}

void Programs::make_programs(Specialisation& made) {
  Built forward, backward;
  std::shared_ptr<JointGradient> gradient;
  int64_t saved_bytes = 0;
  if (made.gradient && made.gradient->traced_gradient()) {
    Partition parts = partition(made.traced, made.parts, recompute(), where);
    gradient = std::make_shared<JointGradient>(*made.gradient);
    backward = build(parts.backward, nullptr);
    gradient->program = backward.program;
    gradient->saved = std::move(parts.saved);
    saved_bytes = parts.saved_bytes;
    forward = build(parts.forward, nullptr);
  } else {
    forward = build(made.traced, &made);
  }
  std::shared_ptr<Upgrade> upgrade;
  if (forward.later || backward.later)
    upgrade = std::make_shared<Upgrade>(forward.later, backward.later, made.sizes ? made.sizes->lowered() : 0);
  stages = std::move(forward.optimised.stages);
  stats.passes = std::move(forward.optimised.times);
  fused = std::move(forward.optimised.fusion.kernels);
  refused = std::move(forward.optimised.fusion.refused);
  recomputed = std::move(forward.optimised.fusion.recomputed);
  stats.note = forward.note.empty() ? backward.note : forward.note;
  stats.saved_bytes = saved_bytes;
  stats.sources = std::ssize(sources_);
  if (gradient) made.gradient = std::move(gradient);
  if (made.sizes && !forward.later) made.sizes->built(forward.program);
  change_program(made, std::move(forward.program));
  made.upgrade = std::move(upgrade);
  describe(made);
}

void Programs::change_program(Specialisation& of, std::shared_ptr<Program> program) {
  count_calls(of);
  of.program = std::move(program);
  if (of.program->plan().alone()) lock.stay_alone();
}

/// Stats of the newest specialisation.
void Programs::describe(const Specialisation& of) {
  described_ = &of;
  const Plan& plan = of.program->plan();
  stats.tier = plan.tier();
  stats.kernels = plan.kernels();
  stats.fused_kernels = plan.fused_kernels();
  stats.peak_bytes = plan.arena_bytes();
  stats.lower_bound_bytes = plan.lower_bound_bytes();
  stats.compiler_cached = of.program->cost().compiler_cached;
  stats.backward_kernels = of.backward() ? of.backward()->plan().kernels() : 0;
}

void Programs::take_upgrade(Specialisation& of) {
  if (of.upgrade->lost()) {  // a child of fork: all anew
    const std::shared_ptr<Program> before = of.program;
    of.sizes = nullptr;
    make_programs(of);
    return of.program->bind_as(*before, leaves_of(of));
  }
  const Upgrade::Result result = of.upgrade->result();
  if (!result.compiled) {
    of.upgrade = nullptr;
    stats.compiler_seconds += result.seconds;
    if (described_ == &of) stats.note = result.failure;
    if (of.sizes) one_per_size(of, result.failure);
    if (result.refused)
      warn(detail::str("compiled function at ", to_string(where), ": it goes on as ", of.program->plan().tier(), ": ",
                       result.failure));
    return;
  }
  std::shared_ptr<JointGradient> gradient;
  if (result.gradient) {
    result.gradient->make_ready();
    gradient = std::make_shared<JointGradient>(*of.gradient);
    gradient->program = result.gradient;
  }
  if (result.program) {
    result.program->make_ready();
    result.program->bind_as(*of.program, leaves_of(of));
    if (of.sizes && of.sizes->lowered() == of.upgrade->lowered()) of.sizes->built(result.program);
    change_program(of, result.program);
  }
  if (gradient) of.gradient = std::move(gradient);
  stats.compiler_seconds += result.seconds;
  if (described_ == &of) {
    stats.note = of.program->cost().note;
    describe(of);
  }
  of.upgrade = nullptr;
}

void Programs::count_calls(Stats& stats, const std::string& tier, int64_t calls) {
  const auto known =
      std::find_if(stats.tiers.begin(), stats.tiers.end(), [&](const TierCalls& each) { return each.tier == tier; });
  if (known != stats.tiers.end()) known->calls += calls;
  else if (calls) stats.tiers.push_back({tier, calls});
}
void Programs::count_calls(Specialisation& of) {
  const int64_t calls = of.calls;
  if (!of.program) return;
  of.tier_before = of.program->plan().tier();
  count_calls(stats, of.tier_before, calls - of.calls_before);
  of.calls_before = of.changed_at = calls;
}
void Programs::count_again(Specialisation& of, int64_t call) {
  if (call > of.changed_at) return;
  count_calls(stats, of.tier_before, -1);
  --of.calls_before;
}

void Programs::note_sizes(const std::string& text) {
  if (std::find(stats.sizes.begin(), stats.sizes.end(), text) == stats.sizes.end()) stats.sizes.push_back(text);
}
void Programs::one_per_size(Specialisation& made, const std::string& reason) {
  made.sizes = nullptr;
  note_sizes("one specialisation per size: " + reason);
}

}  // namespace tandem::graph
