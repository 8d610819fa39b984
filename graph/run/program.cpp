// Running programs: binding what a call brings, then the steps in turn.
#include "graph/run/program.h"

#include <algorithm>
#include <cstring>

#include "core/ops/ops.h"
#include "core/random.h"
#include "graph/run/program_impl.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem::graph {

void Program::Impl::refuse_aliases(const Tensors& arguments) const {
  for (size_t a = 0; a < arguments.size(); ++a) {
    const TensorImpl* argument = arguments[a].impl();
    const auto fail = [&](const char* what, Where where) {
      throw TraceError(detail::str("compiled function: argument ", a, ", ", type_of(arguments[a]), ", ", what,
                                   ". Use it either as an argument or from outside, or pass clone() of it"),
                       where);
    };
    for (const StateWrite& write : graph.writes)
      if (argument->storage && bound[static_cast<size_t>(write.leaf)].impl()->storage == argument->storage)
        fail("shares its memory with a tensor from outside that the function assigns to", write.where);
    if (argument->requires_grad)
      for (const GradientWrite& write : graph.gradients)
        if (write.tensor.impl() == argument)
          fail("is also a tensor from outside that the function computes the gradient of", called_at);
  }
}

Tensors Program::Impl::run(const Tensors& arguments) {
  refuse_aliases(arguments);
  for (size_t i = 0; i < graph.leaves.size(); ++i) {
    const Leaf& leaf = graph.leaves[i];
    switch (leaf.kind) {
      case LeafKind::argument: bind_argument(leaf, arguments[static_cast<size_t>(leaf.argument)]); break;
      case LeafKind::gradient:
        base_at(leaf.value)
            .bind((leaf.argument >= 0 ? arguments[static_cast<size_t>(leaf.argument)] : bound[i])
                      .impl()
                      ->grad.impl()
                      ->data);
        break;
      case LeafKind::state:
      case LeafKind::constant:
        if (!bound[i].defined())
          throw GraphError("run: this graph was read from text, so its state leaves have no tensors; bind them first",
                           Where::current());
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
    const Tensor& target = gradient.write->argument >= 0 ? arguments[static_cast<size_t>(gradient.write->argument)]
                                                         : gradient.write->tensor;
    Tensor& old = target.impl()->grad;
    const ValueType& t = type(gradient.value);
    if (gradient.recycle && old.defined() && old.impl()->references.load() == 1 && old.impl()->storage &&
        old.impl()->storage->references() == 1 && !old.requires_grad() && type_of(old) == t &&
        old.impl()->offset == 0 && static_cast<int64_t>(old.impl()->storage->bytes) == bytes_of(t)) {
      base_at(gradient.value).bind(old.impl()->data);
      new_gradients.push_back(std::move(old));
    } else {
      new_gradients.push_back(fresh(gradient.value, gradient.base));
    }
  }
  for (const auto& [leaf, index] : number_leaves)
    host_numbers.set(index, base_at(graph.leaves[static_cast<size_t>(leaf)].value).data);
  host_numbers.upload();
  if (capturable) run_captured();
  else run_steps();
  if (capturable)
    for (size_t i = 0; i < outputs.size(); ++i)
      backend(device.kind)
          .copy(results[i].impl()->data, device, fixed[static_cast<size_t>(outputs[i].base)].impl()->data, device,
                static_cast<size_t>(bytes_of(type(outputs[i].value))));
  for (int base : released_last) release(base);
  for (const StateWrite& write : graph.writes) {
    Storage* storage = bound[static_cast<size_t>(write.leaf)].impl()->storage;
    ++storage->version;
    storage->last_write = write.where;
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Gradient& gradient = gradients[i];
    const Tensor& target = gradient.write->argument >= 0 ? arguments[static_cast<size_t>(gradient.write->argument)]
                                                         : gradient.write->tensor;
    target.impl()->grad = std::move(new_gradients[i]);
  }
  if (graph.draws) default_generator().set_draws(default_generator().draws() + static_cast<uint64_t>(graph.draws));
  return results;
}

void Program::Impl::run_steps() {
  for (Step& step : steps) run_step(step);
  for (LateWrite& write : late_writes) {
    KernelContext context(*write.copy.op, write.copy.inputs, write.copy.attributes, write.copy.outputs,
                          write.copy.where);
    kernel_for(*write.copy.op, write.copy.outputs[0].device())(context);
  }
}

void Program::Impl::run_captured() {
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

void* Program::Impl::fixed_at(int base, const ValueType& t) {
  fixed.resize(bases.size());
  Tensor& place = fixed[static_cast<size_t>(base)];
  if (!place.defined()) {
    place = header_of(t);
    place.impl()->allocate();
  }
  return place.impl()->data;
}

void Program::Impl::bind_argument(const Leaf& leaf, const Tensor& argument) {
  void* data = argument.impl()->data;
  if (capturable && argument.device() == device) {
    void* place = fixed_at(base_of[static_cast<size_t>(leaf.value)], type(leaf.value));
    backend(device.kind).copy(place, device, data, device, static_cast<size_t>(bytes_of(type(leaf.value))));
    data = place;
  }
  base_at(leaf.value).bind(data);
}

Tensor Program::Impl::fresh(int value, int base) {
  Tensor result = header_of(type(value));
  result.impl()->allocate();
  bases[static_cast<size_t>(base)].bind(result.impl()->data);
  return result;
}

void Program::Impl::run_step(Step& step) {
  for (int value : step.allocate) {
    const int base = base_of[static_cast<size_t>(value)];
    release(base);  // left over where the last run threw
    base_storage[static_cast<size_t>(base)] =
        Storage::allocate(static_cast<size_t>(bytes_of(type(value))), type(value).device);
    bases[static_cast<size_t>(base)].bind(base_storage[static_cast<size_t>(base)]->data);
  }
  if (step.kernel) {
    const KernelStep& k = *step.kernel;
    const KernelFn kernel = kernel_for(*k.op, k.outputs[0].device());
    if (!kernel) [[unlikely]]
      throw KernelError(detail::str(k.op->name, ": no kernel for this device yet; move the operands to another"),
                        k.where);
    KernelContext context(*k.op, k.inputs, k.attributes, k.outputs, k.where);
    kernel(context);
  } else if (!step.fused) {
    for (const auto& launch : step.launches) launch->run();
  } else {
    FusedStep& f = *step.fused;
    const int64_t count = static_cast<int64_t>(f.chunks.size());
    const Chunk* chunks = f.chunks.data();
    const auto run_chunks = [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c)
        chunks[c].function(chunks[c].buffers, chunks[c].partials, chunks[c].begin, chunks[c].end);
    };
    if (f.parallel) {
      const int64_t threads = std::min<int64_t>(count, num_threads());
      parallel_for(threads, 1,
                   [&](int64_t begin, int64_t end) { run_chunks(f.share(begin, threads), f.share(end, threads)); });
    } else {
      run_chunks(0, count);
    }
    if (f.finish)
      f.finish(reinterpret_cast<char* const*>(f.finish_buffers.data()), f.partial_pointers.data(),
               f.chunk_counts.data());
  }
  for (int base : step.release) release(base);
}

void Program::Impl::release(int base) {
  if (Storage*& storage = base_storage[static_cast<size_t>(base)]; storage) {
    storage->release();
    storage = nullptr;
  }
}

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
  const Tensor next = is_floating(scalar.dtype()) ? Arg(number).scalar(scalar.dtype())
                                                  : Arg(static_cast<int64_t>(number)).scalar(scalar.dtype());
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
