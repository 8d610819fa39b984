// A walk over the tape, from the newest node to the oldest. Edges always lead to older nodes, so taking the largest
// sequence number next is a topological order, and nothing recurses.
#pragma once

#include <queue>
#include <unordered_map>

#include "anomaly.h"
#include "tape.h"

namespace tandem {

/// A node with the gradients that have arrived at its results.
struct Pending {
  TapeNode* node;
  bool claimed;    ///< the node points here; else Walk::elsewhere_ does
  Tensor first;    ///< of result 0
  Tensors others;  ///< of results 1, 2, …
  Tensor& gradient(uint32_t i) {
    if (i == 0) return first;
    if (others.size() < i) others.resize(node->result_count - 1);
    return others[i - 1];
  }
};

class Walk {
 public:
  Walk(bool create_graph, bool retain_graph, Where where)
      : create_graph_(create_graph), retain_graph_(retain_graph), where_(where) {}
  ~Walk();
  Walk(const Walk&) = delete;
  Walk& operator=(const Walk&) = delete;

  enum class Below { walked, left };
  /// Gradients of these are collected instead of being added to grad(), and only what leads to them is walked. What lies
  /// below one of them is walked as far as it leads to others, or is left alone: then each gets what arrives directly.
  void want(const Tensors& inputs, Below below = Below::walked);
  /// A tensor to start from, with its gradient.
  void start(const Tensor& output, const Tensor& gradient);
  void run();
  /// What arrived at a tensor that was asked for; undefined if nothing did.
  Tensor result(const Tensor& input) const;

  /// Whether the gradient of an operand of a node goes anywhere.
  bool reaches(TapeNode& node, uint32_t operand) const {
    return node.operands()[operand].edge.wanted && (!only_wanted_ || reaches_wanted(node, operand));
  }

 private:
  struct Later {
    bool operator()(const Pending* a, const Pending* b) const { return a->node->sequence < b->node->sequence; }
  };

  void mark_useful(TapeNode* root);
  bool reaches_wanted(TapeNode& node, uint32_t operand) const;
  void deliver(TapeNode* node, uint32_t index, const Tensor& gradient);
  void arrive_at_leaf(const Tensor& leaf, const Tensor& gradient);
  void accumulate(const Tensor& leaf, const Tensor& gradient);
  void deliver_to_leaves();
  void step();
  void spread(TapeNode& node, Pending& pending, Tensors& gradients);
  void call_hooks(TapeNode& node, Pending& pending) const;
  Tensor hooked(const GradientHooks& hooks, Tensor gradient) const;
  void release(Pending* pending);

  bool create_graph_, retain_graph_, only_wanted_ = false, wants_leaves_ = false, stops_ = false;
  const bool anomaly_ = AnomalyMode::active();
  Where where_;
  uint64_t oldest_wanted_ = ~uint64_t{0};
  std::priority_queue<Pending*, std::vector<Pending*>, Later> queue_;
  std::unordered_map<TapeNode*, Pending*> elsewhere_;  ///< of nodes that another walk is at
  std::unordered_map<TapeNode*, std::vector<TensorImpl*>> wanted_nodes_;
  std::unordered_map<TapeNode*, bool> useful_;  ///< whether something wanted lies below
  std::unordered_map<TensorImpl*, Tensor> wanted_leaves_, results_;
  std::vector<std::pair<Tensor, Tensor>> hooked_leaves_;  ///< leaves with hooks, and all that has arrived there
  Tensors graph_leaves_;                                  ///< whose grad() has a tape of its own
};

/// Gradients of the outputs with respect to the inputs, along paths of the tape that lead through no other input; undefined
/// where there is none. Nothing below the inputs is touched.
/// Hooks of the inputs are not called: what arrives may be a part of their gradient.
Tensors direct_gradients(const Tensors& outputs, const Tensors& inputs, const Tensors& grad_outputs, bool create_graph,
                         Where where);

/// Whether backward() could go from the output as far as nodes that were made before `since` (a tape_position()): no node
/// on the way has let go of what it saved.
bool tape_is_whole(const Tensor& output, uint64_t since);

/// Makes the tapes of these leaves' gradients hold the leaves weakly. A leaf owns its grad(), whose tape (create_graph)
/// leads back to the leaf: held both ways, neither would ever be freed.
void hold_weakly(const Tensors& leaves);

}  // namespace tandem
