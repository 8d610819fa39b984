// The passes in order.
#include "graph/passes/pipeline.h"

#include <algorithm>
#include <chrono>

#include "graph/passes/pass.h"

namespace tandem {

std::vector<std::string> pass_names() {
  return {"decompose",  "fold",        "simplify", "common_subexpressions", "dead_code", "fusion",
          "horizontal", "memory_plan", "emit"};
}

namespace graph {

Optimised optimise(const Graph& traced, const std::vector<std::string>& without, Where where) {
  for (const std::string& name : without) {
    const std::vector<std::string> names = pass_names();
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      std::string all;
      for (const std::string& each : names) all += (all.empty() ? "" : ", ") + each;
      throw ValueError("compile: no pass is called \"" + name + "\"; there are " + all, where);
    }
  }
  const auto off = [&](const char* name) { return std::find(without.begin(), without.end(), name) != without.end(); };
  Optimised result;
  result.graph = traced;
  result.stages.push_back({"traced", traced});
  const auto run = [&](const char* name, auto&& pass) {
    if (off(name)) return;
    const auto begin = std::chrono::steady_clock::now();
    PassTime time{.name = name, .seconds = 0, .nodes_before = static_cast<int>(result.graph.size()), .nodes_after = 0};
    result.graph = pass(result.graph);
    time.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    time.nodes_after = static_cast<int>(result.graph.size());
    result.times.push_back(time);
    result.stages.push_back({name, result.graph});
#ifndef NDEBUG
    verify(result.graph, name);
#endif
  };

  const bool fusing = !off("fusion") && !off("emit");
  if (fusing) run("decompose", decompose);  // softmax, adamw, …: into ops that fuse
  run("fold", fold);                        // numbers that are known now
  run("simplify", simplify);                // calls that change nothing
  run("common_subexpressions", common_subexpressions);
  run("dead_code", dead_code);
  if (fusing) {
    const FusionOptions options{.horizontal = !off("horizontal")};
    run("fusion", [&](const Graph& graph) { return fuse(graph, options, result.fusion); });
    run("dead_code", dead_code);  // views that now live inside kernels
  }
  return result;
}

}  // namespace graph
}  // namespace tandem
