// Tracing a function and its gradient in one, and the node of the tape that runs the second half.
#include "graph/trace/joint.h"

#include <algorithm>
#include <unordered_set>

#include "autograd/tape.h"
#include "autograd/walk.h"
#include "core/dispatch.h"
#include "graph/ir/at.h"
#include "graph/passes/partition.h"
#include "graph/run/program.h"

namespace tandem::graph {

using detail::str;

namespace {

/// What the results may have been computed from, as the trace has it.
Tensors find_operands(const Tensors& arguments, const Tensors& results, std::vector<TapeOperand>& operands) {
  Tensors tensors;
  std::unordered_set<const TensorImpl*> known;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!arguments[i].requires_grad() || !known.insert(arguments[i].impl()).second) continue;
    tensors.push_back(arguments[i]);
    operands.push_back({.argument = static_cast<int>(i)});
  }
  Tensors outside = outside_on_tape();
  for (const Tensor& result : results)  // no op has read it
    if (!result.is_symbolic() && result.requires_grad()) outside.push_back(result);
  for (const Tensor& tensor : outside) {
    if (!known.insert(tensor.impl()).second) continue;
    tensors.push_back(tensor);
    operands.push_back({.outside = tensor});
  }
  return tensors;
}

/// Traces the gradient of the results that have a tape. Gradients of `joint.operands`: those of the candidates that have one.
Tensors trace_gradient(JointTrace& joint, const Tensors& arguments, const Tensors& results, Where where) {
  Tensors outputs, cotangents;
  for (size_t i = 0; i < results.size(); ++i) {
    if (joint.tape[i] != ResultTape::function) continue;
    outputs.push_back(results[i]);
    cotangents.push_back(argument_in_trace(type_of(results[i]), count(arguments) + count(cotangents)));
  }
  std::vector<TapeOperand> candidates;
  const Tensors wanted = find_operands(arguments, results, candidates);
  Tensors gradients;
  const Tensors found = direct_gradients(outputs, wanted, cotangents, false, where);
  for (size_t i = 0; i < found.size(); ++i) {
    if (!found[i].defined()) continue;
    gradients.push_back(found[i]);
    joint.operands.push_back(std::move(candidates[i]));
  }
  return gradients;
}

/// The leaves of cotangents become the last ones, so that the others are numbered as in a trace without them.
void move_cotangents_last(Graph& graph, int arguments) {
  std::vector<Leaf> leaves, cotangents;
  std::vector<int> place(graph.leaves.size());
  for (size_t i = 0; i < graph.leaves.size(); ++i) {
    Leaf& leaf = graph.leaves[i];
    const bool is_cotangent = leaf.kind == LeafKind::argument && leaf.argument >= arguments;
    place[i] = is_cotangent ? -1 : count(leaves);
    (is_cotangent ? cotangents : leaves).push_back(std::move(leaf));
  }
  leaves.insert(leaves.end(), cotangents.begin(), cotangents.end());
  graph.leaves = std::move(leaves);
  for (int i = 0; i < count(graph.leaves); ++i) graph.value(graph.leaf(i).value).leaf = i;
  for (StateWrite& write : graph.writes) write.leaf = at(place, write.leaf);
}

const Op& compiled_op() {
  static const Op op{.name = "compiled function"};
  return op;
}

/// The rule of the node behind the results of one call.
class Backward final : public NodeFunction {
 public:
  Backward(std::shared_ptr<const JointGradient> gradient, std::vector<SavedTensor> saved)
      : gradient_(std::move(gradient)), saved_(std::move(saved)) {}

  Tensors backward(const OpContext& context) override {
    const Where where = gradient_->where;
    const std::string function = str("the function compiled at ", to_string(where));
    if (!gradient_->program)
      throw AutogradError(str("backward: the results of ", function, " have no gradient: ", gradient_->refused), where);
    if (grad_enabled())
      throw AutogradError(
          str("backward: with create_graph it leads through ", function,
              ", whose gradient has no tape of its own; call grad() with create_graph inside of it, or run it with "
              "{.mode = Mode::eager}"),
          where);
    Tensors arguments;
    for (const SavedTensor& saved : saved_) {
      if (version_of(*saved.tensor.impl()) != saved.version)
        throw InPlaceError(
            str("a tensor ", saved.tensor.shape(), " was saved for backward by ", function, " and then overwritten at ",
                to_string(last_write_of(*saved.tensor.impl())), "; assign after backward(), or pass a clone()"),
            where);
      arguments.push_back(saved.tensor);
    }
    const auto results = std::count(gradient_->tape.begin(), gradient_->tape.end(), ResultTape::function);
    for (int i = 0; i < results; ++i) arguments.push_back(context.grad_output(i).contiguous());
    return gradient_->program->run(arguments);
  }
  void release() override { saved_.clear(); }

 private:
  std::shared_ptr<const JointGradient> gradient_;
  std::vector<SavedTensor> saved_;
};

/// In the layout of the type, as what is saved was traced: passes may have chosen another.
Tensor in_layout(const Tensor& tensor, const ValueType& type) {
  if (tensor.strides() == type.strides) return tensor;
  TANDEM_ASSERT(is_dense(type.shape, type.strides), "saved for backward: ", type, " with gaps");
  Tensor result = header_of(type);
  result.impl()->allocate();
  result.assign(tensor);
  return result;
}

}  // namespace

JointTrace trace_jointly(const Tensors& arguments, const std::function<Tensors(const Tensors&)>& function,
                         std::string refused, bool recompute, Where where) {
  JointTrace joint;
  joint.refused = std::move(refused);
  const uint64_t since = tape_position();
  const auto run = [&](const Tensors& in) {
    Tensors results = function(in);
    joint.tape.clear();
    for (const Tensor& result : results)
      joint.tape.push_back(!grad_enabled() || !result.defined() || !result.requires_grad() ? ResultTape::none
                           : tape_is_whole(result, since)                                  ? ResultTape::function
                                                                                           : ResultTape::passed);
    const Progress progress = trace_progress();
    joint.parts = {count(results), progress.nodes, count(arguments), progress.draws};
    joint.operands.clear();
    if (!joint.traced_gradient()) {
      if (!joint.refused.empty()) find_operands(in, results, joint.operands);
      return results;
    }
    try {
      const Tensors gradients = trace_gradient(joint, in, results, where);
      results.insert(results.end(), gradients.begin(), gradients.end());
    } catch (const Error& error) { joint.refused = error.message(); }
    return results;
  };
  const bool tries = joint.refused.empty();
  joint.traced = run_trace(arguments, run, where);
  move_cotangents_last(joint.traced.graph, joint.parts.arguments);
  try {
    if (joint.traced_gradient()) partition(joint.traced.graph, joint.parts, recompute, where);
  } catch (const TraceError& error) { joint.refused = error.message(); }
  if (tries && !joint.refused.empty()) joint.traced = run_trace(arguments, run, where);
  return joint;
}

std::shared_ptr<JointGradient> joint_gradient(const JointTrace& joint, Where where) {
  if (std::all_of(joint.tape.begin(), joint.tape.end(), [](ResultTape tape) { return tape == ResultTape::none; }))
    return nullptr;
  auto gradient = std::make_shared<JointGradient>();
  static_cast<JointTape&>(*gradient) = joint;
  gradient->where = where;
  return gradient;
}

void attach(std::shared_ptr<const JointGradient> gradient, const std::vector<Leaf>& leaves, const Tensors& arguments,
            Tensors& outputs) {
  const JointGradient& g = *gradient;
  std::vector<SavedTensor> saved;
  if (!thread_state.checkpoint)  // there the function runs a second time
    for (size_t i = 0; i < g.saved.size(); ++i) {
      const auto& [from, index, type] = g.saved[i];
      Tensor tensor;
      switch (from) {
        case Saved::From::argument: tensor = at(arguments, index); break;
        case Saved::From::leaf: tensor = at(leaves, index).tensor; break;
        case Saved::From::result: tensor = at(outputs, index).detach(); break;
        case Saved::From::output: tensor = at(outputs, index); break;
      }
      if (from == Saved::From::result || from == Saved::From::output) tensor = in_layout(tensor, type);
      saved.push_back({tensor, version_of(*tensor.impl())});
    }
  outputs.resize(g.tape.size());
  Tensors operands, results;
  for (const TapeOperand& operand : g.operands)
    operands.push_back(operand.argument >= 0 ? at(arguments, operand.argument) : operand.outside);
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (g.tape[i] == ResultTape::function) results.push_back(outputs[i]);
    outputs[i].impl()->from_graph = g.tape[i] == ResultTape::passed;
  }
  if (results.empty()) return;
  if (CheckpointFrame* frame = thread_state.checkpoint) {
    frame->note(operands);
    frame->mark(results);
    return;
  }
  const NodeHandle handle{new_node(compiled_op(), g.where)};
  connect(*handle.node, operands, results, false);
  handle.node->make_extra().function = std::make_shared<Backward>(std::move(gradient), std::move(saved));
}

}  // namespace tandem::graph
