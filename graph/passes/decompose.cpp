// decompose: replaces ops such as softmax, layer_norm or adamw by the simpler ops they are made of, so
// that fusion can join them with their neighbours. Runs only where fusion does: op by op the whole
// kernels are faster. So they are where such an op has no neighbour that would share its kernel.
#include "graph/ir/views.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

/// Which ops that are kernels of rows stay whole: those around which nothing would run within the loops that they are made of,
/// but others of that kind.
class Neighbours {
 public:
  explicit Neighbours(const Graph& graph)
      : graph_(graph), references_(references(graph)), whole_(graph.nodes.size()), near_(graph.nodes.size()) {
    for (int n = 0; n < count(graph.nodes); ++n) at(whole_, n) = may_stay(graph.node(n));
    for (int n = 0; n < count(graph.nodes); ++n) {
      if (graph.node(n).op->kind == OpKind::view) continue;
      for (int input : graph.node(n).inputs)
        if (const int maker = graph.value(at(references_, input).base).node; maker >= 0)
          meet(maker, n, is_number(input));
    }
    for (; !split_.empty();) {
      const int n = split_.back();
      split_.pop_back();
      for (int other : at(near_, n)) split(other);
    }
  }

  bool stays_whole(int n) const { return at(whole_, n); }

 private:
  bool is_number(int value) const { return graph_.type(value).shape.numel() == 1; }
  bool may_stay(const Node& node) const {
    if (node.op->kind != OpKind::reduce || !node.op->decompose) return false;
    const Device device = graph_.type(node.outputs[0]).device;
    return device.is_cpu() && kernel_for(*node.op, device);
  }
  /// Copies only where they change the layout, which a kernel of rows reads through.
  bool fuses(const Node& node, bool reads) const {
    const Op& op = *node.op;
    if (op.is_pointwise())
      return op.pointwise.expression ||
             (!reads && graph_.type(node.inputs[0]).strides != graph_.type(node.outputs[0]).strides);
    return op.fold || op.sequence || (op.decompose && op.kind != OpKind::contract);
  }
  void split(int n) {
    if (!at(whole_, n)) return;
    at(whole_, n) = false;
    split_.push_back(n);
  }
  /// One reads what the other makes; a single number only counts for who handles no more than that.
  void meet(int maker, int reader, bool number) {
    const Node &a = graph_.node(maker), &b = graph_.node(reader);
    const bool first = may_stay(a) && (!number || is_number(a.inputs[0])),
               second = may_stay(b) && (!number || is_number(b.outputs[0]));
    if (first && second) {
      at(near_, maker).push_back(reader);
      at(near_, reader).push_back(maker);
    } else if (second && !may_stay(a) && fuses(a, false)) {
      split(reader);
    } else if (first && !may_stay(b) && fuses(b, true)) {
      split(maker);
    }
  }

  const Graph& graph_;
  const std::vector<Reference> references_;
  std::vector<bool> whole_;
  std::vector<std::vector<int>> near_;  ///< of those that may stay, those that read each other's results
  std::vector<int> split_;              ///< whose neighbours are yet to be told
};

}  // namespace

Graph decompose(const Graph& graph) {
  Rewriter rewriter(graph);
  rewriter.decompose = true;
  const Neighbours neighbours(graph);
  for (int n = 0; n < count(graph.nodes); ++n) {
    const Node& node = graph.node(n);
    if (!node.op->decompose || neighbours.stays_whole(n)) {
      rewriter.copy(node);
      continue;
    }
    const WhereScope scope(node.where);
    Tensors inputs, outputs(node.outputs.size());
    for (int input : node.inputs) inputs.push_back(rewriter.symbol(rewriter.mapped(input)));
    for (size_t i = 0; i < outputs.size(); ++i) outputs[i] = header_of(graph.type(node.outputs[i]));
    rewriter.run(*node.op, inputs, node.attributes, outputs, node.where);
    for (size_t i = 0; i < outputs.size(); ++i)
      rewriter.replace(node.outputs[i], static_cast<int>(outputs[i].impl()->value));
  }
  return rewriter.finish();
}

}  // namespace tandem::graph
