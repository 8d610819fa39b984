// Plan: what a specialisation runs, as data: which steps, in which order, and where every value lies. It is made once,
// never changes, and points into no memory that a call owns; a Run (run.h) holds what one call needs.
//
// Every value lies in a *place*: a leaf (an argument, a state tensor, …), a result, a new gradient, or a piece of the
// arena. Views are offsets into a place.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/run/plan_options.h"

namespace tandem::graph {

enum class PlaceKind : uint8_t {
  leaf,       ///< memory of a leaf: bound at each call
  result,     ///< a new tensor at each call
  gradient,   ///< grad() after the call: a new tensor, or the last call's written over
  arena,      ///< a piece of the arena
  guest,      ///< a piece of a result or gradient, until that is made: its values' locations are in that place
  allocated,  ///< from the allocator, while it is alive
};
struct PlanPlace {
  PlaceKind kind = PlaceKind::allocated;
  int value = -1;      ///< the value that it was made for
  int index = -1;      ///< which leaf, result, gradient or arena; the place that a guest lies in
  int64_t offset = 0;  ///< bytes into the arena, or into the other place
};

/// Where a value lies.
struct Location {
  int place = -1;
  int64_t offset = 0;  ///< bytes into the place
  int number = -1;     ///< in Plan::numbers: kernels on the device read this value there
};

struct PlanStep {
  int node = -1;  ///< an op, or a fused kernel
  Device device;
  int code = -1;                                 ///< of a fused kernel: in Plan::code,
  int kernel = -1;                               ///< and its number there
  std::vector<int> allocate = {}, release = {};  ///< places that live from, or until, this step
  int spare_arena = -1;                          ///< where it leaves a gap that kernels may use
  int64_t spare_offset = 0, spare_bytes = 0;
};

/// A value that is copied to a state tensor after all steps.
struct LateWrite {
  int leaf = -1, value = -1;
  Where where;
};

struct NewGradient {
  int value = -1;       ///< -1: grad() is cleared
  bool recycle = true;  ///< the last call's gradient is written over, if nobody else holds it: no step reads it
};

/// A number of the host (learning rate, step, random key) that kernels on the device read: copied there at each call.
struct HostNumber {
  int leaf = -1;
  int64_t bytes = 0, offset = 0;
};

/// The source that was generated for one device.
struct GeneratedCode {
  Device device;
  std::string tier, hash = {};                     ///< Runtime::tier(); SHA-256 of the source
  std::shared_ptr<const std::string> source = {};  ///< plans for other sizes have the same one
};

struct Arena {
  Device device;
  int64_t bytes = 0;
  int64_t lower_bound = 0;  ///< most of its bytes alive at one step: no plan of them is smaller
};

struct Plan {
  Graph graph;  ///< with a copy of each result that is also something else
  PlanOptions options;
  std::vector<PlanPlace> places;
  std::vector<Location> locations;  ///< of each value
  std::vector<PlanStep> steps;
  std::vector<LateWrite> late_writes;
  std::vector<int> release_last;               ///< places that late writes read
  std::vector<std::pair<int, int>> may_share;  ///< arguments and results of which each may be given the same memory
  std::vector<NewGradient> gradients;          ///< of each of graph.gradients
  std::vector<HostNumber> numbers;
  std::vector<Arena> arenas;  ///< one for each device with intermediate values
  std::vector<GeneratedCode> code;
  std::vector<Device> devices;  ///< beside the host, that steps run on
  Device device;                ///< the first of them, if there is one
  bool recorded = false;        ///< all steps are launches on `device`, which repeats them as one

  const ValueType& type(int value) const { return graph.type(value); }
  const Location& location(int value) const { return locations[value]; }
  int64_t number_bytes() const { return numbers.empty() ? 0 : numbers.back().offset + numbers.back().bytes; }
  int kernels() const { return static_cast<int>(steps.size() + late_writes.size()); }
  int fused_kernels() const;
  int64_t arena_bytes() const;
  int64_t lower_bound_bytes() const;
  /// What runs it: "generated C", "eager kernels, planned", …
  std::string tier() const;
  /// A call changes what other calls read (state, gradients, the random generator), or its device takes one at a time.
  bool alone() const;
  /// Places and steps, a line each.
  std::string to_string() const;
};

/// What changes with sizes, for a plan that serves several: it has room for the largest, and nothing in it rests on what changes.
struct Elastic {
  std::vector<bool> values, nodes;  ///< a number of the value's type; of the node, or of what it reads or makes
  std::vector<int64_t> most_bytes;  ///< of each value
};

/// Where everything lies and what runs in which order. Fused kernels get their code later (see Program::build). `elastic`, if
/// given, gets what the plan's graph has beyond `graph`.
Plan make_plan(Graph graph, PlanOptions options, Elastic* elastic = nullptr);

int64_t bytes_of(const ValueType& type);

}  // namespace tandem::graph
