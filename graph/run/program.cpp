// Programs: from a graph to a plan with code, and calls that each take a run of the pool.
#include "graph/run/program.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "graph/ir/region.h"
#include "graph/native/sha256.h"

namespace tandem::graph {

namespace {
bool fits(const Tensor& tensor, const ValueType& type) {
  if (!tensor.defined()) return false;
  const TensorImpl& impl = *tensor.impl();
  if (impl.dtype != type.dtype || impl.device != type.device || impl.shape != type.shape) return false;
  if (impl.strides == type.strides) return true;
  for (int i = 0; i < type.shape.size(); ++i)  // the stride of an extent of 1 leads nowhere
    if (impl.strides[i] != type.strides[i] && type.shape[i] != 1) return type.shape.contains(0);
  return true;
}

std::string type_text(const Tensor& tensor) {
  return tensor.defined() ? detail::str(type_of(tensor)) : "an undefined tensor";
}

}  // namespace

Program::Program(Graph graph, PlanOptions options, Where where, Elastic* elastic)
    : plan_(make_plan(std::move(graph), options, elastic)), where_(where) {
  const auto& leaves = plan_.graph.leaves;
  bindings_.tensors.resize(leaves.size());
  bindings_.numbers.resize(leaves.size());
  for (size_t i = 0; i < leaves.size(); ++i)
    if (leaves[i].kind == LeafKind::scalar)
      bindings_.numbers[i] = Arg(leaves[i].number).scalar(plan_.type(leaves[i].value).dtype);
    else if (leaves[i].kind != LeafKind::argument) bindings_.tensors[i] = leaves[i].tensor;
}

std::unique_ptr<Program> Program::build(Graph graph, PlanOptions options, Where where, std::string* reason) {
  std::unique_ptr<Program> program = prepare(std::move(graph), options, where, reason);
  if (!program || !program->compile(reason)) return nullptr;
  program->make_ready();
  return program;
}

std::unique_ptr<Program> Program::prepare(Graph graph, PlanOptions options, Where where, std::string* reason) {
  for (const Value& value : graph.values)
    if (value.type.device.index >= backend(value.type.device.kind).device_count())
      throw GraphError(detail::str("run: the graph has a value on ", value.type.device, ", which is not here"), where);
  std::unique_ptr<Program> program(new Program(std::move(graph), options, where));
  return program->emit(reason) ? std::move(program) : nullptr;
}

void Program::make_ready() {
  look_for_unbound();
  alone_ = plan_.alone();
  first_ = std::make_unique<Run>(plan_, bindings_, code_);
}

bool Program::emit(std::string* reason) {
  const auto begin = std::chrono::steady_clock::now();
  for (PlanStep& step : plan_.steps) {
    const Node& node = plan_.graph.node(step.node);
    if (!node.fused) continue;
    if (!plan_.options.emit) {
      if (reason) *reason = "emit is switched off";
      return false;
    }
    const auto known = std::find_if(plan_.code.begin(), plan_.code.end(),
                                    [&](const GeneratedCode& code) { return code.device == step.device; });
    step.code = static_cast<int>(known - plan_.code.begin());
    if (known == plan_.code.end()) {
      plan_.code.push_back({.device = step.device, .tier = runtime_for(step.device).tier()});
      code_.push_back(runtime_for(step.device).kernels());
    }
    step.kernel = code_[step.code]->add(*node.fused);
  }
  for (size_t i = 0; i < code_.size(); ++i) {
    plan_.code[i].source = std::make_shared<const std::string>(code_[i]->source());
    plan_.code[i].hash = hex(sha256(*plan_.code[i].source));
  }
  cost_.emit_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  cost_.compiler_cached = !code_.empty();
  return true;
}

void Program::add_cost(const CompileCost& cost) {
  cost_.compiler_seconds += cost.seconds;
  cost_.compiler_cached = cost_.compiler_cached && cost.cached;
  if (!cost.note.empty()) cost_.note = cost.note;
}

bool Program::compile(std::string* reason) {
  for (size_t i = 0; i < code_.size(); ++i) {
    CompileCost cost;
    if (!code_[i]->compile(plan_.code[i].device, where_, reason, cost)) return false;
    add_cost(cost);
  }
  for (const Node& node : plan_.graph.nodes)
    for_each_region(node, [](const GraphRegion& region) {
      if (region.is_made_later()) region.program();
    });
  return true;
}

bool Program::find() {
  bool whole = true;
  for (const Node& node : plan_.graph.nodes)
    for_each_region(node, [&](const GraphRegion& region) { whole = whole && !region.is_made_later(); });
  for (size_t i = 0; whole && i < code_.size(); ++i) {
    CompileCost cost;
    whole = code_[i]->find(plan_.code[i].device, cost);
    if (whole) add_cost(cost);
  }
  return whole;
}

void Program::bind_as(const Program& other, size_t leaves) {
  TANDEM_ASSERT(leaves <= std::min(bindings_.tensors.size(), other.bindings_.tensors.size()), "another trace");
  for (size_t i = 0; i < leaves; ++i)
    if (plan_.graph.leaves[i].kind == LeafKind::scalar) {
      const Tensor &to = bindings_.numbers[i], &from = other.bindings_.numbers[i];
      std::memcpy(to.impl()->data, from.impl()->data, static_cast<size_t>(size_of(to.dtype())));
    } else {
      bindings_.tensors[i] = other.bindings_.tensors[i];
    }
  look_for_unbound();
}

void Program::bind(int leaf, const Tensor& tensor) {
  const ValueType& type = plan_.type(plan_.graph.leaf(leaf).value);
  const bool is_gradient = plan_.graph.leaf(leaf).kind == LeafKind::gradient;  // of this tensor, which may be none yet
  if (!tensor.defined() || (!is_gradient && !fits(tensor, type)))
    throw GraphError(detail::str("run: a leaf ", type, " can't be bound to ", type_text(tensor)), where_);
  bindings_.tensors[leaf] = tensor;
  look_for_unbound();
}

void Program::look_for_unbound() {
  const Graph& graph = plan_.graph;
  unbound_.clear();
  for (size_t i = 0; i < graph.leaves.size(); ++i) {
    const Leaf& leaf = graph.leaves[i];
    const bool needs_tensor = leaf.kind == LeafKind::state || leaf.kind == LeafKind::constant ||
                              (leaf.kind == LeafKind::gradient && leaf.argument < 0);
    if (needs_tensor && !bindings_.tensors[i].defined())
      unbound_ = detail::str("its ", name_of(leaf.kind), " ", graph.type(leaf.value), " has no tensor: bind it first");
  }
  for (const GradientWrite& write : graph.gradients)
    if (write.argument < 0 && !write.tensor.defined())
      unbound_ = "it writes the gradient of a state, and which one is not in the text";
}

void Program::check(const Tensors& arguments) const {
  const auto fail = [&](const auto&... parts) { throw GraphError(detail::str("run: ", parts...), where_); };
  if (!unbound_.empty()) fail("this graph was read from text, and ", unbound_);
  const auto count = std::ssize(arguments);
  for (const Leaf& leaf : plan_.graph.leaves) {
    if (leaf.kind == LeafKind::argument) {
      if (leaf.argument >= count) fail("argument ", leaf.argument, " of the graph is missing, ", count, " are given");
      const Tensor& argument = arguments[leaf.argument];
      if (!fits(argument, plan_.type(leaf.value)))
        fail("argument ", leaf.argument, " is ", type_text(argument), ", and the graph was made for ",
             plan_.type(leaf.value));
    } else if (leaf.kind == LeafKind::gradient) {
      if (leaf.argument >= count) fail("argument ", leaf.argument, " of the graph is missing, ", count, " are given");
      const size_t index = static_cast<size_t>(&leaf - plan_.graph.leaves.data());
      const Tensor& whose = leaf.argument >= 0 ? arguments[leaf.argument] : bindings_.tensors[index];
      const Tensor gradient = whose.defined() ? whose.impl()->grad : Tensor();
      if (!fits(gradient, plan_.type(leaf.value)))
        fail("a gradient is ", type_text(gradient), ", and the graph was made for ", plan_.type(leaf.value));
    }
  }
  for (const GradientWrite& write : plan_.graph.gradients)
    if (write.argument >= count || (write.argument >= 0 && !arguments[write.argument].defined()))
      fail("argument ", write.argument, " of the graph is missing, ", count, " are given");
  for (const Tensor& argument : arguments)
    if (!argument.defined()) fail("an argument is an undefined tensor");
}

void Program::refuse_aliases(const Tensors& arguments) const {
  const Graph& graph = plan_.graph;
  const auto memory = [&](int leaf) { return bindings_.tensor_of(graph, leaf, arguments).impl()->storage; };
  const auto fail = [&](int leaf, const char* what, Where where) {
    const bool gradient = graph.leaf(leaf).kind == LeafKind::gradient;
    throw TraceError(
        detail::str("compiled function: ",
                    gradient ? std::string("a gradient") : detail::str("argument ", graph.leaf(leaf).argument), ", ",
                    type_of(bindings_.tensor_of(graph, leaf, arguments)), ", ", what,
                    gradient ? ". Let grad() be a tensor of its own: set_grad(clone())"
                             : ". Use it either as an argument or from outside, or pass clone() of it"),
        where);
  };
  const int leaves = static_cast<int>(graph.leaves.size());
  for (int i = 0; i < leaves; ++i) {
    const LeafKind kind = graph.leaf(i).kind;
    if (kind != LeafKind::argument && kind != LeafKind::gradient) continue;
    if (kind == LeafKind::gradient) {
      const TensorImpl& mine = *bindings_.tensor_of(graph, i, arguments).impl();
      if (mine.storage->references() == 1 && mine.references.load(std::memory_order_relaxed) == 1)
        continue;  // nobody else sees its memory
    }
    for (const StateWrite& write : graph.writes)
      if (write.leaf != i && memory(write.leaf) == memory(i))
        fail(i, "shares its memory with a tensor that the function assigns to", write.where);
  }
  for (const StateWrite& write : graph.writes)
    if (graph.leaf(write.leaf).kind != LeafKind::state)
      for (int i = 0; i < leaves; ++i)
        if (graph.leaf(i).kind == LeafKind::state && memory(i) == memory(write.leaf))
          fail(write.leaf, "which the function assigns to, shares its memory with a tensor from outside that it reads",
               write.where);
  for (const GradientWrite& write : graph.gradients)
    for (size_t a = 0; write.tensor.defined() && a < arguments.size(); ++a)
      if (arguments[a].impl() == write.tensor.impl())
        throw TraceError(detail::str("compiled function: argument ", a, ", ", type_of(arguments[a]),
                                     ", is also a tensor from outside that the function computes the gradient of. Use "
                                     "it either as an argument or from outside, or pass clone() of it"),
                         where_);
}

Run& Program::take() {
  if (!first_taken_.exchange(true, std::memory_order_acquire)) return *first_;
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) {
    others_.push_back(std::make_unique<Run>(plan_, bindings_, code_));
    idle_.reserve(others_.size());  // so that giving back never allocates
    return *others_.back();
  }
  Run& run = *idle_.back();
  idle_.pop_back();
  return run;
}

void Program::give_back(Run& run) {
  if (&run == first_.get()) return first_taken_.store(false, std::memory_order_release);
  const std::lock_guard lock(mutex_);
  idle_.push_back(&run);
}

Tensors Program::run(const Tensors& arguments) {
  check(arguments);
  refuse_aliases(arguments);
  try {
    return (*Taken(*this))(arguments);
  } catch (...) { detail::rethrow_named("compiled function", where_); }
}

std::string Program::source() const {
  std::string all;
  for (const GeneratedCode& code : plan_.code) all += *code.source;
  return all;
}

void Program::set_number(int leaf, double number) {
  const Tensor& scalar = bindings_.numbers[leaf];
  std::memcpy(scalar.impl()->data, Arg(number).scalar(scalar.dtype()).impl()->data, size_of(scalar.dtype()));
}

}  // namespace tandem::graph
