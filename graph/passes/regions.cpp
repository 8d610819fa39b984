// regions: what regions hold is optimised as the graph around them is, and gets its code.
#include "graph/ir/region.h"

#include "graph/passes/pass.h"
#include "graph/passes/pipeline.h"
#include "graph/run/program.h"

namespace tandem::graph {

namespace {

RegionPtr optimised(const Region& region, std::vector<std::string> without, Where where) {
  const Graph& graph = static_cast<const GraphRegion&>(region).graph();
  const PlanOptions options = plan_options(without, where);
  std::unique_ptr<Program> program;
  Graph made = optimise(graph, without, where).graph;
  try {
    std::string reason;
    program = Program::build(made, options, where, &reason);
  } catch (const CompileError&) {  // as where there is no compiler
  }
  if (!program) {
    without.emplace_back("emit");
    made = optimise(graph, without, where).graph;
    program = Program::build(made, plan_options(without, where), where, nullptr);
  }
  return std::make_shared<const GraphRegion>(std::move(made), RegionTape(), std::move(program));
}

}  // namespace

Graph optimise_regions(const Graph& graph, const std::vector<std::string>& without) {
  std::vector<std::string> within = without;  // a block isn't cut again
  within.emplace_back("row_pipelines");
  Graph result = graph;
  for (Node& node : result.nodes)
    for (const AttributeSpec& spec : node.fused ? AttributeSchema() : node.op->attributes)
      if (spec.type == AttributeType::region)
        node.attributes.set({spec.name, optimised(*node.attributes.region(spec.name),
                                                  runs_blocks(node) ? within : without, node.where)});
  return result;
}

}  // namespace tandem::graph
