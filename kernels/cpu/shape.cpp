// concat, pad, flip, triangles, and the gradients of slice and diagonal: strided copies into parts of the output. The other
// shape ops are views.
#include <cstring>

#include "core/op.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/parallel.h"

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

void diagonal_grad_kernel(KernelContext& c) {
  const TensorImpl &x = c.in(0), &out = c.out();
  fill_elements(out.data, out.shape.numel(), out.dtype, 0);
  if (x.shape.numel() == 0) return;
  const int dim1 = static_cast<int>(c.attributes.integer("dim1")),
            dim2 = static_cast<int>(c.attributes.integer("dim2"));
  const int64_t offset = c.attributes.integer("offset");
  TensorImpl part;
  Shape strides;
  for (int d = 0; d < out.shape.size(); ++d)
    if (d != dim1 && d != dim2) strides.push_back(out.strides[d]);
  strides.push_back(out.strides[dim1] + out.strides[dim2]);
  part.dtype = out.dtype;
  part.data = static_cast<char*>(out.data) +
              (offset < 0 ? -offset * out.strides[dim1] : offset * out.strides[dim2]) * size_of(out.dtype);
  part.set_layout(x.shape, strides);
  copy_elements(x, part);
}

void pad_kernel(KernelContext& c) {
  const TensorImpl &x = c.in(0), &out = c.out();
  const Shape& before = c.attributes.integers("before");
  fill_elements(out.data, out.shape.numel(), out.dtype, c.attributes.number("value"));
  if (x.shape.numel() == 0) return;
  TensorImpl part;
  int64_t offset = 0;
  for (int d = 0; d < out.shape.size(); ++d) offset += before[d] * out.strides[d];
  part.dtype = out.dtype;
  part.data = static_cast<char*>(out.data) + offset * size_of(out.dtype);
  part.set_layout(x.shape, out.strides);
  copy_elements(x, part);
}

/// A copy of x as strides of the other sign show it, from the last element of each dim.
void flip_kernel(KernelContext& c) {
  const TensorImpl &x = c.in(0), &out = c.out();
  if (out.shape.numel() == 0) return;
  TensorImpl reversed;
  Shape strides = x.strides;
  int64_t offset = 0;
  for (int64_t dim : c.attributes.integers("dims")) {
    const int d = static_cast<int>(dim);
    if (x.shape[d] == 1) continue;
    offset += (x.shape[d] - 1) * x.strides[d];
    strides[d] = -strides[d];
  }
  reversed.dtype = x.dtype;
  reversed.data = static_cast<char*>(x.data) + offset * size_of(x.dtype);
  reversed.set_layout(x.shape, strides);
  copy_elements(reversed, out);
}

template <bool lower> void triangle_kernel(KernelContext& c) {
  const TensorImpl &x = c.in(0), &out = c.out();
  const int rank = x.shape.size();
  const int64_t rows = x.shape[rank - 2], columns = x.shape[rank - 1], diagonal = c.attributes.integer("diagonal"),
                size = size_of(x.dtype);
  if (x.shape.numel() == 0) return;
  parallel_for(x.shape.numel() / columns, std::max<int64_t>(1, kPointwiseGrain / columns),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   // Columns below `cut` are on one side, the others on the other.
                   const int64_t cut = std::clamp<int64_t>(r % rows + diagonal + (lower ? 1 : 0), 0, columns),
                                 from = lower ? 0 : cut, to = lower ? cut : columns;
                   char* row = static_cast<char*>(out.data) + r * columns * size;
                   std::memset(row, 0, static_cast<size_t>(from * size));
                   std::memcpy(row + from * size, static_cast<const char*>(x.data) + (r * columns + from) * size,
                               static_cast<size_t>((to - from) * size));
                   std::memset(row + to * size, 0, static_cast<size_t>((columns - to) * size));
                 }
               });
}

}  // namespace

void add_cpu_shape(Kernels kernels) {
  kernels["concat"] = concat_kernel;
  kernels["slice_grad"] = slice_grad_kernel;
  kernels["diagonal_grad"] = diagonal_grad_kernel;
  kernels["pad"] = pad_kernel;
  kernels["flip"] = flip_kernel;
  kernels["tril"] = triangle_kernel<true>;
  kernels["triu"] = triangle_kernel<false>;
}

}  // namespace tandem
