// Recording ops on the tape, and letting the tape go without recursion.
#include "tandem/autograd/tape.h"

#include "tandem/core/dispatch.h"
#include "tandem/core/pool.h"

namespace tandem {

namespace {

std::atomic<uint64_t> next_sequence{1};

void record_meta(TensorMeta& meta, const TensorImpl& impl) {
  meta.shape = impl.shape;
  meta.dtype = impl.dtype;
  meta.device = impl.device;
}

uint32_t version_of(const TensorImpl& impl) { return impl.storage ? impl.storage->version : 0; }

void record(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, std::span<Tensor> outputs, Where where) {
  TapeNode* node = Pool<TapeNode>::create();
  node->op = &op;
  node->sequence = next_sequence.fetch_add(1, std::memory_order_relaxed);
  node->where = where;
  if (!attributes.empty()) node->attributes = attributes;
  node->operand_count = static_cast<uint32_t>(inputs.size());
  node->result_count = static_cast<uint32_t>(outputs.size());
  if (inputs.size() > 2) node->more_operands.resize(inputs.size());
  if (outputs.size() > 1) node->more_results.resize(outputs.size());

  OperandRecord* operands = node->operands();
  for (size_t i = 0; i < inputs.size(); ++i) {
    TensorImpl& impl = *inputs[i].impl();
    OperandRecord& operand = operands[i];
    record_meta(operand.meta, impl);
    if (impl.requires_grad) {
      operand.edge.wanted = true;
      if (impl.node) {
        impl.node->references.fetch_add(1, std::memory_order_relaxed);
        operand.edge.node = impl.node;
        operand.edge.output_index = impl.output_index;
      } else {
        operand.edge.leaf = inputs[i];
      }
    }
    if (i < 16 && (op.saved & in(static_cast<int>(i)))) operand.saved = {inputs[i], version_of(impl)};
  }
  ResultRecord* results = node->results();
  for (size_t i = 0; i < outputs.size(); ++i) {
    TensorImpl& impl = *outputs[i].impl();
    record_meta(results[i].meta, impl);
    if (op.saved & out(static_cast<int>(i))) results[i].saved = {outputs[i].detach(where), version_of(impl)};
    if (!is_floating(impl.dtype)) continue;
    impl.requires_grad = true;
    node->references.fetch_add(1, std::memory_order_relaxed);
    impl.node = node;
    impl.output_index = static_cast<uint32_t>(i);
  }
  detail::release_node(node);
}

/// Nodes waiting to be freed. Freeing a node lets go of the nodes before it; a chain of a million
/// ops would overflow the stack if each freed the next.
struct Graveyard {
  std::vector<TapeNode*> waiting;
  bool digging = false;
};
thread_local Graveyard graveyard;

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

void TapeNode::release_saved() {
  released = true;
  OperandRecord* all = operands();
  for (uint32_t i = 0; i < operand_count; ++i) all[i].saved = {};
  ResultRecord* made = results();
  for (uint32_t i = 0; i < result_count; ++i) made[i].saved = {};
}

void TapeNode::destroy() {
  Graveyard& grave = graveyard;
  if (grave.digging) {
    grave.waiting.push_back(this);
    return;
  }
  grave.digging = true;
  TapeNode* node = this;
  for (;;) {
    release_edges(*node);
    Pool<TapeNode>::destroy(node);
    if (grave.waiting.empty()) break;
    node = grave.waiting.back();
    grave.waiting.pop_back();
  }
  grave.digging = false;
}

void install_tape() { recorder().record = record; }

namespace {
/// The tape needs no start-up order: the recorder is constant-initialised, and this only sets a pointer.
const bool installed = (install_tape(), true);
}  // namespace

}  // namespace tandem
