// Runs: binding what a call brings, then the steps in turn.
#include "graph/run/run.h"

#include <cstring>

#include "core/held_memory.h"
#include "core/random.h"
#include "core/spare_memory.h"

namespace tandem::graph {

namespace {
constexpr size_t kHeld = 64 << 10;  ///< bytes of an arena that isn't rounded up to what the allocator caches

/// For the length of a scope, the gap that the step leaves is what kernels may use.
class Spare {
 public:
  Spare(const PlanStep* step, const std::vector<char*>& arenas) : before_(spare_memory) {
    spare_memory = {};
    if (step && step->spare_arena >= 0)
      spare_memory = {arenas[step->spare_arena] + step->spare_offset, static_cast<size_t>(step->spare_bytes)};
  }
  ~Spare() { spare_memory = before_; }
  Spare(const Spare&) = delete;
  Spare& operator=(const Spare&) = delete;

 private:
  const SpareMemory before_;
};

/// Nobody else holds it, and it is laid out as the type says.
bool may_write_over(const TensorImpl& old, const ValueType& type) {
  return old.references.load() == 1 && old.storage && old.storage->references() == 1 && !old.requires_grad &&
         old.dtype == type.dtype && old.device == type.device && old.shape == type.shape &&
         old.strides == type.strides && old.offset == 0 && static_cast<int64_t>(old.storage->bytes) == bytes_of(type);
}
}  // namespace

Run::Run(const Plan& plan, const Bindings& bindings, std::span<const std::unique_ptr<Kernels>> code)
    : plan_(plan), bindings_(bindings), spots_(plan.places.size()), headers_(plan.graph.values.size()) {
  if (!plan.numbers.empty()) {
    numbers_.resize(plan.number_bytes(), 0);
    numbers_changed_ = true;
    for (const Device& device : plan.devices) on_devices_.emplace_back(numbers_.size(), device);
  }
  make_steps(code);
  for (size_t p = 0; p < spots_.size(); ++p) {
    const PlanPlace& place = plan.places[p];
    if (place.kind == PlaceKind::leaf && plan.graph.leaf(place.index).kind == LeafKind::scalar)
      spots_[p].bind(bindings.numbers[place.index].impl()->data);
  }
}

void Run::bind_arenas() {
  if (lent_) {
    arena_at_.assign(plan_.arenas.size(), static_cast<char*>(lent_));
  } else {
    for (size_t i = arenas_.size(); i < plan_.arenas.size(); ++i) {
      const Arena& arena = plan_.arenas[i];
      const size_t bytes = std::max<int64_t>(arena.bytes, 1);
      if (bytes < kHeld) arenas_.emplace_back(bytes, arena.device);
      else arenas_.emplace_back(allocate_held(bytes, arena.device));
    }
    arena_at_.clear();
    for (const Memory& arena : arenas_) arena_at_.push_back(arena.data());
  }
  for (size_t p = 0; p < spots_.size(); ++p) {
    const PlanPlace& place = plan_.places[p];
    if (place.kind == PlaceKind::arena) spots_[p].bind(arena_at_[place.index] + place.offset);
  }
  arenas_bound_ = true;
}

void Run::lend_arena(void* memory) {
  TANDEM_ASSERT(!memory || plan_.arenas.size() == 1, "memory for ", plan_.arenas.size(), " arenas");
  if (lent_ != memory) arenas_bound_ = false;
  lent_ = memory;
}

void Run::make_steps(std::span<const std::unique_ptr<Kernels>> code) {
  const Graph& graph = plan_.graph;
  for (const PlanStep& planned : plan_.steps) {
    const Node& node = graph.node(planned.node);
    Step step{.op = node.op, .attributes = &node.attributes, .where = node.where, .plan = &planned};
    if (node.fused) {
      const int inputs = static_cast<int>(node.inputs.size());
      step.launch = code[planned.code]->launch(planned.kernel, [&](int buffer, void** address) {
        const int value = buffer < inputs ? node.inputs[buffer] : node.outputs[buffer - inputs];
        if (plan_.location(value).number >= 0) *address = number_at(value, planned.device);
        else use(value, address);
      });
    } else {
      step.kernel = kernel_for(*node.op, planned.device);
      for (int input : node.inputs) {
        if (plan_.recorded && plan_.location(input).number >= 0) {
          ValueType there = plan_.type(input);
          there.device = planned.device;
          step.inputs.push_back(header_of(there));
          step.inputs.back().impl()->data = number_at(input, planned.device);
        } else {
          step.inputs.push_back(header(input));
        }
      }
      for (int output : node.outputs) step.outputs.push_back(header(output));
    }
    steps_.push_back(std::move(step));
  }
  static const Op& copy = find_op("copy");
  static const Attributes none;
  for (const LateWrite& write : plan_.late_writes) {
    const int state = graph.leaf(write.leaf).value;
    steps_.push_back({.op = &copy,
                      .attributes = &none,
                      .where = write.where,
                      .kernel = kernel_for(copy, plan_.type(state).device),
                      .inputs = {header(write.value)},
                      .outputs = {header(state)}});
  }
}

void Run::use(int value, void** pointer) { spot(value).uses.push_back({pointer, plan_.location(value).offset, value}); }

void Run::resize(std::span<const int> values) {
  for (const int value : values)
    if (const Tensor& header = headers_[value]; header.defined()) {
      const ValueType& type = plan_.type(value);
      header.impl()->set_layout(type.shape, type.strides);
    }
  for (Spot& spot : spots_)
    for (Use& use : spot.uses)
      if (const int64_t offset = plan_.location(use.value).offset; offset != use.offset) {
        use.offset = offset;
        if (spot.data) *use.pointer = static_cast<char*>(spot.data) + offset;
      }
  for (Step& step : steps_)
    if (step.launch) step.launch->resize();
}

Tensor Run::header(int value) {
  Tensor& made = headers_[value];
  if (!made.defined()) {
    made = header_of(plan_.type(value), plan_.graph.is_number(value));
    use(value, &made.impl()->data);
  }
  return made;
}

Tensors Run::operator()(const Tensors& arguments) {
  const Graph& graph = plan_.graph;
  take_draws();
  bind_leaves(arguments);
  Tensors results;
  results.reserve(graph.outputs.size());
  for (int output : graph.outputs) results.push_back(fresh(output));
  bind_results(results);
  Tensors new_gradients = make_gradients(arguments);
  run_bound(results);
  for (const StateWrite& write : graph.writes) {
    Storage& storage = *bindings_.tensor_of(graph, write.leaf, arguments).impl()->storage;
    ++storage.version;
    storage.last_write = write.where;
  }
  for (size_t i = 0; i < new_gradients.size(); ++i) {
    const GradientWrite& write = graph.gradients[i];
    (write.argument >= 0 ? arguments[write.argument] : write.tensor).impl()->grad = std::move(new_gradients[i]);
  }
  if (graph.draws && !key_) default_generator().advance(static_cast<uint64_t>(graph.draws));
  return results;
}

void Run::into(std::span<const Tensor> arguments, std::span<const Tensor> results) {
  bind_leaves(arguments);
  bind_results(results);
  run_bound(results);
}

void Run::run_bound(std::span<const Tensor> results) {
  if (!arenas_bound_) bind_arenas();
  const Graph& graph = plan_.graph;
  upload_numbers();
  if (plan_.recorded) {
    run_recorded();
    for (size_t i = 0; i < results.size(); ++i)
      backend(plan_.device.kind)
          .copy(results[i].impl()->data, plan_.device, spot(graph.outputs[i]).data, plan_.device,
                bytes_of(plan_.type(graph.outputs[i])));
  } else {
    run_steps();
  }
  for (int place : plan_.release_last) spots_[place].memory = Memory();
}

void Run::take_draws() {
  key_.reset();
  if (plan_.graph.draws == 0 || !thread_state.draws) return;
  const Draw first = next_draw(plan_.graph.draws);
  const auto* words = static_cast<const int64_t*>(first.key.impl()->data);
  key_ = {words[0], words[1] + first.site};
}

void Run::bind_leaves(std::span<const Tensor> arguments) {
  const Graph& graph = plan_.graph;
  for (size_t i = 0; i < graph.leaves.size(); ++i) {
    const Leaf& leaf = graph.leaves[i];
    const Tensor& bound = bindings_.tensors[i];
    switch (leaf.kind) {
      case LeafKind::argument: {
        void* data = arguments[leaf.argument].impl()->data;
        if (plan_.recorded && arguments[leaf.argument].impl()->device == plan_.device) {
          void* place = fixed(spot(leaf.value), plan_.type(leaf.value));
          backend(plan_.device.kind).copy(place, plan_.device, data, plan_.device, bytes_of(plan_.type(leaf.value)));
          data = place;
        }
        spot(leaf.value).bind(data);
        break;
      }
      case LeafKind::gradient:
        spot(leaf.value).bind(bindings_.tensor_of(graph, static_cast<int>(i), arguments).impl()->data);
        break;
      case LeafKind::state:
      case LeafKind::constant:
        if (!bound.defined())
          throw GraphError("run: this graph was read from text, so its state leaves have no tensors; bind them first",
                           Where::current());
        spot(leaf.value)
            .bind(key_ && bound.impl() == default_generator().state().impl() ? key_->data() : bound.impl()->data);
        break;
      case LeafKind::scalar: break;
    }
  }
}

void* Run::fixed(Spot& spot, const ValueType& type) {
  if (!spot.memory.data()) spot.memory = Memory(bytes_of(type), type.device);
  return spot.memory.data();
}

Tensor Run::fresh(int value) {
  Tensor result = header_of(plan_.type(value));
  result.impl()->allocate();
  return result;
}

void Run::bind_results(std::span<const Tensor> results) {
  for (size_t i = 0; i < results.size(); ++i) {
    const int output = plan_.graph.outputs[i];
    Spot& place = spot(output);
    place.bind(plan_.recorded ? fixed(place, plan_.type(output)) : results[i].impl()->data);
  }
}

Tensors Run::make_gradients(const Tensors& arguments) {
  Tensors made;
  made.reserve(plan_.gradients.size());
  for (size_t i = 0; i < plan_.gradients.size(); ++i) {
    const NewGradient& gradient = plan_.gradients[i];
    if (gradient.value < 0) {
      made.emplace_back();
      continue;
    }
    const GradientWrite& write = plan_.graph.gradients[i];
    Tensor& old = (write.argument >= 0 ? arguments[write.argument] : write.tensor).impl()->grad;
    const ValueType& type = plan_.type(gradient.value);
    const bool recycled = gradient.recycle && old.defined() && may_write_over(*old.impl(), type);
    made.push_back(recycled ? old : fresh(gradient.value));  // old stays where it is: a step may throw
    spot(gradient.value).bind(made.back().impl()->data);
  }
  return made;
}

void Run::upload_numbers() {
  if (plan_.numbers.empty()) return;
  for (const HostNumber& number : plan_.numbers) {
    const void* from = spot(plan_.graph.leaf(number.leaf).value).data;
    if (std::memcmp(numbers_.data() + number.offset, from, number.bytes) == 0) continue;
    std::memcpy(numbers_.data() + number.offset, from, number.bytes);
    numbers_changed_ = true;
  }
  if (numbers_changed_)
    for (size_t i = 0; i < on_devices_.size(); ++i) {
      const Device device = plan_.devices[i];
      backend(device.kind).copy(on_devices_[i].data(), device, numbers_.data(), cpu(), numbers_.size());
    }
  numbers_changed_ = false;
}

void Run::run_steps() {
  for (Step& step : steps_) run_step(step);
}

void Run::run_recorded() {
  std::vector<void*> now;
  for (const Spot& each : spots_) now.push_back(each.data);
  if (recording_ && now == recorded_at_) return recording_->launch();
  const bool settled = now == last_at_;
  last_at_ = std::move(now);
  if (!settled) return run_steps();
  auto recording = runtime_for(plan_.device).recording(plan_.device);
  recording->record([&] { run_steps(); });
  recording_ = std::move(recording);
  recorded_at_ = last_at_;
  recording_->launch();
}

void Run::run_step(Step& step) try {
  if (step.plan)
    for (int place : step.plan->allocate) {
      const ValueType& type = plan_.type(plan_.places[place].value);
      spots_[place].memory = Memory();  // left over where the last run threw
      spots_[place].memory = Memory(bytes_of(type), type.device);
      spots_[place].bind(spots_[place].memory.data());
    }
  if (step.launch) {
    step.launch->run();
  } else {
    if (!step.kernel) [[unlikely]]
      throw KernelError(detail::str(step.op->name, ": no kernel for this device yet; move the operands to another"),
                        step.where);
    KernelContext context(*step.op, step.inputs, *step.attributes, step.outputs, step.where);
    const Spare spare(step.plan, arena_at_);
    step.kernel(context);
  }
  if (step.plan)
    for (int place : step.plan->release) spots_[place].memory = Memory();
} catch (...) { detail::rethrow_named(step.op->name, step.where); }

}  // namespace tandem::graph
