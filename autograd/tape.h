// A node of the tape: one recorded op with what its gradient rule needs.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "../core/op.h"
#include "../core/thread_state.h"

namespace tandem {

/// Where the gradient of an operand goes: to the node that made it, or to the leaf itself.
struct Edge {
  TapeNodeBase* node = nullptr;  ///< owned reference
  Tensor leaf;                   ///< undefined where the node holds it weakly (NodeExtra::weak_leaves)
  uint32_t output_index = 0;
  bool wanted = false;
};

struct TensorMeta {
  Shape shape;
  DType dtype = DType::float32;
  Device device;
};

/// A saved operand or result, with the version of its storage when it was saved.
struct SavedTensor {
  Tensor tensor;  ///< for a result of the node itself: without its tape, to avoid a cycle
  uint32_t version = 0;
};

struct OperandRecord {
  Edge edge;
  TensorMeta meta;
  SavedTensor saved;
};
struct ResultRecord {
  TensorMeta meta;
  SavedTensor saved;
};

/// The gradient rule of a node that stands for a user's function (custom_function, checkpoint) instead of an op.
class NodeFunction {
 public:
  virtual ~NodeFunction() = default;
  virtual Tensors backward(const OpContext& context) = 0;
  /// backward() has passed and nothing is retained: lets go of what the function holds.
  virtual void release() = 0;
};

/// Functions that see, and may replace, a gradient.
struct GradientHooks {
  struct Hook {
    int64_t id;
    std::function<Tensor(const Tensor&)> function;
  };
  std::vector<Hook> hooks;
  int64_t next_id = 0;
};

/// Finds a leaf as long as it lives, without keeping it alive.
class LeafAnchor {
 public:
  explicit LeafAnchor(TensorImpl* leaf) : leaf_(leaf) {}
  Tensor lock();  ///< the leaf; undefined once nobody holds it
  void leaf_destroyed();

 private:
  std::mutex mutex_;
  TensorImpl* leaf_;
};

/// What autograd hangs on a leaf.
struct LeafExtra final : TensorExtra {
  ~LeafExtra() override;
  std::shared_ptr<GradientHooks> hooks;
  std::shared_ptr<LeafAnchor> anchor;
};
inline LeafExtra* extra_of(const TensorImpl& leaf) { return static_cast<LeafExtra*>(leaf.extra); }
LeafExtra& make_extra(TensorImpl& leaf);

/// What few nodes have.
struct NodeExtra {
  std::shared_ptr<NodeFunction> function;                ///< takes the place of op->grad
  std::vector<std::shared_ptr<GradientHooks>> hooks;     ///< by result
  std::vector<std::shared_ptr<LeafAnchor>> weak_leaves;  ///< by operand
};

struct TapeNode final : TapeNodeBase {
  const Op* op = nullptr;
  uint64_t sequence = 0;  ///< nodes are numbered as they are made; edges go to smaller numbers
  Where where;
  Attributes attributes;
  bool released = false;  ///< backward has freed what was saved
  /// Added to `references` by the walk that `pending` belongs to. With the reference that a walk takes anyway, a claim
  /// costs nothing.
  static constexpr int kClaim = 1 << 28;
  std::atomic<const void*> walk{nullptr};  ///< the walk that has claimed the node
  void* pending = nullptr;  ///< the gradients that this walk has brought here; at last, the next to be freed
  uint32_t operand_count = 0, result_count = 0;
  OperandRecord inline_operands[2];
  ResultRecord inline_result;
  std::vector<OperandRecord> more_operands;  ///< all of them where there are over two
  std::vector<ResultRecord> more_results;    ///< all of them where there are over one
  std::unique_ptr<NodeExtra> extra;

  OperandRecord* operands() { return operand_count > 2 ? more_operands.data() : inline_operands; }
  ResultRecord* results() { return result_count > 1 ? more_results.data() : &inline_result; }
  /// The leaf that operand i is; undefined if it is none, or nobody holds it any more.
  Tensor leaf(uint32_t i) {
    if (const Edge& edge = operands()[i].edge; edge.leaf.defined() || edge.node) return edge.leaf;
    return extra && i < extra->weak_leaves.size() && extra->weak_leaves[i] ? extra->weak_leaves[i]->lock() : Tensor();
  }
  NodeExtra& make_extra() {
    if (!extra) extra = std::make_unique<NodeExtra>();
    return *extra;
  }
  void release_saved();
  void destroy() override;
};

/// A reference to a node that is let go at the end.
struct NodeHandle {
  TapeNode* node;
  ~NodeHandle() { detail::release_node(node); }
};

/// Index of a tensor that a checkpointed function made and didn't return (see CheckpointFrame).
inline constexpr uint32_t kNotAResult = ~0u;

/// A new node that has no operands and results yet; the caller owns a reference.
TapeNode* new_node(const Op& op, Where where);
/// TapeNode::sequence of the next node of any thread.
uint64_t tape_position();
/// Gives the node its operands and results, and its place in the order: after all nodes made so far. Operands are saved
/// where `save_operands`; results that have no node yet get this one.
void connect(TapeNode& node, std::span<const Tensor> operands, std::span<const Tensor> results, bool save_operands);

/// While one is installed on this thread (FrameScope), ops are not recorded. Their results count as made by one node, the frame's, and
/// the tensors from outside that they read and that require a gradient are noted: they become the node's operands.
struct CheckpointFrame {
  TapeNode* node;
  Tensors captures = {};
  CheckpointFrame* outer = nullptr;
  void note(std::span<const Tensor> operands);
  void mark(std::span<const Tensor> results) const;
};
using FrameScope = ThreadScope<&ThreadState::checkpoint>;

}  // namespace tandem
