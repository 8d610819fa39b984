// custom_function: one node of the tape, whose rule is the user's backward.
#include "autograd/custom_function.h"

#include "autograd/tape.h"
#include "core/dispatch.h"

namespace tandem {

struct FunctionContext::State {
  struct Saved {
    SavedTensor kept;
    int result = -1;  ///< it is a result of the function, which the node keeps
  };
  std::vector<Saved> saved;
  std::vector<bool> needs_grad;
  std::any data;
  Where where;
  std::string name;
};

void FunctionContext::save(TensorList tensors) {
  for (const Tensor& tensor : tensors.items()) {
    if (!tensor.defined())
      throw UndefinedError(detail::str(state_->name, ": save: a tensor is undefined"), state_->where);
    state_->saved.push_back({{tensor, version_of(*tensor.impl())}});
  }
}

Tensor FunctionContext::saved(size_t i) const {
  if (i >= state_->saved.size())
    throw ValueError(detail::str(state_->name, ": saved(", i, "): forward saved ", state_->saved.size(), " tensors"),
                     state_->where);
  const State::Saved& saved = state_->saved[i];
  if (saved.result >= 0 && rule_) return rule_->output(saved.result);
  const Tensor& tensor = saved.kept.tensor;
  if (version_of(*tensor.impl()) != saved.kept.version)
    throw InPlaceError(
        detail::str(state_->name, ": saved tensor ", i, " ", tensor.shape(), " was saved for backward at ",
                    to_string(state_->where), " and then overwritten at ", to_string(last_write_of(*tensor.impl())),
                    "; assign after backward(), or save a clone()"),
        state_->where);
  return tensor;
}

std::any& FunctionContext::data() const { return state_->data; }
bool FunctionContext::needs_grad(size_t input) const {
  if (input >= state_->needs_grad.size())
    throw ValueError(
        detail::str(state_->name, ": needs_grad(", input, "): there are ", state_->needs_grad.size(), " inputs"),
        state_->where);
  return rule_ ? rule_->needs_grad(static_cast<int>(input)) : state_->needs_grad[input];
}

/// One call: runs forward, and is the rule of its node.
class FunctionCall final : public NodeFunction {
 public:
  FunctionCall(std::shared_ptr<const FunctionDefinition> definition, Where where)
      : definition_(std::move(definition)), state_(std::make_shared<FunctionContext::State>()) {
    op_.name = definition_->name.c_str();
    state_->where = where;
    state_->name = definition_->name;
  }
  const Op& op() const { return op_; }

  Tensors forward(const Tensors& inputs) {
    for (const Tensor& input : inputs) state_->needs_grad.push_back(grad_enabled() && input.requires_grad());
    FunctionContext context(state_, nullptr);
    const NoGrad no_grad;
    Tensors results = definition_->forward(context, inputs).items();
    for (Tensor& result : results) {
      if (!result.defined())
        throw UndefinedError(detail::str(op_.name, ": forward returned an undefined Tensor"), state_->where);
      // A header of its own for the tape, also where forward returned an input. A saved result is kept by the node, so
      // that it doesn't keep itself alive.
      const Tensor own = result.detach();
      for (FunctionContext::State::Saved& saved : state_->saved)
        if (saved.kept.tensor.impl() == result.impl() && !result.requires_grad()) {
          saved.result = static_cast<int>(&result - results.data());
          saved.kept = {};
        }
      result = own;
    }
    return results;
  }
  bool saves_result(size_t i) const {
    for (const FunctionContext::State::Saved& saved : state_->saved)
      if (saved.result == static_cast<int>(i)) return true;
    return false;
  }

  Tensors backward(const OpContext& context) override {
    Tensors gradients;
    for (size_t i = 0; i < results; ++i) gradients.push_back(context.grad_output(static_cast<int>(i)));
    const FunctionContext view(state_, &context);
    return definition_->backward(view, gradients).items();
  }
  void release() override { state_->saved.clear(); }

  size_t results = 0;

 private:
  std::shared_ptr<const FunctionDefinition> definition_;
  std::shared_ptr<FunctionContext::State> state_;
  Op op_;
};

Tensors CustomFunction::all(const Tensors& inputs, Where where) const {
  where = user_line(where);
  bool wants = false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined())
      throw UndefinedError(detail::str(definition_->name, ": input ", i, " is an undefined Tensor"), where);
    wants = wants || inputs[i].requires_grad();
  }
  auto call = std::make_shared<FunctionCall>(definition_, where);
  Tensors results = call->forward(inputs);
  if (!wants || !grad_enabled()) return results;
  if (CheckpointFrame* frame = thread_state.checkpoint) {
    frame->note(inputs);
    frame->mark(results);
    return results;
  }
  if (Interceptor* tracer = interceptor()) tracer->known_to_tape(definition_->name.c_str(), where);
  call->results = results.size();
  const NodeHandle handle{new_node(call->op(), where)};
  TapeNode* const node = handle.node;
  connect(*node, inputs, results, false);
  for (size_t i = 0; i < results.size(); ++i)
    if (call->saves_result(i)) {
      const Tensor kept = results[i].detach();
      node->results()[i].saved = {kept, version_of(*kept.impl())};
    }
  node->make_extra().function = std::move(call);
  return results;
}

Tensor CustomFunction::single(const Tensors& results) const {
  if (results.size() != 1)
    throw ValueError(
        detail::str(definition_->name, ": forward gave ", results.size(), " results; call all({inputs…}) for them"),
        Where());
  return results[0];
}

CustomFunction custom_function(FunctionDefinition definition, Where where) {
  if (!definition.forward || !definition.backward)
    throw ValueError(detail::str(definition.name, ": custom_function needs .forward and .backward"), user_line(where));
  return CustomFunction(std::make_shared<const FunctionDefinition>(std::move(definition)));
}

}  // namespace tandem
