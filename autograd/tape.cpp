// Recording ops on the tape, and letting the tape go without recursion.
#include "autograd/tape.h"

#include "core/dispatch.h"
#include "core/pool.h"

namespace tandem {

namespace {

std::atomic<uint64_t> next_sequence{1};

void record_meta(TensorMeta& meta, const TensorImpl& impl) {
  meta.shape = impl.shape;
  meta.dtype = impl.dtype;
  meta.device = impl.device;
}

/// Numbers the node and makes room for that many operands and results.
inline void place(TapeNode& node, size_t operands, size_t results) {
  node.sequence = next_sequence.fetch_add(1, std::memory_order_relaxed);
  if (operands > 2) node.more_operands.resize(operands);
  if (results > 1) node.more_results.resize(results);
  node.operand_count = static_cast<uint32_t>(operands);
  node.result_count = static_cast<uint32_t>(results);
}

inline void connect_operand(OperandRecord& operand, const Tensor& input) {
  TensorImpl& impl = *input.impl();
  record_meta(operand.meta, impl);
  if (!impl.requires_grad) return;
  operand.edge.wanted = true;
  if (impl.node) {
    impl.node->references.fetch_add(1, std::memory_order_relaxed);
    operand.edge.node = impl.node;
    operand.edge.output_index = impl.output_index;
  } else {
    operand.edge.leaf = input;
  }
}

/// Whether a rule reads operand (or result) i; those from 16 on if it reads all.
bool saves(uint32_t saved, int first, size_t i, uint32_t all) {
  return i < 16 ? saved >> first >> i & 1 : saved == all;
}

void record(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, std::span<Tensor> outputs,
            Where where) {
  if (CheckpointFrame* const frame = thread_state.checkpoint) [[unlikely]] {
    frame->note(inputs);
    frame->mark(outputs);
    return;
  }
  const NodeHandle handle{new_node(op, where)};
  TapeNode* const node = handle.node;
  if (!attributes.empty()) node->attributes = attributes;
  place(*node, inputs.size(), outputs.size());

  OperandRecord* operands = node->operands();
  for (size_t i = 0; i < inputs.size(); ++i) {
    TensorImpl& impl = *inputs[i].impl();
    OperandRecord& operand = operands[i];
    connect_operand(operand, inputs[i]);
    if (saves(op.saved & kSaveInputs, 0, i, kSaveInputs)) operand.saved = {inputs[i], version_of(impl)};
  }
  ResultRecord* results = node->results();
  for (size_t i = 0; i < outputs.size(); ++i) {
    TensorImpl& impl = *outputs[i].impl();
    record_meta(results[i].meta, impl);
    if (saves(op.saved & kSaveOutputs, 16, i, kSaveOutputs))
      results[i].saved = {outputs[i].detach(where), version_of(impl)};
    if (!is_floating(impl.dtype)) continue;
    impl.requires_grad = true;
    node->references.fetch_add(1, std::memory_order_relaxed);
    impl.node = node;
    impl.output_index = static_cast<uint32_t>(i);
  }
}

/// Nodes waiting to be freed, linked by TapeNode::pending. Freeing a node lets go of the nodes before it; a chain of a million
/// ops would overflow the stack if each freed the next.
struct Graveyard {
  TapeNode* waiting = nullptr;
  bool digging = false;
};
constinit thread_local Graveyard graveyard;

void release_edges(TapeNode& node) {
  OperandRecord* operands = node.operands();
  for (uint32_t i = 0; i < node.operand_count; ++i) {
    if (operands[i].edge.node) detail::release_node(std::exchange(operands[i].edge.node, nullptr));
    operands[i] = OperandRecord{};
  }
  ResultRecord* results = node.results();
  for (uint32_t i = 0; i < node.result_count; ++i) results[i] = ResultRecord{};
}

}  // namespace

TapeNode* new_node(const Op& op, Where where) {
  TapeNode* node = Pool<TapeNode>::create();
  node->op = &op;
  node->where = where;
  return node;
}

void connect(TapeNode& node, std::span<const Tensor> operands, std::span<const Tensor> results, bool save_operands) {
  place(node, operands.size(), results.size());
  for (size_t i = 0; i < operands.size(); ++i) {
    connect_operand(node.operands()[i], operands[i]);
    if (save_operands) node.operands()[i].saved = {operands[i], version_of(*operands[i].impl())};
  }
  for (size_t i = 0; i < results.size(); ++i) {
    TensorImpl& impl = *results[i].impl();
    record_meta(node.results()[i].meta, impl);
    if (!is_floating(impl.dtype)) continue;
    if (!impl.node) {
      impl.requires_grad = true;
      node.references.fetch_add(1, std::memory_order_relaxed);
      impl.node = &node;
    }
    impl.output_index = static_cast<uint32_t>(i);
  }
}

// ---- What a checkpointed function does.

void CheckpointFrame::note(std::span<const Tensor> operands) {
  for (const Tensor& operand : operands) {
    if (!operand.requires_grad() || operand.impl()->node == node) continue;
    bool known = false;
    for (const Tensor& capture : captures) known = known || capture.impl() == operand.impl();
    if (!known) captures.push_back(operand);
  }
}

void CheckpointFrame::mark(std::span<const Tensor> results) const {
  for (const Tensor& result : results) {
    TensorImpl& impl = *result.impl();
    if (!is_floating(impl.dtype)) continue;
    impl.requires_grad = true;
    node->references.fetch_add(1, std::memory_order_relaxed);
    impl.node = node;
    impl.output_index = kNotAResult;
  }
}

// ---- Weak references to leaves.

LeafExtra& make_extra(TensorImpl& leaf) {
  if (!leaf.extra) leaf.extra = new LeafExtra;
  return *extra_of(leaf);
}
LeafExtra::~LeafExtra() {
  if (anchor) anchor->leaf_destroyed();
}
void LeafAnchor::leaf_destroyed() {
  const std::lock_guard lock(mutex_);
  leaf_ = nullptr;
}
Tensor LeafAnchor::lock() {
  const std::lock_guard lock(mutex_);
  if (!leaf_) return {};
  // Its last holder may be about to destroy it: from 0 there is no way back.
  int count = leaf_->references.load(std::memory_order_relaxed);
  while (count > 0)
    if (leaf_->references.compare_exchange_weak(count, count + 1, std::memory_order_acq_rel))
      return Tensor::adopt(leaf_);
  return {};
}

void TapeNode::release_saved() {
  released = true;
  if (extra && extra->function) extra->function->release();
  OperandRecord* all = operands();
  for (uint32_t i = 0; i < operand_count; ++i) all[i].saved = {};
  ResultRecord* made = results();
  for (uint32_t i = 0; i < result_count; ++i) made[i].saved = {};
}

void TapeNode::destroy() {
  Graveyard& grave = graveyard;
  if (grave.digging) {
    pending = std::exchange(grave.waiting, this);
    return;
  }
  grave.digging = true;
  TapeNode* node = this;
  for (;;) {
    release_edges(*node);
    Pool<TapeNode>::destroy(node);
    if (!grave.waiting) break;
    node = grave.waiting;
    grave.waiting = static_cast<TapeNode*>(node->pending);
  }
  grave.digging = false;
}

uint64_t tape_position() { return next_sequence.load(std::memory_order_relaxed); }

void install_tape() { recorder().record = record; }

}  // namespace tandem
