// Graph: a traced program as typed SSA over the one op table. Values are tensors with a type; nodes
// are op calls in an order that respects their operands.
#pragma once

#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "../../core/op.h"

namespace tandem {

struct ValueType {
  DType dtype = DType::float32;
  Device device;
  Shape shape;
  Shape strides;  ///< layout of the value if it is put in memory
  bool operator==(const ValueType&) const = default;
};
std::ostream& operator<<(std::ostream& out, const ValueType& type);  ///< "float32[64, 10]"

/// Where a value that no node makes comes from.
enum class LeafKind : uint8_t {
  argument,  ///< an argument of the traced function
  state,     ///< a tensor that it closed over: read at each call
  gradient,  ///< grad() of such a tensor: read at each call
  constant,  ///< a tensor made from C++ values in the trace
  scalar,    ///< a C++ number in the trace
};
std::string_view name_of(LeafKind kind);

struct Leaf {
  LeafKind kind = LeafKind::argument;
  int value = -1;
  int argument = -1;  ///< position, of an argument
  Tensor tensor =
      {};  ///< state and constant: the tensor itself; gradient: whose; scalar: 0-d. Undefined once parsed from text
  double number = 0;      ///< of a scalar
  bool run_time = false;  ///< a scalar that has changed between traces: read at each call
  bool dynamic = false;   ///< an argument that is a number (Dynamic) rather than a tensor
  Where where = {};
};

struct Value {
  ValueType type;
  int node = -1;   ///< -1: a leaf
  int output = 0;  ///< which output of the node
  int leaf = -1;   ///< which of the graph's leaves; -1: a node's
};

struct LoopKernel;  // graph/ir/loop.h: what a fused node computes

struct Node {
  const Op* op = nullptr;
  std::vector<int> inputs;  ///< value ids
  std::vector<int> outputs;
  Attributes attributes;
  Where where;
  std::shared_ptr<const LoopKernel> fused;  ///< of op "fused"
  int kernel = -1;                          ///< the kernel that fusion has chosen for it, until that is lowered
};

/// A value to be stored in a state tensor after it is computed.
struct StateWrite {
  int leaf = -1;  ///< index in Graph::leaves, of kind state
  int value = -1;
  Where where;
};
/// grad() of a tensor after the call: a value, or cleared (-1).
struct GradientWrite {
  Tensor tensor = {};  ///< a tensor closed over; undefined for an argument (and once parsed)
  int argument = -1;
  int value = -1;
};

class Graph {
 public:
  std::vector<Value> values;
  std::vector<Leaf> leaves;
  std::vector<Node> nodes;
  std::vector<int> outputs;
  std::vector<StateWrite> writes;
  std::vector<GradientWrite> gradients;
  int64_t draws = 0;  ///< random draws that one run makes

  // By id; ids are int, as -1 stands for none.
  Value& value(int id) { return values[static_cast<size_t>(id)]; }
  const Value& value(int id) const { return values[static_cast<size_t>(id)]; }
  Node& node(int index) { return nodes[static_cast<size_t>(index)]; }
  const Node& node(int index) const { return nodes[static_cast<size_t>(index)]; }
  Leaf& leaf(int index) { return leaves[static_cast<size_t>(index)]; }
  const Leaf& leaf(int index) const { return leaves[static_cast<size_t>(index)]; }
  const ValueType& type(int id) const { return value(id).type; }
  ValueType& type(int id) { return value(id).type; }

  int add_leaf(Leaf leaf, ValueType type);  ///< the value's id
  /// Appends a call; output types come from the op's infer. The node's index.
  int add_node(const Op& op, std::vector<int> inputs, Attributes attributes, Where where);
  /// Appends a node whose outputs are new values of these types, as nobody asks infer. The node's index.
  int append(Node node, const std::vector<ValueType>& types);
  int append(const Op& op, std::vector<int> inputs, Attributes attributes, Where where,
             const std::vector<ValueType>& types);
  /// Index in `leaves` of the leaf that makes this value; -1 if a node does.
  int leaf_of(int id) const { return value(id).leaf; }
  /// Whether infer sees a number rather than a tensor: a scalar leaf, or a state or constant that was one.
  bool is_number(int value) const;

  size_t size() const { return nodes.size(); }
  std::string to_string() const;
  std::string to_dot() const;
};
std::ostream& operator<<(std::ostream& out, const Graph& graph);

/// Reads what to_string() wrote, of a graph that is not fused; throws GraphError with the line for everything that isn't as
/// it would be written. State and gradient leaves are then unbound: a run before they are bound is a GraphError.
Graph parse_graph(const std::string& text, Where where = Where::current());

/// Throws GraphError if an operand is used before it is made, a type differs from what infer says (of a view its
/// strides too: elsewhere a layout is a choice), …
void verify(const Graph& graph, const char* after_pass = "");

namespace graph {
/// Header tensors of the operands' types, for infer.
Tensor header_of(const ValueType& type, bool is_scalar = false);
ValueType type_of(const Tensor& tensor);
/// For each value: the indices of the nodes that read it.
std::vector<std::vector<int>> users(const Graph& graph);
/// Room for infer: how many results a call of the op may have.
inline size_t most_outputs(const Op& op) { return op.outputs == kVariadic ? 4096 : kMaxOutputs; }
/// A copy of the string that lives as long as the program.
const char* intern(const std::string& text);
}  // namespace graph

}  // namespace tandem
