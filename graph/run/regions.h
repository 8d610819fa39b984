// Kernels of the ops with regions.
#pragma once

#include "core/op.h"

namespace tandem::graph {

/// Of cond, while_loop and scan (graph/trace/control_flow.cpp), for every kind of device.
void add_region_kernels(OpTable& table);
/// over_rows, which the pass row_pipelines makes.
void define_over_rows(OpTable& table);

}  // namespace tandem::graph
