// The tracer: while a function runs under it, ops become nodes of a graph instead of running.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "../../core/dispatch.h"
#include "../ir/region.h"

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

/// What the regions of one op read beside their operands, in the order in which they first do: operands too.
struct Captures {
  std::vector<Tensor> tensors;
};
struct TracedRegion {
  Graph graph;  ///< argument i is operand i, or captures[i - operands]
  RegionTape tape;
  /// Captures that it assigns to, and what they are at its end.
  struct Write {
    size_t capture;
    int value;
    Where where;
  };
  std::vector<Write> writes;
};
/// Runs `function` on symbols for the operands (tensors of the trace that is under way), as a graph of its own. `op` is for
/// errors. TraceError if it calls backward().
TracedRegion trace_region(const char* op, const Tensors& operands, Captures& captures,
                          const std::function<Tensors(const Tensors&)>& function, Where where);

/// The tensor as it is now, with no tape behind it: what is written to it later doesn't reach this one.
Tensor snapshot_in_trace(const Tensor& tensor);
/// The tensor as a symbol of the region that is being traced, with no tape behind it.
Tensor symbol_in_region(const Tensor& tensor);

// Of the trace of a function that is under way, for the trace of its gradient behind it.
struct Progress {
  int nodes;
  int64_t draws;
};
Progress trace_progress();
/// A further argument, contiguous.
Tensor argument_in_trace(const ValueType& type, int position);
/// The tensors from outside that it has read and that require a gradient, each once.
Tensors outside_on_tape();

/// The type of the gradient that the tensor has, if it has one.
std::optional<ValueType> gradient_type(const Tensor& tensor);

/// Runs `function` on symbolic arguments. Whatever it did to tensors outside (assign, grad(), the random
/// state) is undone, also when it throws. TraceError if a trace is already under way on this thread.
Traced run_trace(const Tensors& arguments, const std::function<Tensors(const Tensors&)>& function, Where where);

}  // namespace tandem::graph
