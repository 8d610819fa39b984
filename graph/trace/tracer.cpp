// Tracing. Tensors of the outside become leaves the first time an op reads them: numbers become scalars, tensors made from
// C++ values in the trace become constants, all others are state.
//
// A graph's values never change, and memory does: so the tracer keeps, for each piece of memory that it has seen, the value
// that holds all of it now, and how often it was written to. A tensor is a window into such memory. Who reads one after a
// write gets the window into the newest value, made again by the views that led to it; who writes through one makes a new
// value of the whole memory. What was outside and has been written to is assigned once, at the end of the graph.
//
// A region (the branch of a cond, the body of a loop) is traced by a tracer of its own within that of the function. To it all
// that it reads of the outside is an argument, which becomes an operand of the node.
#include "graph/trace/tracer.h"

#include <unordered_map>
#include <unordered_set>

#include "autograd/tape.h"
#include "core/ops/ops.h"
#include "core/random.h"
#include "graph/trace/compile.h"

namespace tandem::graph {

using detail::str;

namespace {

std::atomic<uint64_t> next_trace{1};

class Tracer final : public Interceptor {
 public:
  explicit Tracer(Where where) : where_(where), id_(next_trace.fetch_add(1)), began_at_(tape_position()) {}
  /// Of a region of `op`.
  Tracer(Tracer& outer, const char* op, size_t operands, Captures& captures, Where where) : Tracer(where) {
    outer_ = &outer;
    op_ = op;
    operands_ = operands;
    captures_ = &captures;
  }
  ~Tracer() override { roll_back(); }

  Tensor argument(const Tensor& given, int position) {
    const ValueType type = type_of(given);
    const bool number = given.impl()->is_scalar && given.rank() == 0;
    const int value =
        graph_.add_leaf({.kind = LeafKind::argument, .argument = position, .dynamic = number, .where = {}}, type);
    memories_.push_back({.base = value, .type = type, .leaf = graph_.leaf_of(value), .argument = position});
    Tensor symbolic =
        symbol(header_of(type, number), add_window({.memory = last(memories_), .value = value, .type = type}));
    symbolic.impl()->requires_grad = given.requires_grad();
    if (const LeafExtra* extra = extra_of(*given.impl()); extra && given.is_leaf())
      make_extra(*symbolic.impl()).hooks = extra->hooks;
    arguments_[symbolic.impl()] = {position, given.is_leaf()};
    if (const auto gradient = gradient_type(given); given.requires_grad() && gradient) {  // backward adds to it
      const int before = graph_.add_leaf({.kind = LeafKind::gradient, .argument = position, .where = {}}, *gradient);
      symbolic.impl()->grad = made(header_of(*gradient), before, *gradient);
      memories_.back().leaf = graph_.leaf_of(before);
    }
    return symbolic;
  }

  /// An operand of a region, or what it captures.
  int region_argument(const Tensor& given, int position) {
    const ValueType type = type_of(given);
    const int value = graph_.add_leaf(
        {.kind = LeafKind::argument, .argument = position, .dynamic = given.impl()->is_scalar, .where = {}}, type);
    memories_.push_back({.base = value, .type = type, .leaf = graph_.leaf_of(value), .argument = position});
    return add_window({.memory = last(memories_), .value = value, .type = type});
  }
  Tensor operand(const Tensor& given, int position) {
    const Tensor symbolic =
        symbol(header_of(type_of(given), given.impl()->is_scalar), region_argument(given, position));
    // Of what is carried the first one may need no gradient, and the next one does.
    symbolic.impl()->requires_grad = grad_enabled() && is_floating(given.dtype());
    return symbolic;
  }

  Tensor snapshot(const Tensor& tensor) {
    static const Op& copy = find_op("copy");
    const int value = value_of(tensor, copy, where_);
    const ValueType type = graph_.type(value);
    return made(header_of(type, tensor.impl()->is_scalar), value, type);
  }
  Tensor symbol_of(const Tensor& tensor) {
    static const Op& copy = find_op("copy");
    const int window = window_of(tensor, copy, where_);
    return symbol(header_of(at(windows_, window).type, tensor.impl()->is_scalar), window);
  }

  void run(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, std::span<Tensor> outputs,
           Where where) override {
    std::vector<int> operands;
    for (const Tensor& input : inputs) operands.push_back(value_of(input, op, where));
    std::vector<ValueType> types;
    for (const Tensor& output : outputs) types.push_back(type_of(output));
    const int node = graph_.append(op, std::move(operands), attributes, where, types);
    if (outer_) note_tape(inputs);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const int64_t offset = std::exchange(outputs[i].impl()->offset, 0);
      const int value = graph_.node(node).outputs[i];
      if (op.kind != OpKind::view) {
        made(outputs[i], value, types[i]);
        continue;
      }
      const int parent = window_of(inputs[0], op, where);
      memory_of(parent).viewed = true;
      symbol(outputs[i], add_window({.memory = at(windows_, parent).memory,
                                     .value = value,
                                     .version = memory_of(parent).version,
                                     .type = types[i],
                                     .offset = at(windows_, parent).offset + offset,
                                     .parent = parent,
                                     .made_by = node}));
    }
  }

  void assign(const Tensor& target, const Tensor& value, Where where) override {
    static const Op& copy = find_op("copy");
    const int id = value_of(value, copy, where);
    write(window_of(target, copy, where), id, where);
  }

  void value_needed(const Tensor& tensor, const char* wanted_by, Where where) override {
    std::string origin;
    if (tensor.impl()->trace == id_) {
      const Value& value = graph_.value(at(windows_, tensor.impl()->value).value);
      if (value.node >= 0) {
        const Node& node = graph_.node(value.node);
        origin = str(" It is the result of ", node.op->name, " at ", to_string(node.where), ".");
      } else {
        const Leaf& leaf = graph_.leaf(value.leaf);
        origin = str(" It is ", name_of(leaf.kind),
                     leaf.kind == LeafKind::argument ? " " + std::to_string(leaf.argument) : "", ".");
      }
    }
    throw TraceError(
        str(wanted_by, ": the value of ", type_of(tensor), " is not known while the function is traced (compiled at ",
            to_string(where_), "): a graph is made once and serves every input.", origin,
            " Choose between values with where(), between computations with cond(), loop with while_loop() or scan(), "
            "return the value and look at it outside, or run this function with {.mode = Mode::eager}"),
        where);
  }

  void gradient_read(TensorImpl& leaf) override {
    if (outer_ && leaf.trace != id_) return outer_->gradient_read(leaf);
    if (leaf.trace || touched_.count(&leaf)) return;
    const Tensor handle = Tensor::share(&leaf);
    if (known_gradients_.insert(&leaf).second) guards_.gradients.push_back({handle, gradient_type(handle)});
    if (!leaf.grad.defined()) return;
    if (const auto read = outside_.find(leaf.grad.impl());
        read != outside_.end() && !gradient_of_.count(leaf.grad.impl()))
      throw TraceError(str("grad(): the gradient of a tensor ", leaf.shape,
                           " was read through another handle before, which a graph takes for a tensor that stays the "
                           "same at each call; read it through grad() alone"),
                       where_);
    gradient_of_[leaf.grad.impl()] = handle;
  }

  void gradient_written(TensorImpl& leaf) override {
    if (outer_ && leaf.trace != id_)
      throw TraceError(str(op_,
                           ": backward() inside would add to grad() of a tensor from outside; take the gradient with "
                           "grad() and return it, or call backward() on the result"),
                       where_);
    if (const auto argument = arguments_.find(&leaf); argument != arguments_.end() && !argument->second.is_leaf)
      throw TraceError(str("backward: argument ", argument->second.position,
                           " of the compiled function was computed from tensors that require gradients, and a graph "
                           "ends at its arguments: compute it inside the function, or pass detach() of it"),
                       where_);
    if (!touched_.insert(&leaf).second) return;
    touched_order_.push_back({Tensor::share(&leaf), leaf.grad});
  }

  void flag_read(const bool& flag) override {
    if (outer_) return outer_->flag_read(flag);
    for (const FlagGuard& guard : guards_.flags)
      if (guard.flag == &flag) return;
    guards_.flags.push_back({&flag, flag});
  }

  void requires_grad_read(const Tensor& tensor) override {
    if (outer_) return outer_->requires_grad_read(tensor);
    const TensorImpl& impl = *tensor.impl();
    if (impl.trace || impl.node || impl.is_scalar || !is_floating(impl.dtype)) return;
    if (known_requires_grad_.insert(&impl).second) guards_.requires_grad.push_back({tensor, impl.requires_grad});
  }

  void known_to_tape(const char* what, Where where) override {
    if (outer_)
      throw TraceError(str(what,
                           ": a gradient, or a hook, of the program's own is not kept in a branch or in the body of a "
                           "loop (",
                           op_,
                           ") of a graph; use it outside of that, or run this function with "
                           "{.mode = Mode::eager}"),
                       where);
  }

  int64_t draw() override {
    TANDEM_ASSERT(!outer_, op_, ": draws inside are those of a turn");
    return graph_.draws++;
  }

  Written written(const TensorImpl& tensor) const override {
    if (outer_ && tensor.trace != id_) return outer_->written(tensor);
    Written result = Interceptor::written(tensor);
    int memory = -1;
    if (tensor.trace == id_) memory = at(windows_, tensor.value).memory;
    else if (const auto known = outside_memory_.find(tensor.storage); known != outside_memory_.end())
      memory = known->second;
    if (memory >= 0 && at(memories_, memory).version > 0)
      result = {result.times + at(memories_, memory).version, at(memories_, memory).written_at};
    return result;
  }

  bool shares_memory(const TensorImpl& tensor) const override {
    if (outer_ && tensor.trace != id_) return outer_->shares_memory(tensor);
    if (tensor.trace != id_) return Interceptor::shares_memory(tensor);
    const Window& window = at(windows_, tensor.value);
    return window.parent >= 0 || at(memories_, window.memory).viewed;
  }

  void detached(const TensorImpl& tensor) override {
    if (tensor.trace == id_) memory_of(static_cast<int>(tensor.value)).viewed = true;
    else if (outer_) outer_->detached(tensor);
  }

  void host_reads(const Tensor& tensor, const char* caller, Where where) override {
    if (const Written now = written(*tensor.impl()); now.times > Interceptor::written(*tensor.impl()).times)
      throw TraceError(
          str(caller, ": the function has written to this tensor ", type_of(tensor), " at ", to_string(now.where),
              ", and its new value is not known while the function is traced: read it before, or return it "
              "and look at it outside"),
          where);
    if (outer_) {
      read_on_host_.push_back(tensor);
      return outer_->host_reads(tensor, caller, where);
    }
    if (!tensor.impl()->is_scalar && !made_here_.count(tensor.impl()->storage)) reads_values_ = true;
  }
  void host_writes(const Tensor& tensor, const char* caller, Where where) override {
    if (outer_) return outer_->host_writes(tensor, caller, where);
    if (made_here_.count(tensor.impl()->storage)) return;
    throw TraceError(
        str(caller, ": the host writes to a tensor ", tensor.shape(),
            " of the outside while the function is traced, which a graph would not do again: use assign(), "
            "or do it outside of the compiled function"),
        where);
  }

  void walks(uint64_t sequence, const Op& op, Where recorded, Where where) override {
    if (sequence >= began_at_) return;
    throw TraceError(
        str("backward: it reaches ", op.name, ", recorded at ", to_string(recorded),
            " before the function was traced: a graph can't go on there at each call. Compute it inside the "
            "compiled function, or read detach() of it"),
        where);
  }

  void constant(const Tensor& tensor) override {
    if (outer_) return outer_->constant(tensor);
    kept_.push_back(tensor);
    made_here_.insert(tensor.impl()->storage);
  }

  Progress progress() const { return {static_cast<int>(graph_.nodes.size()), graph_.draws}; }
  Tensors outside_on_tape() const {
    Tensors result;
    std::unordered_set<const TensorImpl*> known;
    for (const Tensor& tensor : kept_)
      if (!tensor.is_symbolic() && tensor.requires_grad() && known.insert(tensor.impl()).second)
        result.push_back(tensor);
    return result;
  }

  TracedRegion finish_region(const Tensors& results) {
    static const Op& copy = find_op("copy");
    TracedRegion region;
    region.tape.operands = std::move(tape_);
    for (const Tensor& result : results) {
      if (!result.defined()) throw TraceError(str(op_, ": an undefined Tensor is returned inside"), where_);
      const ValueType& as_read = type_of(result);
      const ValueType rows{as_read.dtype, as_read.device, as_read.shape, contiguous_strides(as_read.shape)};
      graph_.outputs.push_back(laid_out(value_of(result, copy, where_), rows, where_));
      region.tape.results.push_back(result.requires_grad());
    }
    for (const int memory : written_order_) {
      const Memory& m = at(memories_, memory);
      if (m.argument < 0 || m.base == graph_.leaf(m.leaf).value) continue;
      if (static_cast<size_t>(m.argument) < operands_)
        throw TraceError(str(op_, ": what it is given is written to inside; return the new value instead"),
                         m.written_at);
      const size_t capture = static_cast<size_t>(m.argument) - operands_;
      for (size_t other = 0; other < captures_->tensors.size(); ++other)
        if (other != capture &&
            outer_->memory_key(captures_->tensors[other]) == outer_->memory_key(captures_->tensors[capture]))
          throw TraceError(str(op_,
                               ": a tensor from outside is written to inside, and read there through another view "
                               "of its memory; use one of the two"),
                           m.written_at);
      for (const Tensor& read : read_on_host_)
        if (read.impl()->storage == captures_->tensors[capture].impl()->storage)
          throw TraceError(str(op_,
                               ": a tensor from outside is written to inside, and its value asked for there (item(), "
                               "data()), which is not known: ask for it outside"),
                           m.written_at);
      ValueType rows = m.type;
      rows.strides = contiguous_strides(rows.shape);
      region.writes.push_back({capture, laid_out(m.base, rows, m.written_at), m.written_at});
    }
    roll_back();
    region.graph = std::move(graph_);
    return region;
  }

  Traced finish(const Tensors& results) {
    static const Op& copy = find_op("copy");
    for (const Tensor& result : results) {
      if (!result.defined()) throw TraceError("the traced function returned an undefined Tensor", where_);
      graph_.outputs.push_back(value_of(result, copy, where_));
    }
    for (const int memory : written_order_) {
      const Memory& m = at(memories_, memory);
      if (m.leaf >= 0 && m.base != graph_.leaf(m.leaf).value) graph_.writes.push_back({m.leaf, m.base, m.written_at});
    }
    for (auto& [tensor, before] : touched_order_) {
      GradientWrite write;
      const Tensor& now = tensor.impl()->grad;
      if (now.defined() && now.impl() == before.impl()) continue;
      if (const auto argument = arguments_.find(tensor.impl()); argument != arguments_.end())
        write.argument = argument->second.position;
      else if (tensor.is_symbolic()) continue;
      else write.tensor = tensor;
      if (now.defined()) write.value = value_of(now, copy, where_);
      graph_.gradients.push_back(write);
    }
    roll_back();
    return {std::move(graph_), std::move(guards_), reads_values_};
  }

 private:
  /// A piece of memory that the trace has seen: an intermediate result, an argument, or a storage of the outside.
  struct Memory {
    int base = -1;        ///< the value that holds all of it now; -1: outside, and nobody has written to it
    ValueType type = {};  ///< of base, at each version
    int64_t offset = 0;   ///< of base in the storage, in elements
    int leaf = -1;        ///< what base is assigned to at the end; -1: nothing outlives the trace
    int argument = -1;
    bool viewed = false;   ///< another tensor was made on it: a view, or detach() of one
    uint32_t version = 0;  ///< writes so far
    Where written_at = {};
    Tensor tensor = {};           ///< one that shows it, of the outside
    std::vector<int> roots = {};  ///< the windows of these
  };
  /// What a tensor shows of a memory.
  struct Window {
    int memory;
    int value;             ///< what it was read as
    uint32_t version = 0;  ///< and at which version of the memory
    ValueType type;
    int64_t offset = 0;  ///< in elements: of the base, or of the storage, of one from outside
    int parent = -1;     ///< the window that a view op
    int made_by = -1;    ///< (of this node) made it of
  };
  struct Argument {
    int position;
    bool is_leaf;
  };

  template <class T> static int last(const std::vector<T>& list) { return static_cast<int>(list.size()) - 1; }
  template <class T> static T& at(std::vector<T>& list, int64_t i) { return list[static_cast<size_t>(i)]; }
  template <class T> static const T& at(const std::vector<T>& list, int64_t i) { return list[static_cast<size_t>(i)]; }
  Memory& memory_of(int window) { return at(memories_, at(windows_, window).memory); }

  Tensor symbol(Tensor header, int window) const {
    header.impl()->trace = id_;
    header.impl()->value = window;
    return header;
  }
  /// A result with memory of its own.
  Tensor made(const Tensor& header, int value, const ValueType& type) {
    memories_.push_back({.base = value, .type = type});
    return symbol(header, add_window({.memory = last(memories_), .value = value, .type = type}));
  }
  int add_window(Window window) {
    windows_.push_back(std::move(window));
    return last(windows_);
  }

  int append_one(const Op& op, std::vector<int> inputs, Attributes attributes, const ValueType& type, Where where) {
    return graph_.node(graph_.append(op, std::move(inputs), std::move(attributes), where, {type})).outputs[0];
  }

  // ---- Reading.

  int value_of(const Tensor& tensor, const Op& op, Where where) { return read(window_of(tensor, op, where), where); }

  int window_of(const Tensor& tensor, const Op& op, Where where) {
    const TensorImpl& impl = *tensor.impl();
    if (impl.trace == id_) return static_cast<int>(impl.value);
    if (outer_ && (!impl.trace || outer_->knows(impl.trace))) return captured(tensor);
    if (impl.trace)
      throw TraceError(
          str(op.name,
              ": an operand belongs to another trace, which has ended; return it from the traced function instead of "
              "keeping it in a variable outside"),
          where);
    const auto known = outside_.find(&impl);
    return known != outside_.end() ? known->second : outside(tensor, where);
  }

  /// Of the node appended last.
  void note_tape(std::span<const Tensor> inputs) {
    tape_.resize(graph_.nodes.size());
    for (const Tensor& input : inputs) tape_.back().push_back(grad_enabled() && input.requires_grad());
  }

  bool knows(uint64_t trace) const { return trace == id_ || (outer_ && outer_->knows(trace)); }

  /// Whether they are one capture, on the tape or not.
  static bool same_window(const TensorImpl& a, const TensorImpl& b) {
    if (&a == &b) return true;
    if (a.trace || b.trace) return a.trace == b.trace && a.value == b.value;
    return a.storage == b.storage && a.offset == b.offset && a.dtype == b.dtype && a.shape == b.shape &&
           a.strides == b.strides && a.is_scalar == b.is_scalar;
  }
  int captured(const Tensor& tensor) {
    size_t place = 0;
    while (place < captures_->tensors.size() && !same_window(*captures_->tensors[place].impl(), *tensor.impl()))
      ++place;
    if (place == captures_->tensors.size()) captures_->tensors.push_back(tensor);
    else if (tensor.requires_grad()) captures_->tensors[place] = tensor;  // it was read by a handle off the tape before
    const auto [known, fresh] = capture_windows_.try_emplace(place, -1);
    if (fresh) known->second = region_argument(tensor, static_cast<int>(operands_ + place));
    return known->second;
  }
  /// Equal for tensors that lie in the same memory, whichever trace they belong to: of a capture it is that outside, and
  /// views made in a trace have that of the tensor outside.
  std::pair<uint64_t, const void*> memory_key(const Tensor& tensor) const {
    const TensorImpl& impl = *tensor.impl();
    int memory = -1;
    if (impl.trace == id_) memory = at(windows_, impl.value).memory;
    else if (const auto known = outside_memory_.find(impl.storage); !impl.trace && known != outside_memory_.end())
      memory = known->second;
    if (memory >= 0) {
      const int capture = at(memories_, memory).argument - static_cast<int>(operands_);
      if (outer_ && capture >= 0) return outer_->memory_key(captures_->tensors[static_cast<size_t>(capture)]);
      return {id_, reinterpret_cast<const void*>(static_cast<intptr_t>(memory))};
    }
    if (outer_) return outer_->memory_key(tensor);
    return {0, impl.storage};
  }

  /// The window of a tensor of the outside that was not read before.
  int outside(const Tensor& tensor, Where where) {
    const TensorImpl& impl = *tensor.impl();
    kept_.push_back(tensor);  // so that the address is not used again during the trace
    const auto [known, fresh] = outside_memory_.try_emplace(impl.storage, static_cast<int>(memories_.size()));
    if (fresh) memories_.push_back({.tensor = tensor});
    const int memory = known->second;
    Window window{.memory = memory, .value = -1, .type = type_of(tensor), .offset = impl.offset};
    Memory& m = at(memories_, memory);
    if (m.version > 0) window.version = m.version - 1;  // it is read from what has been written
    else window.value = leaf_value(tensor, m, where);
    outside_[&impl] = add_window(std::move(window));
    m.roots.push_back(last(windows_));
    requires_grad_read(tensor);
    return last(windows_);
  }

  int leaf_value(const Tensor& tensor, const Memory& memory, Where where) {
    const TensorImpl& impl = *tensor.impl();
    Leaf leaf{.kind = LeafKind::state, .tensor = tensor, .where = where};
    if (impl.is_scalar && impl.shape.empty()) {
      leaf.kind = LeafKind::scalar;
      leaf.number = tensor.item<double>();
      // An integer that a double can't hold exactly stays a tensor.
      if (impl.dtype == DType::int64 && static_cast<int64_t>(leaf.number) != *static_cast<const int64_t*>(impl.data))
        leaf.kind = LeafKind::constant;
    } else if (made_here_.count(impl.storage)) {
      leaf.kind = LeafKind::constant;
    } else if (const auto gradient = gradient_of_.find(&impl); gradient != gradient_of_.end()) {
      leaf.kind = LeafKind::gradient;
      leaf.tensor = gradient->second;
    } else {
      for (const int root : memory.roots) {  // another handle on the same elements
        const Window& same = at(windows_, root);
        if (same.type == type_of(tensor) && same.offset == impl.offset &&
            graph_.leaf(graph_.leaf_of(same.value)).kind == LeafKind::state)
          return same.value;
      }
    }
    return graph_.add_leaf(std::move(leaf), type_of(tensor));
  }

  /// The value that the window shows now.
  int read(int window, Where where) {
    std::vector<int> stale;  // from the window up to the first that is as it was
    int w = window;
    for (; w >= 0 && at(windows_, w).version != memory_of(w).version; w = at(windows_, w).parent) stale.push_back(w);
    for (; !stale.empty(); stale.pop_back()) {
      Window& next = at(windows_, stale.back());
      const Memory& memory = at(memories_, next.memory);
      if (next.parent >= 0) {
        const Node& view = graph_.node(next.made_by);
        next.value = append_one(*view.op, {at(windows_, next.parent).value}, view.attributes, next.type, where);
      } else if (next.type == memory.type && next.offset == memory.offset) {
        next.value = memory.base;
      } else {
        static const Op& as_strided = find_op("as_strided");
        next.value = append_one(as_strided, {memory.base}, window_attributes(next, memory), next.type, where);
      }
      next.version = memory.version;
    }
    return at(windows_, window).value;
  }

  static Attributes window_attributes(const Window& window, const Memory& memory) {
    return {{"shape", window.type.shape}, {"strides", window.type.strides}, {"offset", window.offset - memory.offset}};
  }

  // ---- Writing.

  void write(int window, int value, Where where) {
    if (memory_of(window).base < 0) choose_base(window, where);
    const Window& w = at(windows_, window);
    Memory& memory = memory_of(window);
    if (memory.argument >= 0 && !is_dense(memory.type.shape, memory.type.strides))
      throw TraceError(
          str("assign: ", outer_ ? "a tensor from outside" : str("argument ", memory.argument), ", ", memory.type,
              ", is a view with gaps, which graph mode can't write to; pass contiguous() of it, and assign "
              "the result outside"),
          where);
    if (w.type == memory.type && w.offset == memory.offset) {
      memory.base = laid_out(value, memory.type, where);
    } else {
      static const Op& scatter = find_op("as_strided_scatter");
      if (may_overlap(w.type.shape, w.type.strides))
        throw TraceError("assign: elements of this view lie on one another; assign to what it is a view of", where);
      const ValueType type{w.type.dtype, w.type.device, w.type.shape, contiguous_strides(w.type.shape)};
      memory.base = append_one(scatter, {memory.base, laid_out(value, type, where)}, window_attributes(w, memory),
                               memory.type, where);
    }
    if (memory.version == 0) written_order_.push_back(w.memory);
    ++memory.version;
    memory.written_at = where;
  }

  /// The value in that layout and on that device; shape and dtype are as they are.
  int laid_out(int value, const ValueType& type, Where where) {
    static const Op &copy = find_op("copy"), &full = find_op("full"), &multiply = find_op("mul");
    if (graph_.type(value) == type) return value;
    if (graph_.type(value).device == type.device) return append_one(copy, {value}, {}, type, where);
    // A number, which lies on the host.
    const int ones = append_one(
        full, {}, {{"value", 1.0}, {"shape", type.shape}, {"dtype", type.dtype}, {"device", to_string(type.device)}},
        type, where);
    return append_one(multiply, {ones, value}, {}, type, where);
  }

  /// Which value stands for all of a storage of the outside that is written to for the first time: a tensor that shows all
  /// of it, else a new one that does.
  void choose_base(int window, Where where) {
    Memory& memory = memory_of(window);
    const Tensor& tensor = memory.tensor;
    const Storage& storage = *tensor.impl()->storage;
    const bool local = made_here_.count(&storage) != 0;
    const auto covers = [&](const Window& w) {
      return w.offset == 0 && is_dense(w.type.shape, w.type.strides) &&
             static_cast<size_t>(w.type.shape.numel() * size_of(w.type.dtype)) == storage.bytes &&
             graph_.leaf(graph_.leaf_of(w.value)).kind != LeafKind::scalar;
    };
    for (const int root : memory.roots) {
      const Window& w = at(windows_, root);
      if (memory.base < 0 && covers(w)) memory.base = w.value, memory.type = w.type;
    }
    if (memory.base < 0) {
      TensorImpl* impl = TensorImpl::create();
      const Tensor whole = Tensor::adopt(impl);
      impl->dtype = tensor.dtype();
      impl->device = tensor.device();
      impl->set_contiguous_layout(
          tensor.impl()->is_scalar ? Shape() : Shape{static_cast<int64_t>(storage.bytes) / size_of(tensor.dtype())});
      impl->alias(*tensor.impl(), -tensor.impl()->offset);
      kept_.push_back(whole);
      memory.type = type_of(whole);
      memory.base = graph_.add_leaf(
          {.kind = local ? LeafKind::constant : LeafKind::state, .tensor = whole, .where = where}, memory.type);
    }
    if (!local) memory.leaf = graph_.leaf_of(memory.base);
  }

  void roll_back() {
    for (auto& [tensor, before] : touched_order_) tensor.impl()->grad = before;
    touched_order_.clear();
    touched_.clear();
  }

  Where where_;
  uint64_t id_;
  uint64_t began_at_;  ///< nodes of the tape with lower numbers are from before
  Graph graph_;
  std::vector<Memory> memories_;
  std::vector<Window> windows_;  ///< TensorImpl::value of a symbolic tensor names one
  std::vector<int> written_order_;
  std::unordered_map<const TensorImpl*, int> outside_;      ///< the windows of outside tensors
  std::unordered_map<const Storage*, int> outside_memory_;  ///< and the memories that they show
  std::unordered_set<const Storage*> made_here_;            ///< from C++ values, in the trace
  std::unordered_map<const TensorImpl*, Tensor> gradient_of_;
  std::unordered_map<const TensorImpl*, Argument> arguments_;
  std::unordered_set<const TensorImpl*> touched_, known_gradients_, known_requires_grad_;
  std::vector<std::pair<Tensor, Tensor>> touched_order_;  ///< tensor, its gradient before the trace
  std::vector<Tensor> kept_;
  // Of a region.
  Tracer* outer_ = nullptr;
  const char* op_ = nullptr;
  size_t operands_ = 0;
  Captures* captures_ = nullptr;
  std::vector<std::vector<bool>> tape_;              ///< RegionTape::operands
  std::unordered_map<size_t, int> capture_windows_;  ///< by place in captures
  Tensors read_on_host_;
  Guards guards_;
  bool reads_values_ = false;
};

}  // namespace

std::optional<ValueType> gradient_type(const Tensor& tensor) {
  const Tensor& gradient = tensor.impl()->grad;
  return gradient.defined() ? std::optional(type_of(gradient)) : std::nullopt;
}

Traced run_trace(const Tensors& arguments, const std::function<Tensors(const Tensors&)>& function, Where where) {
  if (interceptor()) throw TraceError("trace: a trace is already under way on this thread", where);
  Tracer tracer(where);
  const InterceptorScope installed(&tracer);
  // The call may stand in a checkpointed function; the trace has a tape, and draws, of its own.
  const FrameScope no_frame(nullptr);
  const ThreadScope<&ThreadState::draws> own_draws(nullptr);
  Tensors symbolic;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!arguments[i].defined()) throw UndefinedError(str("compiled function: argument ", i, " is undefined"), where);
    bool repeated = false;  // an argument given twice is one value
    for (size_t j = 0; j < i && !repeated; ++j)
      if (arguments[j].impl() == arguments[i].impl()) symbolic.push_back(symbolic[j]), repeated = true;
    if (!repeated) symbolic.push_back(tracer.argument(arguments[i], static_cast<int>(i)));
  }
  return tracer.finish(function(symbolic));
}

TracedRegion trace_region(const char* op, const Tensors& operands, Captures& captures,
                          const std::function<Tensors(const Tensors&)>& function, Where where) {
  auto* const outer = dynamic_cast<Tracer*>(interceptor());
  TANDEM_ASSERT(outer, op, ": no trace is under way");
  Tracer tracer(*outer, op, operands.size(), captures, where);
  const InterceptorScope installed(&tracer);
  Tensors symbolic;
  for (size_t i = 0; i < operands.size(); ++i) symbolic.push_back(tracer.operand(operands[i], static_cast<int>(i)));
  return tracer.finish_region(function(symbolic));
}

namespace {
Tracer& tracer_under_way() {
  auto* const tracer = dynamic_cast<Tracer*>(interceptor());
  TANDEM_ASSERT(tracer, "no trace is under way");
  return *tracer;
}
}  // namespace

Tensor snapshot_in_trace(const Tensor& tensor) { return tracer_under_way().snapshot(tensor); }
Tensor symbol_in_region(const Tensor& tensor) { return tracer_under_way().symbol_of(tensor); }
Progress trace_progress() { return tracer_under_way().progress(); }
Tensors outside_on_tape() { return tracer_under_way().outside_on_tape(); }
Tensor argument_in_trace(const ValueType& type, int position) {
  return tracer_under_way().argument(header_of({type.dtype, type.device, type.shape, contiguous_strides(type.shape)}),
                                     position);
}

Graph trace(const Tensors& arguments, const Function& function, Where where) {
  return run_trace(arguments, function, where).graph;
}

}  // namespace tandem::graph
