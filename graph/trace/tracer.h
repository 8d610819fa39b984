// The tracer: while a function runs under it, ops become nodes of a graph instead of running.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>

#include "../../core/dispatch.h"
#include "../ir/graph.h"

namespace tandem::graph {

/// A host flag that the traced function read, and what it was.
struct FlagGuard {
  const bool* flag;
  bool value;
};
/// Whether a tensor had a gradient when the trace first looked.
struct GradientGuard {
  Tensor tensor;
  bool defined;
};

struct Traced {
  Graph graph;
  std::vector<FlagGuard> flags;
  std::vector<GradientGuard> gradients;
};

/// Runs `function` on symbolic arguments. Whatever it did to tensors outside (assign, grad(), the random
/// state) is undone, also when it throws. TraceError if a trace is already under way on this thread.
Traced run_trace(const Tensors& arguments, const std::function<Tensors(const Tensors&)>& function, Where where);

}  // namespace tandem::graph
