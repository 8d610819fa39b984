// Rewriting graphs.
#include <bit>
#include <cstdlib>
#include <utility>

#include "core/ops/ops.h"
#include "graph/ir/views.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {
std::atomic<uint64_t> next_id{uint64_t{1} << 62};  // never the id of a user's trace
}

Rewriter::Rewriter(const Graph& from)
    : from_(from), map_(from.values.size(), -1), id_(next_id.fetch_add(1)), installed_(this) {
  to_.draws = from.draws;
  for (const Leaf& leaf : from.leaves) {
    const ValueType& type = from.type(leaf.value);
    replace(leaf.value, to_.add_leaf(leaf, type));
    if (leaf.kind == LeafKind::scalar && !leaf.run_time && type.shape.empty())
      scalars_.try_emplace({std::bit_cast<uint64_t>(leaf.number), type.dtype}, mapped(leaf.value));
  }
}

std::vector<int> Rewriter::mapped(const std::vector<int>& old_values) const {
  std::vector<int> result;
  for (int value : old_values) result.push_back(mapped(value));
  return result;
}

void Rewriter::copy(const Node& node, std::vector<int> inputs) {
  std::vector<ValueType> types;
  for (int output : node.outputs) types.push_back(from_.type(output));
  Node made = node;
  made.inputs = std::move(inputs);
  const int index = to_.append(std::move(made), types);
  for (int i = 0; i < count(node.outputs); ++i) replace(at(node.outputs, i), at(to_.node(index).outputs, i));
}

Tensor Rewriter::symbol(int value) {
  const int leaf = to_.leaf_of(value);
  Tensor result =
      header_of(to_.type(value), leaf >= 0 && (to_.leaf(leaf).kind == LeafKind::scalar || to_.leaf(leaf).dynamic));
  result.impl()->trace = id_;
  result.impl()->value = value;
  return result;
}

int Rewriter::scalar(double number, DType dtype) {
  const auto [known, fresh] = scalars_.try_emplace({std::bit_cast<uint64_t>(number), dtype}, -1);
  if (fresh) known->second = to_.add_leaf({.kind = LeafKind::scalar, .number = number}, {dtype, Device{}, {}, {}});
  return known->second;
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
    const bool outside = std::exchange(folds_in_order_, false);
    results = op.decompose(symbols, attributes);
    if (folds_in_order_) results.clear();  // the whole kernel runs; dead_code removes what was made
    folds_in_order_ = folds_in_order_ || outside;
  }
  if (!results.empty()) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      TANDEM_ASSERT(results[i].shape() == outputs[i].shape() && results[i].dtype() == outputs[i].dtype(), op.name,
                    ": its decomposition gives ", results[i].dtype(), results[i].shape(), " for output ", i, ", infer ",
                    outputs[i].dtype(), outputs[i].shape());
      int value = static_cast<int>(results[i].impl()->value);
      ValueType& type = to_.type(value);
      const ValueType wanted = type_of(outputs[i]);
      if (type.strides != wanted.strides) {
        // A layout is a choice where a node makes the value, but not where it is a view or comes from outside.
        if (to_.value(value).node < 0 || is_view(to_, value)) {
          static const Op& copy = find_op("copy");
          const int node = to_.add_node(copy, {value}, {}, where);
          value = to_.node(node).outputs[0];
        }
        to_.type(value).strides = wanted.strides;
      }
      outputs[i].impl()->trace = id_;
      outputs[i].impl()->value = value;
    }
    return;
  }
  folds_in_order_ = folds_in_order_ || (!inputs.empty() && folds_in_order(op, type_of(inputs[0])));
  std::vector<ValueType> types;
  for (const Tensor& output : outputs) types.push_back(type_of(output));
  const int node = to_.append(op, std::move(operands), attributes, where, types);
  for (size_t i = 0; i < outputs.size(); ++i) {
    outputs[i].impl()->offset = 0;
    outputs[i].impl()->trace = id_;
    outputs[i].impl()->value = to_.node(node).outputs[i];
  }
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

bool folds_in_order(const Op& op, const ValueType& operand) {
  return (op.fold == Fold::sum || op.fold == Fold::prod) && operand.dtype == float64 && operand.device.is_cpu();
}

const double* constant_number(const Graph& graph, int value) {
  const int leaf = graph.leaf_of(value);
  if (leaf < 0) return nullptr;
  const Leaf& found = graph.leaf(leaf);
  return found.kind == LeafKind::scalar && !found.run_time ? &found.number : nullptr;
}

}  // namespace tandem::graph
