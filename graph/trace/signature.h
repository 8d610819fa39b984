// What a trace was made for, as one list of conditions. A call that holds them all runs the trace's program; one that
// doesn't is told which failed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "../../core/autocast.h"
#include "../ir/graph.h"
#include "tracer.h"

namespace tandem::graph {

/// A call of a compiled function, as far as a trace can depend on it. What else it depends on (grad mode, autocast, host
/// flags, gradients) is asked of the thread and the tensors.
struct Call {
  const Tensors& arguments;
  const std::string& static_key;  ///< spells the arguments that are no tensors
};

class Signature {
 public:
  /// That of this call. What the trace reads on its way is added by reads().
  explicit Signature(const Call& call);
  /// What the trace relied on.
  void reads(Guards guards);

  bool holds(const Call& call) const;
  /// That of the call, if it differs in nothing but sizes: extents of 0 and 1, and the order of strides, are the same.
  std::optional<Signature> resized(const Call& call) const;
  /// The first condition that doesn't hold: "argument 0: shape [8, 64] -> [16, 64]". Empty if all do.
  std::string describe(const Call& call) const;

 private:
  struct Conditions;  ///< in the order in which they are named to the user

  struct Argument {
    ValueType type;
    bool requires_grad = false;
    std::optional<ValueType> gradient = {};  ///< that it had, of one that requires a gradient
    int same_as = -1;                        ///< an earlier argument that is the same tensor
  };
  std::vector<Argument> arguments_;
  std::string static_key_;
  bool grad_enabled_;
  AutocastState autocast_;
  Guards guards_;
};

}  // namespace tandem::graph
