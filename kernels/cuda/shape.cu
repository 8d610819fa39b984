// concat, pad, flip, triangles, and the gradients of slice and diagonal. (Views need no kernel.)
#include <cstring>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

// --- pad -----------------------------------------------------------------------------------------------------

/// Dims of a padded tensor, innermost first; coordinates of 32 bits.
struct PadShape {
  int rank = 0;
  Divider extent[kMaxRank];  // of the result; of the innermost dim in packs
  int64_t before[kMaxRank] = {}, inside[kMaxRank] = {}, stride[kMaxRank] = {};
  bool whole_packs = false;  // a pack of the result is a pack of x, or none of it
};

// A thread writes a pack of the result, 16 bytes where a row has such, and reads what of it lies in x: each byte moves once.
template <class W, int N>
__global__ void __launch_bounds__(threads_per_block) pad(W* out, const W* in, W value, PadShape shape, unsigned packs) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned p = blockIdx.x * blockDim.x + threadIdx.x; p < packs; p += step) {
    unsigned rest, pack_at;
    shape.extent[0].divide(p, rest, pack_at);
    const W* from = in;
    bool inside = true;
#pragma unroll
    for (int d = 1; d < kMaxRank; ++d) {
      if (d >= shape.rank) break;
      unsigned outer, at;
      shape.extent[d].divide(rest, outer, at);
      rest = outer;
      const int64_t there = int64_t(at) - shape.before[d];
      inside = inside && there >= 0 && there < shape.inside[d];
      from += there * shape.stride[d];
    }
    const int64_t first = int64_t(pack_at) * N - shape.before[0];
    Pack<W, N> result;
    if (inside && shape.whole_packs && first >= 0 && first < shape.inside[0]) {
      result = load_pack<N>(from + first);
    } else {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const int64_t there = first + k;
        const bool reads = inside && there >= 0 && there < shape.inside[0];
        result.at[k] = reads ? from[there * shape.stride[0]] : value;
      }
    }
    store_pack(out + int64_t(p) * N, result);
  }
}

/// Dims of the result, outermost first: `inside` elements of x after `before` others.
struct PadDims {
  struct Dim {
    int64_t extent, before, inside, stride;
  };
  int rank = 0;
  Dim dims[kMaxRank];

  PadDims(const TensorImpl& x, const TensorImpl& out, const Shape& before) {
    for (int d = 0; d < out.shape.size(); ++d) {
      const Dim next{out.shape[d], before[d], x.shape[d], x.strides[d]};
      if (next.extent == 1 && next.inside == 1) continue;
      Dim* const last = rank > 0 ? &dims[rank - 1] : nullptr;
      const bool padded = next.extent != next.inside;
      if (last && !padded && last->stride == next.stride * next.extent)  // rows of an inner dim that isn't padded
        *last = {last->extent * next.extent, last->before * next.extent, last->inside * next.extent, next.stride};
      else dims[rank++] = next;
    }
    if (rank == 0) dims[rank++] = {1, 0, x.shape.numel(), 0};
  }
  int64_t numel(int from = 0) const {
    int64_t n = 1;
    for (int d = from; d < rank; ++d) n *= dims[d].extent;
    return n;
  }
  bool whole_packs(const void* in, int64_t N, int64_t size) const {
    const Dim& inner = dims[rank - 1];
    bool fits = inner.stride == 1 && inner.before % N == 0 && inner.inside % N == 0 && is_aligned(in, size_t(N * size));
    for (int d = 0; d + 1 < rank; ++d) fits = fits && dims[d].stride % N == 0;
    return fits;
  }
};

/// In pieces along the outermost dims where there are too many packs for one launch.
template <class W, int N> void launch_pad(W* out, const W* in, W value, PadDims dims, int at, cudaStream_t stream) {
  const int64_t packs = dims.numel() / N;
  if (packs > items_at_once()) {
    const auto [extent, before, inside, stride] = dims.dims[at];
    const int64_t slice = dims.numel() / extent, unit = at + 1 == dims.rank ? N : 1;
    const int64_t step = std::max(unit, items_at_once() * N / slice / unit * unit);
    for (int64_t begin = 0; begin < extent; begin += step) {
      dims.dims[at] = {std::min(step, extent - begin), before - begin, inside, stride};
      launch_pad<W, N>(out + begin * slice, in, value, dims, at + 1, stream);
    }
    return;
  }
  PadShape shape;
  shape.rank = dims.rank;
  shape.whole_packs = dims.whole_packs(in, N, sizeof(W));
  for (int d = 0; d < dims.rank; ++d) {
    const PadDims::Dim& dim = dims.dims[dims.rank - 1 - d];
    shape.extent[d] = Divider(unsigned(d == 0 ? dim.extent / N : dim.extent));
    shape.before[d] = dim.before, shape.inside[d] = dim.inside, shape.stride[d] = dim.stride;
  }
  TANDEM_LAUNCH((pad<W, N>), blocks_for(packs), threads_per_block, 0, stream, out, in, value, shape, unsigned(packs));
}

void pad_kernel(KernelContext& op) {
  const TensorImpl& x = op.in(0);
  TensorImpl& out = op.out();
  if (out.shape.numel() == 0) return;
  const PadDims dims(x, out, op.attributes.integers("before"));
  visit_size(out.dtype, [&]<class W>() {
    W value{};
    visit_any(out.dtype, [&]<class T>() {
      const T number = number_as<T>(op.attributes.number("value"));
      if constexpr (sizeof(T) == sizeof(W)) std::memcpy(&value, &number, sizeof value);
    });
    constexpr int N = pack_size<W>;
    if (dims.dims[dims.rank - 1].extent % N == 0 && is_aligned(out.data))
      launch_pad<W, N>(data<W>(out), data<W>(x), value, dims, 0, stream_of(op));
    else launch_pad<W, 1>(data<W>(out), data<W>(x), value, dims, 0, stream_of(op));
  });
}

// --- triangles -----------------------------------------------------------------------------------------------

// A thread writes a pack of a row, and reads it unless all of it is on the other side of the diagonal.
template <class W, int N>
__global__ void __launch_bounds__(threads_per_block)
    triangle(W* out, const W* in, int64_t first_row, Divider row_packs, int64_t rows, int64_t diagonal, bool lower,
             unsigned packs) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned p = blockIdx.x * blockDim.x + threadIdx.x; p < packs; p += step) {
    unsigned row, pack_at;
    row_packs.divide(p, row, pack_at);
    // Columns below `cut` are on one side, the others on the other.
    const int64_t cut = (first_row + row) % rows + diagonal + (lower ? 1 : 0), first = int64_t(pack_at) * N;
    Pack<W, N> pack{};
    if (lower ? first < cut : first + N > cut) {
      pack = load_pack<N>(in + int64_t(p) * N);
#pragma unroll
      for (int k = 0; k < N; ++k)
        if (lower ? first + k >= cut : first + k < cut) pack.at[k] = 0;
    }
    store_pack(out + int64_t(p) * N, pack);
  }
}

template <bool lower> void triangle_kernel(KernelContext& op) {
  const TensorImpl& x = op.in(0);
  TensorImpl& out = op.out();
  if (x.shape.numel() == 0) return;
  const int64_t columns = x.shape.back(), rows = x.shape[x.shape.size() - 2], all = x.shape.numel() / columns,
                diagonal = op.attributes.integer("diagonal");
  visit_size(x.dtype, [&]<class W>() {
    const auto launch = [&]<int N>() {
      const int64_t packs = columns / N;
      check_most(op, packs, most_items, "words in a row");
      in_rows(all, packs, [&](int64_t row, int64_t count) {
        TANDEM_LAUNCH((triangle<W, N>), blocks_for(count * packs), threads_per_block, 0, stream_of(op),
                      data<W>(out) + row * columns, data<W>(x) + row * columns, row, Divider(unsigned(packs)), rows,
                      diagonal, lower, unsigned(count * packs));
      });
    };
    constexpr int N = pack_size<W>;
    if (columns % N == 0 && is_aligned(x.data) && is_aligned(out.data)) launch.template operator()<N>();
    else launch.template operator()<1>();
  });
}

// --- strided copies into parts of the result, or from x as other strides show it -------------------------------

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

void zero(const KernelContext& op, TensorImpl& out) {
  const size_t bytes = size_t(out.shape.numel() * size_of(out.dtype));
  if (bytes > 0) check(cudaMemsetAsync(out.data, 0, bytes, stream_of(op)), op.op.name);
}

void slice_grad_kernel(KernelContext& op) {
  const int dim = int(op.attributes.integer("dim"));
  TensorImpl& out = op.out();
  zero(op, out);
  if (out.shape.numel() == 0) return;
  Shape strides = out.strides;
  strides[dim] *= op.attributes.integer("step");
  char* to = data<char>(out) + op.attributes.integer("begin") * out.strides[dim] * size_of(out.dtype);
  copy_strided(op.in(0), op.in(0).shape, to, out.dtype, strides, stream_of(op));
}

void diagonal_grad_kernel(KernelContext& op) {
  const TensorImpl& x = op.in(0);
  TensorImpl& out = op.out();
  zero(op, out);
  if (x.shape.numel() == 0) return;
  const int dim1 = int(op.attributes.integer("dim1")), dim2 = int(op.attributes.integer("dim2"));
  const int64_t offset = op.attributes.integer("offset");
  Shape strides;
  for (int d = 0; d < out.shape.size(); ++d)
    if (d != dim1 && d != dim2) strides.push_back(out.strides[d]);
  strides.push_back(out.strides[dim1] + out.strides[dim2]);
  const int64_t first = offset < 0 ? -offset * out.strides[dim1] : offset * out.strides[dim2];
  copy_strided(x, x.shape, data<char>(out) + first * size_of(out.dtype), out.dtype, strides, stream_of(op));
}

/// A copy of x as strides of the other sign show it, from the last element of each dim.
void flip_kernel(KernelContext& op) {
  const TensorImpl& x = op.in(0);
  TensorImpl& out = op.out();
  if (out.shape.numel() == 0) return;
  TensorImpl reversed;
  Shape strides = x.strides;
  int64_t offset = 0;
  for (const int64_t dim : op.attributes.integers("dims")) {
    const int d = int(dim);
    offset += (x.shape[d] - 1) * x.strides[d];
    strides[d] = -strides[d];
  }
  reversed.dtype = x.dtype;
  reversed.data = static_cast<char*>(x.data) + offset * size_of(x.dtype);
  reversed.set_layout(x.shape, strides);
  copy_strided(reversed, out.shape, out.data, out.dtype, out.strides, stream_of(op));
}

}  // namespace
}  // namespace gpu

void add_cuda_shape(Kernels kernels) {
  kernels["concat"] = gpu::concat_kernel;
  kernels["slice_grad"] = gpu::slice_grad_kernel;
  kernels["diagonal_grad"] = gpu::diagonal_grad_kernel;
  kernels["pad"] = gpu::pad_kernel;
  kernels["flip"] = gpu::flip_kernel;
  kernels["tril"] = gpu::triangle_kernel<true>;
  kernels["triu"] = gpu::triangle_kernel<false>;
}

}  // namespace tandem
