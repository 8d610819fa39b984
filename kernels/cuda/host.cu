// The kernel of ops that have none for the device: operands are copied to the host, in order with the device's kernels, the
// host's kernel computes, and its results are copied back. It costs both copies and a wait for all that is queued, so it is
// for ops whose work is far more than their operands (decompositions of matrices), until they have kernels of their own.
#include "kernels/cuda/host.h"

#include <vector>

#include "kernels/cuda/capture.h"
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

size_t bytes_of(const TensorImpl& tensor) { return static_cast<size_t>(tensor.shape.numel() * size_of(tensor.dtype)); }

/// A tensor of the host with that one's layout.
Tensor like_on_host(const TensorImpl& tensor) {
  TANDEM_ASSERT(is_dense(tensor.shape, tensor.strides), "an operand or result with gaps: ", tensor.shape);
  Tensor result = Tensor::adopt(TensorImpl::create());
  TensorImpl& impl = *result.impl();
  impl.dtype = tensor.dtype;
  impl.device = cpu();
  impl.set_layout(tensor.shape, tensor.strides);
  impl.allocate();
  return result;
}

void run_on_host(KernelContext& op) {
  const Device device = op.out().device;
  if (Capture::recording())
    op.fail<KernelError>("it computes on the host, which a recording of the device's work can't repeat");
  const Backend& there = backend(device.kind);
  Tensors inputs, outputs;
  for (const Tensor& input : op.inputs) {
    const TensorImpl& from = *input.impl();
    if (from.device.is_cpu()) {  // a C++ number
      inputs.push_back(input);
      continue;
    }
    inputs.push_back(like_on_host(from));
    there.copy(inputs.back().impl()->data, cpu(), from.data, device, bytes_of(from));
  }
  for (const Tensor& output : op.outputs) outputs.push_back(like_on_host(*output.impl()));
  KernelContext on_host(op.op, inputs, op.attributes, outputs, op.where);
  kernel_for(op.op, cpu())(on_host);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const TensorImpl& from = *outputs[i].impl();
    there.copy(op.outputs[i].impl()->data, device, from.data, cpu(), bytes_of(from));
  }
}

}  // namespace

bool runs_on_host(const Op& op) { return kernel_for(op, {DeviceKind::cuda}) == run_on_host; }

}  // namespace gpu

void add_cuda_on_host(Kernels kernels) {
#define TANDEM_CUDA_ON_HOST(op) kernels[#op] = gpu::run_on_host;
#include "kernels/cuda/on_host.def"
}

}  // namespace tandem
