// print and assert_that. print waits for the device and hands a copy to the host, so no capture can hold it; assert_that leaves a
// note on the device (range_note.cuh), and whoever waits for the device next gets its error.
#include "kernels/cuda/capture.h"
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

__global__ void assert_that(bool* out, const bool* condition, td_range_note note) {
  if (!*condition) td_note_range(note, 0, -1, 0);
  *out = true;
}

void assert_kernel(KernelContext& op) {
  const td_range_note note = range_note(op, {.what = op.attributes.text("message"), .interval = Interval{}}, {});
  TANDEM_LAUNCH(assert_that, 1, 1, 0, stream_of(op), data<bool>(op.out()), data<bool>(op.in(0)), note);
}

Tensor on_host(const Shape& shape, DType type) {
  Tensor result = Tensor::adopt(TensorImpl::create());
  TensorImpl& impl = *result.impl();
  impl.dtype = type;
  impl.set_contiguous_layout(shape);
  impl.allocate();
  return result;
}

void print_kernel(KernelContext& op) {
  if (Capture::recording())
    op.fail<KernelError>("the host prints, which a recording of the device's work can't repeat");
  const TensorImpl& x = op.in(0);
  const Device device = op.out().device;
  const size_t bytes = size_t(x.shape.numel() * size_of(x.dtype));
  const Tensor copy = on_host(x.shape, x.dtype), done = on_host({}, DType::bool_);
  const Workspace dense(x.contiguous ? 0 : bytes, device);
  if (!x.contiguous) copy_strided(x, x.shape, dense.as<void>(), x.dtype, contiguous_strides(x.shape), stream_of(op));
  backend(device.kind).copy(copy.impl()->data, cpu(), x.contiguous ? x.data : dense.as<void>(), device, bytes);
  KernelContext there(op.op, {&copy, 1}, op.attributes, {&done, 1}, op.where);
  kernel_for(op.op, cpu())(there);
  check(cudaMemsetAsync(op.out().data, 1, sizeof(bool), stream_of(op)), "print");
}

}  // namespace
}  // namespace gpu

void add_cuda_effect(Kernels kernels) {
  kernels["print"] = gpu::print_kernel;
  kernels["assert_that"] = gpu::assert_kernel;
}

}  // namespace tandem
