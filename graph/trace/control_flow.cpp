// cond, while_loop and scan: eagerly loops; in a trace nodes with regions, whose definitions and gradient rules stand here. The
// gradient of a node is the same kind of node, whose regions differentiate those of the first: they run its graph anew under a
// tracer, op by op, and walk the tape that this leaves. So it is right for every op, and differentiable again.
#include "graph/trace/control_flow.h"

#include <algorithm>

#include "autograd/autograd.h"
#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "core/random.h"
#include "graph/ir/at.h"
#include "graph/ir/region.h"
#include "graph/passes/pass.h"
#include "graph/run/regions.h"
#include "graph/trace/tracer.h"

namespace tandem::graph {

using detail::str;

namespace {

std::string describe(const Tensor& tensor) { return str(tensor.dtype(), tensor.shape()); }

/// What a body returns for its loop variables is what it was given.
void check_types(const char* op, const char* what, const Tensors& then, const Tensors& now, Where where) {
  if (now.size() < then.size())
    throw ShapeError(str(op, ": the body returns ", now.size(), " tensors for ", then.size(), " that are ", what),
                     where);
  for (size_t i = 0; i < then.size(); ++i) {
    if (!now[i].defined()) throw UndefinedError(str(op, ": the body returns an undefined Tensor"), where);
    const auto message = [&] {
      return str(op, ": ", what, " ", i, " is ", describe(then[i]), " and the body returns ", describe(now[i]),
                 " for it; its type must stay: cast or reshape what it starts from");
    };
    if (now[i].dtype() != then[i].dtype()) throw DTypeError(message(), where);
    if (now[i].shape() != then[i].shape()) throw ShapeError(message(), where);
  }
}

Tensor as_condition(const char* op, const Tensor& condition, Where where) {
  if (condition.numel() != 1)
    throw ShapeError(str(op, ": the condition has shape ", condition.shape(),
                         ", need one element; make it one with all() or any(), or choose by element with where()"),
                     where);
  return to({condition.reshape({}, where), where}, bool_);
}

Tensors contiguous_of(const Tensors& tensors, Where where) {
  Tensors result;
  for (const Tensor& each : tensors) result.push_back(each.contiguous(where));
  return result;
}

/// Lets a region without results give one, so that there is a node for what it does.
void give_something(TracedRegion& region) {
  region.graph.outputs.push_back(
      region.graph.add_leaf({.kind = LeafKind::scalar, .number = 1, .where = {}}, {bool_, Device{}, {}, {}}));
  region.tape.results.push_back(false);
}

/// Calls the node, unless it would give nothing.
Tensors call(const char* op, const Tensors& operands, const Attributes& attributes, size_t results, Where where) {
  if (results == 0) return {};
  Tensors outputs(results);
  dispatch(find_op(op), operands, attributes, outputs, where);
  return outputs;
}

/// By argument of the region: whether a gradient of its results can come to it.
std::vector<bool> reached(const TracedRegion& region, size_t arguments) {
  const Graph& graph = region.graph;
  std::vector<bool> value(graph.values.size()), result(arguments);
  for (size_t i = 0; i < graph.outputs.size(); ++i)
    if (region.tape.leaves(i)) at(value, graph.outputs[i]) = true;
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    const Node& node = graph.nodes[n];
    if (std::none_of(node.outputs.begin(), node.outputs.end(), [&](int output) { return at(value, output); })) continue;
    for (size_t i = 0; i < node.inputs.size(); ++i)
      if (region.tape.reaches(n, i)) at(value, node.inputs[i]) = true;
  }
  for (const Leaf& leaf : graph.leaves)
    if (leaf.kind == LeafKind::argument && at(value, leaf.value)) at(result, leaf.argument) = true;
  return result;
}

/// Takes the operands, which are the regions' arguments, off the tape to which no gradient can come. Their gradient would be
/// zeros, and eagerly there is none.
void keep_on_tape(Tensors& operands, std::initializer_list<const TracedRegion*> regions, Where where) {
  std::vector<bool> kept(operands.size());
  for (const TracedRegion* each : regions) {
    const std::vector<bool> here = reached(*each, operands.size());
    for (size_t i = 0; i < kept.size(); ++i) kept[i] = kept[i] || here[i];
  }
  for (size_t i = 0; i < kept.size(); ++i)
    if (!kept[i] && operands[i].requires_grad()) operands[i] = operands[i].detach(where);
}

/// Takes the results off the tape that have no gradient in any region.
void leave_tape(Tensors& results, std::initializer_list<const RegionTape*> tapes, Where where) {
  for (size_t i = 0; i < results.size(); ++i)
    if (std::none_of(tapes.begin(), tapes.end(), [&](const RegionTape* tape) { return tape->leaves(i); }))
      results[i] = results[i].detach(where);
}

/// A capture that a region writes to, as an operand: the gradient reads what it was before. If it has one of its own it must
/// stay what it is, and backward() says that it was written to.
Tensor before_write(const Tensor& capture) { return capture.requires_grad() ? capture : snapshot_in_trace(capture); }

RegionPtr as_region(TracedRegion&& traced) {
  return std::make_shared<const GraphRegion>(std::move(traced.graph), std::move(traced.tape));
}
const RegionTape& tape_of(const RegionPtr& region) { return static_cast<const GraphRegion&>(*region).tape(); }

/// Argument i of a region becomes argument places[i].
void renumber(Graph& graph, const std::vector<int>& places) {
  for (Leaf& leaf : graph.leaves)
    if (leaf.kind == LeafKind::argument) leaf.argument = at(places, leaf.argument);
}

/// The value of argument `position`, which is made if nothing has read it.
int argument_value(Graph& graph, int position, const Tensor& like) {
  for (const Leaf& leaf : graph.leaves)
    if (leaf.kind == LeafKind::argument && leaf.argument == position) return leaf.value;
  return graph.add_leaf(
      {.kind = LeafKind::argument, .argument = position, .dynamic = like.impl()->is_scalar, .where = {}},
      type_of(like));
}

void assign_outside(const Tensor& target, const Tensor& value, Where where) {
  interceptor()->assign(target, value.detach(where), where);
}

/// The captures that some region writes to: loop variables beside the program's, which start as the captures are.
std::vector<size_t> written_captures(std::initializer_list<const TracedRegion*> regions) {
  std::vector<size_t> result;
  for (const TracedRegion* each : regions)
    for (const TracedRegion::Write& write : each->writes)
      if (std::find(result.begin(), result.end(), write.capture) == result.end()) result.push_back(write.capture);
  return result;
}

int written_value(TracedRegion& region, size_t capture, int position, const Tensor& like) {
  for (const TracedRegion::Write& write : region.writes)
    if (write.capture == capture) return write.value;
  return argument_value(region.graph, position, like);
}

/// Operands of a loop: `variables` of the program's, then captures that are written to, then `others`, then the other captures.
/// Changes the arguments of the regions to that order, and says which captures come last.
Tensors order_operands(std::vector<Graph*> regions, const Captures& captures, const std::vector<size_t>& written,
                       size_t variables, size_t others) {
  std::vector<int> places(variables + others + captures.tensors.size());
  for (size_t i = 0; i < variables; ++i) places[i] = static_cast<int>(i);
  for (size_t i = 0; i < others; ++i) places[variables + i] = static_cast<int>(variables + written.size() + i);
  int next = static_cast<int>(variables + written.size() + others);
  Tensors rest;
  for (size_t k = 0; k < captures.tensors.size(); ++k) {
    const auto found = std::find(written.begin(), written.end(), k);
    if (found != written.end()) {
      places[variables + others + k] = static_cast<int>(variables) + static_cast<int>(found - written.begin());
    } else {
      places[variables + others + k] = next++;
      rest.push_back(captures.tensors[k]);
    }
  }
  for (Graph* graph : regions) renumber(*graph, places);
  return rest;
}

/// What an op with regions draws inside. It takes one draw of its surroundings, whether or not it draws, and each turn has the key
/// of its own that turn_key() makes of this one. A trace counts turns by a tensor, which is made only if something is drawn.
class TurnDraws {
 public:
  explicit TurnDraws(Where where) : where_(where), tracer_(interceptor()) {}

  /// A part of each turn of a loop: the condition, or, last, the body.
  RegionFunction part(const RegionFunction& function, bool last) {
    return [this, &function, last](const Tensors& in) {
      const TurnScope scope([this] { return key(); }, drawn_);
      Tensors results = function(in);
      drawn_ = last ? 0 : scope.count();
      if (last) ++turn_;
      if (last && counter_.defined()) counter_.assign(counter_ + 1, where_);
      return results;
    };
  }
  /// A branch, which is turn 0.
  RegionFunction branch(const RegionFunction& function) {
    return [this, &function](const Tensors& in) {
      const TurnScope scope([this] {
        if (!key_.defined()) key_ = outside([&] { return turn_key(draw_(), Arg(0).scalar(int64)); });
        return key_;
      });
      return function(in);
    };
  }

 private:
  Tensor key() {
    if (!tracer_) return turn_key(draw_(), Arg(turn_).scalar(int64));
    if (!counter_.defined())
      counter_ = outside([&] {
        draw_();
        return zeros({}, {.dtype = int64});
      });
    const WhereScope line(where_);
    return turn_key(draw_(), counter_);
  }
  template <class F> Tensor outside(F&& f) const {
    const InterceptorScope around(tracer_);
    const WhereScope line(where_);
    return f();
  }

  Where where_;
  LaterDraw draw_;
  Interceptor* tracer_;
  int64_t turn_ = 0, drawn_ = 0;
  Tensor counter_, key_;
};

}  // namespace

// ---- cond.

namespace {

Tensors cond_between(const Tensor& condition, const RegionFunction& then, const RegionFunction& otherwise,
                     Where where) {
  const Tensor chosen = as_condition("cond", condition, where);
  if (!interceptor()) return chosen.item<bool>(where) ? then({}) : otherwise({});
  Captures captures;
  TracedRegion yes = trace_region("cond", {}, captures, then, where);
  TracedRegion no = trace_region("cond", {}, captures, otherwise, where);
  if (yes.graph.outputs.size() != no.graph.outputs.size())
    throw TraceError(str("cond: one branch returns ", yes.graph.outputs.size(), " tensors, the other ",
                         no.graph.outputs.size(), ", and a graph needs the same of both"),
                     where);
  for (size_t i = 0; i < yes.graph.outputs.size(); ++i) {
    const ValueType &a = yes.graph.type(yes.graph.outputs[i]), &b = no.graph.type(no.graph.outputs[i]);
    if (a != b)
      throw TraceError(str("cond: result ", i, " is ", a, " in one branch and ", b,
                           " in the other, and a graph needs the same of both; cast, reshape or pad one of them"),
                       where);
  }
  const size_t results = yes.graph.outputs.size();
  const std::vector<size_t> written = written_captures({&yes, &no});
  for (const size_t capture : written)
    for (TracedRegion* branch : {&yes, &no}) {
      branch->graph.outputs.push_back(
          written_value(*branch, capture, static_cast<int>(capture), captures.tensors[capture]));
      branch->tape.results.push_back(false);
    }
  const bool only_effects = yes.graph.outputs.empty() && (has_effect(yes.graph) || has_effect(no.graph));
  for (TracedRegion* branch : {&yes, &no})
    if (only_effects) give_something(*branch);
  Tensors operands = captures.tensors;
  keep_on_tape(operands, {&yes, &no}, where);
  for (const size_t capture : written) operands[capture] = before_write(operands[capture]);
  operands.insert(operands.begin(), chosen);
  const RegionPtr first = as_region(std::move(yes)), second = as_region(std::move(no));
  Tensors outputs =
      call("cond", operands, {{"then", first}, {"otherwise", second}}, results + written.size() + only_effects, where);
  leave_tape(outputs, {&tape_of(first), &tape_of(second)}, where);
  for (size_t i = 0; i < written.size(); ++i) assign_outside(captures.tensors[written[i]], outputs[results + i], where);
  outputs.resize(results);
  return outputs;
}

}  // namespace

Tensors run_cond(const Tensor& condition, const RegionFunction& then, const RegionFunction& otherwise, Where where) {
  where = user_line(where);
  TurnDraws draws(where);
  return cond_between(condition, draws.branch(then), draws.branch(otherwise), where);
}

// ---- while_loop.

Tensors run_while(const RegionFunction& goes_on_if, const RegionFunction& turn_of, const Tensors& initial,
                  Where where) {
  where = user_line(where);
  TurnDraws draws(where);
  const RegionFunction condition = draws.part(goes_on_if, false), body = draws.part(turn_of, true);
  Tensors variables = contiguous_of(initial, where);
  if (!interceptor()) {
    while (as_condition("while_loop", condition(variables)[0], where).item<bool>(where)) {
      Tensors next = body(variables);
      check_types("while_loop", "loop variable", variables, next, where);
      variables = std::move(next);
    }
    return variables;
  }
  Captures captures;
  TracedRegion goes_on = trace_region(
      "while_loop", variables, captures,
      [&](const Tensors& in) { return Tensors{as_condition("while_loop", condition(in)[0], where)}; }, where);
  if (!goes_on.writes.empty())
    throw TraceError("while_loop: the condition assigns to a tensor from outside; do it in the body",
                     goes_on.writes[0].where);
  TracedRegion turn = trace_region(
      "while_loop", variables, captures,
      [&](const Tensors& in) {
        Tensors next = body(in);
        check_types("while_loop", "loop variable", in, next, where);
        return next;
      },
      where);
  const std::vector<size_t> written = written_captures({&turn});
  for (const size_t capture : written) {
    turn.graph.outputs.push_back(written_value(turn, capture, 0, captures.tensors[capture]));
    turn.tape.results.push_back(false);
  }
  const Tensors rest = order_operands({&goes_on.graph, &turn.graph}, captures, written, variables.size(), 0);
  Tensors operands = variables;
  for (const size_t capture : written) operands.push_back(before_write(captures.tensors[capture]).contiguous(where));
  const size_t carried = operands.size();
  operands.insert(operands.end(), rest.begin(), rest.end());
  keep_on_tape(operands, {&turn}, where);
  Tensors outputs =
      call("while_loop", operands, {{"condition", as_region(std::move(goes_on))}, {"body", as_region(std::move(turn))}},
           carried, where);
  for (size_t i = 0; i < written.size(); ++i)
    assign_outside(captures.tensors[written[i]], outputs[variables.size() + i], where);
  outputs.resize(variables.size());
  return outputs;
}

// ---- scan.

namespace {

int64_t length_of(const char* name, const Tensors& sequences, Where where) {
  if (sequences.empty()) throw ShapeError(str(name, ": there is no sequence to go along"), where);
  for (const Tensor& each : sequences) {
    if (!each.defined()) throw UndefinedError(str(name, ": a sequence is an undefined Tensor"), where);
    if (each.rank() == 0 || each.size(0) == 0)
      throw ShapeError(str(name, ": a sequence ", each.shape(), " has no elements along dim 0"), where);
    if (each.size(0) != sequences[0].size(0))
      throw ShapeError(str(name, ": sequences of ", sequences[0].size(0), " and ", each.size(0),
                           " elements along dim 0, need the same"),
                       where);
  }
  return sequences[0].size(0);
}

Tensors elements_of(const Tensors& sequences, int64_t i) {
  Tensors result;
  for (const Tensor& each : sequences) result.push_back(each.select(0, i));
  return result;
}

Tensors scan_eagerly(const char* name, const RegionFunction& body, Tensors carry, const Tensors& sequences,
                     bool reverse, Where where) {
  const int64_t length = length_of(name, sequences, where);
  std::vector<Tensors> stacks;
  for (int64_t i = 0; i < length; ++i) {
    Tensors in = carry;
    for (const Tensor& each : elements_of(sequences, reverse ? length - 1 - i : i)) in.push_back(each);
    const Tensors results = body(in);
    check_types(name, "carry", carry, results, where);
    std::copy_n(results.begin(), carry.size(), carry.begin());
    stacks.resize(results.size() - carry.size());
    for (size_t k = 0; k < stacks.size(); ++k) stacks[k].push_back(results[carry.size() + k]);
  }
  for (Tensors& each : stacks) {
    if (reverse) std::reverse(each.begin(), each.end());
    carry.push_back(stack(each, 0));
  }
  return carry;
}

bool any_requires_grad(const Tensors& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const Tensor& each) { return each.requires_grad(); });
}

/// In a trace: one node. Sequences and what is carried are contiguous.
Tensors scan_node(const char* name, const RegionFunction& body, const Tensors& carry, const Tensors& sequences,
                  bool reverse, Where where) {
  const int64_t length = length_of(name, sequences, where);
  Captures captures;
  Tensors operands = carry;
  for (const Tensor& each : sequences) {
    const Shape& shape = each.shape();
    const Shape element(std::span(shape.begin() + 1, static_cast<size_t>(shape.size() - 1)));
    operands.push_back(header_of({each.dtype(), each.device(), element, contiguous_strides(element)}));
    operands.back().impl()->requires_grad = each.requires_grad();
  }
  TracedRegion turn = trace_region(
      name, operands, captures,
      [&](const Tensors& in) {
        Tensors results = body(in);
        check_types(name, "carry", Tensors(in.begin(), in.begin() + std::ssize(carry)), results, where);
        return results;
      },
      where);
  const std::vector<size_t> written = written_captures({&turn});
  std::vector<int> values;
  for (const size_t capture : written) values.push_back(written_value(turn, capture, 0, captures.tensors[capture]));
  turn.graph.outputs.insert(turn.graph.outputs.begin() + std::ssize(carry), values.begin(), values.end());
  turn.tape.results.insert(turn.tape.results.begin() + std::ssize(carry), values.size(), false);
  const bool only_effects = turn.graph.outputs.empty() && has_effect(turn.graph);
  if (only_effects) give_something(turn);
  const Tensors rest = order_operands({&turn.graph}, captures, written, carry.size(), sequences.size());
  operands = carry;
  for (const size_t capture : written) operands.push_back(before_write(captures.tensors[capture]).contiguous(where));
  const size_t carried = operands.size(), stacked = turn.graph.outputs.size() - carried;
  operands.insert(operands.end(), sequences.begin(), sequences.end());
  operands.insert(operands.end(), rest.begin(), rest.end());
  keep_on_tape(operands, {&turn}, where);
  const bool keeps = grad_enabled() && any_requires_grad(operands);
  const RegionPtr region = as_region(std::move(turn));
  Tensors outputs = call("scan", operands,
                         {{"body", region},
                          {"carried", static_cast<int64_t>(carried)},
                          {"sequences", static_cast<int64_t>(sequences.size())},
                          {"length", length},
                          {"reverse", reverse},
                          {"keeps", keeps}},
                         carried + stacked + (keeps ? carried : 0), where);
  for (size_t i = 0; i < written.size(); ++i)
    assign_outside(captures.tensors[written[i]], outputs[carry.size() + i], where);
  outputs.resize(only_effects ? 0 : carried + stacked);
  leave_tape(outputs, {&tape_of(region)}, where);
  outputs.erase(outputs.begin() + std::ssize(carry), outputs.begin() + static_cast<std::ptrdiff_t>(carried));
  return outputs;
}

/// Pieces of `piece` turns, each a scan within a scan: only what is carried from one to the next is kept for the gradient, which
/// runs the inner scan again. The turns that are left over come last.
Tensors scan_in_pieces(const char* name, const RegionFunction& body, const Tensors& carry, const Tensors& sequences,
                       bool reverse, int64_t piece, Where where) {
  const int64_t length = length_of(name, sequences, where), pieces = length / piece, left = length % piece;
  const auto part = [&](int64_t begin, int64_t end) {
    Tensors result;
    for (const Tensor& each : sequences) result.push_back(each.slice(0, begin, end));
    return contiguous_of(result, where);
  };
  const int64_t first = reverse ? left : 0;
  Tensors whole;
  for (const Tensor& each : part(first, first + pieces * piece)) {
    Shape shape{pieces, piece};
    for (int d = 1; d < each.rank(); ++d) shape.push_back(each.size(d));
    whole.push_back(each.reshape(shape));
  }
  const RegionFunction inner = [&](const Tensors& in) {
    return scan_node(name, body, Tensors(in.begin(), in.begin() + std::ssize(carry)),
                     Tensors(in.begin() + std::ssize(carry), in.end()), reverse, where);
  };
  Tensors results = scan_node(name, inner, carry, whole, reverse, where);
  for (size_t k = carry.size(); k < results.size(); ++k) results[k] = flatten(results[k], 0, 1);
  if (left == 0) return results;
  const int64_t rest = reverse ? 0 : pieces * piece;
  const Tensors last =
      scan_node(name, body, contiguous_of(Tensors(results.begin(), results.begin() + std::ssize(carry)), where),
                part(rest, rest + left), reverse, where);
  for (size_t k = 0; k < results.size(); ++k)
    results[k] = k < carry.size() ? last[k]
                 : reverse        ? concat({last[k], results[k]}, 0)
                                  : concat({results[k], last[k]}, 0);
  return results;
}

Tensors scan_along(const char* name, const RegionFunction& body, const Tensors& initial, const Tensors& sequences,
                   bool reverse, int64_t checkpoint, Where where) {
  if (!interceptor()) return scan_eagerly(name, body, initial, sequences, reverse, where);
  const Tensors carry = contiguous_of(initial, where), along = contiguous_of(sequences, where);
  if (checkpoint > 1 && checkpoint < length_of(name, sequences, where))
    return scan_in_pieces(name, body, carry, along, reverse, checkpoint, where);
  return scan_node(name, body, carry, along, reverse, where);
}

}  // namespace

Tensors run_scan(const char* name, const RegionFunction& body, const Tensors& initial, const Tensors& sequences,
                 bool reverse, int64_t checkpoint, Where where) {
  where = user_line(where);
  if (checkpoint < 0) throw ValueError(str(name, ": checkpoint is ", checkpoint, ", need at least 0"), where);
  TurnDraws draws(where);
  return scan_along(name, draws.part(body, true), initial, sequences, reverse, checkpoint, where);
}

// ---- Gradients.

namespace {

/// The region's ops, called with these arguments, and recorded as far as its trace was.
Tensors replay(const GraphRegion& region, const Tensors& arguments) {
  const Graph& graph = region.graph();
  Tensors values(graph.values.size());
  for (const Leaf& leaf : graph.leaves) {
    TANDEM_ASSERT(leaf.kind == LeafKind::argument, "a region reads a ", name_of(leaf.kind));
    at(values, leaf.value) = at(arguments, leaf.argument);
  }
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    Tensors inputs, outputs(node.outputs.size());
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Tensor& value = at(values, node.inputs[i]);
      inputs.push_back(value.requires_grad() && !region.tape().reaches(n, i) ? value.detach() : value);
    }
    dispatch(*node.op, inputs, node.attributes, outputs, node.where);
    for (size_t i = 0; i < outputs.size(); ++i) at(values, node.outputs[i]) = outputs[i];
  }
  Tensors results;
  for (const int output : graph.outputs) results.push_back(at(values, output));
  return results;
}

/// The region without what it prints and asserts, which isn't done again for its gradient.
std::shared_ptr<const GraphRegion> without_effects(const GraphRegion& region) {
  const Graph& graph = region.graph();
  std::vector<bool> read(graph.values.size());
  for (const int output : graph.outputs) at(read, output) = true;
  for (const Node& node : graph.nodes)
    for (const int input : node.inputs) at(read, input) = true;
  Rewriter rewriter(graph);
  RegionTape tape{.results = region.tape().results};
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    Node node = graph.nodes[n];
    const bool is_read =
        std::any_of(node.outputs.begin(), node.outputs.end(), [&](int each) { return at(read, each); });
    if (node.op->kind == OpKind::effect && !is_read) continue;
    if (node.op->kind == OpKind::control && has_effect(node))
      for (const AttributeSpec& spec : node.op->attributes)
        if (spec.type == AttributeType::region)
          node.attributes.set({spec.name, RegionPtr(without_effects(region_of(node.attributes, spec.name)))});
    rewriter.copy(node);
    tape.operands.push_back(n < region.tape().operands.size() ? region.tape().operands[n] : std::vector<bool>());
  }
  return std::make_shared<const GraphRegion>(rewriter.finish(), std::move(tape));
}

/// Gradients with respect to arguments `wanted`, of the results for which there is a cotangent. Zeros where nothing flows.
Tensors gradients_of(const GraphRegion& region, const Tensors& arguments, const std::vector<int>& wanted,
                     const Tensors& cotangents) {
  const bool create_graph = grad_enabled();
  const EnableGrad recorded;
  const TurnScope no_draws([]() -> Tensor {
    throw TraceError("backward: a gradient rule draws random numbers, which it can't in a branch or a loop of a graph",
                     user_line(Where()));
  });
  Tensors inputs = arguments, leaves, results, weights;
  for (const int i : wanted) {
    at(inputs, i) = symbol_in_region(at(arguments, i));
    leaves.push_back(at(inputs, i).requires_grad(true));
  }
  const Tensors outputs = replay(has_effect(region.graph()) ? *without_effects(region) : region, inputs);
  for (size_t i = 0; i < outputs.size(); ++i)
    if (cotangents[i].defined() && outputs[i].requires_grad() && region.tape().leaves(i)) {
      results.push_back(outputs[i]);
      weights.push_back(cotangents[i]);
    }
  Tensors gradients(wanted.size());
  if (!results.empty())
    gradients = grad_of(results, leaves, {.create_graph = create_graph, .allow_unused = true}, weights);
  for (size_t i = 0; i < gradients.size(); ++i)
    if (!gradients[i].defined()) gradients[i] = zeros_like(leaves[i].detach());
  return gradients;
}

/// The operands from `first` on whose gradients are asked for.
std::vector<int> wanted_operands(const OpContext& c, int first) {
  std::vector<int> result;
  for (int i = first; i < c.input_count(); ++i)
    if (is_floating(c.input_dtype(i)) && c.needs_grad(i)) result.push_back(i);
  return result;
}

Tensors cond_grad(const OpContext& c) {
  const GraphRegion &then = region_of(c.attributes(), "then"), &otherwise = region_of(c.attributes(), "otherwise");
  Tensors arguments, cotangents, result(static_cast<size_t>(c.input_count()));
  for (int i = 1; i < c.input_count(); ++i) arguments.push_back(c.input(i));
  std::vector<int> wanted = wanted_operands(c, 1);
  for (size_t i = 0; i < then.graph().outputs.size(); ++i)
    cotangents.push_back(c.has_grad_output(static_cast<int>(i)) ? c.grad_output(static_cast<int>(i)) : Tensor());
  std::vector<int> positions;
  for (const int operand : wanted) positions.push_back(operand - 1);
  const auto branch = [&](const GraphRegion& of) {
    return [&](const Tensors&) { return gradients_of(of, arguments, positions, cotangents); };
  };
  const Tensors gradients = cond_between(c.input(0), branch(then), branch(otherwise), user_line(Where()));
  for (size_t i = 0; i < wanted.size(); ++i) at(result, wanted[i]) = gradients[i];
  return result;
}

Tensors while_grad(const OpContext&) {
  throw AutogradError(
      "backward: a while_loop in a graph has no gradient, as the number of its turns isn't known; write it as a scan "
      "over a "
      "fixed number of turns (where() lets the late ones do nothing), or run this function with {.mode = Mode::eager}",
      user_line(Where()));
}

/// A scan the other way, that carries the gradients of what is carried and of what the body captures.
Tensors scan_grad(const OpContext& c) {
  const GraphRegion& body_region = region_of(c.attributes(), "body");
  const Graph& body = body_region.graph();
  const auto carried = static_cast<int>(c.integer("carried")), sequences = static_cast<int>(c.integer("sequences"));
  const int stacked = count(body.outputs) - carried;
  const bool reverse = c.attributes().flag("reverse");
  const std::vector<int> wanted = wanted_operands(c, 0);
  // Each turn needs what was carried into it, the elements, and the gradients of its results.
  Tensors along;
  for (int i = 0; i < carried; ++i) along.push_back(c.output(carried + stacked + i));
  for (int i = 0; i < sequences; ++i) along.push_back(c.input(carried + i));
  std::vector<int> given;  // which stacked results have a gradient
  for (int i = 0; i < stacked; ++i)
    if (c.has_grad_output(carried + i)) {
      given.push_back(i);
      along.push_back(c.grad_output(carried + i));
    }
  std::vector<int> floating, kept;  // what is carried and has a gradient; and what of it was kept and has one
  Tensors carry;
  for (int i = 0; i < carried; ++i)
    if (is_floating(c.input_dtype(i))) {
      floating.push_back(i);
      carry.push_back(c.grad_output(i));
      if (!c.has_grad_output(carried + stacked + i)) continue;  // in gradients of gradients alone
      kept.push_back(i);
      along.push_back(c.grad_output(carried + stacked + i));
    }
  std::vector<int> captured, elements;
  for (const int operand : wanted) {
    if (operand >= carried + sequences)
      captured.push_back(operand), carry.push_back(zeros_like(c.input(operand).detach()));
    else if (operand >= carried) elements.push_back(operand);
  }
  std::vector<int> asked = floating;  // of the body: what is carried, elements, captures
  asked.insert(asked.end(), elements.begin(), elements.end());
  asked.insert(asked.end(), captured.begin(), captured.end());
  const size_t elements_at = floating.size() + captured.size();
  const RegionFunction turn = [&](const Tensors& in) {
    const auto carry_count = std::ssize(carry);
    Tensors arguments(in.begin() + carry_count, in.begin() + carry_count + carried + sequences);
    for (int i = carried + sequences; i < c.input_count(); ++i) arguments.push_back(c.input(i));
    Tensors cotangents(body.outputs.size());
    for (size_t i = 0; i < floating.size(); ++i) at(cotangents, floating[i]) = in[i];
    for (size_t i = 0; i < given.size(); ++i)
      at(cotangents, carried + given[i]) = at(in, carry_count + carried + sequences + static_cast<std::ptrdiff_t>(i));
    const Tensors gradients = gradients_of(body_region, arguments, asked, cotangents);
    Tensors results(gradients.begin(), gradients.begin() + std::ssize(floating));
    const auto kept_at = carry_count + carried + sequences + std::ssize(given);
    for (size_t i = 0; i < floating.size(); ++i)
      if (const auto found = std::find(kept.begin(), kept.end(), floating[i]); found != kept.end())
        results[i] = results[i] + at(in, kept_at + (found - kept.begin()));
    for (size_t i = 0; i < captured.size(); ++i)
      results.push_back(in[floating.size() + i] + gradients[floating.size() + elements.size() + i]);
    for (size_t i = 0; i < elements.size(); ++i) results.push_back(gradients[floating.size() + i]);
    return results;
  };
  const Tensors made = scan_along("scan", turn, carry, along, !reverse, 0, user_line(Where()));
  Tensors result(static_cast<size_t>(c.input_count()));
  for (size_t i = 0; i < floating.size(); ++i) at(result, floating[i]) = made[i];
  for (size_t i = 0; i < captured.size(); ++i) at(result, captured[i]) = made[floating.size() + i];
  for (size_t i = 0; i < elements.size(); ++i) at(result, elements[i]) = made[elements_at + i];
  return result;
}

// ---- Definitions.

/// The region can be given these operands; the types of its results.
std::vector<ValueType> results_of(const Infer& op, const char* name, std::span<const Tensor> operands) {
  const Graph& graph = region_of(op.attributes, name).graph();
  op.check<GraphError>(graph.writes.empty() && graph.gradients.empty() && graph.draws == 0, "its region ", name,
                       " changes what is outside");
  for (const Leaf& leaf : graph.leaves) {
    op.check<GraphError>(leaf.kind == LeafKind::argument || leaf.kind == LeafKind::scalar, "its region ", name,
                         " reads a ", name_of(leaf.kind));
    if (leaf.kind != LeafKind::argument) continue;
    op.check<GraphError>(leaf.argument < count(operands), "its region ", name, " reads operand ", leaf.argument, " of ",
                         operands.size());
    const Tensor& given = operands[static_cast<size_t>(leaf.argument)];
    const ValueType& type = graph.type(leaf.value);
    op.check<GraphError>(given.dtype() == type.dtype && given.shape() == type.shape && given.device() == type.device,
                         "its region ", name, " takes ", type, " as operand ", leaf.argument, ", and gets ",
                         type_of(given));
  }
  std::vector<ValueType> types;
  for (const int output : graph.outputs) types.push_back(graph.type(output));
  return types;
}

void check_same(const Infer& op, const ValueType& type, const Tensor& operand) {
  op.check<GraphError>(type.dtype == operand.dtype() && type.shape == operand.shape(), "its body returns ", type,
                       " for ", describe(operand));
}

void infer_cond(Infer& op) {
  op.check<GraphError>(!op.inputs.empty() && op.input(0).dtype() == bool_ && op.input(0).numel() == 1,
                       "its condition is no bool of one element");
  const auto operands = op.inputs.subspan(1);
  const std::vector<ValueType> types = results_of(op, "then", operands), others = results_of(op, "otherwise", operands);
  op.check<GraphError>(std::equal(types.begin(), types.end(), others.begin(), others.end(),
                                  [](const ValueType& a, const ValueType& b) {  // where they lie is each one's own
                                    return a.dtype == b.dtype && a.shape == b.shape;
                                  }),
                       "its branches give other results");
  for (const ValueType& type : types) op.output(type.shape, type.dtype);
}

void infer_while(Infer& op) {
  const std::vector<ValueType> goes_on = results_of(op, "condition", op.inputs),
                               next = results_of(op, "body", op.inputs);
  op.check<GraphError>(goes_on.size() == 1 && goes_on[0].dtype == bool_ && goes_on[0].shape.numel() == 1,
                       "its condition gives no bool of one element");
  op.check<GraphError>(next.size() <= op.inputs.size(), "its body gives ", next.size(), " results");
  for (size_t i = 0; i < next.size(); ++i) {
    check_same(op, next[i], op.inputs[i]);
    op.output(next[i].shape, next[i].dtype);
  }
}

void infer_scan(Infer& op) {
  const int64_t operands = std::ssize(op.inputs), carried = op.integer("carried", 0, operands);
  const int64_t sequences = op.integer("sequences", 1, operands - carried), length = op.integer("length", 1);
  Tensors turn(op.inputs.begin(), op.inputs.end());
  for (int64_t i = carried; i < carried + sequences; ++i) {
    const Tensor& sequence = at(turn, i);
    op.check<GraphError>(sequence.rank() > 0 && sequence.size(0) == length, "a sequence ", sequence.shape(),
                         " has not ", length, " elements");
    const Shape element(std::span(sequence.shape().begin() + 1, static_cast<size_t>(sequence.rank() - 1)));
    at(turn, i) = header_of({sequence.dtype(), sequence.device(), element, contiguous_strides(element)});
  }
  const std::vector<ValueType> results = results_of(op, "body", turn);
  op.check<GraphError>(std::ssize(results) >= carried, "its body gives ", results.size(), " results");
  const auto stacked = [&](const ValueType& type) {
    Shape shape{length};
    for (const int64_t extent : type.shape) shape.push_back(extent, op.where);
    op.output(shape, type.dtype);
  };
  for (int64_t i = 0; i < carried; ++i) {
    check_same(op, at(results, i), at(turn, i));
    op.output(at(results, i).shape, at(results, i).dtype);
  }
  for (int64_t i = carried; i < std::ssize(results); ++i) stacked(at(results, i));
  if (op.attributes.flag("keeps"))
    for (int64_t i = 0; i < carried; ++i) stacked(at(results, i));
}

}  // namespace

}  // namespace tandem::graph

namespace tandem {

void define_control_flow(OpTable& table) {
  using enum AttributeType;
  table.add({.name = "cond",
             .kind = OpKind::control,
             .inputs = kVariadic,
             .outputs = kVariadic,
             .attributes = {{"then", region}, {"otherwise", region}},
             .infer = graph::infer_cond,
             .grad = graph::cond_grad,
             .saved = kSaveInputs,
             .onnx = "If"});
  table.add({.name = "while_loop",
             .kind = OpKind::control,
             .inputs = kVariadic,
             .outputs = kVariadic,
             .attributes = {{"condition", region}, {"body", region}},
             .infer = graph::infer_while,
             .grad = graph::while_grad,
             .onnx = "Loop"});
  table.add({.name = "scan",
             .kind = OpKind::control,
             .inputs = kVariadic,
             .outputs = kVariadic,
             .attributes = {{"body", region},
                            {"carried", integer},
                            {"sequences", integer},
                            {"length", integer},
                            {"reverse", flag},
                            {"keeps", flag}},
             .infer = graph::infer_scan,
             .grad = graph::scan_grad,
             .saved = kSaveInputs | kSaveOutputs,
             .onnx = "Scan"});
  graph::define_over_rows(table);
  graph::add_region_kernels(table);
}

}  // namespace tandem
