// dispatch: the one function that every op call goes through, and the two things that hang on it:
// who runs the op instead of the eager kernels (a tracer), and who records it (autograd).
#pragma once

#include <span>

#include "op.h"
#include "thread_state.h"

namespace tandem {

/// Runs `op`: infer, then the kernel (or the tracer), then the tape. `outputs` has op.outputs handles.
void dispatch(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, std::span<Tensor> outputs,
              Where where);
/// The same for an op with one output.
Tensor dispatch(const Op& op, std::initializer_list<Tensor> inputs, const Attributes& attributes, Where where);
Tensors dispatch_all(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, Where where);
/// Promotes operands as PyTorch does, then dispatches.
Tensor dispatch_pointwise(const Op& op, std::span<const Arg* const> operands);
/// The same for a user's op: up to eight operands, and attributes.
Tensor dispatch_pointwise(const Op& op, std::span<const Arg* const> operands, const Attributes& attributes);

/// Runs `op` and writes output i over targets[i] (same shape and dtype): an optimiser's update
/// in place. Eagerly the kernel writes straight into the targets, so it must read each element
/// before it writes it; in a trace it is the op followed by assigns.
/// A target that is undefined stands for a result that the op hands through: its last operand of that type and layout.
void dispatch_in_place(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes,
                       std::span<Tensor> targets, Where where);

/// Runs one op eagerly on tensors that exist; the graph's replay mode uses it too.
void run_kernel(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes,
                std::span<const Tensor> outputs, Where where);

/// How often the memory of a tensor was written to, and where last.
struct Written {
  uint32_t times = 0;
  Where where = {};
};

/// Takes the place of the eager kernels while it is installed on this thread (graph/tracer).
class Interceptor {
 public:
  virtual ~Interceptor() = default;
  /// `outputs` are headers from infer; they become values of the graph.
  virtual void run(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes,
                   std::span<Tensor> outputs, Where where) = 0;
  virtual void assign(const Tensor& target, const Tensor& value, Where where) = 0;
  /// The numbers of a symbolic tensor were asked for.
  [[noreturn]] virtual void value_needed(const Tensor& tensor, const char* wanted_by, Where where) = 0;
  /// A leaf's gradient is about to be read, or replaced.
  virtual void gradient_read(TensorImpl& leaf) = 0;
  virtual void gradient_written(TensorImpl& leaf) = 0;
  /// A host flag that the trace depends on (training mode, say) was read.
  virtual void flag_read(const bool& flag) = 0;
  /// A tensor was made from C++ values: a constant of the trace, not state.
  virtual void constant(const Tensor& tensor) = 0;
  /// The number of the next draw within this trace.
  virtual int64_t draw() = 0;
  /// Symbolic tensors have no storage that would know.
  virtual Written written(const TensorImpl& tensor) const {
    return tensor.storage ? Written{tensor.storage->version, tensor.storage->last_write} : Written();
  }
  /// Whether it is a view, or another tensor is one of its memory.
  virtual bool shares_memory(const TensorImpl& tensor) const {
    return tensor.storage && tensor.storage->references() > 1;
  }
  /// detach() has made another tensor on its memory.
  virtual void detached(const TensorImpl&) {}
  /// The elements of a tensor that isn't symbolic are about to be read by the host, or written by it.
  virtual void host_reads(const Tensor&, const char* /*caller*/, Where) {}
  virtual void host_writes(const Tensor&, const char* /*caller*/, Where) {}
  virtual void requires_grad_read(const Tensor&) {}
  /// A gradient, or a hook on one, that is known to the tape alone was given: a custom function, register_hook.
  virtual void known_to_tape(const char* /*what*/, Where) {}
  /// backward() has reached a node of the tape with this number (TapeNode::sequence).
  virtual void walks(uint64_t /*sequence*/, const Op&, Where /*recorded*/, Where) {}
};
/// The one that is installed (InterceptorScope), or null.
inline Interceptor* interceptor() { return thread_state.interceptor; }

inline uint32_t version_of(const TensorImpl& tensor) {
  if (interceptor()) [[unlikely]]
    return interceptor()->written(tensor).times;
  return tensor.storage ? tensor.storage->version : 0;
}
inline Where last_write_of(const TensorImpl& tensor) {
  if (interceptor()) return interceptor()->written(tensor).where;
  return tensor.storage ? tensor.storage->last_write : Where();
}
inline bool shares_memory(const TensorImpl& tensor) {
  if (interceptor()) return interceptor()->shares_memory(tensor);
  return tensor.storage && tensor.storage->references() > 1;
}

/// Keeps the tape (autograd). Installed once, for all threads.
struct Recorder {
  void (*record)(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, std::span<Tensor> outputs,
                 Where where) = nullptr;
};
Recorder& recorder();

/// Whether ops are recorded on this thread; see NoGrad.
inline bool grad_enabled() { return thread_state.grad_enabled; }
inline void set_grad_enabled(bool enabled) { thread_state.grad_enabled = enabled; }

/// The line that an op called from `where` is put down to.
inline Where user_line(Where where) { return thread_state.line.value_or(where); }

}  // namespace tandem
