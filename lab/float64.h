// A graph run in float64: what its results would be without rounding, nearly.
#pragma once

#include <vector>

#include "../graph/ir/graph.h"

namespace tandem::lab {

struct Float64Results {
  Tensors outputs;    ///< as Graph::outputs
  Tensors gradients;  ///< as Graph::gradients; undefined where one is cleared
  Tensors writes;     ///< as Graph::writes
};

/// Runs `graph` op by op on the eager kernels with every floating value, attribute and number in float64, reading
/// state and gradients as they are now. Random numbers are drawn in the dtype they have in the graph, so that
/// they are the same. Nothing outside is changed.
Float64Results run_in_float64(const Graph& graph, const Tensors& arguments);

/// Largest |value - reference| over the largest |reference|; infinite if a value isn't finite where the reference
/// is. 0 for tensors that are no floats and equal, or empty.
double relative_error(const Tensor& value, const Tensor& reference);

}  // namespace tandem::lab
