// concat and the gradient of slice: strided copies into parts of the result. (Views need no kernel.)
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

void concat_kernel(KernelContext& op) {
  const int dim = int(op.attributes.integer("dim"));
  TensorImpl& out = op.out();
  char* to = data<char>(out);
  for (const Tensor& each : op.inputs) {
    const TensorImpl& in = *each.impl();
    copy_strided(in, in.shape, to, out.dtype, out.strides, stream_of(op));
    to += in.shape[dim] * out.strides[dim] * size_of(out.dtype);
  }
}

void slice_grad_kernel(KernelContext& op) {
  const int dim = int(op.attributes.integer("dim"));
  TensorImpl& out = op.out();
  const size_t bytes = size_t(out.shape.numel() * size_of(out.dtype));
  if (bytes == 0) return;
  check(cudaMemsetAsync(out.data, 0, bytes, stream_of(op)), "slice_grad");
  Shape strides = out.strides;
  strides[dim] *= op.attributes.integer("step");
  char* to = data<char>(out) + op.attributes.integer("begin") * out.strides[dim] * size_of(out.dtype);
  copy_strided(op.in(0), op.in(0).shape, to, out.dtype, strides, stream_of(op));
}

}  // namespace
}  // namespace gpu

void add_cuda_shape(Kernels kernels) {
  kernels["concat"] = gpu::concat_kernel;
  kernels["slice_grad"] = gpu::slice_grad_kernel;
}

}  // namespace tandem
