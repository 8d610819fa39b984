// Making a plan: results apart from everything else, places, steps, and the memory of it all.
#include "graph/run/plan.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "graph/ir/region.h"
#include "graph/ir/views.h"
#include "graph/run/in_place.h"
#include "graph/run/memory_plan.h"
#include "graph/run/program.h"
#include "graph/run/runtime.h"

namespace tandem::graph {

namespace {

constexpr int64_t kLeastSpare = 4096;  ///< bytes

class Planner {
 public:
  Planner(Graph graph, PlanOptions options, Elastic* elastic) : elastic_(elastic) {
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
  Elastic* const elastic_;                                          ///< null: for one size
  std::vector<Reference> references_;                               ///< of each value
  std::vector<std::vector<int>> readers_;                           ///< steps that read each value that is no view
  std::vector<int> made_at_;                                        ///< step that makes it; -1: none
  std::optional<InPlace> over_;                                     ///< of the graph as it is once results are apart
  std::unordered_map<const Storage*, std::vector<int>> leaves_on_;  ///< those of state, by where they lie

  /// Results that are also something else get a copy of their own.
  void separate_results() {
    static const Op& copy = find_op("copy");
    std::unordered_set<int> taken;
    const auto separate = [&](int& value, bool state) {
      const int base = base_of(graph_, value);
      const bool again = taken.count(base) > 0;
      if (graph_.value(base).node < 0 || base != value || (again && !state)) {
        if (elastic_) {
          elastic_->values.push_back(elastic_->values[value]);
          elastic_->nodes.push_back(true);  // of a window that moves, it may be
          elastic_->most_bytes.push_back(elastic_->most_bytes[value]);
        }
        value = graph_.node(graph_.add_node(copy, {value}, {}, {})).outputs[0];
      }
      taken.insert(value);
    };
    for (int& output : graph_.outputs) separate(output, false);
    for (GradientWrite& write : graph_.gradients)
      if (write.value >= 0) separate(write.value, false);
    for (StateWrite& write : graph_.writes) separate(write.value, true);
  }

  void follow_views() {
    references_ = references(graph_);
    over_.emplace(graph_, references_);
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
  /// What it reads and makes has other layouts in other sizes: none of it is laid over another.
  bool is_elastic(int step) const { return elastic_ && elastic_->nodes[plan_.steps[step].node]; }

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
    for (const LateWrite& write : plan_.late_writes)  // such a value lives until the end
      readers_[references_[write.value].base].push_back(static_cast<int>(plan_.steps.size()));
    place_intermediates();
    for (int v = 0; v < std::ssize(graph_.values); ++v)
      plan_.locations[v] = {.place = plan_.location(references_[v].base).place,
                            .offset = references_[v].offset * size_of(plan_.type(v).dtype)};
  }

  /// Values that only steps read. One that is read for the last time where a value is made that may be written over it lies in
  /// the same place: of several the one whose place is in use the longest, so that what is made last is free first.
  void place_intermediates() {
    std::vector<int> followed_by(graph_.values.size(), -1), used_since = made_at_;
    for (int s = 0; s < std::ssize(plan_.steps); ++s)
      for (int output : node_of(s).outputs) {
        if (is_elastic(s)) break;
        if (placed(output) &&
            (plan_.options.results_apart || plan_.places[plan_.location(output).place].kind == PlaceKind::leaf))
          continue;
        int best = -1;
        for (int input : node_of(s).inputs) {
          const int before = references_[input].base;
          if (made_at_[before] < 0 || placed(before) || followed_by[before] >= 0 || readers_[before].back() != s)
            continue;
          if (best >= 0 && used_since[before] >= used_since[best]) continue;
          if (over_->may_take_over(plan_.steps[s].node, before, output)) best = before;
        }
        if (best < 0) continue;
        followed_by[best] = output;
        used_since[output] = used_since[best];
      }
    for (int s = 0; s < std::ssize(plan_.steps); ++s)
      for (int output : node_of(s).outputs) {
        if (placed(output)) continue;
        int last = output;
        while (followed_by[last] >= 0) last = followed_by[last];
        if (!placed(last)) add_place(PlaceKind::allocated, last, -1);
        for (int value = output; value != last; value = followed_by[value])
          plan_.locations[value].place = plan_.location(last).place;
      }
  }

  /// Whether the step that makes the value may write it straight to the memory of the leaf: nothing that lies there is read
  /// later. What else may lie there is known of state alone: a call is refused whose arguments or gradients do
  /// (Program::refuse_aliases).
  bool in_place(int leaf_index, int value) const {
    const Leaf& leaf = graph_.leaf(leaf_index);
    const int made = made_at_[value];
    const bool known = leaf.kind == LeafKind::argument || (leaf.kind == LeafKind::state && leaf.tensor.defined());
    if (made < 0 || placed(value) || !(plan_.type(value) == plan_.type(leaf.value)) || !known) return false;
    if (is_elastic(made)) return false;
    if (leaf.kind == LeafKind::state)
      for (const int other : leaves_on_.at(leaf.tensor.impl()->storage))
        if (other != leaf_index)
          for (const int reader : readers_[graph_.leaf(other).value])
            if (reader >= made) return false;
    const std::vector<int>& read_by = readers_[leaf.value];
    for (int reader : read_by)
      if (reader > made) return false;
    return std::find(read_by.begin(), read_by.end(), made) == read_by.end() ||
           over_->reads_before_writing(plan_.steps[made].node, leaf.value, value);
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

  /// Which results may lie where an argument does: nothing reads of that what the result, or what lies in its place before it, has
  /// replaced.
  void find_shared() {
    constexpr size_t kMostPairs = 1 << 20;
    if (graph_.leaves.size() * graph_.outputs.size() > kMostPairs) return;
    std::unordered_map<int, int> first;  // of each place, the value that is written there first
    for (int v = 0; v < std::ssize(graph_.values); ++v) {
      if (made_at_[v] < 0) continue;
      const auto [known, fresh] = first.try_emplace(plan_.location(v).place, v);
      if (!fresh && made_at_[v] < made_at_[known->second]) known->second = v;
    }
    for (const Leaf& leaf : graph_.leaves) {
      if (leaf.kind != LeafKind::argument) continue;
      const std::vector<int>& read_by = readers_[leaf.value];
      for (int i = 0; i < std::ssize(graph_.outputs); ++i) {
        const int result = graph_.outputs[i];
        if (made_at_[result] < 0 || !(plan_.type(result) == plan_.type(leaf.value))) continue;
        const int value = first.at(plan_.location(result).place), made = made_at_[value];
        if (is_elastic(made)) continue;
        const bool read_later = std::any_of(read_by.begin(), read_by.end(), [&](int reader) { return reader > made; });
        const bool read_there = std::find(read_by.begin(), read_by.end(), made) != read_by.end();
        if (!read_later && (!read_there || (plan_.type(value) == plan_.type(leaf.value) &&
                                            over_->reads_before_writing(plan_.steps[made].node, leaf.value, value))))
          plan_.may_share.emplace_back(leaf.argument, i);
      }
    }
  }

  /// The device of the steps, the numbers that kernels there read, and whether it may record them.
  void find_device() {
    const auto on_host = [](const Device& device) { return device == cpu(); };
    bool all_there = true;
    for (const PlanStep& step : plan_.steps)
      if (on_host(step.device)) all_there = false;
      else if (std::find(plan_.devices.begin(), plan_.devices.end(), step.device) == plan_.devices.end())
        plan_.devices.push_back(step.device);
    if (plan_.devices.empty()) return;
    plan_.device = plan_.devices.front();
    plan_.recorded =
        all_there && plan_.devices.size() == 1 && plan_.options.memory_plan && runtime_for(plan_.device).records();
    for (const PlanStep& step : plan_.steps) {
      const Node& node = graph_.node(step.node);
      // What a user's op does on the device is its own business: allocate, wait, … The loops of regions are the host's.
      if (node.op->user || node.op->transfers || node.op->kind == OpKind::control) plan_.recorded = false;
      if (node.op->transfers || on_host(step.device)) continue;
      if (!runtime_for(plan_.device).can_record(*node.op)) plan_.recorded = false;
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
    std::vector<Lifetime> lives;  // of each place
    for (const PlanPlace& place : plan_.places)
      lives.push_back({.bytes = elastic_ ? elastic_->most_bytes[place.value] : bytes_of(plan_.type(place.value)),
                       .first = std::numeric_limits<int>::max(),
                       .last = -1});
    for (int s = 0; s < std::ssize(plan_.steps); ++s)
      for (int output : node_of(s).outputs) {
        Lifetime& life = lives[plan_.location(output).place];
        life.first = std::min(life.first, s);
        life.last = std::max({life.last, s, readers_[output].empty() ? s : readers_[output].back()});
      }
    std::vector<int> own;  // places that nothing outside is
    for (int p = 0; p < std::ssize(plan_.places); ++p)
      if (plan_.places[p].kind == PlaceKind::allocated) own.push_back(p);
    if (plan_.options.memory_plan) return pack(own, lives);
    for (const int place : own) {
      const Lifetime& life = lives[place];
      plan_.steps[life.first].allocate.push_back(place);
      (life.last < std::ssize(plan_.steps) ? plan_.steps[life.last].release : plan_.release_last).push_back(place);
    }
  }

  /// What kernels may use as scratch memory.
  void leave_spare(int arena, const std::vector<Lifetime>& lives, int64_t bytes) {
    const std::vector<Gap> all = gaps(lives, bytes, static_cast<int>(plan_.steps.size()));
    for (size_t s = 0; s < all.size(); ++s) {
      PlanStep& step = plan_.steps[s];
      if (all[s].bytes < kLeastSpare || graph_.node(step.node).fused || step.device != cpu()) continue;
      step.spare_arena = arena;
      step.spare_offset = all[s].offset;
      step.spare_bytes = all[s].bytes;
    }
  }

  /// Into an arena for each device, and into results and gradients as long as these are not made: their memory is there all
  /// the time.
  void pack(const std::vector<int>& places, const std::vector<Lifetime>& lives) {
    const auto device_of = [&](int place) { return plan_.type(plan_.places[place].value).device; };
    std::vector<Device> devices;
    for (const int place : places)
      if (std::find(devices.begin(), devices.end(), device_of(place)) == devices.end())
        devices.push_back(device_of(place));
    for (const Device& device : devices) {
      std::vector<Lifetime> here;
      std::vector<int> which, hosts;
      std::vector<Room> rooms;
      for (const int place : places)
        if (device_of(place) == device) here.push_back(lives[place]), which.push_back(place);
      for (int p = 0; p < std::ssize(plan_.places); ++p) {
        const PlaceKind kind = plan_.places[p].kind;
        if ((kind != PlaceKind::result && kind != PlaceKind::gradient) || device_of(p) != device) continue;
        if (elastic_ && elastic_->values[plan_.places[p].value]) continue;
        rooms.push_back({.bytes = lives[p].bytes, .until = lives[p].first});
        hosts.push_back(p);
      }
      const MemoryPlan memory = graph::plan_memory(here, rooms);
      const int arena = static_cast<int>(plan_.arenas.size());
      plan_.arenas.push_back({.device = device, .bytes = memory.bytes, .lower_bound = memory.lower_bound});
      if (device == cpu()) leave_spare(arena, here, memory.bytes);
      std::vector<int> moved_to(plan_.places.size(), -1);
      std::vector<int64_t> moved_by(plan_.places.size());
      for (size_t i = 0; i < here.size(); ++i) {
        PlanPlace& place = plan_.places[which[i]];
        place.kind = PlaceKind::arena;
        place.index = arena;
        place.offset = here[i].offset;
        if (here[i].room < 0) continue;
        place.kind = PlaceKind::guest;
        place.index = hosts[here[i].room];
        moved_to[which[i]] = place.index;
        moved_by[which[i]] = here[i].offset;
      }
      for (Location& location : plan_.locations)
        if (location.place >= 0 && moved_to[location.place] >= 0) {
          location.offset += moved_by[location.place];
          location.place = moved_to[location.place];
        }
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
    case PlaceKind::guest: return detail::str("in p", place.index, " at ", place.offset);
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

Plan make_plan(Graph graph, PlanOptions options, Elastic* elastic) {
  return Planner(std::move(graph), options, elastic).run();
}

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
