// Building and running programs. Every value lies in a *base*: an argument, a state tensor, a result, or a
// place in the arena. Views are offsets into a base. Steps hold tensors and pointer tables that point into
// the bases; when a base moves (another argument, a new result) just those pointers are patched.
#include "tandem/graph/program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>

#include "tandem/core/ops.h"
#include "tandem/core/random.h"
#include "tandem/graph/codegen/c_source.h"
#include "tandem/graph/codegen/system_compiler.h"
#include "tandem/graph/cuda_step.h"
#include "tandem/graph/memory_plan.h"
#include "tandem/graph/passes/fusion_groups.h"
#include "tandem/graph/passes/pass.h"
#include "tandem/kernels/cpu/parallel.h"
#include "tandem/kernels/cuda/capture.h"
#include "tandem/kernels/cuda/module.h"

namespace tandem::graph {

namespace {

using SegmentFn = void (*)(char* const* buffers, char* partials, long begin, long end);
using FinishFn = void (*)(char* const* buffers, char* const* partials, const long* chunks);

struct Use {
  void** pointer;
  int64_t offset;  ///< bytes
};

struct Base {
  std::vector<Use> uses;
  void* data = nullptr;
  void bind(void* to) {
    if (to == data) return;
    data = to;
    for (const Use& use : uses) *use.pointer = to ? static_cast<char*>(to) + use.offset : nullptr;
  }
};

struct Chunk {
  SegmentFn function;
  char* const* buffers;
  char* partials;
  long begin, end;
};

/// A kernel of the op table.
struct KernelStep {
  const Op* op;
  Tensors inputs, outputs;
  Attributes attributes;
  Where where;
};

/// A fused kernel.
struct FusedStep {
  std::vector<std::vector<void*>> buffers;  ///< of each segment
  std::vector<Chunk> chunks;
  std::vector<std::vector<char>> partials;  ///< of each segment
  std::vector<char*> partial_pointers;
  std::vector<long> chunk_counts;
  std::vector<void*> finish_buffers;
  FinishFn finish = nullptr;
  bool parallel = false;
  std::vector<double> costs;  ///< of all chunks up to each, itself included

  /// The first chunk of thread `t` of `threads`. They share the cost, not the number of chunks: the segments of a
  /// kernel (an optimiser's parameters, say) are of very different sizes.
  int64_t share(int64_t t, int64_t threads) const {
    const double wanted = costs.back() * static_cast<double>(t) / static_cast<double>(threads);
    const auto holds = std::lower_bound(costs.begin(), costs.end(), wanted);
    if (t <= 0) return 0;
    if (t >= threads || holds == costs.end()) return static_cast<int64_t>(costs.size());
    const double before = holds == costs.begin() ? 0 : *(holds - 1);
    return holds - costs.begin() + (wanted - before > (*holds - before) / 2 ? 1 : 0);
  }
};

struct Step {
  int node = -1;
  std::unique_ptr<KernelStep> kernel;
  std::unique_ptr<FusedStep> fused;
  std::vector<std::unique_ptr<CudaLaunch>> launches;  ///< a fused kernel on a CUDA device
  std::vector<int> allocate, release;  ///< bases, where memory is not planned
};

constexpr double kChunkCost = 48 * 1024;  ///< simple operations that are worth a chunk of their own
constexpr int64_t kMostChunks = 64;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

int64_t bytes_of(const ValueType& type) { return type.shape.numel() * size_of(type.dtype); }

/// Writes in place: each element is read before it is written, and nothing else is looked at.
bool updates_in_place(const Op& op) {
  const std::string_view name = op.name;
  return name == "sgd" || name == "adamw" || op.is_pointwise();
}

}  // namespace

struct Program::Impl {
  Graph graph;
  ProgramOptions options;
  ProgramStats stats;
  Where called_at;  ///< the line of compile()
  std::string source;
  std::shared_ptr<KernelLibrary> library;

  std::vector<Base> bases;
  std::vector<int> base_of;            ///< of each value
  std::vector<int64_t> offset_of;      ///< bytes into the base, of each value
  std::vector<Tensor> header_of_value; ///< tensors that steps hold, one for each value in use
  std::vector<Step> steps;
  Tensor arena;
  std::vector<Tensor> owned;           ///< scalars, by leaf
  std::vector<Tensor> bound;           ///< tensors of state and constant leaves, by leaf
  std::vector<Storage*> base_storage;  ///< of unplanned values while they are alive
  struct Result {
    int value, base;
  };
  std::vector<Result> outputs;
  struct Gradient {
    const GradientWrite* write;
    int value, base;
    bool recycle;
  };
  std::vector<Gradient> gradients;
  struct LateWrite {
    int leaf;
    KernelStep copy;
  };
  std::vector<LateWrite> late_writes;
  std::vector<int> released_last;      ///< bases that late writes read

  // On a CUDA device.
  Device device;                       ///< the CUDA device that nodes run on, if any does
  std::shared_ptr<gpu::Module> cuda_module;
  HostNumbers host_numbers;
  std::vector<std::pair<int, int>> number_leaves;  ///< leaf, index in host_numbers
  std::map<int, Tensor> number_headers;            ///< by value, as tensors on the device
  bool capturable = false;                         ///< the whole run is launches on one device
  std::unique_ptr<gpu::Capture> capture;
  std::vector<void*> captured_bases, last_bases;
  std::vector<Tensor> fixed;                       ///< by base: where a captured run finds arguments and puts results

  const ValueType& type(int value) const { return graph.values[static_cast<size_t>(value)].type; }

  // ---- Building.

  /// Results that are also something else get a copy of their own.
  void separate_results() {
    GroupContext context(graph);
    static const Op& copy = find_op("copy");
    std::vector<int> taken;
    const auto separate = [&](int value, bool state) {
      const Reference r = context.reference(value);
      const bool leaf = context.maker(r.base) < 0;
      const bool again = std::find(taken.begin(), taken.end(), r.base) != taken.end();
      if (leaf || r.base != value || (again && !state)) {
        const int node = graph.add_node(copy, {value}, {}, {});
        value = graph.nodes[static_cast<size_t>(node)].outputs[0];
      }
      taken.push_back(value);
      return value;
    };
    for (int& output : graph.outputs) output = separate(output, false);
    for (GradientWrite& write : graph.gradients)
      if (write.value >= 0) write.value = separate(write.value, false);
    for (StateWrite& write : graph.writes) write.value = separate(write.value, true);
  }

  bool build(Where where, std::string* reason) {
    separate_results();
    const GroupContext context(graph);
    std::vector<Reference> references;
    for (int v = 0; v < static_cast<int>(graph.values.size()); ++v) references.push_back(context.reference(v));
    std::vector<int> order;  // nodes that run
    for (int n = 0; n < static_cast<int>(graph.nodes.size()); ++n)
      if (!context.is_view(n)) order.push_back(n);

    // Which steps read each base, and who makes it.
    std::vector<std::vector<int>> readers(graph.values.size());
    std::vector<int> made_at(graph.values.size(), -1);
    for (int s = 0; s < static_cast<int>(order.size()); ++s) {
      const Node& node = graph.nodes[static_cast<size_t>(order[static_cast<size_t>(s)])];
      for (int input : node.inputs) readers[static_cast<size_t>(references[static_cast<size_t>(input)].base)].push_back(s);
      for (int output : node.outputs) made_at[static_cast<size_t>(output)] = s;
    }

    base_of.assign(graph.values.size(), -1);
    std::vector<char> special(graph.values.size(), 0);  // results: memory of their own
    for (int output : graph.outputs) special[static_cast<size_t>(output)] = 1;
    for (const GradientWrite& write : graph.gradients)
      if (write.value >= 0) special[static_cast<size_t>(write.value)] = 1;

    const auto new_base = [&](int value) {
      base_of[static_cast<size_t>(value)] = static_cast<int>(bases.size());
      bases.emplace_back();
    };
    for (const Leaf& leaf : graph.leaves) new_base(leaf.value);
    // State written in place shares the base of the state.
    std::vector<StateWrite> late;
    for (const StateWrite& write : graph.writes) {
      const Leaf& leaf = graph.leaves[static_cast<size_t>(write.leaf)];
      const int made = made_at[static_cast<size_t>(write.value)];
      bool direct = options.in_place && made >= 0 && !special[static_cast<size_t>(write.value)] && base_of[static_cast<size_t>(write.value)] < 0 &&
                    type(write.value) == type(leaf.value) && alone(leaf);
      for (int reader : readers[static_cast<size_t>(leaf.value)]) direct = direct && reader <= made;
      const auto& read_by = readers[static_cast<size_t>(leaf.value)];
      if (direct && std::find(read_by.begin(), read_by.end(), made) != read_by.end())
        direct = safe_in_place(graph.nodes[static_cast<size_t>(order[static_cast<size_t>(made)])], leaf.value, write.value, references);
      if (direct) base_of[static_cast<size_t>(write.value)] = base_of[static_cast<size_t>(leaf.value)];
      else late.push_back(write);
    }
    std::vector<int> intermediate;
    for (int n : order)
      for (int output : graph.nodes[static_cast<size_t>(n)].outputs)
        if (base_of[static_cast<size_t>(output)] < 0) {
          new_base(output);
          if (!special[static_cast<size_t>(output)]) intermediate.push_back(output);
        }
    offset_of.assign(graph.values.size(), 0);
    for (int v = 0; v < static_cast<int>(graph.values.size()); ++v) {
      const Reference& r = references[static_cast<size_t>(v)];
      base_of[static_cast<size_t>(v)] = base_of[static_cast<size_t>(r.base)];
      offset_of[static_cast<size_t>(v)] = r.offset * size_of(type(v).dtype);
    }

    find_device(order);
    if (!make_steps(order, where, reason)) return false;
    for (const StateWrite& write : late) {
      const Leaf& leaf = graph.leaves[static_cast<size_t>(write.leaf)];
      late_writes.push_back({write.leaf, {&find_op("copy"), {header(write.value)}, {header(leaf.value)}, {}, write.where}});
      // A late value lives until the end.
      readers[static_cast<size_t>(references[static_cast<size_t>(write.value)].base)].push_back(static_cast<int>(order.size()));
      ++stats.kernels;
    }

    // Memory.
    std::vector<Lifetime> lifetimes;
    for (int value : intermediate) {
      const int first = made_at[static_cast<size_t>(value)];
      int last = first;
      for (int reader : readers[static_cast<size_t>(value)]) last = std::max(last, reader);
      lifetimes.push_back({.bytes = bytes_of(type(value)), .first = first, .last = last});
    }
    std::vector<Lifetime> planned = lifetimes;
    const MemoryPlan plan = plan_memory(planned);
    stats.lower_bound_bytes = plan.lower_bound;
    base_storage.assign(bases.size(), nullptr);
    if (options.planned) {
      stats.arena_bytes = plan.bytes;
      const Device device = intermediate.empty() ? Device{} : type(intermediate[0]).device;
      const Interceptor* tracer = set_interceptor(nullptr);
      arena = empty({std::max<int64_t>(plan.bytes, 1)}, {.dtype = uint8, .device = device});
      set_interceptor(const_cast<Interceptor*>(tracer));
      for (size_t i = 0; i < intermediate.size(); ++i)
        bases[static_cast<size_t>(base_of[static_cast<size_t>(intermediate[i])])].bind(static_cast<char*>(arena.impl()->data) + planned[i].offset);
    } else {
      for (size_t i = 0; i < intermediate.size(); ++i) {
        const int base = base_of[static_cast<size_t>(intermediate[i])];
        steps[static_cast<size_t>(lifetimes[i].first)].allocate.push_back(intermediate[i]);
        (lifetimes[i].last < static_cast<int>(steps.size()) ? steps[static_cast<size_t>(lifetimes[i].last)].release : released_last).push_back(base);
      }
    }
    bind_leaves();
    for (int output : graph.outputs) outputs.push_back({output, base_of[static_cast<size_t>(output)]});
    for (const GradientWrite& write : graph.gradients) {
      bool recycle = true;  // unless the old gradient is read
      for (const Leaf& leaf : graph.leaves) recycle = recycle && !(leaf.kind == LeafKind::gradient && leaf.argument == write.argument && leaf.tensor.impl() == write.tensor.impl());
      gradients.push_back({&write, write.value, write.value >= 0 ? base_of[static_cast<size_t>(write.value)] : -1, recycle});
    }
    return true;
  }

  /// No other leaf shares its storage.
  bool alone(const Leaf& leaf) const {
    if (!leaf.tensor.defined() || leaf.kind != LeafKind::state) return false;
    for (const Leaf& other : graph.leaves)
      if (&other != &leaf && other.tensor.defined() && other.kind != LeafKind::gradient && other.tensor.shares_storage(leaf.tensor)) return false;
    return true;
  }

  /// Whether the node may write `value` over `state`, which it reads.
  bool safe_in_place(const Node& node, int state, int value, const std::vector<Reference>& references) const {
    if (!node.fused) {
      for (int input : node.inputs)
        if (references[static_cast<size_t>(input)].base == state && input != state) return false;
      return updates_in_place(*node.op);
    }
    const LoopKernel& kernel = *node.fused;
    int stored = -1;
    for (size_t i = 0; i < node.outputs.size(); ++i)
      if (node.outputs[i] == value) stored = static_cast<int>(node.inputs.size() + i);
    for (const Store& store : kernel.finish.stores)
      if (store.buffer == stored) return true;  // the finish runs after everything
    for (size_t s = 0; s < kernel.segments.size(); ++s) {
      const Segment& segment = kernel.segments[s];
      const Store* mine = nullptr;
      for (const Store& store : segment.stores)
        if (store.buffer == stored) mine = &store;
      for (const Statement& statement : segment.statements) {
        if (statement.buffer < 0 || static_cast<size_t>(statement.buffer) >= node.inputs.size() || statement.kind == LoopOp::literal) continue;
        if (references[static_cast<size_t>(node.inputs[static_cast<size_t>(statement.buffer)])].base != state) continue;
        if (!mine || segment.by_row || statement.kind != LoopOp::load) return false;
        if (statement.position.offset != mine->position.offset || statement.position.strides != mine->position.strides) return false;
      }
    }
    for (const Statement& statement : kernel.finish.statements)
      if (statement.kind == LoopOp::load && references[static_cast<size_t>(node.inputs[static_cast<size_t>(statement.buffer)])].base == state) return false;
    return true;
  }

  /// The tensor that steps use for a value; its data pointer follows the base.
  Tensor header(int value) {
    Tensor& made = header_of_value[static_cast<size_t>(value)];
    if (!made.defined()) {
      const int leaf = graph.leaf_of(value);
      const bool scalar = leaf >= 0 && (graph.leaves[static_cast<size_t>(leaf)].kind == LeafKind::scalar ||
                                        (graph.leaves[static_cast<size_t>(leaf)].tensor.defined() && graph.leaves[static_cast<size_t>(leaf)].tensor.impl()->is_scalar));
      made = header_of(type(value), scalar);
      Base& base = bases[static_cast<size_t>(base_of[static_cast<size_t>(value)])];
      base.uses.push_back({&made.impl()->data, offset_of[static_cast<size_t>(value)]});
    }
    return made;
  }

  /// Numbers of the host that kernels on the device read get a place there.
  void find_device(const std::vector<int>& order) {
    capturable = options.planned;
    for (int n : order) {
      const Device at = type(graph.nodes[static_cast<size_t>(n)].outputs[0]).device;
      if (at.is_cuda()) device = at;
      else capturable = false;
    }
    if (!device.is_cuda()) return void(capturable = false);
    for (int n : order) {
      const Node& node = graph.nodes[static_cast<size_t>(n)];
      if (std::string_view(node.op->name) == "transfer") {
        capturable = false;
        continue;
      }
      if (!type(node.outputs[0]).device.is_cuda()) continue;
      for (int input : node.inputs) {
        const int leaf = graph.leaf_of(input);
        if (type(input).device.is_cuda() || number_headers.count(input)) continue;
        TANDEM_ASSERT(leaf >= 0, "a kernel on ", device, " reads a value of the CPU that is no leaf");
        number_leaves.emplace_back(leaf, host_numbers.add(static_cast<size_t>(bytes_of(type(input)))));
        ValueType there = type(input);
        there.device = device;
        number_headers[input] = header_of(there);
      }
    }
    for (const Leaf& leaf : graph.leaves)
      if (leaf.kind == LeafKind::argument && !is_dense(type(leaf.value).shape, type(leaf.value).strides)) capturable = false;
    if (host_numbers.empty()) return;
    host_numbers.allocate(device);
    for (const auto& [leaf, index] : number_leaves)
      number_headers[graph.leaves[static_cast<size_t>(leaf)].value].impl()->data = host_numbers.on_device(index);
  }

  /// What a step on the device reads: the value, or its copy there.
  Tensor input_of(const Node& node, int value) {
    const auto number = number_headers.find(value);
    const bool there = capturable && type(node.outputs[0]).device.is_cuda() && number != number_headers.end();
    return there ? number->second : header(value);
  }

  void use(int value, void** pointer) {
    bases[static_cast<size_t>(base_of[static_cast<size_t>(value)])].uses.push_back({pointer, offset_of[static_cast<size_t>(value)]});
  }

  bool make_steps(const std::vector<int>& order, Where where, std::string* reason) {
    header_of_value.resize(graph.values.size());
    CSource generated;
    CudaSource generated_cuda;
    std::vector<std::vector<CudaKernelCall>> launches(order.size());
    std::vector<KernelCall> calls(order.size());
    auto begin = std::chrono::steady_clock::now();
    for (size_t s = 0; s < order.size(); ++s)
      if (const Node& node = graph.nodes[static_cast<size_t>(order[s])]; node.fused) {
        if (type(node.outputs[0]).device.is_cuda()) launches[s] = generated_cuda.add(*node.fused);
        else calls[s] = generated.add(*node.fused);
      }
    source = generated.text();
    const std::string cuda_source = generated_cuda.text();
    stats.emit_seconds = seconds_since(begin);
    CudaKernels cuda_kernels;
    if (!cuda_source.empty()) {
      cuda_kernels = load_cuda_source(cuda_source, generated_cuda.kernel_names(), device);
      stats.compiler_seconds = cuda_kernels.compile_seconds;
      cuda_module = cuda_kernels.module;
    }
    if (!source.empty()) {
      begin = std::chrono::steady_clock::now();
      library = load_c_source(source, where, reason);
      if (!library) return false;
      stats.compiler_seconds += seconds_since(begin);
      stats.compiler_cached = library->from_cache;
      stats.note = library->note;
    }
    if (!cuda_source.empty()) source += cuda_source;
    for (size_t s = 0; s < order.size(); ++s) {
      const Node& node = graph.nodes[static_cast<size_t>(order[s])];
      Step step;
      step.node = order[s];
      ++stats.kernels;
      if (node.fused) {
        ++stats.fused_kernels;
        if (launches[s].empty()) step.fused = make_fused(node, calls[s]);
        for (const CudaKernelCall& call : launches[s]) step.launches.push_back(make_launch(node, call));
      } else {
        step.kernel = std::make_unique<KernelStep>(KernelStep{node.op, {}, {}, node.attributes, node.where});
        for (int input : node.inputs) step.kernel->inputs.push_back(input_of(node, input));
        for (int output : node.outputs) step.kernel->outputs.push_back(header(output));
      }
      steps.push_back(std::move(step));
    }
    return true;
  }

  std::unique_ptr<CudaLaunch> make_launch(const Node& node, const CudaKernelCall& call) {
    auto launch = std::make_unique<CudaLaunch>(call, *cuda_module, device);
    for (size_t b = 0; b < call.buffers.size(); ++b) {
      const auto buffer = static_cast<size_t>(call.buffers[b]);
      const int value = buffer < node.inputs.size() ? node.inputs[buffer] : node.outputs[buffer - node.inputs.size()];
      if (const auto number = number_headers.find(value); number != number_headers.end()) launch->table[b] = number->second.impl()->data;
      else use(value, &launch->table[b]);
    }
    return launch;
  }

  std::unique_ptr<FusedStep> make_fused(const Node& node, const KernelCall& call) {
    auto step = std::make_unique<FusedStep>();
    const auto value_of = [&](int buffer) {
      return static_cast<size_t>(buffer) < node.inputs.size() ? node.inputs[static_cast<size_t>(buffer)] : node.outputs[static_cast<size_t>(buffer) - node.inputs.size()];
    };
    step->buffers.resize(call.segments.size());
    step->partials.resize(call.segments.size());
    for (size_t s = 0; s < call.segments.size(); ++s) {
      const SegmentCall& segment = call.segments[s];
      std::vector<void*>& table = step->buffers[s];
      table.assign(segment.buffers.size() + 1, nullptr);
      for (size_t b = 0; b < segment.buffers.size(); ++b) use(value_of(segment.buffers[b]), &table[b]);
      const double cost = static_cast<double>(segment.units) * static_cast<double>(segment.elements_per_unit) * segment.cost;
      const int64_t count = std::clamp<int64_t>(static_cast<int64_t>(cost / kChunkCost), 1, std::min(kMostChunks, std::max<int64_t>(segment.units, 1)));
      step->partials[s].assign(static_cast<size_t>(count * segment.partials * 8 + 8), 0);
      auto* function = reinterpret_cast<SegmentFn>(library->symbol(segment.name.c_str()));
      TANDEM_ASSERT(function, "no symbol ", segment.name);
      // Chunks begin at multiples of 16 units, so that vectors and cache lines are whole.
      int64_t size = (segment.units + count - 1) / count;
      if (segment.elements_per_unit == 1) size = (size + 15) / 16 * 16;
      int64_t made = 0;
      for (int64_t begin = 0; begin < segment.units; begin += size, ++made) {
        step->chunks.push_back({function, reinterpret_cast<char* const*>(table.data()), step->partials[s].data() + made * segment.partials * 8,
                                static_cast<long>(begin), static_cast<long>(std::min(segment.units, begin + size))});
        step->costs.push_back((step->costs.empty() ? 0 : step->costs.back()) +
                              static_cast<double>(std::min(segment.units, begin + size) - begin) * static_cast<double>(segment.elements_per_unit) * segment.cost);
      }
      step->chunk_counts.push_back(static_cast<long>(made));
    }
    for (std::vector<char>& partials : step->partials) step->partial_pointers.push_back(partials.data());
    step->parallel = step->chunks.size() > 1;
    double total = 0;
    for (const SegmentCall& segment : call.segments) total += static_cast<double>(segment.units) * static_cast<double>(segment.elements_per_unit) * segment.cost;
    step->parallel = step->parallel && total > 2 * kChunkCost;
    if (!call.finish.empty()) {
      step->finish = reinterpret_cast<FinishFn>(library->symbol(call.finish.c_str()));
      TANDEM_ASSERT(step->finish, "no symbol ", call.finish);
      step->finish_buffers.assign(call.finish_buffers.size() + 1, nullptr);
      for (size_t b = 0; b < call.finish_buffers.size(); ++b) use(value_of(call.finish_buffers[b]), &step->finish_buffers[b]);
    }
    return step;
  }

  void bind_leaves() {
    owned.resize(graph.leaves.size());
    bound.resize(graph.leaves.size());
    for (size_t i = 0; i < graph.leaves.size(); ++i) {
      const Leaf& leaf = graph.leaves[i];
      if (leaf.kind == LeafKind::scalar) {
        const ValueType& t = type(leaf.value);
        owned[i] = is_floating(t.dtype) ? Arg(leaf.number).scalar(t.dtype) : Arg(static_cast<int64_t>(leaf.number)).scalar(t.dtype);
        base_at(leaf.value).bind(owned[i].impl()->data);
      } else if (leaf.kind != LeafKind::argument) {
        bound[i] = leaf.tensor;
      }
    }
  }

  /// Memory that a run changes is known to the graph under one name: an argument that lies there as well would be
  /// read before or after the change as the schedule has it, and its gradient would be lost.
  void refuse_aliases(const Tensors& arguments) const {
    for (size_t a = 0; a < arguments.size(); ++a) {
      const TensorImpl* argument = arguments[a].impl();
      const auto fail = [&](const char* what, Where where) {
        throw TraceError(detail::str("compiled function: argument ", a, ", ", type_of(arguments[a]), ", ", what,
                                     ". Use it either as an argument or from outside, or pass clone() of it"), where);
      };
      for (const StateWrite& write : graph.writes)
        if (argument->storage && bound[static_cast<size_t>(write.leaf)].impl()->storage == argument->storage)
          fail("shares its memory with a tensor from outside that the function assigns to", write.where);
      if (argument->requires_grad)
        for (const GradientWrite& write : graph.gradients)
          if (write.tensor.impl() == argument) fail("is also a tensor from outside that the function computes the gradient of", called_at);
    }
  }

  Base& base_at(int value) { return bases[static_cast<size_t>(base_of[static_cast<size_t>(value)])]; }

  // ---- Running.

  Tensors run(const Tensors& arguments) {
    refuse_aliases(arguments);
    for (size_t i = 0; i < graph.leaves.size(); ++i) {
      const Leaf& leaf = graph.leaves[i];
      switch (leaf.kind) {
        case LeafKind::argument: bind_argument(leaf, arguments[static_cast<size_t>(leaf.argument)]); break;
        case LeafKind::gradient: base_at(leaf.value).bind((leaf.argument >= 0 ? arguments[static_cast<size_t>(leaf.argument)] : bound[i]).impl()->grad.impl()->data); break;
        case LeafKind::state:
        case LeafKind::constant:
          if (!bound[i].defined()) throw GraphError("run: this graph was read from text, so its state leaves have no tensors; bind them first", Where::current());
          base_at(leaf.value).bind(bound[i].impl()->data);
          break;
        case LeafKind::scalar: break;
      }
    }
    Tensors results;
    results.reserve(outputs.size());
    for (const Result& result : outputs) {
      if (capturable) {
        results.push_back(header_of(type(result.value)));
        results.back().impl()->allocate();
        base_at(result.value).bind(fixed_at(result.base, type(result.value)));
      } else {
        results.push_back(fresh(result.value, result.base));
      }
    }
    Tensors new_gradients;
    for (const Gradient& gradient : gradients) {
      if (gradient.value < 0) {
        new_gradients.emplace_back();
        continue;
      }
      // The gradient of the last call is written over if nobody else holds it.
      const Tensor& target = gradient.write->argument >= 0 ? arguments[static_cast<size_t>(gradient.write->argument)] : gradient.write->tensor;
      Tensor& old = target.impl()->grad;
      const ValueType& t = type(gradient.value);
      if (gradient.recycle && old.defined() && old.impl()->references.load() == 1 && old.impl()->storage && old.impl()->storage->references() == 1 && !old.requires_grad() &&
          type_of(old) == t && old.impl()->offset == 0 && static_cast<int64_t>(old.impl()->storage->bytes) == bytes_of(t)) {
        base_at(gradient.value).bind(old.impl()->data);
        new_gradients.push_back(std::move(old));
      } else {
        new_gradients.push_back(fresh(gradient.value, gradient.base));
      }
    }
    for (const auto& [leaf, index] : number_leaves) host_numbers.set(index, base_at(graph.leaves[static_cast<size_t>(leaf)].value).data);
    host_numbers.upload();
    if (capturable) run_captured();
    else run_steps();
    if (capturable)
      for (size_t i = 0; i < outputs.size(); ++i)
        backend(device.kind).copy(results[i].impl()->data, device, fixed[static_cast<size_t>(outputs[i].base)].impl()->data, device,
                                  static_cast<size_t>(bytes_of(type(outputs[i].value))));
    for (int base : released_last) release(base);
    for (const StateWrite& write : graph.writes) {
      Storage* storage = bound[static_cast<size_t>(write.leaf)].impl()->storage;
      ++storage->version;
      storage->last_write = write.where;
    }
    for (size_t i = 0; i < gradients.size(); ++i) {
      const Gradient& gradient = gradients[i];
      const Tensor& target = gradient.write->argument >= 0 ? arguments[static_cast<size_t>(gradient.write->argument)] : gradient.write->tensor;
      target.impl()->grad = std::move(new_gradients[i]);
    }
    if (graph.draws) default_generator().set_draws(default_generator().draws() + static_cast<uint64_t>(graph.draws));
    return results;
  }

  void run_steps() {
    for (Step& step : steps) run_step(step);
    for (LateWrite& write : late_writes) {
      KernelContext context(*write.copy.op, write.copy.inputs, write.copy.attributes, write.copy.outputs, write.copy.where);
      (write.copy.outputs[0].device().is_cpu() ? write.copy.op->cpu : write.copy.op->cuda)(context);
    }
  }

  /// A captured run repeats the same addresses: it is recorded when two calls in a row had them, after a first run
  /// that let libraries and the allocator settle.
  void run_captured() {
    std::vector<void*> now;
    for (const Base& base : bases) now.push_back(base.data);
    if (capture && now == captured_bases) return capture->launch();
    const bool settled = now == last_bases;
    last_bases = std::move(now);
    if (!settled) return run_steps();
    capture = std::make_unique<gpu::Capture>(device);
    capture->record([&] { run_steps(); });
    captured_bases = last_bases;
    capture->launch();
  }

  /// Memory of the program's own for a base whose tensor is another one at each call.
  void* fixed_at(int base, const ValueType& t) {
    fixed.resize(bases.size());
    Tensor& place = fixed[static_cast<size_t>(base)];
    if (!place.defined()) {
      place = header_of(t);
      place.impl()->allocate();
    }
    return place.impl()->data;
  }
  void bind_argument(const Leaf& leaf, const Tensor& argument) {
    void* data = argument.impl()->data;
    if (capturable && argument.device() == device) {
      void* place = fixed_at(base_of[static_cast<size_t>(leaf.value)], type(leaf.value));
      backend(device.kind).copy(place, device, data, device, static_cast<size_t>(bytes_of(type(leaf.value))));
      data = place;
    }
    base_at(leaf.value).bind(data);
  }

  Tensor fresh(int value, int base) {
    Tensor result = header_of(type(value));
    result.impl()->allocate();
    bases[static_cast<size_t>(base)].bind(result.impl()->data);
    return result;
  }

  void run_step(Step& step) {
    for (int value : step.allocate) {
      const int base = base_of[static_cast<size_t>(value)];
      release(base);  // left over where the last run threw
      base_storage[static_cast<size_t>(base)] = Storage::allocate(static_cast<size_t>(bytes_of(type(value))), type(value).device);
      bases[static_cast<size_t>(base)].bind(base_storage[static_cast<size_t>(base)]->data);
    }
    if (step.kernel) {
      const KernelStep& k = *step.kernel;
      const KernelFn kernel = k.outputs[0].device().is_cpu() ? k.op->cpu : k.op->cuda;
      if (!kernel) [[unlikely]]
        throw KernelError(detail::str(k.op->name, ": no kernel for this device yet; move the operands to another"), k.where);
      KernelContext context(*k.op, k.inputs, k.attributes, k.outputs, k.where);
      kernel(context);
    } else if (!step.fused) {
      for (const auto& launch : step.launches) launch->run();
    } else {
      FusedStep& f = *step.fused;
      const int64_t count = static_cast<int64_t>(f.chunks.size());
      const Chunk* chunks = f.chunks.data();
      const auto run_chunks = [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) chunks[c].function(chunks[c].buffers, chunks[c].partials, chunks[c].begin, chunks[c].end);
      };
      if (f.parallel) {
        const int64_t threads = std::min<int64_t>(count, num_threads());
        parallel_for(threads, 1, [&](int64_t begin, int64_t end) { run_chunks(f.share(begin, threads), f.share(end, threads)); });
      } else {
        run_chunks(0, count);
      }
      if (f.finish) f.finish(reinterpret_cast<char* const*>(f.finish_buffers.data()), f.partial_pointers.data(), f.chunk_counts.data());
    }
    for (int base : step.release) release(base);
  }

  void release(int base) {
    if (Storage*& storage = base_storage[static_cast<size_t>(base)]; storage) {
      storage->release();
      storage = nullptr;
    }
  }
};

Program::Program(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Program::~Program() {
  for (Storage* storage : impl_->base_storage)
    if (storage) storage->release();
}

std::unique_ptr<Program> Program::build(Graph graph, ProgramOptions options, Where where, std::string* reason) {
  auto impl = std::make_unique<Impl>();
  impl->graph = std::move(graph);
  impl->options = options;
  impl->called_at = where;
  if (!impl->build(where, reason)) return nullptr;
  return std::unique_ptr<Program>(new Program(std::move(impl)));
}

Tensors Program::run(const Tensors& arguments) { return impl_->run(arguments); }
const Graph& Program::graph() const { return impl_->graph; }
const ProgramStats& Program::stats() const { return impl_->stats; }
const std::string& Program::source() const { return impl_->source; }
void Program::bind(int leaf, const Tensor& tensor) { impl_->bound[static_cast<size_t>(leaf)] = tensor; }

void Program::set_number(int leaf, double number) {
  Tensor& scalar = impl_->owned[static_cast<size_t>(leaf)];
  const Tensor next = is_floating(scalar.dtype()) ? Arg(number).scalar(scalar.dtype()) : Arg(static_cast<int64_t>(number)).scalar(scalar.dtype());
  std::memcpy(scalar.impl()->data, next.impl()->data, static_cast<size_t>(size_of(scalar.dtype())));
}

std::string Program::describe() const {
  std::string text;
  for (const Step& step : impl_->steps) {
    const Node& node = impl_->graph.nodes[static_cast<size_t>(step.node)];
    text += node.fused ? "fused" : node.op->name;
    if (node.fused) text += " {" + node.attributes.text("ops") + "}";
    for (int output : node.outputs) text += detail::str(" -> ", impl_->type(output));
    if (node.where.line()) text += "  # " + to_string(node.where);
    text += "\n";
  }
  return text;
}

}  // namespace tandem::graph
