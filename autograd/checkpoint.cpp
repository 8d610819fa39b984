// checkpoint: the first run is recorded as one node, whose rule runs the function again and differentiates that.
#include "autograd/checkpoint.h"

#include "autograd/walk.h"
#include "core/autocast.h"
#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "core/random.h"

namespace tandem {

namespace {

const Op& checkpoint_op() {
  static const Op op{.name = "checkpoint"};
  return op;
}

/// While alive, symbolic tensors stand for copies of themselves that the compiler takes for other values.
class Renamed {
 public:
  Renamed(const Tensors& tensors, const Tensor& after) {
    for (const Tensor& tensor : tensors) {
      if (!tensor.is_symbolic()) continue;
      const NoGrad no_grad;
      const Tensor copy = barrier(tensor.detach(), after);
      originals_.push_back({tensor, tensor.impl()->value, tensor.impl()->strides, tensor.impl()->contiguous});
      tensor.impl()->value = copy.impl()->value;
      tensor.impl()->strides = copy.impl()->strides;
      tensor.impl()->contiguous = copy.impl()->contiguous;
    }
  }
  ~Renamed() {
    for (const Original& original : originals_) {
      TensorImpl& impl = *original.tensor.impl();
      impl.value = original.value;
      impl.strides = original.strides;
      impl.contiguous = original.contiguous;
    }
  }
  Renamed(const Renamed&) = delete;
  Renamed& operator=(const Renamed&) = delete;

 private:
  struct Original {
    Tensor tensor;
    int64_t value;
    Shape strides;
    bool contiguous;
  };
  std::vector<Original> originals_;
};

class Rerun final : public NodeFunction {
 public:
  Rerun(std::function<Tensors(const Tensors&)> function, Tensors inputs, Where where)
      : function_(std::move(function)), inputs_(std::move(inputs)), where_(where), autocast_(autocast_state()) {}

  Tensors first() {
    const RecordedDraws scope(draws_, RecordedDraws::Use::record);
    return function_(inputs_);
  }

  Tensors backward(const OpContext& context) override {
    const bool create_graph = grad_enabled();
    Tensors captures, gradients(static_cast<size_t>(context.input_count())), all = inputs_;
    for (int i = 0; i < context.input_count(); ++i) {
      captures.push_back(context.input(i));
      bool known = false;
      for (const Tensor& each : all) known = known || each.impl() == captures.back().impl();
      if (!known) all.push_back(captures.back());
    }
    Tensors results, seeds, wanted;
    std::vector<size_t> wanted_places;
    for (size_t i = 0; i < captures.size(); ++i)
      if (context.needs_grad(static_cast<int>(i))) wanted.push_back(captures[i]), wanted_places.push_back(i);
    Tensor arrived;
    for (size_t r = 0; r < returned.size(); ++r)
      if (context.has_grad_output(static_cast<int>(r))) arrived = context.grad_output(static_cast<int>(r));
    const Renamed renamed(all, arrived);
    const Tensors again = second();
    for (size_t r = 0; r < returned.size(); ++r) {
      if (!context.has_grad_output(static_cast<int>(r))) continue;
      const Tensor gradient = context.grad_output(static_cast<int>(r));
      const bool same = returned[r] < again.size() && again[returned[r]].shape() == gradient.shape() &&
                        again[returned[r]].requires_grad();
      if (!same)
        throw AutogradError(
            detail::str("checkpoint: run again for backward, the function gave another result ", returned[r],
                        " than before (another shape, or without gradient): it must do the same both times"),
            where_);
      results.push_back(again[returned[r]]);
      seeds.push_back(gradient);
    }
    const Tensors found = direct_gradients(results, wanted, seeds, create_graph, where_);
    for (size_t i = 0; i < found.size(); ++i) gradients[wanted_places[i]] = found[i];
    return gradients;
  }

  void release() override {
    function_ = nullptr;
    inputs_.clear();
    draws_.clear();
  }

  std::vector<size_t> returned;  ///< the node's results: places among what the function returns

 private:
  Tensors second() {
    const FrameScope no_frame(nullptr);
    const GradScope with_tape(true);
    const AutocastScope autocast(autocast_);
    const RecordedDraws draws(draws_, RecordedDraws::Use::replay);
    return function_(inputs_);
  }

  std::function<Tensors(const Tensors&)> function_;
  Tensors inputs_;
  std::vector<Draw> draws_;
  Where where_;
  AutocastState autocast_;
};

}  // namespace

Tensors checkpoint_all(std::function<Tensors(const Tensors&)> function, const Tensors& inputs, Where where) {
  where = user_line(where);
  for (size_t i = 0; i < inputs.size(); ++i)
    if (!inputs[i].defined())
      throw UndefinedError(detail::str("checkpoint: input ", i, " is an undefined Tensor"), where);
  if (!grad_enabled()) return function(inputs);
  const NodeHandle handle{new_node(checkpoint_op(), where)};
  TapeNode* node = handle.node;
  auto rerun = std::make_shared<Rerun>(std::move(function), inputs, where);
  CheckpointFrame frame{.node = node, .outer = thread_state.checkpoint};
  Tensors results;
  {
    const FrameScope scope(&frame);
    results = rerun->first();
  }
  for (const Tensor& result : results)
    if (!result.defined()) throw UndefinedError("checkpoint: the function returned an undefined Tensor", where);
  if (frame.captures.empty()) return results;
  Tensors made;
  for (size_t i = 0; i < results.size(); ++i) {
    bool known = results[i].impl()->node != node;  // an argument or captured tensor handed through keeps its own tape
    for (const Tensor& each : made) known = known || each.impl() == results[i].impl();
    if (known) continue;
    made.push_back(results[i]);
    rerun->returned.push_back(i);
  }
  if (frame.outer) {  // the function around this one is run again as a whole
    for (const Tensor& result : made) detail::release_node(std::exchange(result.impl()->node, nullptr));
    frame.outer->note(frame.captures);
    frame.outer->mark(made);
    return results;
  }
  connect(*node, frame.captures, made, true);
  node->make_extra().function = std::move(rerun);
  return results;
}

}  // namespace tandem
