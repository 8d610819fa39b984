// Graphs as text, which parse.cpp reads back, and as pictures.
#include <charconv>
#include <ostream>

#include "graph/ir/at.h"
#include "graph/ir/graph.h"
#include "graph/ir/region.h"

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

namespace {

/// `prefix` tells the nodes of a region from those around it. `results` of a region lead to its node, which has that name.
void print_dot(std::ostream& out, const Graph& graph, const std::string& prefix, const std::string& results) {
  for (const Leaf& leaf : graph.leaves)
    out << "  " << prefix << "v" << leaf.value << " [shape=ellipse, label=\"" << name_of(leaf.kind) << "\\n"
        << graph.type(leaf.value) << "\"];\n";
  const auto source = [&](int id) {
    const int node = graph.value(id).node;
    return prefix + (node < 0 ? "v" + std::to_string(id) : "n" + std::to_string(node));
  };
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    const std::string name = prefix + "n" + std::to_string(n);
    out << "  " << name << " [label=\"" << node.op->name;
    if (!node.outputs.empty()) out << "\\n" << graph.type(node.outputs[0]);
    out << "\"];\n";
    for (int input : node.inputs) out << "  " << source(input) << " -> " << name << ";\n";
    if (node.op->kind != OpKind::control) continue;
    const int first = graph::region_operands(node).first;
    for (const AttributeSpec& spec : node.op->attributes) {
      if (spec.type != AttributeType::region) continue;
      const Graph& region = graph::region_of(node.attributes, spec.name).graph();
      const std::string inside = name + spec.name + "_";
      out << "  subgraph cluster_" << inside << " {\n  label=\"" << spec.name << "\";\n";
      print_dot(out, region, inside, name);
      out << "  }\n";
      for (const Leaf& leaf : region.leaves)
        if (leaf.kind == LeafKind::argument)
          out << "  " << source(graph::at(node.inputs, first + leaf.argument)) << " -> " << inside << "v" << leaf.value
              << " [style=dashed];\n";
    }
  }
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    if (results.empty()) out << "  out" << i << " [shape=ellipse];\n";
    out << "  " << source(graph.outputs[i]) << " -> " << (results.empty() ? "out" + std::to_string(i) : results)
        << (results.empty() ? ";\n" : " [style=dashed];\n");
  }
}

}  // namespace

std::string Graph::to_dot() const {
  tandem::detail::TextStream out;
  out << "digraph {\n  node [shape=box, fontname=\"sans-serif\"];\n";
  print_dot(out, *this, "", "");
  out << "}\n";
  return out.str();
}

}  // namespace tandem
