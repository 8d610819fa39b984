// regions: what regions hold is optimised as the graph around them is, and gets its code.
#include "graph/ir/region.h"

#include "graph/passes/pass.h"
#include "graph/passes/pipeline.h"
#include "graph/run/program.h"

namespace tandem::graph {

namespace {

/// The program of an optimised region; the tier below where nothing compiles it: `made` is then that graph.
std::shared_ptr<Program> program_of(Graph& made, const Graph& graph, std::vector<std::string> without, Where where) {
  try {
    std::string reason;
    if (auto program = Program::build(made, plan_options(without, where), where, &reason)) return program;
  } catch (const CompileError&) {  // as where there is no compiler
  }
  without.emplace_back("emit");
  made = optimise(graph, without, where).graph;
  return Program::build(made, plan_options(without, where), where, nullptr);
}

RegionPtr optimised(const Region& region, const std::vector<std::string>& without, Where where, Compile when) {
  const Graph& graph = static_cast<const GraphRegion&>(region).graph();
  Graph made = optimise(graph, without, where, when).graph;
  if (when == Compile::now) {
    auto program = program_of(made, graph, without, where);
    return std::make_shared<const GraphRegion>(std::move(made), RegionTape(), std::move(program));
  }
  const auto make = [made, graph, without, where]() mutable { return program_of(made, graph, without, where); };
  return std::make_shared<const GraphRegion>(std::move(made), make);
}

}  // namespace

Graph optimise_regions(const Graph& graph, const std::vector<std::string>& without, Compile when) {
  std::vector<std::string> within = without;  // a block isn't cut again
  within.emplace_back("row_pipelines");
  Graph result = graph;
  for (Node& node : result.nodes)
    for (const AttributeSpec& spec : node.fused ? AttributeSchema() : node.op->attributes)
      if (spec.type == AttributeType::region)
        node.attributes.set({spec.name, optimised(*node.attributes.region(spec.name),
                                                  runs_blocks(node) ? within : without, node.where, when)});
  return result;
}

}  // namespace tandem::graph
