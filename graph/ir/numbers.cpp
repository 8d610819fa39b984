// Walking over the numbers of graphs, and comparing all else.
#include "graph/ir/numbers.h"

#include <algorithm>
#include <bit>

#include "graph/ir/at.h"
#include "graph/ir/loop.h"

namespace tandem::graph {

namespace {

/// Calls f with each number of a type and of a scalar leaf, then of_node with each node.
template <class G, class Number, class OfNode>
void each_in(G& graph, size_t scalars_from, Number&& f, OfNode&& of_node) {
  for (auto& value : graph.values) {
    for (auto& extent : value.type.shape) f(extent);
    for (auto& stride : value.type.strides) f(stride);
  }
  for (size_t i = scalars_from; i < graph.leaves.size(); ++i) f(graph.leaves[i].number);
  for (auto& node : graph.nodes) of_node(node);
}

/// Calls f with each number of the graph, which isn't changed.
template <class F> void each_number_of(const Graph& graph, size_t scalars_from, F&& f) {
  each_in(graph, scalars_from, f, [&](const Node& node) {
    for (const Attribute& attribute : node.attributes) {
      if (const int64_t* number = std::get_if<int64_t>(&attribute.value)) f(*number);
      if (const Shape* shape = std::get_if<Shape>(&attribute.value)) std::for_each(shape->begin(), shape->end(), f);
    }
    if (node.fused) each_number(*node.fused, f);
  });
}

bool same_bits(double a, double b) { return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b); }

bool alike(const ValueType& a, const ValueType& b) {
  return a.dtype == b.dtype && a.device == b.device && a.shape.size() == b.shape.size();
}
bool alike(const Position& a, const Position& b) { return a.strides.size() == b.strides.size(); }
bool alike(const Statement& a, const Statement& b) {
  return a.kind == b.kind && a.level == b.level && a.dtype == b.dtype && a.op == b.op && a.operands == b.operands &&
         a.buffer == b.buffer && alike(a.position, b.position) && a.integer == b.integer && a.fold == b.fold &&
         a.phase == b.phase && a.check == b.check && a.partial == b.partial;
}
bool alike(const Store& a, const Store& b) {
  return a.statement == b.statement && a.buffer == b.buffer && alike(a.position, b.position);
}
bool alike(const Interval& a, const Interval& b) { return same_bits(a.low, b.low) && same_bits(a.high, b.high); }
bool alike(const ValueCheck& a, const ValueCheck& b) {
  return a.range.what == b.range.what && a.range.classes == b.range.classes && a.range.ignored == b.range.ignored &&
         a.range.interval.has_value() == b.range.interval.has_value() &&
         (!a.range.interval || alike(*a.range.interval, *b.range.interval)) && a.op == b.op &&
         a.shape.size() == b.shape.size();
}
bool alike(const Segment& a, const Segment& b);
template <class T> bool all_alike(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const T& x, const T& y) { return alike(x, y); });
}
bool alike(const Segment& a, const Segment& b) {
  return a.rows.size() == b.rows.size() && a.columns.size() == b.columns.size() && a.partials == b.partials &&
         a.by_row == b.by_row && all_alike(a.statements, b.statements) && all_alike(a.stores, b.stores);
}
bool alike(const LoopKernel& a, const LoopKernel& b) {
  return a.buffers == b.buffers && all_alike(a.segments, b.segments) && alike(a.finish, b.finish) &&
         all_alike(a.checks, b.checks);
}
bool alike(const Attribute& a, const Attribute& b) {
  if (std::string_view(a.name) != b.name || a.value.index() != b.value.index()) return false;
  if (std::holds_alternative<int64_t>(a.value)) return true;
  if (const Shape* shape = std::get_if<Shape>(&a.value)) return shape->size() == std::get<Shape>(b.value).size();
  return a == b;
}
bool alike(const Node& a, const Node& b) {
  return a.op == b.op && a.inputs == b.inputs && a.outputs == b.outputs && !a.fused == !b.fused &&
         (!a.fused || alike(*a.fused, *b.fused)) &&
         std::equal(a.attributes.begin(), a.attributes.end(), b.attributes.begin(), b.attributes.end(),
                    [](const Attribute& x, const Attribute& y) { return alike(x, y); });
}

std::string describe(const Graph& graph, int n) {
  if (n >= count(graph.nodes)) return "the end of the function";
  return detail::str(graph.node(n).op->name, " at ", to_string(graph.node(n).where));
}

}  // namespace

std::vector<int64_t> numbers_of(const Graph& graph, size_t scalars_from) {
  std::vector<int64_t> numbers;
  each_number_of(graph, scalars_from, [&](const auto& number) { numbers.push_back(bits_of(number)); });
  return numbers;
}

std::vector<bool> which_are_doubles(const Graph& graph, size_t scalars_from) {
  std::vector<bool> result;
  each_number_of(graph, scalars_from,
                 [&](const auto& number) { result.push_back(std::is_same_v<std::decay_t<decltype(number)>, double>); });
  return result;
}

void set_numbers(Graph& graph, size_t scalars_from, const std::vector<int64_t>& numbers) {
  auto next = numbers.begin();
  const auto set = [&](auto& number) { set_bits(number, *next++); };
  each_in(graph, scalars_from, set, [&](Node& node) {
    std::vector<Attribute> changed;
    for (const Attribute& attribute : node.attributes) {
      Attribute now = attribute;
      if (int64_t* number = std::get_if<int64_t>(&now.value)) set(*number);
      else if (Shape* shape = std::get_if<Shape>(&now.value)) std::for_each(shape->begin(), shape->end(), set);
      else continue;
      if (!(now == attribute)) changed.push_back(std::move(now));
    }
    for (Attribute& attribute : changed) node.attributes.set(std::move(attribute));
    if (!node.fused) return;
    bool same = true;
    auto number = next;
    each_number(*node.fused, [&](const auto& was) { same = (bits_of(was) == *number++) && same; });
    if (same) {
      next = number;
      return;
    }
    const auto kernel = std::make_shared<LoopKernel>(*node.fused);
    each_number(*kernel, set);
    node.fused = kernel;
  });
  TANDEM_ASSERT(next == numbers.end(), "numbers of another graph");
}

std::vector<NumberPlace> number_places(Graph& graph, size_t scalars_from, size_t values, size_t nodes) {
  std::vector<NumberPlace> result;
  for (int v = 0; v < static_cast<int>(values); ++v) {
    ValueType& type = graph.type(v);
    for (int64_t& extent : type.shape) result.push_back({.address = &extent, .value = v});
    for (int64_t& stride : type.strides) result.push_back({.address = &stride, .value = v});
  }
  for (size_t i = scalars_from; i < graph.leaves.size(); ++i)
    result.push_back({.address = &graph.leaves[i].number, .leaf = static_cast<int>(i)});
  for (int n = 0; n < static_cast<int>(nodes); ++n) {
    Node& node = graph.node(n);
    const auto add = [&](auto& number) { result.push_back({.address = &number, .node = n}); };
    for (const Attribute& fixed : node.attributes) {
      auto& attribute = const_cast<Attribute&>(fixed);  // of a node that isn't const
      if (int64_t* number = std::get_if<int64_t>(&attribute.value)) add(*number);
      if (Shape* shape = std::get_if<Shape>(&attribute.value)) std::for_each(shape->begin(), shape->end(), add);
    }
    if (!node.fused) continue;
    const auto own = std::make_shared<LoopKernel>(*node.fused);
    each_number(*own, add);
    node.fused = own;
  }
  return result;
}

std::string difference_in_structure(const Graph& a, const Graph& b) {
  for (int n = 0; n < std::max(count(a.nodes), count(b.nodes)); ++n)
    if (n >= count(a.nodes) || n >= count(b.nodes) || !alike(a.node(n), b.node(n)))
      return detail::str("then: ", describe(a, n), "; now: ", describe(b, n));
  for (int i = 0; i < std::max(count(a.leaves), count(b.leaves)); ++i) {
    if (i >= count(a.leaves) || i >= count(b.leaves)) return "it reads more tensors and numbers in one size";
    const Leaf &x = a.leaf(i), &y = b.leaf(i);
    if (x.kind != y.kind || x.value != y.value || x.argument != y.argument || x.dynamic != y.dynamic ||
        !alike(a.type(x.value), b.type(y.value)))
      return detail::str("then: ", name_of(x.kind), " ", a.type(x.value), " read at ", to_string(x.where),
                         "; now: ", name_of(y.kind), " ", b.type(y.value), " read at ", to_string(y.where));
  }
  if (a.values.size() != b.values.size()) return "it has more values in one size";
  for (int v = 0; v < count(a.values); ++v)
    if (!alike(a.type(v), b.type(v))) return detail::str("then: a value ", a.type(v), "; now: ", b.type(v));
  const auto writes_alike = [](const StateWrite& x, const StateWrite& y) {
    return x.leaf == y.leaf && x.value == y.value;
  };
  const auto gradients_alike = [](const GradientWrite& x, const GradientWrite& y) {
    return x.value == y.value && x.argument == y.argument;
  };
  const bool same =
      a.outputs == b.outputs && a.draws == b.draws &&
      std::equal(a.writes.begin(), a.writes.end(), b.writes.begin(), b.writes.end(), writes_alike) &&
      std::equal(a.gradients.begin(), a.gradients.end(), b.gradients.begin(), b.gradients.end(), gradients_alike);
  return same ? "" : "its results, assigns or gradients are others";
}

bool kernel_stays_inside(const Graph& graph, const Node& node) {
  const LoopKernel& kernel = *node.fused;
  const int inputs = count(node.inputs);
  const auto inside = [&](const Segment& segment, int buffer, const Position& position) {
    const ValueType& type = graph.type(buffer < inputs ? at(node.inputs, buffer) : at(node.outputs, buffer - inputs));
    if (type.shape.contains(0) || segment.rows.contains(0) || segment.columns.contains(0)) return true;
    int64_t last = 0, reached = position.offset;
    for (int d = 0; d < type.shape.size(); ++d) last += (type.shape[d] - 1) * type.strides[d];
    for (int d = 0; d < position.strides.size(); ++d) {
      const int rows = segment.rows.size();
      reached += ((d < rows ? segment.rows[d] : segment.columns[d - rows]) - 1) * position.strides[d];
    }
    return position.offset >= 0 && reached <= last;
  };
  const auto all_inside = [&](const Segment& segment) {
    for (const Statement& s : segment.statements)
      if (s.kind == LoopOp::load && !inside(segment, s.buffer, s.position)) return false;
    for (const Store& store : segment.stores)
      if (!inside(segment, store.buffer, store.position)) return false;
    return true;
  };
  for (const Segment& segment : kernel.segments)
    if (!all_inside(segment)) return false;
  return all_inside(kernel.finish);
}

bool kernels_stay_inside(const Graph& graph) {
  return std::all_of(graph.nodes.begin(), graph.nodes.end(),
                     [&](const Node& node) { return !node.fused || kernel_stays_inside(graph, node); });
}

}  // namespace tandem::graph
