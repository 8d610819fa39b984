// The numbers of a graph: extents, strides, whole attributes, and those of its loops. They are all that the graphs of one
// function in several sizes differ in, as long as it does the same in each.
#pragma once

#include <string>
#include <vector>

#include "graph.h"

namespace tandem::graph {

/// All of them, always in the same order; doubles by their bits. Of scalar leaves, those from `scalars_from` on.
std::vector<int64_t> numbers_of(const Graph& graph, size_t scalars_from);
/// Which of them are doubles.
std::vector<bool> which_are_doubles(const Graph& graph, size_t scalars_from);
/// Where a number lies, 8 bytes, and what it is of: a value's type, or a scalar leaf, or a node's attributes or kernel.
struct NumberPlace {
  void* address = nullptr;
  int value = -1, leaf = -1, node = -1;
};
/// Those of all numbers, in the same order, of the first `values` values and `nodes` nodes. Kernels become the graph's own. They
/// hold until the graph's lists change.
std::vector<NumberPlace> number_places(Graph& graph, size_t scalars_from, size_t values, size_t nodes);
/// Puts others in their places. Kernels whose numbers stay are shared with the graphs that have them.
void set_numbers(Graph& graph, size_t scalars_from, const std::vector<int64_t>& numbers);
/// The first place where the graphs differ in more than such numbers, those of scalar leaves, and the tensors of leaves:
/// "then: …; now: …". Empty if there is none.
std::string difference_in_structure(const Graph& a, const Graph& b);
/// Whether all that the fused kernels load and store lies in the values that they name.
bool kernels_stay_inside(const Graph& graph);
/// That of one node.
bool kernel_stays_inside(const Graph& graph, const Node& node);

}  // namespace tandem::graph
