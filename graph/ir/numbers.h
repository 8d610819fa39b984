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
/// Puts others in their places. Kernels whose numbers stay are shared with the graphs that have them.
void set_numbers(Graph& graph, size_t scalars_from, const std::vector<int64_t>& numbers);
/// The first place where the graphs differ in more than such numbers, those of scalar leaves, and the tensors of leaves:
/// "then: …; now: …". Empty if there is none.
std::string difference_in_structure(const Graph& a, const Graph& b);
/// Whether all that the fused kernels load and store lies in the values that they name.
bool kernels_stay_inside(const Graph& graph);

}  // namespace tandem::graph
