// concat and slice_grad: strided copies into parts of the output. The other shape ops are views.
#include "tandem/core/op.h"
#include "tandem/kernels/cpu/copy.h"

namespace tandem {

namespace {

/// The part [begin, begin + extent * step) of `whole` along `dim`, every `step`th: a header on the stack.
struct Part {
  TensorImpl header;
  Part(const TensorImpl& whole, int dim, int64_t begin, int64_t extent, int64_t step) {
    Shape shape = whole.shape, strides = whole.strides;
    header.dtype = whole.dtype;
    header.data = static_cast<char*>(whole.data) + begin * strides[dim] * size_of(whole.dtype);
    shape[dim] = extent;
    strides[dim] *= step;
    header.set_layout(shape, strides);
  }
};

void concat_kernel(KernelContext& c) {
  const TensorImpl& out = c.out();
  const int dim = static_cast<int>(c.attributes.integer("dim"));
  int64_t at = 0;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const TensorImpl& input = c.in(static_cast<int>(i));
    const int64_t extent = input.shape[dim];
    if (extent > 0) copy_elements(input, Part(out, dim, at, extent, 1).header);
    at += extent;
  }
}

void slice_grad_kernel(KernelContext& c) {
  const TensorImpl& x = c.in(0);
  const TensorImpl& out = c.out();
  const int dim = static_cast<int>(c.attributes.integer("dim"));
  fill_elements(out.data, out.shape.numel(), out.dtype, 0);
  if (x.shape.numel() == 0) return;
  const Part part(out, dim, c.attributes.integer("begin"), x.shape[dim], c.attributes.integer("step"));
  copy_elements(x, part.header);
}

}  // namespace

void add_cpu_shape(OpTable& table) {
  table.at("concat").cpu = concat_kernel;
  table.at("slice_grad").cpu = slice_grad_kernel;
}

}  // namespace tandem
