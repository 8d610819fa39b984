// Walking the tape: which nodes, in what order, and where the gradients go.
#include "autograd/walk.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <unordered_set>

#include "autograd/anomaly.h"
#include "core/autocast.h"
#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "core/pool.h"

namespace tandem {

namespace {

class Context final : public OpContext {
 public:
  Context(const Walk& walk, TapeNode& node, Pending& pending, Where where, bool create_graph)
      : walk_(walk), node_(node), pending_(pending), where_(where), create_graph_(create_graph) {}

  const Op& op() const override { return *node_.op; }
  const Attributes& attributes() const override { return node_.attributes; }
  Tensor grad_output(int i) const override {
    const TensorMeta& meta = result_at(i).meta;
    const Tensor& gradient = pending_.gradient(static_cast<uint32_t>(i));
    if (gradient.defined()) return gradient;
    return zeros(meta.shape, {.dtype = meta.dtype, .device = meta.device});
  }
  bool has_grad_output(int i) const override {
    result_at(i);
    return pending_.gradient(static_cast<uint32_t>(i)).defined();
  }
  Tensor input(int i) const override {
    OperandRecord& operand = operand_at(i);
    check(operand.saved, "operand", i);
    if (operand.edge.wanted && !operand.edge.node &&
        !operand.edge.leaf.defined())  // held weakly: what was saved is detached
      if (Tensor leaf = node_.leaf(static_cast<uint32_t>(i)); leaf.defined()) return leaf;
    return operand.saved.tensor;
  }
  Tensor output(int i) const override {
    ResultRecord& result = result_at(i);
    check(result.saved, "result", i);
    if (!create_graph_ || !is_floating(result.meta.dtype)) return result.saved.tensor;
    Tensor attached = result.saved.tensor.detach();
    attached.impl()->requires_grad = true;
    node_.references.fetch_add(1, std::memory_order_relaxed);
    attached.impl()->node = &node_;
    attached.impl()->output_index = static_cast<uint32_t>(i);
    return attached;
  }
  const Shape& input_shape(int i) const override { return operand_at(i).meta.shape; }
  DType input_dtype(int i) const override { return operand_at(i).meta.dtype; }
  Device device() const override { return node_.operands()[0].meta.device; }
  int input_count() const override { return static_cast<int>(node_.operand_count); }
  bool needs_grad(int i) const override {
    operand_at(i);
    return walk_.reaches(node_, static_cast<uint32_t>(i));
  }

 private:
  OperandRecord& operand_at(int i) const {
    if (static_cast<uint32_t>(i) >= node_.operand_count) absent("operand", i, node_.operand_count);
    return node_.operands()[i];
  }
  ResultRecord& result_at(int i) const {
    if (static_cast<uint32_t>(i) >= node_.result_count) absent("result", i, node_.result_count);
    return node_.results()[i];
  }
  [[noreturn]] void absent(const char* role, int i, uint32_t count) const {
    throw ValueError(detail::str(node_.op->name, ": its gradient asks for ", role, " ", i, " of ", count,
                                 ", which are counted from 0"),
                     node_.where);
  }
  void check(const SavedTensor& saved, const char* role, int i) const {
    if (!saved.tensor.defined() && node_.op->user)
      throw AutogradError(
          detail::str(node_.op->name, ": its gradient reads ", role, " ", i, ", which .saved doesn't name"),
          node_.where);
    TANDEM_ASSERT(saved.tensor.defined() || node_.released, node_.op->name, ": the gradient rule reads ", role, " ", i,
                  ", which Op::saved doesn't name");
    if (saved.tensor.defined() && version_of(*saved.tensor.impl()) != saved.version)
      throw InPlaceError(detail::str(node_.op->name, ": its ", role, " ", i, " ", saved.tensor.shape(),
                                     " was saved for backward at ", to_string(node_.where), " and then overwritten at ",
                                     to_string(last_write_of(*saved.tensor.impl())),
                                     "; assign after backward(), or use a clone() in one of the two places"),
                         where_);
  }

  const Walk& walk_;
  TapeNode& node_;
  Pending& pending_;
  Where where_;
  bool create_graph_;
};

/// The state of this thread that gradient rules run under.
struct RuleScope {
  explicit RuleScope(bool create_graph) : grad(create_graph) {}
  GradScope grad;
  FrameScope no_frame{nullptr};
  AutocastOff autocast_off;  // gradients have the dtypes that the forward pass had
};

/// A rule of the user's that gave something of the wrong size; our own rules don't.
bool is_users(const TapeNode& node) { return node.op->user || (node.extra && node.extra->function); }

}  // namespace

Walk::~Walk() {
  for (; !queue_.empty(); queue_.pop()) release(queue_.top());  // left over where a rule threw
}

void Walk::want(const Tensors& inputs, Below below) {
  only_wanted_ = true;
  stops_ = below == Below::left;
  for (const Tensor& input : inputs) {
    if (auto* node = static_cast<TapeNode*>(input.impl()->node)) {
      wanted_nodes_[node].push_back(input.impl());
      oldest_wanted_ = std::min(oldest_wanted_, node->sequence);
    } else {
      wanted_leaves_[input.impl()] = {};
      wants_leaves_ = true;
    }
  }
  if (wants_leaves_) oldest_wanted_ = 0;
}

Tensor Walk::result(const Tensor& input) const {
  if (const auto found = results_.find(input.impl()); found != results_.end()) return found->second;
  if (const auto found = wanted_leaves_.find(input.impl()); found != wanted_leaves_.end()) return found->second;
  return {};
}

void Walk::start(const Tensor& output, const Tensor& gradient) {
  auto* root = static_cast<TapeNode*>(output.impl()->node);
  if (!root) return arrive_at_leaf(output, gradient);
  if (only_wanted_) mark_useful(root);
  deliver(root, output.impl()->output_index, gradient);
}

void Walk::run() {
  const RuleScope scope(create_graph_);
  while (!queue_.empty()) step();
  deliver_to_leaves();
  if (!graph_leaves_.empty()) hold_weakly(graph_leaves_);
}

Tensors direct_gradients(const Tensors& outputs, const Tensors& inputs, const Tensors& grad_outputs, bool create_graph,
                         Where where) {
  Walk walk(create_graph, create_graph, where);
  walk.want(inputs, Walk::Below::left);
  for (size_t i = 0; i < outputs.size(); ++i) walk.start(outputs[i], grad_outputs[i]);
  walk.run();
  Tensors result;
  for (const Tensor& input : inputs) result.push_back(walk.result(input));
  return result;
}

bool tape_is_whole(const Tensor& output, uint64_t since) {
  std::vector<TapeNode*> open;
  std::unordered_set<TapeNode*> known;
  const auto visit = [&](TapeNodeBase* base) {
    auto* const node = static_cast<TapeNode*>(base);
    if (node && node->sequence >= since && known.insert(node).second) open.push_back(node);
  };
  visit(output.impl()->node);
  while (!open.empty()) {
    TapeNode* const node = open.back();
    open.pop_back();
    if (node->released) return false;
    for (uint32_t i = 0; i < node->operand_count; ++i) visit(node->operands()[i].edge.node);
  }
  return true;
}

// ---- What is worth walking.

/// Fills useful_ for the root and all that it was computed from, down to the oldest node that is wanted.
void Walk::mark_useful(TapeNode* root) {
  struct Visit {
    TapeNode* node;
    uint32_t operand;
    bool useful;
  };
  if (useful_.count(root)) return;
  std::vector<Visit> path{{root, 0, false}};
  useful_[root] = false;
  while (!path.empty()) {
    Visit& visit = path.back();
    TapeNode* below = nullptr;
    while (!below && visit.operand < visit.node->operand_count) {
      const Edge& edge = visit.node->operands()[visit.operand++].edge;
      if (!edge.wanted) continue;
      auto* next = static_cast<TapeNode*>(edge.node);
      if (!next) {
        visit.useful =
            visit.useful || (wants_leaves_ && wanted_leaves_.count(visit.node->leaf(visit.operand - 1).impl()));
      } else if (next->sequence >= oldest_wanted_) {
        if (wanted_nodes_.count(next)) {
          visit.useful = true;
          if (stops_) continue;
        }
        const auto [known, fresh] = useful_.try_emplace(next, false);
        if (fresh) below = next;
        else visit.useful = visit.useful || known->second;
      }
    }
    if (below) {
      path.push_back({below, 0, false});
      continue;
    }
    const bool useful = visit.useful;
    useful_[visit.node] = useful;
    path.pop_back();
    if (!path.empty()) path.back().useful = path.back().useful || useful;
  }
}

bool Walk::reaches_wanted(TapeNode& node, uint32_t operand) const {
  const Edge& edge = node.operands()[operand].edge;
  auto* next = static_cast<TapeNode*>(edge.node);
  if (!next) return wanted_leaves_.count(node.leaf(operand).impl()) != 0;
  if (wanted_nodes_.count(next)) return true;
  const auto found = useful_.find(next);
  return found != useful_.end() && found->second;
}

// ---- Gradients on their way.

/// A node is claimed by the first walk that comes by; walks of other threads, and walks inside of a gradient rule
/// (checkpoint), keep what they bring to it with themselves.
void Walk::deliver(TapeNode* node, uint32_t index, const Tensor& gradient) {
  if (index >= node->result_count) [[unlikely]]
    throw AutogradError(
        index == kNotAResult
            ? detail::str(
                  "checkpoint: backward reached a tensor that the function checkpointed at ", to_string(node->where),
                  " made on the way and didn't return: return it too, or call backward() outside of the function")
            : detail::str(node->op->name, ": no result ", index),
        where_);
  Pending* pending = nullptr;
  if (node->walk.load(std::memory_order_relaxed) == this) pending = static_cast<Pending*>(node->pending);
  else if (!elsewhere_.empty())
    if (const auto found = elsewhere_.find(node); found != elsewhere_.end()) pending = found->second;
  if (!pending) {
    pending = Pool<Pending>::create();
    pending->node = node;
    pending->claimed = node->references.fetch_add(1 + TapeNode::kClaim, std::memory_order_acq_rel) < TapeNode::kClaim;
    if (pending->claimed) [[likely]] {
      node->pending = pending;
      node->walk.store(this, std::memory_order_relaxed);
    } else {
      node->references.fetch_sub(TapeNode::kClaim, std::memory_order_relaxed);
    }
    try {
      if (!pending->claimed) elsewhere_[node] = pending;
      queue_.push(pending);
    } catch (...) {
      release(pending);
      throw;
    }
  }
  Tensor& slot = pending->gradient(index);
  slot = slot.defined() ? slot + gradient : gradient;
}

void Walk::release(Pending* pending) {
  TapeNode* node = pending->node;
  const bool claimed = pending->claimed;
  if (!claimed) elsewhere_.erase(node);
  Pool<Pending>::destroy(pending);
  if (!claimed) return detail::release_node(node);
  node->pending = nullptr;
  node->walk.store(nullptr, std::memory_order_relaxed);
  constexpr int mine = 1 + TapeNode::kClaim;
  if (node->references.fetch_sub(mine, std::memory_order_acq_rel) == mine) node->destroy();
}

void Walk::arrive_at_leaf(const Tensor& leaf, const Tensor& gradient) {
  if (only_wanted_) {
    const auto found = wanted_leaves_.find(leaf.impl());
    if (found == wanted_leaves_.end()) return;
    found->second = found->second.defined() ? found->second + gradient : gradient;
    return;
  }
  if (leaf.impl()->extra && extra_of(*leaf.impl())->hooks) [[unlikely]] {  // they see the whole gradient
    for (auto& [held, sum] : hooked_leaves_)
      if (held.impl() == leaf.impl()) return void(sum = sum + gradient);
    hooked_leaves_.emplace_back(leaf, gradient);
    return;
  }
  accumulate(leaf, gradient);
}

namespace {
/// Whether nobody else sees the memory of a tensor that is held once, and it is laid out as one of its own would be.
bool is_own(const TensorImpl& tensor) {
  return tensor.references.load(std::memory_order_relaxed) == 1 && is_dense(tensor.shape, tensor.strides) &&
         !shares_memory(tensor);
}

/// Held while a gradient is added to that of a leaf, which walks of other threads may reach as well: one for many leaves.
std::mutex& lock_of(const TensorImpl* leaf) {
  static std::array<std::mutex, 64> locks;
  return locks[reinterpret_cast<uintptr_t>(leaf) / sizeof(TensorImpl) % locks.size()];
}
}  // namespace

void Walk::accumulate(const Tensor& leaf, const Tensor& gradient) {
  const std::lock_guard lock(lock_of(leaf.impl()));
  const Tensor before = leaf.grad();
  Tensor handle = leaf;
  if (!before.defined()) {
    // A gradient that others see too, or whose elements lie on one another, would not be this leaf's alone.
    const Tensor own = is_own(*gradient.impl()) ? gradient : clone(gradient);
    handle.set_grad(create_graph_ ? own : own.detach(), where_);
  } else handle.set_grad(before + gradient, where_);
  if (create_graph_) graph_leaves_.push_back(leaf);
}

void Walk::deliver_to_leaves() {
  for (auto& [leaf, gradient] : hooked_leaves_) accumulate(leaf, hooked(*extra_of(*leaf.impl())->hooks, gradient));
  if (!only_wanted_ || stops_) return;
  for (auto& [leaf, gradient] : wanted_leaves_)
    if (gradient.defined() && leaf->extra && extra_of(*leaf)->hooks)
      gradient = hooked(*extra_of(*leaf)->hooks, gradient);
}

// ---- Hooks.

Tensor Walk::hooked(const GradientHooks& hooks, Tensor gradient) const {
  const std::vector<GradientHooks::Hook> now = hooks.hooks;  // a hook may remove itself
  for (const GradientHooks::Hook& hook : now) {
    const Tensor other = hook.function(gradient);
    if (!other.defined()) continue;
    if (other.shape() != gradient.shape())
      throw ShapeError(
          detail::str("register_hook: the hook turned a gradient ", gradient.shape(), " into ", other.shape(),
                      "; it must return the same shape, or an undefined Tensor to leave the gradient as it is"),
          where_);
    gradient = other.to(gradient.dtype(), where_);
  }
  return gradient;
}

void Walk::call_hooks(TapeNode& node, Pending& pending) const {
  const auto& hooks = node.extra->hooks;
  for (uint32_t i = 0; i < hooks.size(); ++i)
    if (hooks[i] && pending.gradient(i).defined()) pending.gradient(i) = hooked(*hooks[i], pending.gradient(i));
}

// ---- One node.

void Walk::step() {
  Pending* pending = queue_.top();
  queue_.pop();
  TapeNode& node = *pending->node;
  struct Release {
    Walk& walk;
    Pending* pending;
    ~Release() { walk.release(pending); }
  } release{*this, pending};

  if (node.extra && !node.extra->hooks.empty() && !(stops_ && wanted_nodes_.count(&node))) [[unlikely]]
    call_hooks(node, *pending);
  if (only_wanted_) {
    if (const auto found = wanted_nodes_.find(&node); found != wanted_nodes_.end())
      for (TensorImpl* input : found->second) results_[input] = pending->gradient(input->output_index);
    const auto below = useful_.find(&node);
    if (below == useful_.end() || !below->second) return;
  }
  if (node.released)
    throw AutogradError(
        detail::str(
            node.op->name, ": backward reached the op recorded at ", to_string(node.where),
            " a second time, after its saved tensors were freed; pass {.retain_graph = true} to the first backward"),
        where_);
  if (Interceptor* const tracer = interceptor()) tracer->walks(node.sequence, *node.op, node.where, where_);
  const WhereScope scope(node.where);
  Context context(*this, node, *pending, where_, create_graph_);
  Tensors gradients =
      node.extra && node.extra->function ? node.extra->function->backward(context) : node.op->grad(context);
  spread(node, *pending, gradients);
  if (!retain_graph_) node.release_saved();
}

/// Sends what the rule gave on its way.
void Walk::spread(TapeNode& node, Pending& pending, Tensors& gradients) {
  if (gradients.size() != node.operand_count) [[unlikely]] {
    TANDEM_ASSERT(is_users(node), node.op->name, ": its gradient rule gives ", gradients.size(), " gradients for ",
                  node.operand_count, " operands");
    throw ValueError(detail::str(node.op->name, ": its gradient returns ", gradients.size(), " tensors, but there are ",
                                 node.operand_count, " inputs; return one for each, undefined where there is none"),
                     node.where);
  }
  OperandRecord* operands = node.operands();
  for (uint32_t i = 0; i < node.operand_count; ++i) {
    OperandRecord& operand = operands[i];
    Tensor& gradient = gradients[i];
    if (!gradient.defined() || !reaches(node, i)) continue;
    if (gradient.shape() != operand.meta.shape) {
      if (!node.op->is_pointwise()) [[unlikely]] {
        TANDEM_ASSERT(is_users(node), node.op->name, ": its gradient rule gives ", gradient.shape(), " for operand ", i,
                      " ", operand.meta.shape);
        throw ShapeError(detail::str(node.op->name, ": its gradient for input ", i, " has shape ", gradient.shape(),
                                     ", the input ", operand.meta.shape),
                         node.where);
      }
      gradient = sum_to(gradient, operand.meta.shape);
    }
    if (gradient.dtype() != operand.meta.dtype) gradient = gradient.to(operand.meta.dtype);
    if (anomaly_) [[unlikely]]
      check_finite(node, i, gradient, pending.first, where_);
    if (operand.edge.node) deliver(static_cast<TapeNode*>(operand.edge.node), operand.edge.output_index, gradient);
    else if (operand.edge.leaf.defined()) arrive_at_leaf(operand.edge.leaf, gradient);
    else if (const Tensor leaf = node.leaf(i); leaf.defined()) arrive_at_leaf(leaf, gradient);
  }
}

}  // namespace tandem
