// Views, looked through: where the elements of a value lie that views make of another one.
#pragma once

#include <optional>
#include <vector>

#include "graph.h"

namespace tandem::graph {

/// A value seen through the views between it and the value that is made or comes from outside.
struct Reference {
  int base = -1;  ///< value without views
  Shape shape;    ///< as the user sees it
  Shape strides;  ///< of the base's memory, as seen through the views
  int64_t offset = 0;
  /// For each dim: the dim of the base that it walks, or -1 (extent 1, or repeated). Not set if the
  /// views slice or reorder elements in a way that the base's own loop can't follow.
  std::optional<std::vector<int>> dims;
  int checked_by = -1;  ///< the node of the last of these views that checks a range (Op::checks_range)
};

/// Those of all values, each view worked out once.
std::vector<Reference> references(const Graph& graph);
/// Reference::base of one of them.
int base_of(const Graph& graph, int value);
/// Whether the value is another shape of an operand's memory.
bool is_view(const Graph& graph, int value);

}  // namespace tandem::graph
