// searchsorted: a lane for each value, which halves its way through the row. sort and topk have no CUDA kernel yet.
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

/// NaN counts as the greatest.
template <class T> __device__ __forceinline__ bool before(T a, T b) { return b != b ? a == a : a < b; }

template <class T>
__global__ void searchsorted(int64_t* out, const T* sorted, const T* values, int64_t count, int64_t n, int64_t per_row,
                             bool shared, bool right) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const T* row = sorted + (shared ? 0 : i / per_row * n);
  const auto wanted = widen(values[i]);
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    const auto x = widen(row[middle]);
    if (right ? !before(wanted, x) : before(x, wanted)) low = middle + 1;
    else high = middle;
  }
  out[i] = low;
}

void searchsorted_kernel(KernelContext& op) {
  const Shape& shape = op.out().shape;
  const int64_t count = shape.numel();
  if (count == 0) return;
  visit_any(op.in(0).dtype, [&]<class T>() {
    TANDEM_LAUNCH((searchsorted<T>), unsigned(ceil_divide(count, int64_t(128))), 128, 0, stream_of(op),
                  data<int64_t>(op.out()), data<T>(op.in(0)), data<T>(op.in(1)), count, op.in(0).shape.back(),
                  shape.empty() ? int64_t(1) : shape.back(), op.in(0).shape.size() == 1, op.attributes.flag("right"));
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_sort(Kernels kernels) { kernels["searchsorted"] = gpu::searchsorted_kernel; }

}  // namespace tandem
