// backward and grad: walks the tape from the newest node to the oldest. Edges always lead to older
// nodes, so taking the largest sequence number next is a topological order, and nothing recurses.
#include <algorithm>
#include <queue>
#include <unordered_map>

#include "tandem/autograd/autograd.h"
#include "tandem/autograd/tape.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"
#include "tandem/core/pool.h"

namespace tandem {

namespace {

/// A node with the gradients that have arrived at its results.
struct Pending {
  TapeNode* node;
  Tensor first;       ///< of result 0
  Tensors others;     ///< of results 1, 2, …
  Tensor& gradient(uint32_t i) {
    if (i == 0) return first;
    if (others.size() < i) others.resize(node->result_count - 1);
    return others[i - 1];
  }
};

class Context final : public OpContext {
 public:
  Context(TapeNode& node, Pending& pending, Where where, bool create_graph)
      : node_(node), pending_(pending), where_(where), create_graph_(create_graph) {}

  const Op& op() const override { return *node_.op; }
  const Attributes& attributes() const override { return node_.attributes; }
  Tensor grad_output(int i) const override {
    const Tensor& gradient = pending_.gradient(static_cast<uint32_t>(i));
    if (gradient.defined()) return gradient;
    const TensorMeta& meta = node_.results()[i].meta;
    return zeros(meta.shape, {.dtype = meta.dtype, .device = meta.device});
  }
  bool has_grad_output(int i) const override { return pending_.gradient(static_cast<uint32_t>(i)).defined(); }
  Tensor input(int i) const override {
    OperandRecord& operand = node_.operands()[i];
    check(operand.saved, "operand", i);
    return operand.saved.tensor;
  }
  Tensor output(int i) const override {
    ResultRecord& result = node_.results()[i];
    check(result.saved, "result", i);
    if (!create_graph_ || !is_floating(result.meta.dtype)) return result.saved.tensor;
    Tensor attached = result.saved.tensor.detach();
    attached.impl()->requires_grad = true;
    node_.references.fetch_add(1, std::memory_order_relaxed);
    attached.impl()->node = &node_;
    attached.impl()->output_index = static_cast<uint32_t>(i);
    return attached;
  }
  const Shape& input_shape(int i) const override { return node_.operands()[i].meta.shape; }
  DType input_dtype(int i) const override { return node_.operands()[i].meta.dtype; }
  Device device() const override { return node_.operands()[0].meta.device; }
  int input_count() const override { return static_cast<int>(node_.operand_count); }
  bool needs_grad(int i) const override { return node_.operands()[i].edge.wanted; }

 private:
  void check(const SavedTensor& saved, const char* role, int i) const {
    TANDEM_ASSERT(saved.tensor.defined() || node_.released, node_.op->name, ": the gradient rule reads ", role, " ", i,
                  ", which Op::saved doesn't name");
    const Storage* storage = saved.tensor.impl() ? saved.tensor.impl()->storage : nullptr;
    if (storage && storage->version != saved.version)
      throw InPlaceError(detail::str(node_.op->name, ": its ", role, " ", i, " ", saved.tensor.shape(), " was saved for backward at ",
                                     to_string(node_.where), " and then overwritten at ", to_string(storage->last_write),
                                     "; assign after backward(), or use a clone() in one of the two places"),
                         where_);
  }

  TapeNode& node_;
  Pending& pending_;
  Where where_;
  bool create_graph_;
};

class Walk {
 public:
  Walk(bool create_graph, bool retain_graph, Where where) : create_graph_(create_graph), retain_graph_(retain_graph), where_(where) {}

  /// Gradients of these are collected instead of being added to grad().
  void want(const Tensors& inputs) {
    only_wanted_ = true;
    for (const Tensor& input : inputs) {
      if (auto* node = static_cast<TapeNode*>(input.impl()->node)) wanted_nodes_[node].push_back(input.impl());
      else wanted_leaves_[input.impl()] = {};
    }
  }
  Tensor result(const Tensor& input) const {
    if (const auto found = results_.find(input.impl()); found != results_.end()) return found->second;
    if (const auto found = wanted_leaves_.find(input.impl()); found != wanted_leaves_.end()) return found->second;
    return {};
  }

  void run(const Tensor& output, const Tensor& seed) {
    if (!output.impl()->node) {
      arrive_at_leaf(output, seed);
      return;
    }
    auto* root = static_cast<TapeNode*>(output.impl()->node);
    deliver(root, output.impl()->output_index, seed);
    const bool was_enabled = grad_enabled();
    set_grad_enabled(create_graph_);
    try {
      while (!queue_.empty()) step();
    } catch (...) {
      set_grad_enabled(was_enabled);
      throw;
    }
    set_grad_enabled(was_enabled);
  }

 private:
  static void drop(Pending* pending) {
    detail::release_node(pending->node);
    Pool<Pending>::destroy(pending);
  }

  struct Later {
    bool operator()(const Pending* a, const Pending* b) const { return a->node->sequence < b->node->sequence; }
  };

  void deliver(TapeNode* node, uint32_t index, const Tensor& gradient) {
    auto* pending = static_cast<Pending*>(node->pending);
    if (!pending) {
      pending = Pool<Pending>::create();
      pending->node = node;
      node->pending = pending;
      node->references.fetch_add(1, std::memory_order_relaxed);
      queue_.push(pending);
    }
    Tensor& slot = pending->gradient(index);
    slot = slot.defined() ? slot + gradient : gradient;
  }

  void arrive_at_leaf(const Tensor& leaf, const Tensor& gradient) {
    if (only_wanted_) {
      const auto found = wanted_leaves_.find(leaf.impl());
      if (found == wanted_leaves_.end()) return;
      found->second = found->second.defined() ? found->second + gradient : gradient;
      return;
    }
    const Tensor before = leaf.grad();
    Tensor handle = leaf;
    if (!before.defined()) handle.set_grad(create_graph_ ? gradient : gradient.detach(), where_);
    else handle.set_grad(before + gradient, where_);
  }

  void step() {
    Pending* pending = queue_.top();
    queue_.pop();
    TapeNode& node = *pending->node;
    struct Release {
      Pending* pending;
      ~Release() { drop(pending); }
    } release{pending};
    node.pending = nullptr;

    if (only_wanted_) {
      if (const auto found = wanted_nodes_.find(&node); found != wanted_nodes_.end())
        for (TensorImpl* input : found->second) results_[input] = pending->gradient(input->output_index);
    }
    if (node.released)
      throw AutogradError(detail::str(node.op->name, ": backward reached the op recorded at ", to_string(node.where),
                                      " a second time, after its saved tensors were freed; pass {.retain_graph = true} to the first backward"),
                          where_);
    WhereScope scope(node.where);
    Context context(node, *pending, where_, create_graph_);
    Tensors gradients = node.op->grad(context);
    TANDEM_ASSERT(gradients.size() == node.operand_count, node.op->name, ": its gradient rule gives ", gradients.size(), " gradients for ",
                  node.operand_count, " operands");
    OperandRecord* operands = node.operands();
    for (uint32_t i = 0; i < node.operand_count; ++i) {
      OperandRecord& operand = operands[i];
      Tensor& gradient = gradients[i];
      if (!operand.edge.wanted || !gradient.defined()) continue;
      if (gradient.shape() != operand.meta.shape) {
        TANDEM_ASSERT(node.op->is_pointwise(), node.op->name, ": its gradient rule gives ", gradient.shape(), " for operand ", i, " ", operand.meta.shape);
        gradient = sum_to(gradient, operand.meta.shape);
      }
      if (gradient.dtype() != operand.meta.dtype) gradient = gradient.to(operand.meta.dtype);
      if (operand.edge.node) deliver(static_cast<TapeNode*>(operand.edge.node), operand.edge.output_index, gradient);
      else arrive_at_leaf(operand.edge.leaf, gradient);
    }
    if (!retain_graph_) node.release_saved();
  }

  bool create_graph_, retain_graph_, only_wanted_ = false;
  Where where_;
  std::priority_queue<Pending*, std::vector<Pending*>, Later> queue_;
  std::unordered_map<TapeNode*, std::vector<TensorImpl*>> wanted_nodes_;
  std::unordered_map<TensorImpl*, Tensor> wanted_leaves_, results_;

 public:
  ~Walk() {
    for (; !queue_.empty(); queue_.pop()) {  // left over where a rule threw
      queue_.top()->node->pending = nullptr;
      drop(queue_.top());
    }
  }
};

Tensor seed_for(const char* caller, const Tensor& output, const Tensor& gradient, Where where) {
  if (!output.defined()) throw UndefinedError(detail::str(caller, ": the tensor is undefined"), where);
  if (!output.requires_grad())
    throw AutogradError(detail::str(caller, ": this tensor was not computed from one that requires a gradient; mark a leaf with "
                                    "requires_grad(true), and check that no NoGrad guard or detach() is in the way"), where);
  if (gradient.defined()) {
    if (gradient.shape() != output.shape())
      throw ShapeError(detail::str(caller, ": gradient ", gradient.shape(), " for a tensor ", output.shape()), where);
    return gradient.to(output.dtype(), where);
  }
  if (output.numel() != 1)
    throw ShapeError(detail::str(caller, ": needs a tensor of one element, got ", output.shape(), "; reduce it with sum() or mean(), or pass a gradient"),
                     where);
  WhereScope scope(where);
  return ones_like(output);
}

}  // namespace

void Tensor::backward(BackwardOptions options, Where where) const { backward(Tensor(), options, where); }

void Tensor::backward(const Tensor& gradient, BackwardOptions options, Where where) const {
  where = user_line(where);
  const Tensor seed = seed_for("backward", *this, gradient, where);
  Walk walk(options.create_graph, options.retain_graph || options.create_graph, where);
  walk.run(*this, seed);
}

Tensors grad_of(const Tensor& output, const Tensors& inputs, GradOptions options, const Tensor& grad_output, Where where) {
  where = user_line(where);
  const Tensor seed = seed_for("grad", output, grad_output, where);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined()) throw UndefinedError(detail::str("grad: input ", i, " is undefined"), where);
    if (!inputs[i].requires_grad())
      throw AutogradError(detail::str("grad: input ", i, " ", inputs[i].shape(), " doesn't require a gradient; call requires_grad(true) before using it"), where);
  }
  Walk walk(options.create_graph, options.retain_graph || options.create_graph, where);
  walk.want(inputs);
  walk.run(output, seed);
  Tensors result;
  for (size_t i = 0; i < inputs.size(); ++i) {
    result.push_back(walk.result(inputs[i]));
    if (!result.back().defined() && !options.allow_unused)
      throw AutogradError(detail::str("grad: the output doesn't depend on input ", i, " ", inputs[i].shape(), "; pass {.allow_unused = true} if that is meant"), where);
  }
  return result;
}

}  // namespace tandem
