// Max pooling, its gradient and that one's gradient. The gradient gathers: each input pixel asks the few windows
// that cover it whether it was their maximum, so there are no atomics. Threads follow the result's memory, in
// either layout, so writes coalesce.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

struct Strides4 {
  int64_t batch, channel, row, column;
  explicit Strides4(const Shape& s) : batch(s[0]), channel(s[1]), row(s[2]), column(s[3]) {}
};
struct Window {
  int kernel[2], stride[2], padding[2];  // any int: what they are multiplied to and added up to has 64 bits

  // The pixels that the i-th window has of a line of `extent`.
  __device__ __forceinline__ void span(int d, int i, int extent, int& first, int& end) const {
    const int64_t begin = int64_t(i) * stride[d] - padding[d], behind = begin + kernel[d];
    first = begin < 0 ? 0 : int(begin);
    end = behind < extent ? int(behind) : extent;
  }
};
struct Pixel {
  int64_t batch, channel;
  int row, column;
};

// The order in which a dense [batch, channels, height, width] tensor lies in memory.
struct Order {
  int64_t channels, height, width;
  bool channels_last;
  explicit Order(const TensorImpl& tensor)
      : channels(tensor.shape[1]), height(tensor.shape[2]), width(tensor.shape[3]), channels_last(!tensor.contiguous) {}
  __device__ __forceinline__ Pixel at(int64_t i) const {
    Pixel p;
    if (channels_last) {
      p.channel = i % channels, i /= channels;
      p.column = int(i % width), i /= width;
      p.row = int(i % height), p.batch = i / height;
    } else {
      p.column = int(i % width), i /= width;
      p.row = int(i % height), i /= height;
      p.channel = i % channels, p.batch = i / channels;
    }
    return p;
  }
};

template <class T>
__global__ void __launch_bounds__(threads_per_block)
    max_pool2d(T* out, int* where, const T* in, Strides4 s, Order order, Window w, int height, int width,
               int64_t count) {
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    const Pixel p = order.at(i);
    const T* plane = in + p.batch * s.batch + p.channel * s.channel;
    int top, left, bottom, right;
    w.span(0, p.row, height, top, bottom);
    w.span(1, p.column, width, left, right);
    Compute<T> best = 0;
    int best_at = -1;
    for (int y = top; y < bottom; ++y) {
      for (int x = left; x < right; ++x) {
        const Compute<T> value = widen(plane[y * s.row + x * s.column]);
        if (best_at < 0 || value > best || value != value) {  // of NaNs the last, as PyTorch
          best = value;
          best_at = y * width + x;
        }
      }
    }
    out[i] = convert<T>(best);
    where[i] = best_at;
  }
}

template <class T>
__global__ void __launch_bounds__(threads_per_block)
    max_unpool2d(T* out, const T* grad, Strides4 gs, const int* where, Strides4 ws, Order order, Window w,
                 int out_height, int out_width, int64_t count) {
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    const Pixel p = order.at(i);
    const int here = p.row * int(order.width) + p.column;
    int first[2], last[2];
    // A pixel and its padding may be beyond an int, but not beyond an unsigned one.
    const unsigned at[2] = {unsigned(p.row) + unsigned(w.padding[0]), unsigned(p.column) + unsigned(w.padding[1])};
    const int limit[2] = {out_height, out_width};
#pragma unroll
    for (int d = 0; d < 2; ++d) {
      const unsigned kernel = unsigned(w.kernel[d]), stride = unsigned(w.stride[d]);
      first[d] = at[d] < kernel ? 0 : int((at[d] - kernel) / stride + 1);
      last[d] = at[d] / stride < unsigned(limit[d]) ? int(at[d] / stride) : limit[d] - 1;
    }
    Compute<T> sum = 0;
    for (int y = first[0]; y <= last[0]; ++y) {
      for (int x = first[1]; x <= last[1]; ++x) {
        const int64_t from = p.batch * ws.batch + p.channel * ws.channel + y * ws.row + x * ws.column;
        if (where[from] == here)
          sum += widen(grad[p.batch * gs.batch + p.channel * gs.channel + y * gs.row + x * gs.column]);
      }
    }
    out[i] = convert<T>(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(threads_per_block)
    max_pool2d_select(T* out, const T* in, Strides4 s, const int* where, Strides4 ws, Order order, int width,
                      int64_t count) {
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    const Pixel p = order.at(i);
    const int from = where[p.batch * ws.batch + p.channel * ws.channel + p.row * ws.row + p.column * ws.column];
    out[i] = in[p.batch * s.batch + p.channel * s.channel + from / width * s.row + from % width * s.column];
  }
}

Window window_of(const KernelContext& op) {
  Window w;
  for (int d = 0; d < 2; ++d) {
    w.kernel[d] = int(op.attributes.integers("kernel")[d]);
    w.stride[d] = int(op.attributes.integers("stride")[d]);
    w.padding[d] = int(op.attributes.integers("padding")[d]);
  }
  return w;
}

void max_pool2d_kernel(KernelContext& op) {
  const TensorImpl& x = op.in(0);
  const int64_t count = op.out().shape.numel();
  if (count == 0) return;
  visit_floating(x.dtype, [&]<class T>() {
    TANDEM_LAUNCH((max_pool2d<T>), blocks_for(count), threads_per_block, 0, stream_of(op), data<T>(op.out()),
                  data<int>(op.out(1)), data<T>(x), Strides4(x.strides), Order(op.out()), window_of(op),
                  int(x.shape[2]), int(x.shape[3]), count);
  });
}

void max_unpool2d_kernel(KernelContext& op) {
  const TensorImpl &g = op.in(0), &where = op.in(1);
  const int64_t count = op.out().shape.numel();
  if (count == 0) return;
  visit_floating(g.dtype, [&]<class T>() {
    TANDEM_LAUNCH((max_unpool2d<T>), blocks_for(count), threads_per_block, 0, stream_of(op), data<T>(op.out()),
                  data<T>(g), Strides4(g.strides), data<int>(where), Strides4(where.strides), Order(op.out()),
                  window_of(op), int(where.shape[2]), int(where.shape[3]), count);
  });
}

void max_pool2d_select_kernel(KernelContext& op) {
  const TensorImpl &x = op.in(0), &where = op.in(1);
  const int64_t count = op.out().shape.numel();
  if (count == 0) return;
  visit_size(x.dtype, [&]<class W>() {
    TANDEM_LAUNCH((max_pool2d_select<W>), blocks_for(count), threads_per_block, 0, stream_of(op), data<W>(op.out()),
                  data<W>(x), Strides4(x.strides), data<int>(where), Strides4(where.strides), Order(op.out()),
                  int(x.shape[3]), count);
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_resample(Kernels kernels);

void add_cuda_pool(Kernels kernels) {
  add_cuda_resample(kernels);
  kernels["max_pool2d"] = gpu::max_pool2d_kernel;
  kernels["max_unpool2d"] = gpu::max_unpool2d_kernel;
  kernels["max_pool2d_select"] = gpu::max_pool2d_select_kernel;
}

}  // namespace tandem
