// dispatch: infer, run, record.
#include "core/dispatch.h"

#include <algorithm>
#include <array>

#include "core/autocast.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

bool wants_gradient(std::span<const Tensor> inputs) {
  for (const Tensor& input : inputs)
    if (input.impl()->requires_grad) return true;
  return false;
}

[[noreturn]] void undefined_operand(const Op& op, size_t i, Where where) {
  throw UndefinedError(detail::str(op.name, ": operand ", i, " is an undefined Tensor"), where);
}

/// A symbolic operand is only of use inside its own trace, which then is the interceptor.
[[noreturn]] void leaked_operand(const Op& op, size_t i, Where where) {
  throw TraceError(detail::str(op.name, ": operand ", i,
                               " belongs to a trace that has ended; return it from the traced "
                               "function instead of keeping it in a variable outside"),
                   where);
}

void check_devices(const Op& op, std::span<const Tensor> inputs, Where where) {
  const Tensor* first = nullptr;
  size_t first_index = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].impl()->is_scalar) continue;
    if (!first) {
      first = &inputs[i];
      first_index = i;
    } else if (first->device() != inputs[i].device()) {
      throw DeviceError(detail::str(op.name, ": operands on different devices: operand ", first_index, " ",
                                    first->shape(), " is on ", first->device(), ", operand ", i, " ", inputs[i].shape(),
                                    " on ", inputs[i].device(), "; move one with to(device)"),
                        where);
    }
  }
}

[[noreturn]] void missing_kernel(const Op& op, Device device, Where where) {
  std::string remedy = "; no device has one";
  for (size_t kind = 0; kind < kDeviceKinds; ++kind)
    if (op.kernels[kind]) remedy = detail::str("; move the operands to ", name_of(static_cast<DeviceKind>(kind)));
  throw KernelError(detail::str(op.name, ": no kernel for ", name_of(device.kind), " yet", remedy), where);
}

void allocate(const Op& op, std::span<Tensor> outputs, Where where) {
  try {
    for (Tensor& output : outputs) output.impl()->allocate();
  } catch (const OutOfMemoryError& error) {  // the allocator knows neither the op nor the line
    throw OutOfMemoryError(detail::str(op.name, " of ", outputs[0].dtype(), outputs[0].shape(), ": ", error.message()),
                           where);
  } catch (const DeviceError& error) { throw DeviceError(detail::str(op.name, ": ", error.message()), where); }
}

}  // namespace

constinit thread_local ThreadState thread_state;

Recorder& recorder() {
  static constinit Recorder instance;
  return instance;
}

void run_kernel(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes,
                std::span<const Tensor> outputs, Where where) {
  const Device device = outputs[0].device();
  const KernelFn kernel = kernel_for(op, device);
  if (!kernel) [[unlikely]]
    missing_kernel(op, device, where);
  KernelContext context(op, inputs, attributes, outputs, where);
  try {
    kernel(context);
  } catch (...) { detail::rethrow_named(op.name, where); }
}

void dispatch(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, std::span<Tensor> outputs,
              Where where) {
  where = user_line(where);
  if (op.autocast != AutocastRule::keep && thread_state.autocast.enabled) [[unlikely]] {
    const Tensors cast = autocast_operands(op, inputs, where);
    if (!cast.empty()) return dispatch(op, cast, attributes, outputs, where);  // where nothing is left to cast
  }
  Interceptor* const tracer = thread_state.interceptor;
  Device device{};
  bool first = true, mixed = false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TensorImpl* impl = inputs[i].impl();
    if (!impl) [[unlikely]]
      undefined_operand(op, i, where);
    if (impl->trace && !tracer) [[unlikely]]
      leaked_operand(op, i, where);
    if (impl->is_scalar) continue;
    if (first) device = impl->device, first = false;
    else mixed |= impl->device != device;
  }
  if (mixed) [[unlikely]]
    check_devices(op, inputs, where);

  if (op.contiguous_inputs)
    for (const Tensor& input : inputs)
      if (!input.is_contiguous()) {
        Tensors rows(inputs.begin(), inputs.end());
        for (Tensor& each : rows) each = contiguous(each);
        return dispatch(op, rows, attributes, outputs, where);
      }

  Infer infer(op, inputs, attributes, outputs, where);
  infer.run();
  if (tracer) {
    tracer->run(op, inputs, attributes, outputs, where);
  } else if (op.kind == OpKind::view) {
    TensorImpl& view = *outputs[0].impl();
    view.alias(*inputs[0].impl(), std::exchange(view.offset, 0));
  } else {
    allocate(op, outputs, where);
    run_kernel(op, inputs, attributes, outputs, where);
  }
  if (thread_state.grad_enabled && op.grad && wants_gradient(inputs))
    recorder().record(op, inputs, attributes, outputs, where);
}

Tensor dispatch(const Op& op, std::initializer_list<Tensor> inputs, const Attributes& attributes, Where where) {
  Tensor output;
  dispatch(op, std::span<const Tensor>(inputs.begin(), inputs.size()), attributes, {&output, 1}, where);
  return output;
}

Tensors dispatch_all(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, Where where) {
  TANDEM_ASSERT(op.outputs != kVariadic, op.name, ": how many results it has is not known here");
  Tensors outputs(static_cast<size_t>(op.outputs));
  dispatch(op, inputs, attributes, outputs, where);
  return outputs;
}

void dispatch_in_place(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes,
                       std::span<Tensor> targets, Where where) {
  where = user_line(where);
  if (thread_state.grad_enabled)
    for (const Tensor& target : targets)
      if (target.defined() && target.requires_grad())
        throw InPlaceError(detail::str(op.name,
                                       ": updating a tensor that requires a gradient is not differentiable; "
                                       "write it under NoGrad"),
                           where);
  bool in_place = !thread_state.interceptor;
  for (const Tensor& target : targets)
    in_place = in_place && (!target.defined() || is_dense(target.shape(), target.strides()));
  std::array<Tensor, kMaxOutputs> outputs;
  const std::span<Tensor> results(outputs.data(), targets.size());
  if (!in_place) {
    dispatch(op, inputs, attributes, results, where);
    for (size_t i = 0; i < targets.size(); ++i)
      if (targets[i].defined()) targets[i].assign(results[i], where);
    return;
  }
  check_devices(op, inputs, where);
  Infer infer(op, inputs, attributes, results, where);
  infer.run();
  for (size_t i = 0; i < targets.size(); ++i) {
    const auto fits = [&](const Tensor& place) {
      return results[i].shape() == place.shape() && results[i].dtype() == place.dtype();
    };
    const auto handed_through = std::find_if(inputs.rbegin(), inputs.rend(), fits);
    results[i] = targets[i].defined() || handed_through == inputs.rend() ? targets[i] : *handed_through;
    TANDEM_ASSERT(results[i].defined() && fits(results[i]), op.name, ": target ", i, " doesn't fit");
  }
  run_kernel(op, inputs, attributes, results, where);
  for (Tensor& target : targets) {
    if (!target.defined()) continue;
    target.impl()->storage->version++;
    target.impl()->storage->last_write = where;
  }
}

}  // namespace tandem
