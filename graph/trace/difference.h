// What differs between two traces of one function whose arguments are alike.
#pragma once

#include <string>
#include <vector>

#include "../ir/graph.h"
#include "joint.h"

namespace tandem::graph {

/// The first place where two traces differ in more than numbers and in which tensors they read; empty if none.
std::string structural_difference(const Graph& a, const Graph& b);
/// For each leaf of state: the first one that lies in the same storage.
std::vector<size_t> aliases(const Graph& graph);
bool same_operands(const std::vector<TapeOperand>& a, const std::vector<TapeOperand>& b);
bool same_bytes(const Tensor& a, const Tensor& b);

}  // namespace tandem::graph
