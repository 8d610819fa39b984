// A leaf whose grad() has a tape (backward with create_graph) owns a tape that leads back to itself.
#include <unordered_set>

#include "autograd/walk.h"

namespace tandem {

namespace {

/// Lets the node hold its operand i, a leaf, weakly. What it saved of it stays, as a tensor without a tape.
void weaken(TapeNode& node, uint32_t i) {
  OperandRecord& operand = node.operands()[i];
  const Tensor leaf = std::exchange(operand.edge.leaf, {});
  LeafExtra& extra = make_extra(*leaf.impl());
  if (!extra.anchor) extra.anchor = std::make_shared<LeafAnchor>(leaf.impl());
  auto& anchors = node.make_extra().weak_leaves;
  anchors.resize(node.operand_count);
  anchors[i] = extra.anchor;
  if (operand.saved.tensor.impl() == leaf.impl()) operand.saved.tensor = leaf.detach();
}

}  // namespace

void hold_weakly(const Tensors& leaves) {
  std::unordered_set<const TensorImpl*> targets;
  std::unordered_set<TapeNode*> seen;
  std::vector<TapeNode*> waiting;
  const auto visit = [&](TapeNodeBase* base) {
    auto* node = static_cast<TapeNode*>(base);
    if (node && seen.insert(node).second) waiting.push_back(node);
  };
  for (const Tensor& leaf : leaves) {
    targets.insert(leaf.impl());
    if (leaf.impl()->grad.defined()) visit(leaf.impl()->grad.impl()->node);
  }
  while (!waiting.empty()) {
    TapeNode& node = *waiting.back();
    waiting.pop_back();
    for (uint32_t i = 0; i < node.operand_count; ++i) {
      const Edge& edge = node.operands()[i].edge;
      if (edge.leaf.defined() && targets.count(edge.leaf.impl())) weaken(node, i);
      visit(edge.node);
    }
  }
}

}  // namespace tandem
