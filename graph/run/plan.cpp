// Making a plan: results apart from everything else, places, steps, and the memory of it all.
#include "graph/run/plan.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "graph/ir/region.h"
#include "graph/ir/views.h"
#include "graph/run/memory_plan.h"
#include "graph/run/program.h"
#include "graph/run/runtime.h"

namespace tandem::graph {

namespace {

class Planner {
 public:
  Planner(Graph graph, PlanOptions options) {
    plan_.graph = std::move(graph);
    plan_.options = options;
  }

  Plan run() {
    separate_results();
    follow_views();
    place_values();
    find_shared();
    find_device();
    plan_memory();
    return std::move(plan_);
  }

 private:
  Plan plan_;
  Graph& graph_ = plan_.graph;
  std::vector<Reference> references_;                               ///< of each value
  std::vector<std::vector<int>> readers_;                           ///< steps that read each value that is no view
  std::vector<int> made_at_;                                        ///< step that makes it; -1: none
  std::vector<int> intermediate_;                                   ///< values that only steps read
  std::unordered_map<const Storage*, std::vector<int>> leaves_on_;  ///< those of state, by where they lie

  /// Results that are also something else get a copy of their own.
  void separate_results() {
    static const Op& copy = find_op("copy");
    std::unordered_set<int> taken;
    const auto separate = [&](int& value, bool state) {
      const int base = base_of(graph_, value);
      const bool again = taken.count(base) > 0;
      if (graph_.value(base).node < 0 || base != value || (again && !state))
        value = graph_.node(graph_.add_node(copy, {value}, {}, {})).outputs[0];
      taken.insert(value);
    };
    for (int& output : graph_.outputs) separate(output, false);
    for (GradientWrite& write : graph_.gradients)
      if (write.value >= 0) separate(write.value, false);
    for (StateWrite& write : graph_.writes) separate(write.value, true);
  }

  void follow_views() {
    references_ = references(graph_);
    for (int n = 0; n < std::ssize(graph_.nodes); ++n)
      if (graph_.node(n).op->kind != OpKind::view)
        plan_.steps.push_back({.node = n, .device = plan_.type(graph_.node(n).outputs[0]).device});
    readers_.resize(graph_.values.size());
    made_at_.assign(graph_.values.size(), -1);
    for (int s = 0; s < std::ssize(plan_.steps); ++s) {
      for (int input : node_of(s).inputs) readers_[references_[input].base].push_back(s);
      for (int output : node_of(s).outputs) made_at_[output] = s;
    }
  }

  const Node& node_of(int step) const { return graph_.node(plan_.steps[step].node); }

  void add_place(PlaceKind kind, int value, int index) {
    plan_.locations[value].place = static_cast<int>(plan_.places.size());
    plan_.places.push_back({.kind = kind, .value = value, .index = index});
  }
  bool placed(int value) const { return plan_.locations[value].place >= 0; }

  void place_values() {
    plan_.locations.resize(graph_.values.size());
    for (int i = 0; i < std::ssize(graph_.leaves); ++i)
      if (const Leaf& leaf = graph_.leaf(i); leaf.tensor.defined() && leaf.kind == LeafKind::state)
        leaves_on_[leaf.tensor.impl()->storage].push_back(i);
    for (int i = 0; i < std::ssize(graph_.leaves); ++i) add_place(PlaceKind::leaf, graph_.leaf(i).value, i);
    for (int i = 0; i < std::ssize(graph_.outputs); ++i) add_place(PlaceKind::result, graph_.outputs[i], i);
    std::set<std::pair<int, const TensorImpl*>> read;  // gradients, by whose they are
    for (const Leaf& leaf : graph_.leaves)
      if (leaf.kind == LeafKind::gradient) read.emplace(leaf.argument, leaf.tensor.impl());
    for (int i = 0; i < std::ssize(graph_.gradients); ++i) {
      const GradientWrite& write = graph_.gradients[i];
      plan_.gradients.push_back({write.value, read.count({write.argument, write.tensor.impl()}) == 0});
      if (write.value >= 0) add_place(PlaceKind::gradient, write.value, i);
    }
    // State written in place shares the place of the state, and so do the values that lead there by replacing elements.
    for (const StateWrite& write : graph_.writes) {
      if (!in_place(write.leaf, write.value)) {
        plan_.late_writes.push_back({write.leaf, write.value, write.where});
        continue;
      }
      const int place = plan_.location(graph_.leaf(write.leaf).value).place;
      for (int value = write.value; value >= 0; value = updated_by(value, write.leaf))
        plan_.locations[value].place = place;
    }
    for (int s = 0; s < std::ssize(plan_.steps); ++s)
      for (int output : node_of(s).outputs)
        if (!placed(output)) {
          add_place(PlaceKind::allocated, output, -1);
          intermediate_.push_back(output);
        }
    for (int v = 0; v < std::ssize(graph_.values); ++v)
      plan_.locations[v] = {.place = plan_.location(references_[v].base).place,
                            .offset = references_[v].offset * size_of(plan_.type(v).dtype)};
    for (const LateWrite& write : plan_.late_writes)  // such a value lives until the end
      readers_[references_[write.value].base].push_back(static_cast<int>(plan_.steps.size()));
  }

  /// Whether the step that makes the value may write it straight to the memory of the leaf: nothing that lies there is read
  /// later. What else may lie there is known of state alone: a call is refused whose arguments or gradients do
  /// (Program::refuse_aliases).
  bool in_place(int leaf_index, int value) const {
    const Leaf& leaf = graph_.leaf(leaf_index);
    const int made = made_at_[value];
    const bool known = leaf.kind == LeafKind::argument || (leaf.kind == LeafKind::state && leaf.tensor.defined());
    if (made < 0 || placed(value) || !(plan_.type(value) == plan_.type(leaf.value)) || !known) return false;
    if (leaf.kind == LeafKind::state)
      for (const int other : leaves_on_.at(leaf.tensor.impl()->storage))
        if (other != leaf_index)
          for (const int reader : readers_[graph_.leaf(other).value])
            if (reader >= made) return false;
    const std::vector<int>& read_by = readers_[leaf.value];
    for (int reader : read_by)
      if (reader > made) return false;
    return std::find(read_by.begin(), read_by.end(), made) == read_by.end() ||
           reads_before_writing(node_of(made), leaf.value, value);
  }

  /// The value whose elements the one that lies in the leaf's memory replaces, if it may lie there as well; -1: none.
  int updated_by(int value, int leaf) const {
    const Node& node = node_of(made_at_[value]);
    if (node.fused || !node.op->updates_operand) return -1;
    const int before = node.inputs[0];
    const std::vector<int>& read_by = readers_[before];
    const bool last_read = std::all_of(read_by.begin(), read_by.end(), [&](int r) { return r <= made_at_[value]; });
    return last_read && std::count(read_by.begin(), read_by.end(), made_at_[value]) == 1 && in_place(leaf, before)
               ? before
               : -1;
  }

  /// Whether the node may write `value` over `state`, which it reads.
  bool reads_before_writing(const Node& node, int state, int value) const {
    if (!node.fused) {
      for (int input : node.inputs)
        if (references_[input].base == state && input != state) return false;
      if (runs_blocks(node)) return blocks_read_before_writing(node, state, value);
      return node.op->in_place || (node.op->updates_operand && node.inputs[0] == state &&
                                   std::count(node.inputs.begin(), node.inputs.end(), state) == 1);
    }
    const KernelUses& uses = uses_of(node);
    const auto stored = uses.stores.find(value);
    TANDEM_ASSERT(stored != uses.stores.end(), "a kernel doesn't store what it makes");
    const auto [mine, store] = stored->second;
    if (!mine) return true;  // the finish runs after everything
    const auto reads = uses.reads.find(state);
    if (reads == uses.reads.end()) return true;
    for (const auto& [segment, statement] : reads->second)
      if (segment != mine || segment->by_row || statement->kind != LoopOp::load ||
          statement->position.offset != store->position.offset ||
          statement->position.strides != store->position.strides)
        return false;
    return true;
  }

  /// The same of a block of rows within the node's region.
  bool blocks_read_before_writing(const Node& node, int state, int value) const {
    const auto operand = std::find(node.inputs.begin(), node.inputs.end(), state);
    if (operand == node.inputs.end()) return true;
    const auto argument = operand - node.inputs.begin();
    const auto result = std::find(node.outputs.begin(), node.outputs.end(), value) - node.outputs.begin();
    if (std::count(node.inputs.begin(), node.inputs.end(), state) > 1 || argument >= node.attributes.integer("by_row"))
      return false;
    const auto may_share = make_plan(region_of(node.attributes, "body").graph(), {}).may_share;
    return std::find(may_share.begin(), may_share.end(), std::pair<int, int>(argument, result)) != may_share.end();
  }

  /// Which results may lie where an argument does, as nothing reads of that what the result has replaced.
  void find_shared() {
    constexpr size_t kMostPairs = 1 << 20;
    if (graph_.leaves.size() * graph_.outputs.size() > kMostPairs) return;
    for (const Leaf& leaf : graph_.leaves) {
      if (leaf.kind != LeafKind::argument) continue;
      const std::vector<int>& read_by = readers_[leaf.value];
      for (int i = 0; i < std::ssize(graph_.outputs); ++i) {
        const int value = graph_.outputs[i], made = made_at_[value];
        if (made < 0 || !(plan_.type(value) == plan_.type(leaf.value))) continue;
        const bool read_later = std::any_of(read_by.begin(), read_by.end(), [&](int reader) { return reader > made; });
        const bool read_there = std::find(read_by.begin(), read_by.end(), made) != read_by.end();
        if (!read_later && (!read_there || reads_before_writing(node_of(made), leaf.value, value)))
          plan_.may_share.emplace_back(leaf.argument, i);
      }
    }
  }

  /// Who reads what in a fused kernel, and who stores: the finish where there is no segment.
  struct KernelUses {
    std::unordered_map<int, std::vector<std::pair<const Segment*, const Statement*>>>
        reads;                                                                ///< by the value read, no view
    std::unordered_map<int, std::pair<const Segment*, const Store*>> stores;  ///< by the value
  };
  const KernelUses& uses_of(const Node& node) const {
    const auto [known, fresh] = uses_.try_emplace(&node);
    KernelUses& uses = known->second;
    if (!fresh) return uses;
    const LoopKernel& kernel = *node.fused;
    const int inputs = static_cast<int>(node.inputs.size());
    const auto add = [&](const Segment& all, const Segment* segment) {
      for (const Statement& statement : all.statements)
        if ((statement.kind == LoopOp::load || statement.kind == LoopOp::uniform) && statement.buffer < inputs)
          uses.reads[references_[node.inputs[statement.buffer]].base].emplace_back(segment, &statement);
      for (const Store& store : all.stores) uses.stores[node.outputs[store.buffer - inputs]] = {segment, &store};
    };
    for (const Segment& segment : kernel.segments) add(segment, &segment);
    add(kernel.finish, nullptr);
    return uses;
  }
  mutable std::unordered_map<const Node*, KernelUses> uses_;

  /// The device of the steps, the numbers that kernels there read, and whether it may record them.
  void find_device() {
    const auto on_host = [](const Device& device) { return device == cpu(); };
    bool all_there = true;
    for (const PlanStep& step : plan_.steps)
      if (on_host(step.device)) all_there = false;
      else plan_.device = step.device;
    if (on_host(plan_.device)) return;
    plan_.recorded = all_there && plan_.options.memory_plan && runtime_for(plan_.device).records();
    for (const PlanStep& step : plan_.steps) {
      const Node& node = graph_.node(step.node);
      // What a user's op does on the device is its own business: allocate, wait, … The loops of regions are the host's.
      if (node.op->user || node.op->transfers || node.op->kind == OpKind::control) plan_.recorded = false;
      if (node.op->transfers || on_host(step.device)) continue;
      for (int input : node.inputs) {
        if (!on_host(plan_.type(input).device) || plan_.location(input).number >= 0) continue;
        const int leaf = graph_.leaf_of(input);
        TANDEM_ASSERT(leaf >= 0, "a kernel on ", plan_.device, " reads a value of the host that is no leaf");
        const int64_t offset = (plan_.number_bytes() + 15) / 16 * 16;
        plan_.locations[input].number = static_cast<int>(plan_.numbers.size());
        plan_.numbers.push_back({leaf, bytes_of(plan_.type(input)), offset});
      }
    }
    for (const Leaf& leaf : graph_.leaves)
      if (leaf.kind == LeafKind::argument && !is_dense(plan_.type(leaf.value).shape, plan_.type(leaf.value).strides))
        plan_.recorded = false;
    for (const StateWrite& write : graph_.writes)  // recorded steps see copies of the arguments
      if (graph_.leaf(write.leaf).kind != LeafKind::state) plan_.recorded = false;
  }

  void plan_memory() {
    std::vector<Lifetime> lifetimes;  // of each intermediate value
    for (int value : intermediate_) {
      const int first = made_at_[value];
      lifetimes.push_back({.bytes = bytes_of(plan_.type(value)),
                           .first = first,
                           .last = std::accumulate(readers_[value].begin(), readers_[value].end(), first,
                                                   [](int a, int b) { return std::max(a, b); })});
    }
    std::vector<Device> devices;
    for (int value : intermediate_)
      if (const Device at = plan_.type(value).device; std::find(devices.begin(), devices.end(), at) == devices.end())
        devices.push_back(at);
    for (const Device& device : devices) {
      std::vector<Lifetime> here;
      std::vector<int> values;
      for (size_t i = 0; i < lifetimes.size(); ++i)
        if (plan_.type(intermediate_[i]).device == device) {
          here.push_back(lifetimes[i]);
          values.push_back(intermediate_[i]);
        }
      const MemoryPlan memory = graph::plan_memory(here);
      const int arena = static_cast<int>(plan_.arenas.size());
      plan_.arenas.push_back(
          {.device = device, .bytes = plan_.options.memory_plan ? memory.bytes : 0, .lower_bound = memory.lower_bound});
      if (plan_.options.memory_plan)
        for (size_t i = 0; i < values.size(); ++i) {
          PlanPlace& place = plan_.places[plan_.location(values[i]).place];
          place.kind = PlaceKind::arena;
          place.index = arena;
          place.offset = here[i].offset;
        }
    }
    if (plan_.options.memory_plan) return;
    for (size_t i = 0; i < intermediate_.size(); ++i) {
      const int place = plan_.location(intermediate_[i]).place;
      plan_.steps[lifetimes[i].first].allocate.push_back(place);
      (lifetimes[i].last < std::ssize(plan_.steps) ? plan_.steps[lifetimes[i].last].release : plan_.release_last)
          .push_back(place);
    }
  }
};

std::string spell(const Plan& plan, const PlanPlace& place) {
  switch (place.kind) {
    case PlaceKind::leaf: {
      const Leaf& leaf = plan.graph.leaf(place.index);
      if (leaf.kind == LeafKind::argument) return detail::str("argument ", leaf.argument);
      if (leaf.kind == LeafKind::scalar && !leaf.run_time) return detail::str("scalar ", leaf.number);
      return detail::str(name_of(leaf.kind), " ", place.index);
    }
    case PlaceKind::result: return detail::str("result ", place.index);
    case PlaceKind::gradient: return detail::str("new gradient ", place.index);
    case PlaceKind::arena: return detail::str("arena ", place.index, " at ", place.offset);
    case PlaceKind::allocated: break;
  }
  return "allocated";
}

/// "p3", or "p3+64" of a view.
std::string spell(const Location& location) {
  const std::string offset = location.offset ? detail::str("+", location.offset) : "";
  return detail::str("p", location.place, offset);
}

}  // namespace

int64_t bytes_of(const ValueType& type) { return type.shape.numel() * size_of(type.dtype); }

Plan make_plan(Graph graph, PlanOptions options) { return Planner(std::move(graph), options).run(); }

int Plan::fused_kernels() const {
  return static_cast<int>(std::count_if(steps.begin(), steps.end(), [](const PlanStep& s) { return s.kernel >= 0; }));
}
int64_t Plan::arena_bytes() const {
  return std::accumulate(arenas.begin(), arenas.end(), int64_t{0},
                         [](int64_t sum, const Arena& a) { return sum + a.bytes; });
}
int64_t Plan::lower_bound_bytes() const {
  return std::accumulate(arenas.begin(), arenas.end(), int64_t{0},
                         [](int64_t sum, const Arena& a) { return sum + a.lower_bound; });
}

std::string Plan::tier() const {
  std::string all;
  for (const GeneratedCode& each : code) all += (all.empty() ? "" : " and ") + each.tier;
  return !all.empty() ? all : options.memory_plan ? "eager kernels, planned" : "eager kernels, one by one";
}

bool Plan::alone() const {
  if (!graph.writes.empty() || !graph.gradients.empty()) return true;
  // Draws that no key is read for, as of a loop that draws nothing, are just counted.
  const auto may_be_key = [&](const Leaf& leaf) {
    return leaf.kind == LeafKind::state && type(leaf.value).dtype == DType::int64 && type(leaf.value).shape == Shape{2};
  };
  if (graph.draws && std::any_of(graph.leaves.begin(), graph.leaves.end(), may_be_key)) return true;
  return std::any_of(steps.begin(), steps.end(), [](const PlanStep& s) { return !runtime_for(s.device).concurrent(); });
}

std::string Plan::to_string() const {
  tandem::detail::TextStream out;
  out << "plan: " << kernels() << " steps, " << fused_kernels() << " of them generated, " << tier()
      << (recorded ? ", recorded as one launch" : "") << (alone() ? "" : ", calls may overlap") << "\n";
  for (size_t a = 0; a < arenas.size(); ++a)
    out << "arena " << a << " on " << arenas[a].device << ": " << arenas[a].bytes << " bytes, lower bound "
        << arenas[a].lower_bound << "\n";
  for (const GeneratedCode& each : code)
    out << "source for " << each.device << ": " << each.source->size() << " bytes, SHA-256 " << each.hash << "\n";
  out << "places:\n";
  for (size_t p = 0; p < places.size(); ++p)
    out << "  p" << p << " " << spell(*this, places[p]) << ": " << type(places[p].value) << ", "
        << bytes_of(type(places[p].value)) << " bytes\n";
  out << "steps:\n";
  const auto list = [&](const std::vector<int>& values) {
    for (size_t i = 0; i < values.size(); ++i) out << (i ? ", " : " ") << spell(location(values[i]));
  };
  for (const PlanStep& step : steps) {
    const Node& node = graph.node(step.node);
    out << " ";
    list(node.outputs);
    if (node.fused) out << " = fused {" << node.attributes.text("ops") << "}";
    else out << " = " << node.op->name;
    list(node.inputs);
    for (int output : node.outputs) out << " -> " << type(output);
    if (node.where.line()) out << "  # " << tandem::to_string(node.where);
    out << "\n";
    if (node.op->kind != OpKind::control) continue;
    for (const AttributeSpec& spec : node.op->attributes) {
      if (spec.type != AttributeType::region) continue;
      const std::string lines = region_of(node.attributes, spec.name).program().plan().to_string();
      out << "    " << spec.name << ":\n";
      for (size_t begin = 0, end = 0; (end = lines.find('\n', begin)) != std::string::npos; begin = end + 1)
        out << "      " << lines.substr(begin, end - begin) << "\n";
    }
  }
  for (const LateWrite& write : late_writes)
    out << "  " << spell(location(graph.leaf(write.leaf).value)) << " = late write " << spell(location(write.value))
        << "\n";
  if (graph.draws) out << "draws: " << graph.draws << "\n";
  return out.str();
}

}  // namespace tandem::graph
