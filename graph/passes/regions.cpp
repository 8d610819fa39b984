// regions: what regions hold is optimised as the graph around them is, and gets its code.
#include "graph/ir/region.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <thread>

#include "graph/passes/pass.h"
#include "graph/passes/pipeline.h"
#include "graph/run/program.h"

namespace tandem::graph {

namespace {

/// The program of an optimised region; the tier below where nothing compiles it: `made` is then that graph.
std::shared_ptr<Program> program_of(Graph& made, const Graph& graph, std::vector<std::string> without, bool blocks,
                                    Where where) {
  PlanOptions options = plan_options(without, where);
  options.results_apart = blocks;
  try {
    std::string reason;
    if (auto program = Program::build(made, options, where, &reason)) return program;
  } catch (const CompileError&) {  // as where there is no compiler
  }
  without.emplace_back("emit");
  made = optimise(graph, without, where).graph;
  options.emit = false;
  return Program::build(made, options, where, nullptr);
}

std::shared_ptr<const GraphRegion> optimised(const Region& region, const std::vector<std::string>& without, bool blocks,
                                             Where where, Compile when) {
  const Graph& graph = static_cast<const GraphRegion&>(region).graph();
  Graph made = optimise(graph, without, where, when).graph;
  const auto make = [=]() mutable { return program_of(made, graph, without, blocks, where); };
  return std::make_shared<const GraphRegion>(std::move(made), make);
}

/// Compilers run side by side, as many as there are cores.
void build_programs(const std::vector<std::shared_ptr<const GraphRegion>>& regions) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < regions.size(); i = next++) regions[i]->program();
  };
  std::vector<std::future<void>> others;
  for (size_t i = 1; i < std::min<size_t>(regions.size(), std::thread::hardware_concurrency()); ++i)
    others.push_back(std::async(std::launch::async, work));
  work();
  for (std::future<void>& each : others) each.get();
}

}  // namespace

Graph optimise_regions(const Graph& graph, const std::vector<std::string>& without, Compile when) {
  std::vector<std::string> within = without;  // a block isn't cut again
  within.emplace_back("row_pipelines");
  Graph result = graph;
  std::vector<std::shared_ptr<const GraphRegion>> made;
  std::map<std::string, RegionPtr> of_blocks;  // those of equal layers are one
  for (Node& node : result.nodes)
    for (const AttributeSpec& spec : node.fused ? AttributeSchema() : node.op->attributes) {
      if (spec.type != AttributeType::region) continue;
      const Region& region = *node.attributes.region(spec.name);
      RegionPtr own;
      RegionPtr& known = runs_blocks(node) ? of_blocks[region.to_string()] : own;
      if (!known) {
        const bool blocks = runs_blocks(node);
        made.push_back(optimised(region, blocks ? within : without, blocks, node.where, when));
        known = made.back();
      }
      node.attributes.set({spec.name, known});
    }
  if (when == Compile::now) build_programs(made);
  return result;
}

}  // namespace tandem::graph
