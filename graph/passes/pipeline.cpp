// The passes in order.
#include "graph/passes/pipeline.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "graph/ir/choices.h"
#include "graph/passes/groups.h"

namespace tandem {

namespace graph {

namespace {

/// What one pass hands to the next.
struct Work {
  Graph graph;
  std::optional<Groups> groups;  ///< of the graph's nodes, between fusion and lower
  FusionReport report;
  const std::vector<std::string>& without;
  Compile regions;
  Choices* choices;  ///< null: made anew, and not kept
  double budget;
};

struct Pass {
  const char* name;
  void (*function)(Work&);
  const char* why;
  bool for_kernels = false;  ///< only where kernels are generated: op by op, the whole ops are faster
};

template <Graph (*rewritten)(const Graph&)> void rewrite(Work& work) { work.graph = rewritten(work.graph); }

void number_kernels(Work& work) {
  int kernel = 0;
  for (const Group& group : work.groups->all) {
    if (!group.alive || !group.fused) continue;
    work.groups->each_member(group, [&](int n) { work.graph.node(n).kernel = kernel; });
    ++kernel;
  }
}

constexpr Pass kPasses[] = {
    {"invariants", rewrite<move_invariants>, "what is the same in each turn of a loop is computed once, before it"},
    {"decompose", rewrite<decompose>, "softmax, adamw, ... become ops that fuse with their neighbours", true},
    {"fold", rewrite<fold>, "what is known now needn't be computed at each call"},
    {"simplify", rewrite<simplify>, "calls that change no bit cost a kernel, and hide ops from each other"},
    {"common_subexpressions", rewrite<common_subexpressions>, "gradient rules compute much of the forward pass again"},
    {"dead_code", rewrite<dead_code>, "traces hold gradients nobody reads, and what other passes left behind"},
    {"prune", rewrite<prune_regions>, "loops carry and keep what only a gradient that nobody asked for would read"},
    {"recompute",
     [](Work& work) { work.graph = recompute(work.graph, work.choices, work.budget, work.report.recomputed); },
     "what backward reads of the forward pass is cheaper to compute again than to keep", true},
    {"row_pipelines", [](Work& work) { work.graph = row_pipelines(work.graph, work.report); },
     "caches are fast: a block of rows goes through many ops before the next", true},
    {"dead_code", rewrite<dead_code>, "views that chains hold are read outside no more"},
    {"regions", [](Work& work) { work.graph = optimise_regions(work.graph, work.without, work.regions); },
     "branches and bodies of loops are programs, compiled as the rest is"},
    {"fusion",
     [](Work& work) {
       work.groups.emplace(fuse(work.graph, work.report, work.choices));
       number_kernels(work);
     },
     "memory is slow: what one op has just made, the next reads from a register", true},
    {"horizontal",
     [](Work& work) {
       join_state_kernels(*work.groups, work.report, work.choices);
       number_kernels(work);
     },
     "an optimiser has many small kernels, each with the cost of a launch", true},
    {"lower",
     [](Work& work) {
       Graph lowered = lower(*work.groups, work.report);
       work.groups.reset();
       work.graph = std::move(lowered);
     },
     "kernels are emitted from loops, not from ops", true},
    {"dead_code", rewrite<dead_code>, "views that kernels look through are read no more", true},
    {"schedule", [](Work& work) { work.graph = schedule(work.graph, work.choices); },
     "in the order of the text, values wait longer than they have to, each in memory of its own"},
};

constexpr const char* kSwitches[] = {"memory_plan", "emit"};  // of PlanOptions

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

PlanOptions plan_options(const std::vector<std::string>& without, Where where) {
  std::vector<std::string> known = pass_names();
  known.insert(known.end(), std::begin(kSwitches), std::end(kSwitches));
  for (const std::string& name : without)
    if (!contains(known, name)) {
      std::string all;
      for (const std::string& each : known) all += (all.empty() ? "" : ", ") + each;
      throw ValueError("compile: no pass is called \"" + name + "\"; there are " + all, where);
    }
  return {.memory_plan = !contains(without, "memory_plan"), .emit = !contains(without, "emit")};
}

Optimised optimise(const Graph& traced, const std::vector<std::string>& without, Where where, Compile regions,
                   Choices* choices, double memory_budget) {
  if (choices) choices->repeat();
  const bool kernels = plan_options(without, where).emit && !contains(without, "fusion") && !contains(without, "lower");
  Work work{.graph = traced,
            .groups = {},
            .report = {},
            .without = without,
            .regions = regions,
            .choices = choices,
            .budget = memory_budget};
  Optimised result{.graph = {}, .stages = {{"traced", traced}}, .times = {}, .fusion = {}};
  for (const Pass& pass : kPasses) {
    if (contains(without, pass.name) || (pass.for_kernels && !kernels)) continue;
    PassTime time{.name = pass.name, .nodes_before = count(work.graph.nodes)};
    const auto begin = std::chrono::steady_clock::now();
    pass.function(work);
    time.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    time.nodes_after = count(work.graph.nodes);
    result.times.push_back(std::move(time));
    result.stages.push_back({pass.name, work.graph});
#ifndef NDEBUG
    verify(work.graph, pass.name);
#endif
  }
  verify(work.graph, "all passes");  // some microseconds, against a kernel that reads beside its operands
  result.graph = std::move(work.graph);
  result.fusion = std::move(work.report);
  return result;
}

}  // namespace graph

std::vector<std::string> pass_names() {
  std::vector<std::string> names;
  for (const graph::Pass& pass : graph::kPasses)
    if (!graph::contains(names, pass.name)) names.push_back(pass.name);
  return names;
}

}  // namespace tandem
