// Graphs as text, which parse.cpp reads back, and as pictures.
#include <charconv>
#include <ostream>

#include "graph/ir/at.h"
#include "graph/ir/graph.h"

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

namespace {

std::string number_text(double value) {  // in the same way under any locale
  char text[40];
  return {text, std::to_chars(text, text + sizeof text, value, std::chars_format::general, 17).ptr};
}

/// Values are numbered as they are printed, so that a graph that was read from text prints as it did.
struct Names {
  explicit Names(const Graph& graph) : number(graph.values.size(), -1) {
    int next = 0;
    for (const Leaf& leaf : graph.leaves) graph::at(number, leaf.value) = next++;
    for (const Node& node : graph.nodes)
      for (int output : node.outputs) graph::at(number, output) = next++;
  }
  std::string operator()(int value) const {
    return value < 0 ? "none" : "%" + std::to_string(graph::at(number, value));
  }
  std::vector<int> number;
};

void print_leaf(std::ostream& out, const Graph& graph, const Leaf& leaf, const Names& value_text) {
  const ValueType& type = graph.type(leaf.value);
  out << "  " << value_text(leaf.value) << ": " << type << " = " << name_of(leaf.kind);
  if (leaf.kind == LeafKind::argument) out << ' ' << leaf.argument << (leaf.dynamic ? " number" : "");
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
      out << (i ? ", " : "") << value_text(node.outputs[i]) << ": " << graph.type(node.outputs[i]);
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
    if (node.where.line() || node.kernel >= 0) out << "  #";
    if (node.where.line()) out << ' ' << to_string(node.where);
    if (node.kernel >= 0) out << " kernel " << node.kernel;
    out << '\n';
  }
  for (const StateWrite& write : graph.writes)
    out << "  assign " << value_text(graph.leaf(write.leaf).value) << " = " << value_text(write.value) << '\n';
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
  tandem::detail::TextStream out;
  out << *this;
  return out.str();
}

std::string Graph::to_dot() const {
  tandem::detail::TextStream out;
  out << "digraph {\n  node [shape=box, fontname=\"sans-serif\"];\n";
  for (const Leaf& leaf : leaves)
    out << "  v" << leaf.value << " [shape=ellipse, label=\"" << name_of(leaf.kind) << "\\n"
        << type(leaf.value) << "\"];\n";
  const auto source = [&](int id) {
    const int node = value(id).node;
    return node < 0 ? "v" + std::to_string(id) : "n" + std::to_string(node);
  };
  for (size_t n = 0; n < nodes.size(); ++n) {
    out << "  n" << n << " [label=\"" << nodes[n].op->name;
    if (!nodes[n].outputs.empty()) out << "\\n" << type(nodes[n].outputs[0]);
    out << "\"];\n";
    for (int input : nodes[n].inputs) out << "  " << source(input) << " -> n" << n << ";\n";
  }
  for (size_t i = 0; i < outputs.size(); ++i)
    out << "  out" << i << " [shape=ellipse];\n  " << source(outputs[i]) << " -> out" << i << ";\n";
  out << "}\n";
  return out.str();
}

}  // namespace tandem
