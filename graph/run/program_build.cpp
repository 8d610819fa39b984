// Building a program: where every value lies, what runs in which order, and the memory of it all.
#include <algorithm>
#include <chrono>

#include "core/ops/ops.h"
#include "graph/passes/pass.h"
#include "graph/run/memory_plan.h"
#include "graph/run/program_impl.h"

namespace tandem::graph {

namespace {

constexpr double kChunkCost = 48 * 1024;  ///< simple operations that are worth a chunk of their own
constexpr int64_t kMostChunks = 64;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

void Program::Impl::separate_results() {
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

bool Program::Impl::build(Where where, std::string* reason) {
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
    for (int input : node.inputs)
      readers[static_cast<size_t>(references[static_cast<size_t>(input)].base)].push_back(s);
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
    bool direct = options.in_place && made >= 0 && !special[static_cast<size_t>(write.value)] &&
                  base_of[static_cast<size_t>(write.value)] < 0 && type(write.value) == type(leaf.value) && alone(leaf);
    for (int reader : readers[static_cast<size_t>(leaf.value)]) direct = direct && reader <= made;
    const auto& read_by = readers[static_cast<size_t>(leaf.value)];
    if (direct && std::find(read_by.begin(), read_by.end(), made) != read_by.end())
      direct = safe_in_place(graph.nodes[static_cast<size_t>(order[static_cast<size_t>(made)])], leaf.value,
                             write.value, references);
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
    late_writes.push_back(
        {write.leaf, {&find_op("copy"), {header(write.value)}, {header(leaf.value)}, {}, write.where}});
    // A late value lives until the end.
    readers[static_cast<size_t>(references[static_cast<size_t>(write.value)].base)].push_back(
        static_cast<int>(order.size()));
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
    const InterceptorScope eager(nullptr);
    arena = empty({std::max<int64_t>(plan.bytes, 1)}, {.dtype = uint8, .device = device});
    for (size_t i = 0; i < intermediate.size(); ++i)
      bases[static_cast<size_t>(base_of[static_cast<size_t>(intermediate[i])])].bind(
          static_cast<char*>(arena.impl()->data) + planned[i].offset);
  } else {
    for (size_t i = 0; i < intermediate.size(); ++i) {
      const int base = base_of[static_cast<size_t>(intermediate[i])];
      steps[static_cast<size_t>(lifetimes[i].first)].allocate.push_back(intermediate[i]);
      (lifetimes[i].last < static_cast<int>(steps.size()) ? steps[static_cast<size_t>(lifetimes[i].last)].release
                                                          : released_last)
          .push_back(base);
    }
  }
  bind_leaves();
  for (int output : graph.outputs) outputs.push_back({output, base_of[static_cast<size_t>(output)]});
  for (const GradientWrite& write : graph.gradients) {
    bool recycle = true;  // unless the old gradient is read
    for (const Leaf& leaf : graph.leaves)
      recycle = recycle && !(leaf.kind == LeafKind::gradient && leaf.argument == write.argument &&
                             leaf.tensor.impl() == write.tensor.impl());
    gradients.push_back(
        {&write, write.value, write.value >= 0 ? base_of[static_cast<size_t>(write.value)] : -1, recycle});
  }
  return true;
}

bool Program::Impl::alone(const Leaf& leaf) const {
  if (!leaf.tensor.defined() || leaf.kind != LeafKind::state) return false;
  for (const Leaf& other : graph.leaves)
    if (&other != &leaf && other.tensor.defined() && other.kind != LeafKind::gradient &&
        other.tensor.shares_storage(leaf.tensor))
      return false;
  return true;
}

bool Program::Impl::safe_in_place(const Node& node, int state, int value,
                                  const std::vector<Reference>& references) const {
  if (!node.fused) {
    for (int input : node.inputs)
      if (references[static_cast<size_t>(input)].base == state && input != state) return false;
    return node.op->in_place;
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
      if (statement.buffer < 0 || static_cast<size_t>(statement.buffer) >= node.inputs.size() ||
          statement.kind == LoopOp::literal)
        continue;
      if (references[static_cast<size_t>(node.inputs[static_cast<size_t>(statement.buffer)])].base != state) continue;
      if (!mine || segment.by_row || statement.kind != LoopOp::load) return false;
      if (statement.position.offset != mine->position.offset || statement.position.strides != mine->position.strides)
        return false;
    }
  }
  for (const Statement& statement : kernel.finish.statements)
    if (statement.kind == LoopOp::load &&
        references[static_cast<size_t>(node.inputs[static_cast<size_t>(statement.buffer)])].base == state)
      return false;
  return true;
}

Tensor Program::Impl::header(int value) {
  Tensor& made = header_of_value[static_cast<size_t>(value)];
  if (!made.defined()) {
    const int leaf = graph.leaf_of(value);
    const bool scalar = leaf >= 0 && (graph.leaves[static_cast<size_t>(leaf)].kind == LeafKind::scalar ||
                                      (graph.leaves[static_cast<size_t>(leaf)].tensor.defined() &&
                                       graph.leaves[static_cast<size_t>(leaf)].tensor.impl()->is_scalar));
    made = header_of(type(value), scalar);
    Base& base = bases[static_cast<size_t>(base_of[static_cast<size_t>(value)])];
    base.uses.push_back({&made.impl()->data, offset_of[static_cast<size_t>(value)]});
  }
  return made;
}

void Program::Impl::find_device(const std::vector<int>& order) {
  capturable = options.planned;
  for (int n : order) {
    const Device at = type(graph.nodes[static_cast<size_t>(n)].outputs[0]).device;
    if (at.is_cuda()) device = at;
    else capturable = false;
  }
  if (!device.is_cuda()) return void(capturable = false);
  for (int n : order) {
    const Node& node = graph.nodes[static_cast<size_t>(n)];
    if (node.op->user) capturable = false;  // what it does on the device is its own business: allocate, wait, …
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
    if (leaf.kind == LeafKind::argument && !is_dense(type(leaf.value).shape, type(leaf.value).strides))
      capturable = false;
  if (host_numbers.empty()) return;
  host_numbers.allocate(device);
  for (const auto& [leaf, index] : number_leaves)
    number_headers[graph.leaves[static_cast<size_t>(leaf)].value].impl()->data = host_numbers.on_device(index);
}

Tensor Program::Impl::input_of(const Node& node, int value) {
  const auto number = number_headers.find(value);
  const bool there = capturable && type(node.outputs[0]).device.is_cuda() && number != number_headers.end();
  return there ? number->second : header(value);
}

void Program::Impl::use(int value, void** pointer) {
  bases[static_cast<size_t>(base_of[static_cast<size_t>(value)])].uses.push_back(
      {pointer, offset_of[static_cast<size_t>(value)]});
}

bool Program::Impl::make_steps(const std::vector<int>& order, Where where, std::string* reason) {
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
    stats.compiler_cached = cuda_kernels.from_cache;
    stats.note = cuda_kernels.note;
    cuda_module = cuda_kernels.module;
  }
  if (!source.empty()) {
    begin = std::chrono::steady_clock::now();
    library = load_c_source(source, where, reason);
    if (!library) return false;
    stats.compiler_seconds += seconds_since(begin);
    stats.compiler_cached = library->from_cache && (cuda_source.empty() || cuda_kernels.from_cache);
    if (!library->note.empty()) stats.note = library->note;
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

std::unique_ptr<CudaLaunch> Program::Impl::make_launch(const Node& node, const CudaKernelCall& call) {
  auto launch = std::make_unique<CudaLaunch>(call, *cuda_module, device);
  for (size_t b = 0; b < call.buffers.size(); ++b) {
    const auto buffer = static_cast<size_t>(call.buffers[b]);
    const int value = buffer < node.inputs.size() ? node.inputs[buffer] : node.outputs[buffer - node.inputs.size()];
    if (const auto number = number_headers.find(value); number != number_headers.end())
      launch->table[b] = number->second.impl()->data;
    else use(value, &launch->table[b]);
  }
  return launch;
}

std::unique_ptr<FusedStep> Program::Impl::make_fused(const Node& node, const KernelCall& call) {
  auto step = std::make_unique<FusedStep>();
  const auto value_of = [&](int buffer) {
    return static_cast<size_t>(buffer) < node.inputs.size()
               ? node.inputs[static_cast<size_t>(buffer)]
               : node.outputs[static_cast<size_t>(buffer) - node.inputs.size()];
  };
  step->buffers.resize(call.segments.size());
  step->partials.resize(call.segments.size());
  for (size_t s = 0; s < call.segments.size(); ++s) {
    const SegmentCall& segment = call.segments[s];
    std::vector<void*>& table = step->buffers[s];
    table.assign(segment.buffers.size() + 1, nullptr);
    for (size_t b = 0; b < segment.buffers.size(); ++b) use(value_of(segment.buffers[b]), &table[b]);
    const double cost =
        static_cast<double>(segment.units) * static_cast<double>(segment.elements_per_unit) * segment.cost;
    const int64_t count = std::clamp<int64_t>(static_cast<int64_t>(cost / kChunkCost), 1,
                                              std::min(kMostChunks, std::max<int64_t>(segment.units, 1)));
    step->partials[s].assign(static_cast<size_t>(count * segment.partials * 8 + 8), 0);
    auto* function = reinterpret_cast<SegmentFn>(library->symbol(segment.name.c_str()));
    TANDEM_ASSERT(function, "no symbol ", segment.name);
    // Chunks begin at multiples of 16 units, so that vectors and cache lines are whole.
    int64_t size = (segment.units + count - 1) / count;
    if (segment.elements_per_unit == 1) size = (size + 15) / 16 * 16;
    int64_t made = 0;
    for (int64_t begin = 0; begin < segment.units; begin += size, ++made) {
      step->chunks.push_back({function, reinterpret_cast<char* const*>(table.data()),
                              step->partials[s].data() + made * segment.partials * 8, static_cast<long>(begin),
                              static_cast<long>(std::min(segment.units, begin + size))});
      step->costs.push_back((step->costs.empty() ? 0 : step->costs.back()) +
                            static_cast<double>(std::min(segment.units, begin + size) - begin) *
                                static_cast<double>(segment.elements_per_unit) * segment.cost);
    }
    step->chunk_counts.push_back(static_cast<long>(made));
  }
  for (std::vector<char>& partials : step->partials) step->partial_pointers.push_back(partials.data());
  step->parallel = step->chunks.size() > 1;
  double total = 0;
  for (const SegmentCall& segment : call.segments)
    total += static_cast<double>(segment.units) * static_cast<double>(segment.elements_per_unit) * segment.cost;
  step->parallel = step->parallel && total > 2 * kChunkCost;
  if (!call.finish.empty()) {
    step->finish = reinterpret_cast<FinishFn>(library->symbol(call.finish.c_str()));
    TANDEM_ASSERT(step->finish, "no symbol ", call.finish);
    step->finish_buffers.assign(call.finish_buffers.size() + 1, nullptr);
    for (size_t b = 0; b < call.finish_buffers.size(); ++b)
      use(value_of(call.finish_buffers[b]), &step->finish_buffers[b]);
  }
  return step;
}

void Program::Impl::bind_leaves() {
  owned.resize(graph.leaves.size());
  bound.resize(graph.leaves.size());
  for (size_t i = 0; i < graph.leaves.size(); ++i) {
    const Leaf& leaf = graph.leaves[i];
    if (leaf.kind == LeafKind::scalar) {
      const ValueType& t = type(leaf.value);
      owned[i] = is_floating(t.dtype) ? Arg(leaf.number).scalar(t.dtype)
                                      : Arg(static_cast<int64_t>(leaf.number)).scalar(t.dtype);
      base_at(leaf.value).bind(owned[i].impl()->data);
    } else if (leaf.kind != LeafKind::argument) {
      bound[i] = leaf.tensor;
    }
  }
}

}  // namespace tandem::graph
