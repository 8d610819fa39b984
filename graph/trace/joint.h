// Gradients through a compiled function: its results have a place on the tape. The function and the gradient of its results are
// traced one after the other and cut in two programs; the second is the rule of one node of the tape.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../ir/joint_graph.h"
#include "tracer.h"

namespace tandem::graph {

class Program;

/// What stands on the tape behind a result.
enum class ResultTape : uint8_t {
  none,      ///< nothing: it requires no gradient
  function,  ///< the function, as one node
  passed,    ///< nothing any more: the function has called backward() over it
};

/// Something that the results were computed from, and that requires a gradient.
struct TapeOperand {
  int argument = -1;    ///< of the function
  Tensor outside = {};  ///< or a tensor that it closes over
};

struct JointTape {
  std::vector<ResultTape> tape;  ///< by result
  std::vector<TapeOperand> operands;
  /// Why the gradient has no trace: an error that backward() would raise eagerly as well, or what graph mode can't hold.
  std::string refused;

  /// Whether the graph holds the gradient of a result, be it that none comes to an operand.
  bool traced_gradient() const {
    return refused.empty() && std::find(tape.begin(), tape.end(), ResultTape::function) != tape.end();
  }
};
struct JointTrace : JointTape {
  Traced traced;  ///< outputs: the results, then gradients of `operands`
  JointParts parts;
};
/// Traces the function, and behind it the gradient of those results that have a tape. Without it where `refused` says why it
/// can't be. `recompute` as in partition().
JointTrace trace_jointly(const Tensors& arguments, const std::function<Tensors(const Tensors&)>& function,
                         std::string refused, bool recompute, Where where);

/// The gradient of the results of a specialisation.
struct JointGradient : JointTape {
  std::shared_ptr<Program> program = {};  ///< null: `refused` is what backward() says
  std::vector<Saved> saved = {};
  Where where = {};  ///< the line of compile()
};
/// That of a trace, without a program; null if no result requires a gradient.
std::shared_ptr<JointGradient> joint_gradient(const JointTrace& joint, Where where);
/// Takes what is saved out of the outputs of the forward program, and puts the results behind a new node of the tape. `leaves`
/// are those of the trace.
void attach(std::shared_ptr<const JointGradient> gradient, const std::vector<Leaf>& leaves, const Tensors& arguments,
            Tensors& outputs);

}  // namespace tandem::graph
