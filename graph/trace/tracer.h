// The tracer: while a function runs under it, ops become nodes of a graph instead of running.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "../../core/dispatch.h"
#include "../ir/graph.h"

namespace tandem::graph {

/// A host flag that the traced function read, and what it was.
struct FlagGuard {
  const bool* flag;
  bool value;
};
/// What the gradient of a tensor was when the trace first looked: none, or of this type and layout.
struct GradientGuard {
  Tensor tensor;
  std::optional<ValueType> gradient;
};
/// Whether gradients were wanted for a tensor that the function closes over.
struct RequiresGradGuard {
  Tensor tensor;
  bool requires_grad;
};
/// What a trace relied on beside its arguments.
struct Guards {
  std::vector<FlagGuard> flags;
  std::vector<GradientGuard> gradients;
  std::vector<RequiresGradGuard> requires_grad;
};

struct Traced {
  Graph graph;
  Guards guards;
  bool reads_values =
      false;  ///< the function read elements of state on the host (item()): they may change at each call
};

/// The type of the gradient that the tensor has, if it has one.
std::optional<ValueType> gradient_type(const Tensor& tensor);

/// Runs `function` on symbolic arguments. Whatever it did to tensors outside (assign, grad(), the random
/// state) is undone, also when it throws. TraceError if a trace is already under way on this thread.
Traced run_trace(const Tensors& arguments, const std::function<Tensors(const Tensors&)>& function, Where where);

}  // namespace tandem::graph
