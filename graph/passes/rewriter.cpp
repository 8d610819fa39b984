// Rewriting graphs.
#include <cmath>
#include <cstdlib>

#include "core/ops/ops.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {
std::atomic<uint64_t> next_id{uint64_t{1} << 62};  // never the id of a user's trace
}

Rewriter::Rewriter(const Graph& from)
    : from_(from), map_(from.values.size(), -1), id_(next_id.fetch_add(1)), installed_(this) {
  to_.draws = from.draws;
  for (const Leaf& leaf : from.leaves)
    replace(leaf.value, to_.add_leaf(leaf, from.values[static_cast<size_t>(leaf.value)].type));
}

void Rewriter::copy(const Node& node) {
  Node made = node;
  made.outputs.clear();
  for (int& input : made.inputs) input = mapped(input);
  const int index = static_cast<int>(to_.nodes.size());
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    made.outputs.push_back(static_cast<int>(to_.values.size()));
    to_.values.push_back({from_.values[static_cast<size_t>(node.outputs[i])].type, index, static_cast<int>(i)});
    replace(node.outputs[i], made.outputs.back());
  }
  to_.nodes.push_back(std::move(made));
}

Tensor Rewriter::symbol(int value) {
  const int leaf = to_.leaf_of(value);
  Tensor result = header_of(to_.values[static_cast<size_t>(value)].type,
                            leaf >= 0 && to_.leaves[static_cast<size_t>(leaf)].kind == LeafKind::scalar);
  result.impl()->trace = id_;
  result.impl()->value = value;
  return result;
}

int Rewriter::scalar(double number, DType dtype) {
  for (const Leaf& leaf : to_.leaves)
    if (leaf.kind == LeafKind::scalar && !leaf.run_time && leaf.number == number &&
        std::signbit(leaf.number) == std::signbit(number) &&
        to_.values[static_cast<size_t>(leaf.value)].type.dtype == dtype &&
        to_.values[static_cast<size_t>(leaf.value)].type.shape.empty())
      return leaf.value;
  return to_.add_leaf({.kind = LeafKind::scalar, .number = number}, {dtype, Device{}, {}, {}});
}

void Rewriter::run(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes,
                   std::span<Tensor> outputs, Where where) {
  std::vector<int> operands;
  for (const Tensor& input : inputs) {
    if (input.impl()->trace == id_) {
      operands.push_back(static_cast<int>(input.impl()->value));
      continue;
    }
    TANDEM_ASSERT(input.impl()->is_scalar, op.name, ": a decomposition uses a tensor that is not its operand");
    operands.push_back(scalar(input.item<double>(), input.dtype()));
  }
  bool empty = false;  // nothing to gain, and folds of nothing have their own rules
  for (const Tensor& input : inputs) empty = empty || input.numel() == 0;
  Tensors results;
  if (decompose && op.decompose && !empty) {
    std::vector<Tensor> symbols;
    for (int operand : operands) symbols.push_back(symbol(operand));
    results = op.decompose(symbols, attributes);
  }
  if (!results.empty()) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      TANDEM_ASSERT(results[i].shape() == outputs[i].shape() && results[i].dtype() == outputs[i].dtype(), op.name,
                    ": its decomposition gives ", results[i].dtype(), results[i].shape(), " for output ", i, ", infer ",
                    outputs[i].dtype(), outputs[i].shape());
      int value = static_cast<int>(results[i].impl()->value);
      ValueType& type = to_.values[static_cast<size_t>(value)].type;
      const ValueType wanted = type_of(outputs[i]);
      if (type.strides != wanted.strides) {
        // A layout is a choice where a node makes the value, but not where it is a view or comes from outside.
        const int maker = to_.values[static_cast<size_t>(value)].node;
        if (maker < 0 || to_.nodes[static_cast<size_t>(maker)].op->kind == OpKind::view) {
          static const Op& copy = find_op("copy");
          const int node = to_.add_node(copy, {value}, {}, where);
          value = to_.nodes[static_cast<size_t>(node)].outputs[0];
        }
        to_.values[static_cast<size_t>(value)].type.strides = wanted.strides;
      }
      outputs[i].impl()->trace = id_;
      outputs[i].impl()->value = value;
    }
    return;
  }
  Node node{.op = &op,
            .inputs = std::move(operands),
            .outputs = {},
            .attributes = attributes,
            .where = where,
            .fused = nullptr};
  const int index = static_cast<int>(to_.nodes.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    outputs[i].impl()->offset = 0;
    outputs[i].impl()->trace = id_;
    outputs[i].impl()->value = static_cast<int64_t>(to_.values.size());
    node.outputs.push_back(static_cast<int>(to_.values.size()));
    to_.values.push_back({type_of(outputs[i]), index, static_cast<int>(i)});
  }
  to_.nodes.push_back(std::move(node));
}

void Rewriter::assign(const Tensor&, const Tensor&, Where) { TANDEM_ASSERT(false, "assign in a decomposition"); }
void Rewriter::value_needed(const Tensor&, const char* wanted_by, Where) {
  TANDEM_ASSERT(false, wanted_by, " in a decomposition");
  std::abort();
}

Graph Rewriter::finish() {
  for (int output : from_.outputs) to_.outputs.push_back(mapped(output));
  for (StateWrite write : from_.writes) {
    write.value = mapped(write.value);
    to_.writes.push_back(write);
  }
  for (GradientWrite write : from_.gradients) {
    if (write.value >= 0) write.value = mapped(write.value);
    to_.gradients.push_back(std::move(write));
  }
  return std::move(to_);
}

bool is_elementwise(const Op& op) { return op.kind == OpKind::pointwise; }

const double* constant_number(const Graph& graph, int value) {
  const int leaf = graph.leaf_of(value);
  if (leaf < 0) return nullptr;
  const Leaf& found = graph.leaves[static_cast<size_t>(leaf)];
  return found.kind == LeafKind::scalar && !found.run_time ? &found.number : nullptr;
}

}  // namespace tandem::graph
