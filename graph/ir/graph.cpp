// Graph: building, text and pictures.
#include "graph/ir/graph.h"

#include <cstdio>
#include <mutex>
#include <ostream>
#include <sstream>
#include <unordered_set>

#include "core/dispatch.h"
#include "graph/ir/loop.h"

namespace tandem {

std::ostream& operator<<(std::ostream& out, const ValueType& type) {
  out << type.dtype << type.shape;
  if (!is_contiguous(type.shape, type.strides)) out << " strides " << type.strides;
  if (!type.device.is_cpu()) out << " on " << type.device;
  return out;
}

std::string_view name_of(LeafKind kind) {
  constexpr std::string_view names[] = {"argument", "state", "gradient", "constant", "scalar"};
  return names[static_cast<int>(kind)];
}

Tensor graph::header_of(const ValueType& type, bool is_scalar) {
  TensorImpl* impl = TensorImpl::create();
  impl->dtype = type.dtype;
  impl->device = type.device;
  impl->is_scalar = is_scalar;
  impl->set_layout(type.shape, type.strides);
  return Tensor::adopt(impl);
}

ValueType graph::type_of(const Tensor& tensor) {
  return {tensor.dtype(), tensor.device(), tensor.shape(), tensor.strides()};
}

std::vector<std::vector<int>> graph::users(const Graph& graph) {
  std::vector<std::vector<int>> result(graph.values.size());
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    for (int input : graph.nodes[n].inputs) result[static_cast<size_t>(input)].push_back(static_cast<int>(n));
  return result;
}

const char* graph::intern(const std::string& text) {
  static std::mutex mutex;
  static auto* const texts = new std::unordered_set<std::string>;
  const std::lock_guard lock(mutex);
  return texts->insert(text).first->c_str();
}

int Graph::add_leaf(Leaf leaf, ValueType type) {
  const int value = static_cast<int>(values.size());
  leaf.value = value;
  values.push_back({std::move(type), -1, 0});
  leaves.push_back(std::move(leaf));
  return value;
}

int Graph::leaf_of(int value) const {
  if (values[static_cast<size_t>(value)].node >= 0) return -1;
  for (size_t i = 0; i < leaves.size(); ++i)
    if (leaves[i].value == value) return static_cast<int>(i);
  return -1;
}

int Graph::add_node(const Op& op, std::vector<int> inputs, Attributes attributes, Where where) {
  Tensors headers, results(static_cast<size_t>(op.outputs));
  for (int input : inputs) {
    const int leaf = leaf_of(input);
    const bool scalar = leaf >= 0 && (leaves[static_cast<size_t>(leaf)].kind == LeafKind::scalar ||
                                      (leaves[static_cast<size_t>(leaf)].tensor.defined() &&
                                       leaves[static_cast<size_t>(leaf)].tensor.impl()->is_scalar));
    headers.push_back(graph::header_of(values[static_cast<size_t>(input)].type, scalar));
  }
  Infer infer(op, headers, attributes, results, where);
  op.infer(infer);
  Node node{.op = &op,
            .inputs = std::move(inputs),
            .outputs = {},
            .attributes = std::move(attributes),
            .where = where,
            .fused = nullptr};
  const int index = static_cast<int>(nodes.size());
  for (int i = 0; i < op.outputs; ++i) {
    node.outputs.push_back(static_cast<int>(values.size()));
    values.push_back({graph::type_of(results[static_cast<size_t>(i)]), index, i});
  }
  nodes.push_back(std::move(node));
  return index;
}

namespace {

std::string number_text(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

/// Values are numbered as they are printed, so that a graph that was read from text prints as it did.
struct Names {
  explicit Names(const Graph& graph) : number(graph.values.size(), -1) {
    int next = 0;
    for (const Leaf& leaf : graph.leaves) number[static_cast<size_t>(leaf.value)] = next++;
    for (const Node& node : graph.nodes)
      for (int output : node.outputs) number[static_cast<size_t>(output)] = next++;
  }
  std::string operator()(int value) const {
    return value < 0 ? "none" : "%" + std::to_string(number[static_cast<size_t>(value)]);
  }
  std::vector<int> number;
};

void print_leaf(std::ostream& out, const Graph& graph, const Leaf& leaf, const Names& value_text) {
  const ValueType& type = graph.values[static_cast<size_t>(leaf.value)].type;
  out << "  " << value_text(leaf.value) << ": " << type << " = " << name_of(leaf.kind);
  if (leaf.kind == LeafKind::argument) out << ' ' << leaf.argument;
  if (leaf.kind == LeafKind::scalar) out << ' ' << (leaf.run_time ? std::string("run-time") : number_text(leaf.number));
  if (leaf.kind == LeafKind::constant && leaf.tensor.defined()) {
    out << " {";
    if (type.dtype == int64) {  // which double doesn't hold
      const std::vector<int64_t> data = leaf.tensor.to_vector<int64_t>();
      for (size_t i = 0; i < data.size(); ++i) out << (i ? ", " : "") << data[i];
    } else {
      const std::vector<double> data = leaf.tensor.to_vector<double>();
      for (size_t i = 0; i < data.size(); ++i) out << (i ? ", " : "") << number_text(data[i]);
    }
    out << '}';
  }
  if (leaf.where.line()) out << "  # " << to_string(leaf.where);
  out << '\n';
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Graph& graph) {
  const Names value_text(graph);
  out << "graph {\n";
  for (const Leaf& leaf : graph.leaves) print_leaf(out, graph, leaf, value_text);
  for (const Node& node : graph.nodes) {
    out << "  ";
    for (size_t i = 0; i < node.outputs.size(); ++i)
      out << (i ? ", " : "") << value_text(node.outputs[i]) << ": "
          << graph.values[static_cast<size_t>(node.outputs[i])].type;
    out << " = " << node.op->name << '(';
    for (size_t i = 0; i < node.inputs.size(); ++i) out << (i ? ", " : "") << value_text(node.inputs[i]);
    out << ')';
    if (!node.attributes.empty()) {
      out << " {";
      bool first = true;
      for (const Attribute& attribute : node.attributes) {
        out << (first ? "" : ", ") << attribute.name << '=' << to_string(attribute.value);
        first = false;
      }
      out << '}';
    }
    if (node.where.line()) out << "  # " << to_string(node.where);
    out << '\n';
  }
  for (const StateWrite& write : graph.writes)
    out << "  assign " << value_text(graph.leaves[static_cast<size_t>(write.leaf)].value) << " = "
        << value_text(write.value) << '\n';
  for (size_t i = 0; i < graph.gradients.size(); ++i) {
    const GradientWrite& gradient = graph.gradients[i];
    out << "  gradient "
        << (gradient.argument >= 0 ? "argument " + std::to_string(gradient.argument) : "state " + std::to_string(i))
        << " = " << value_text(gradient.value) << '\n';
  }
  if (graph.draws) out << "  draws " << graph.draws << '\n';
  out << "  return";
  for (size_t i = 0; i < graph.outputs.size(); ++i) out << (i ? ", " : " ") << value_text(graph.outputs[i]);
  return out << "\n}";
}

std::string Graph::to_string() const {
  std::ostringstream out;
  out << *this;
  return out.str();
}

std::string Graph::to_dot() const {
  std::ostringstream out;
  out << "digraph {\n  node [shape=box, fontname=\"sans-serif\"];\n";
  for (const Leaf& leaf : leaves)
    out << "  v" << leaf.value << " [shape=ellipse, label=\"" << name_of(leaf.kind) << "\\n"
        << values[static_cast<size_t>(leaf.value)].type << "\"];\n";
  const auto source = [&](int value) {
    const int node = values[static_cast<size_t>(value)].node;
    return node < 0 ? "v" + std::to_string(value) : "n" + std::to_string(node);
  };
  for (size_t n = 0; n < nodes.size(); ++n) {
    out << "  n" << n << " [label=\"" << nodes[n].op->name;
    if (!nodes[n].outputs.empty()) out << "\\n" << values[static_cast<size_t>(nodes[n].outputs[0])].type;
    out << "\"];\n";
    for (int input : nodes[n].inputs) out << "  " << source(input) << " -> n" << n << ";\n";
  }
  for (size_t i = 0; i < outputs.size(); ++i)
    out << "  out" << i << " [shape=ellipse];\n  " << source(outputs[i]) << " -> out" << i << ";\n";
  out << "}\n";
  return out.str();
}

void verify(const Graph& graph, const char* after_pass) {
  const auto fail = [&](const Node& node, const auto&... parts) {
    throw GraphError(detail::str("verify", *after_pass ? detail::str(" after ", after_pass) : "", ": ", node.op->name,
                                 ": ", parts...),
                     node.where);
  };
  std::vector<bool> made(graph.values.size(), false);
  for (const Leaf& leaf : graph.leaves) made[static_cast<size_t>(leaf.value)] = true;
  Graph check;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    Tensors headers, results(static_cast<size_t>(node.op->outputs));
    for (int input : node.inputs) {
      if (input < 0 || static_cast<size_t>(input) >= graph.values.size())
        fail(node, "operand ", input, " doesn't exist");
      if (!made[static_cast<size_t>(input)]) fail(node, "operand %", input, " is used before it is made");
      const int leaf = graph.leaf_of(input);
      headers.push_back(
          graph::header_of(graph.values[static_cast<size_t>(input)].type,
                           leaf >= 0 && (graph.leaves[static_cast<size_t>(leaf)].kind == LeafKind::scalar ||
                                         graph.values[static_cast<size_t>(input)].type.dtype == int64)));
    }
    for (int output : node.outputs) {
      if (made[static_cast<size_t>(output)]) fail(node, "%", output, " is made twice");
      made[static_cast<size_t>(output)] = true;
      if (graph.values[static_cast<size_t>(output)].node != static_cast<int>(n))
        fail(node, "%", output, " names another node as its maker");
    }
    if (node.fused) continue;
    Infer infer(*node.op, headers, node.attributes, results, node.where);
    node.op->infer(infer);
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const ValueType& type = graph.values[static_cast<size_t>(node.outputs[i])].type;
      if (type.shape != results[i].shape() || type.dtype != results[i].dtype())
        fail(node, "output ", i, " has type ", type, ", infer says ", graph::type_of(results[i]));
    }
  }
  const auto exists = [&](int value) {
    if (value < 0 || static_cast<size_t>(value) >= graph.values.size())
      throw GraphError(detail::str("verify: a returned, assigned or gradient value %", value, " doesn't exist"),
                       Where());
  };
  for (int output : graph.outputs) exists(output);
  for (const StateWrite& write : graph.writes) exists(write.value);
  for (const GradientWrite& write : graph.gradients)
    if (write.value != -1) exists(write.value);
  for (int output : graph.outputs)
    if (!made[static_cast<size_t>(output)])
      throw GraphError(detail::str("verify: the returned value %", output, " is never made"), Where());
  for (const StateWrite& write : graph.writes)
    if (!made[static_cast<size_t>(write.value)])
      throw GraphError(detail::str("verify: the assigned value %", write.value, " is never made"), write.where);
}

}  // namespace tandem
