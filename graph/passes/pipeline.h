// The passes, in the order they run. The table in pipeline.cpp is the table of contents of graph mode.
#pragma once

#include <string>
#include <vector>

#include "graph/ir/stage.h"
#include "graph/passes/pass.h"
#include "graph/run/plan_options.h"

namespace tandem::graph {

struct Optimised {
  Graph graph;
  std::vector<Stage> stages;  ///< "traced" and then one for each pass that ran
  std::vector<PassTime> times;
  FusionReport fusion;
};

/// Runs all passes but those in `without` (names as in pass_names()). Where no kernels are generated (without "fusion",
/// "lower" or "emit"), passes that only serve them are left out too. Regions are compiled now, or with the graph (Program). What
/// depends on bytes is chosen as in `choices` before, or noted there. The budget is CompileOptions::memory_budget.
Optimised optimise(const Graph& traced, const std::vector<std::string>& without, Where where,
                   Compile regions = Compile::now, Choices* choices = nullptr, double memory_budget = 1);

/// The switches among the names of CompileOptions::without. ValueError if one is neither a switch nor a pass.
PlanOptions plan_options(const std::vector<std::string>& without, Where where);

}  // namespace tandem::graph
