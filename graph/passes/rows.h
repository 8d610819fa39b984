// Rows: which nodes can compute a block of their results' rows from the same rows of operands (row_pipelines.cpp).
#pragma once

#include <optional>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ir/views.h"

namespace tandem::graph {

/// The rows that a value leads with: its leading extent.
inline int64_t rows_of(const ValueType& type) { return type.shape.empty() ? 0 : type.shape[0]; }
/// Whether blocks of rows follow one another in memory.
bool leads_in_memory(const ValueType& type);

/// Of each operand: whether the node reads of it the rows that it makes of its results, or all of it. None where its rows depend on one
/// another, or where it stays whole for another reason: it has effects, draws, is not on the CPU, checks what it reads.
std::optional<std::vector<bool>> operands_by_row(const Graph& graph, const Node& node,
                                                 const std::vector<Reference>& references);
/// One block of `blocks` of such a value.
ValueType block_of(ValueType type, int64_t blocks);
/// The attributes of a node that makes one.
Attributes attributes_of_block(const Node& node, int64_t rows, int64_t blocks);

/// Chains that make fewer bytes stay as they are; 0: whatever it costs. For tests, which have small ones. Returns what
/// it was.
int64_t set_least_pipeline_bytes(int64_t bytes);

}  // namespace tandem::graph
