// Tracing. Tensors of the outside become leaves the first time an op reads them: numbers become
// scalars, tensors made from C++ values in the trace become constants, all others are state.
#include "graph/trace/tracer.h"

#include "autograd/tape.h"
#include "graph/ir/views.h"
#include "graph/trace/compile.h"

#include "core/ops/ops.h"
#include "core/random.h"

namespace tandem::graph {

namespace {

std::atomic<uint64_t> next_trace{1};

class Tracer final : public Interceptor {
 public:
  explicit Tracer(Where where) : where_(where), id_(next_trace.fetch_add(1)) {}
  ~Tracer() override { roll_back(); }

  Tensor argument(const Tensor& given, int position) {
    const int value = graph_.add_leaf({.kind = LeafKind::argument, .argument = position, .where = {}}, type_of(given));
    Tensor symbolic = symbol(header_of(type_of(given)), value);
    symbolic.impl()->requires_grad = given.requires_grad();
    if (const LeafExtra* extra = extra_of(*given.impl()); extra && given.is_leaf())
      make_extra(*symbolic.impl()).hooks = extra->hooks;
    argument_of_[symbolic.impl()] = position;
    if (given.requires_grad() && given.impl()->grad.defined()) {  // backward adds to it
      const ValueType type = type_of(given.impl()->grad);
      symbolic.impl()->grad = symbol(
          header_of(type), graph_.add_leaf({.kind = LeafKind::gradient, .argument = position, .where = {}}, type));
    }
    return symbolic;
  }

  void run(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, std::span<Tensor> outputs,
           Where where) override {
    std::vector<int> operands;
    for (const Tensor& input : inputs) operands.push_back(value_of(input, op, where));
    std::vector<ValueType> types;
    for (const Tensor& output : outputs) types.push_back(type_of(output));
    const int node = graph_.append({.op = &op,
                                    .inputs = std::move(operands),
                                    .outputs = {},
                                    .attributes = attributes,
                                    .where = where,
                                    .fused = nullptr},
                                   types);
    for (size_t i = 0; i < outputs.size(); ++i) {
      outputs[i].impl()->offset = 0;
      symbol(outputs[i], graph_.node(node).outputs[i]);
    }
  }

  void assign(const Tensor& target, const Tensor& value, Where where) override {
    static const Op& copy = find_op("copy");
    const int id = value_of(value, copy, where);
    if (target.is_symbolic()) {
      if (is_view(graph_, static_cast<int>(target.impl()->value)))
        throw TraceError(
            "assign: this tensor is a view of another value of the trace, which graph mode can't write through; "
            "assign to the whole tensor, or build the result with where or concat",
            where);
      target.impl()->value = id;
      return;
    }
    const int leaf = graph_.leaf_of(leaf_value(target, where));
    for (const auto& [impl, other] : current_)
      if (impl != target.impl() && impl->storage == target.impl()->storage)
        throw TraceError(
            "assign: another view of the same storage was already assigned to in this trace; assign to the whole "
            "tensor once",
            where);
    for (StateWrite& write : graph_.writes)
      if (write.leaf == leaf) {
        write = {leaf, id, where};
        current_[target.impl()] = id;
        return;
      }
    graph_.writes.push_back({leaf, id, where});
    current_[target.impl()] = id;
  }

  void value_needed(const Tensor& tensor, const char* wanted_by, Where where) override {
    const int value = tensor.impl()->trace == id_ ? tensor.impl()->value : -1;
    std::string origin;
    if (value >= 0) {
      const Value& made = graph_.value(value);
      if (made.node >= 0) {
        const Node& node = graph_.node(made.node);
        origin = detail::str(" It is the result of ", node.op->name, " at ", to_string(node.where), ".");
      } else {
        const Leaf& leaf = graph_.leaf(graph_.leaf_of(value));
        origin = detail::str(" It is ", name_of(leaf.kind),
                             leaf.kind == LeafKind::argument ? " " + std::to_string(leaf.argument) : "", ".");
      }
    }
    throw TraceError(detail::str(wanted_by, ": the value of ", type_of(tensor),
                                 " is not known while the function is traced (compiled at ", to_string(where_),
                                 "): a graph is made once and serves every input.", origin,
                                 " Choose between values with where(), return the value and look at it outside, or run "
                                 "this function with {.mode = Mode::eager}"),
                     where);
  }

  void gradient_read(TensorImpl& leaf) override {
    if (leaf.trace) return;
    if (!touched_.count(&leaf)) {
      Tensor handle = Tensor::share(&leaf);
      bool known = false;
      for (const GradientGuard& guard : guards_) known = known || guard.tensor.impl() == &leaf;
      if (!known) guards_.push_back({handle, leaf.grad.defined()});
      if (leaf.grad.defined()) gradient_of_[leaf.grad.impl()] = handle;
    }
  }

  void gradient_written(TensorImpl& leaf) override {
    if (touched_.count(&leaf)) return;
    touched_[&leaf] = touched_order_.size();
    touched_order_.push_back({Tensor::share(&leaf), leaf.grad});
  }

  void flag_read(const bool& flag) override {
    for (const FlagGuard& guard : flags_)
      if (guard.flag == &flag) return;
    flags_.push_back({&flag, flag});
  }

  int64_t draw() override { return graph_.draws++; }

  Traced finish(const Tensors& results) {
    static const Op& copy = find_op("copy");
    for (const Tensor& result : results) {
      if (!result.defined()) throw TraceError("the traced function returned an undefined Tensor", where_);
      graph_.outputs.push_back(value_of(result, copy, where_));
    }
    for (auto& [tensor, before] : touched_order_) {
      GradientWrite write;
      const Tensor& now = tensor.impl()->grad;
      if (now.defined() && now.impl() == before.impl()) continue;
      if (const auto argument = argument_of_.find(tensor.impl()); argument != argument_of_.end())
        write.argument = argument->second;
      else if (tensor.is_symbolic()) continue;
      else write.tensor = tensor;
      if (now.defined()) write.value = value_of(now, copy, where_);
      graph_.gradients.push_back(write);
    }
    roll_back();
    return {std::move(graph_), std::move(flags_), std::move(guards_)};
  }

 private:
  Tensor symbol(Tensor header, int value) const {
    header.impl()->trace = id_;
    header.impl()->value = value;
    return header;
  }

  int value_of(const Tensor& tensor, const Op& op, Where where) {
    const TensorImpl& impl = *tensor.impl();
    if (impl.trace == id_) return impl.value;
    if (impl.trace)
      throw TraceError(
          detail::str(
              op.name,
              ": an operand belongs to another trace, which has ended; return it from the traced function instead of "
              "keeping it in a variable outside"),
          where);
    if (const auto assigned = current_.find(&impl); assigned != current_.end()) return assigned->second;
    for (const auto& [written, value] : current_)
      if (written->storage == impl.storage)
        throw TraceError(detail::str(op.name,
                                     ": reads a view made outside the trace of a tensor that the trace has assigned "
                                     "to; make the view inside "
                                     "the function, after the assign"),
                         where);
    return leaf_value(tensor, where);
  }

  int leaf_value(const Tensor& tensor, Where where) {
    TensorImpl& impl = *tensor.impl();
    if (const auto known = leaves_.find(&impl); known != leaves_.end()) return known->second;
    Leaf leaf{.kind = LeafKind::state, .tensor = tensor, .where = where};
    if (impl.is_scalar && impl.shape.empty()) {
      leaf.kind = LeafKind::scalar;
      leaf.number = tensor.item<double>();
      // An integer that a double can't hold exactly stays a tensor.
      if (impl.dtype == DType::int64 && static_cast<int64_t>(leaf.number) != *static_cast<const int64_t*>(impl.data))
        leaf.kind = LeafKind::constant;
    } else if (made_here_.count(&impl)) {
      leaf.kind = LeafKind::constant;
    } else if (const auto gradient = gradient_of_.find(&impl); gradient != gradient_of_.end()) {
      leaf.kind = LeafKind::gradient;
      leaf.tensor = gradient->second;
    }
    kept_.push_back(tensor);  // so that the address is not used again during the trace
    return leaves_[&impl] = graph_.add_leaf(std::move(leaf), type_of(tensor));
  }

  void constant(const Tensor& tensor) override {
    kept_.push_back(tensor);
    made_here_[tensor.impl()] = true;
  }

  void roll_back() {
    for (auto& [tensor, before] : touched_order_) tensor.impl()->grad = before;
    touched_order_.clear();
    touched_.clear();
  }

  Where where_;
  uint64_t id_;
  Graph graph_;
  std::unordered_map<const TensorImpl*, int> leaves_;   ///< outside tensors that have become leaves
  std::unordered_map<const TensorImpl*, int> current_;  ///< state that was assigned to: its value now
  std::unordered_map<const TensorImpl*, bool> made_here_;
  std::unordered_map<const TensorImpl*, Tensor> gradient_of_;
  std::unordered_map<const TensorImpl*, int> argument_of_;
  std::unordered_map<const TensorImpl*, size_t> touched_;
  std::vector<std::pair<Tensor, Tensor>> touched_order_;  ///< tensor, its gradient before the trace
  std::vector<Tensor> kept_;
  std::vector<FlagGuard> flags_;
  std::vector<GradientGuard> guards_;
};

}  // namespace

Traced run_trace(const Tensors& arguments, const std::function<Tensors(const Tensors&)>& function, Where where) {
  if (interceptor()) throw TraceError("trace: a trace is already under way on this thread", where);
  Tracer tracer(where);
  const InterceptorScope installed(&tracer);
  Tensors symbolic;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!arguments[i].defined())
      throw UndefinedError(detail::str("compiled function: argument ", i, " is undefined"), where);
    bool repeated = false;  // an argument given twice is one value
    for (size_t j = 0; j < i && !repeated; ++j)
      if (arguments[j].impl() == arguments[i].impl()) symbolic.push_back(symbolic[j]), repeated = true;
    if (!repeated) symbolic.push_back(tracer.argument(arguments[i], static_cast<int>(i)));
  }
  return tracer.finish(function(symbolic));
}

Graph trace(const Tensors& arguments, const Function& function, Where where) {
  return run_trace(arguments, function, where).graph;
}

}  // namespace tandem::graph
