// Programs in other sizes: one beside the first, with a plan that has room, and that one again in place, number by number.
#include <algorithm>
#include <cstring>

#include "core/dispatch.h"
#include "graph/ir/at.h"
#include "graph/ir/numbers.h"
#include "graph/ir/views.h"
#include "graph/run/program.h"

namespace tandem::graph {

namespace {

/// Which values and nodes a graph's numbers are of. What reads a window into memory that changes, changes too.
Elastic elastic_of(Graph& graph, const Program::Growth& growth) {
  Elastic result;
  result.values.resize(graph.values.size());
  result.nodes.resize(graph.nodes.size());
  result.most_bytes = growth.most_bytes;
  const std::vector<NumberPlace> places =
      number_places(graph, growth.scalars_from, graph.values.size(), graph.nodes.size());
  for (const size_t place : growth.places) {
    const NumberPlace& of = places[place];
    if (of.value >= 0) at(result.values, of.value) = true;
    if (of.node >= 0) at(result.nodes, of.node) = true;
    if (of.leaf >= 0) at(result.values, graph.leaf(of.leaf).value) = true;
  }
  std::vector<bool> moves = result.values;  // or lies elsewhere
  const auto changes = [&](int value) { return at(moves, value); };
  for (int n = 0; n < count(graph.nodes); ++n) {
    const Node& node = graph.node(n);
    if (!at(result.nodes, n) && !std::any_of(node.inputs.begin(), node.inputs.end(), changes) &&
        !std::any_of(node.outputs.begin(), node.outputs.end(), changes))
      continue;
    at(result.nodes, n) = true;
    if (node.op->kind == OpKind::view) at(moves, node.outputs[0]) = true;
  }
  return result;
}

}  // namespace

/// What resize() goes through, known from the first size on.
struct Program::Resizer {
  Elastic elastic;
  std::vector<void*> numbers;  ///< in the order of Growth::places
  std::vector<int> scalars;    ///< leaves that the passes made, and that change

  struct Changing {
    int node, code = -1, kernel = -1;
    std::vector<Tensor> inputs = {};  ///< for infer; values that change have one header each
    bool copies_result = false;       ///< the plan made it
  };
  std::vector<Changing> nodes;                 ///< in their order
  std::vector<std::pair<int, Tensor>> values;  ///< that change, with what infer sees
  std::vector<int> changing_values;            ///< these alone
  std::vector<Tensor> results;                 ///< of infer

  void prepare(const Plan& plan, size_t nodes_before) {
    const Graph& graph = plan.graph;
    std::vector<Tensor> headers(graph.values.size());
    const auto header = [&](int value) {
      const int leaf = graph.leaf_of(value);
      const bool number = leaf >= 0 && (graph.leaf(leaf).kind == LeafKind::scalar || graph.leaf(leaf).dynamic ||
                                        graph.type(value).dtype == int64);
      Tensor& made = at(headers, value);
      if (!made.defined()) made = header_of(graph.type(value), number);
      return made;
    };
    for (int v = 0; v < count(graph.values); ++v)
      if (at(elastic.values, v)) values.emplace_back(v, header(v)), changing_values.push_back(v);
    size_t most = 0;
    for (int n = 0; n < count(graph.nodes); ++n) {
      if (!at(elastic.nodes, n)) continue;
      const Node& node = graph.node(n);
      nodes.push_back({.node = n, .copies_result = static_cast<size_t>(n) >= nodes_before});
      for (const int input : node.inputs) nodes.back().inputs.push_back(header(input));
      if (!node.fused) most = std::max(most, most_outputs(*node.op));
    }
    results.resize(most);
  }
  void find_code(const Plan& plan) {
    std::vector<const PlanStep*> step_of(plan.graph.nodes.size());
    for (const PlanStep& step : plan.steps) at(step_of, step.node) = &step;
    for (Changing& each : nodes)
      if (const PlanStep* const step = at(step_of, each.node)) each.code = step->code, each.kernel = step->kernel;
  }

  /// Infer and the code have their say, as in verify() and kernels_stay_inside(). Views lie where they lie now.
  bool resize(Plan& plan, const std::vector<std::unique_ptr<Kernels>>& code, const Changing& changing) {
    Graph& graph = plan.graph;
    const Node& node = graph.node(changing.node);
    if (node.fused)
      return kernel_stays_inside(graph, node) &&
             code[static_cast<size_t>(changing.code)]->resize(changing.kernel, *node.fused);
    for (const Tensor& input : changing.inputs)
      if (node.op->contiguous_inputs && !input.is_contiguous()) return false;
    const std::span<Tensor> made(results.data(), most_outputs(*node.op));
    for (Tensor& each : made) each = Tensor();
    Infer infer(*node.op, changing.inputs, node.attributes, made, node.where);
    infer.run();
    for (int i = 0; i < count(node.outputs); ++i) {
      const TensorImpl& inferred = *made[static_cast<size_t>(i)].impl();
      ValueType& type = graph.type(node.outputs[static_cast<size_t>(i)]);
      if (changing.copies_result) {
        type.shape = inferred.shape;
        type.strides = inferred.strides;
      }
      if (type.shape != inferred.shape || type.dtype != inferred.dtype) return false;
      if (node.op->kind != OpKind::view) continue;
      if (type.strides != inferred.strides) return false;
      at(plan.locations, node.outputs[0]).offset =
          plan.location(node.inputs[0]).offset + inferred.offset * size_of(type.dtype);
    }
    return true;
  }

  /// Whether the plan has room for all that lies in memory that it laid out.
  bool has_room(const Plan& plan) const {
    for (const auto& [value, header] : values) {
      const PlanPlace& place = at(plan.places, plan.location(value).place);
      const bool laid_out = place.kind == PlaceKind::arena || (place.kind != PlaceKind::leaf && place.value != value);
      if (laid_out && place.kind != PlaceKind::allocated && !is_view(plan.graph, value) &&
          bytes_of(plan.type(value)) > at(elastic.most_bytes, value))
        return false;
    }
    return true;
  }
};

std::unique_ptr<Program> Program::resized(Graph graph, const Growth* growth) const {
  auto resizer = growth ? std::make_shared<Resizer>() : nullptr;
  const size_t values = graph.values.size(), nodes = graph.nodes.size();
  if (growth) resizer->elastic = elastic_of(graph, *growth);
  std::unique_ptr<Program> program(
      new Program(std::move(graph), plan_.options, where_, growth ? &resizer->elastic : nullptr));
  Plan& plan = program->plan_;
  TANDEM_ASSERT(plan.steps.size() == plan_.steps.size(), "another size has other steps");
  if (growth) {
    const std::vector<NumberPlace> places = number_places(plan.graph, growth->scalars_from, values, nodes);
    for (const size_t place : growth->places) {
      resizer->numbers.push_back(places[place].address);
      if (places[place].leaf >= 0) resizer->scalars.push_back(places[place].leaf);
    }
    resizer->prepare(plan, nodes);
  }
  std::vector<std::vector<const LoopKernel*>> kernels(code_.size());  // in the order in which they were added
  for (size_t s = 0; s < plan.steps.size(); ++s) {
    PlanStep& step = plan.steps[s];
    const LoopKernel* kernel = plan.graph.node(step.node).fused.get();
    if (!kernel) continue;
    step.code = plan_.steps[s].code;
    step.kernel = plan_.steps[s].kernel;
    kernels[step.code].push_back(kernel);
  }
  for (size_t i = 0; i < code_.size(); ++i) {
    program->code_.push_back(code_[i]->resized(kernels[i]));
    if (!program->code_.back()) return nullptr;
  }
  plan.code = plan_.code;
  program->cost_.compiler_cached = !code_.empty();
  if (growth && plan.device == cpu()) {
    resizer->find_code(plan);
    program->resizer_ = std::move(resizer);
  }
  program->make_ready();
  return program;
}

bool Program::resize(std::span<const int64_t> numbers) {
  if (!resizer_) return false;
  Resizer& r = *resizer_;
  TANDEM_ASSERT(numbers.size() == r.numbers.size(), "numbers of another graph");
  for (size_t i = 0; i < numbers.size(); ++i) std::memcpy(r.numbers[i], &numbers[i], sizeof numbers[i]);
  for (const int leaf : r.scalars) set_number(leaf, plan_.graph.leaf(leaf).number);
  for (const auto& [value, header] : r.values) {
    const ValueType& type = plan_.type(value);
    header.impl()->set_layout(type.shape, type.strides);
  }
  try {
    for (const Resizer::Changing& each : r.nodes)
      if (!r.resize(plan_, code_, each)) return false;
  } catch (const Error&) { return false; }
  if (!r.has_room(plan_)) return false;
  const auto tell = [&](Run& run) { run.resize(r.changing_values); };
  tell(*first_);
  for (const std::unique_ptr<Run>& run : others_) tell(*run);
  return true;
}

}  // namespace tandem::graph
