// cross_entropy with integer labels. Forward reads each row of logits once and keeps its log-sum-exp, so that
// backward is one read and one write: (exp(x - lse) - [column = label]) g / batch. A label outside the classes
// gives NaN: a kernel can't raise an error.
#include "core/scalar/math.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/rows.cuh"

namespace tandem {
namespace gpu {
namespace {

template <class T>
__device__ __forceinline__ Compute<T> row_loss(const T* row, Compute<T> log_sum_exp, int64_t label, int64_t columns) {
  if (label < 0 || label >= columns) return static_cast<Compute<T>>(NAN);
  return log_sum_exp - widen(row[label]);
}

template <class S>
__global__ void __launch_bounds__(S::threads)
    cross_entropy_rows(typename S::Wide* losses, typename S::Wide* log_sums, const typename S::Element* in,
                       const int64_t* labels, unsigned rows, unsigned columns) {
  using Wide = typename S::Wide;
  TANDEM_SHARED(Wide, scratch, [S::threads / 32]);
  const unsigned row = this_row<S>();
  const bool live = row < rows;
  const Wide nothing = -static_cast<Wide>(INFINITY);
  RowTile<S> x;
  x.load(in + int64_t(row) * columns, columns, live, nothing);
  const Wide highest = reduce_row<S::lanes>(x.maximum(), Maximum(), nothing, scratch);
  const Wide total =
      reduce_row<S::lanes>(x.sum([&](int i) { return td_exp(x.at[i] - highest); }), Add(), Wide(0), scratch);
  if (live && threadIdx.x % S::lanes == 0) {
    const Wide log_sum = td_log(total) + highest;
    log_sums[row] = log_sum;
    losses[row] = row_loss(in + int64_t(row) * columns, log_sum, labels[row], columns);
  }
}

template <class T>
__global__ void __launch_bounds__(256) cross_entropy_long_rows(Compute<T>* losses, Compute<T>* log_sums, const T* in,
                                                               const int64_t* labels, int64_t columns) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Wide, scratch, [8]);
  const T* x = in + blockIdx.x * columns;
  const Wide nothing = -static_cast<Wide>(INFINITY);
  Wide highest = nothing, total = 0;
  for (int64_t i = threadIdx.x; i < columns; i += 256) highest = Maximum()(highest, widen(x[i]));
  highest = reduce_block(highest, Maximum(), nothing, scratch);
  for (int64_t i = threadIdx.x; i < columns; i += 256) total += td_exp(widen(x[i]) - highest);
  total = reduce_block(total, Add(), Wide(0), scratch);
  if (threadIdx.x == 0) {
    const Wide log_sum = td_log(total) + highest;
    log_sums[blockIdx.x] = log_sum;
    losses[blockIdx.x] = row_loss(x, log_sum, labels[blockIdx.x], columns);
  }
}

template <class T> __global__ void __launch_bounds__(256) mean_of(T* out, const Compute<T>* values, int64_t count) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Wide, scratch, [8]);
  Wide total = 0;
  for (int64_t i = threadIdx.x; i < count; i += 256) total += values[i];
  total = reduce_block(total, Add(), Wide(0), scratch);
  if (threadIdx.x == 0) *out = convert<T>(total / Wide(count));
}

template <class T>
__global__ void __launch_bounds__(threads_per_block)
    cross_entropy_grad(T* out, Operand<T> grad, const T* in, const int64_t* labels, const Compute<T>* log_sums,
                       int64_t count, int64_t rows, int64_t columns) {
  using Wide = Compute<T>;
  const Wide scale = widen(grad.at(0)) / Wide(rows);
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    const int64_t row = i / columns, column = i - row * columns;
    const Wide p = td_exp(widen(in[i]) - log_sums[row]);
    out[i] = convert<T>((column == labels[row] ? p - Wide(1) : p) * scale);
  }
}

void cross_entropy_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() {
    using Wide = Compute<T>;
    const int64_t rows = op.in(0).shape[0], columns = op.in(0).shape[1];
    const T* x = data<T>(op.in(0));
    const auto* labels = data<int64_t>(op.in(1));
    auto* log_sums = data<Wide>(op.out(1));
    const Workspace workspace(size_t(rows) * sizeof(Wide), op.out().device);
    Wide* losses = workspace.template as<Wide>();
    if (rows > 0) {
      const bool fits = visit_row_shape<T>(columns, is_aligned(x), [&]<class S>() {
        TANDEM_LAUNCH((cross_entropy_rows<S>), row_blocks<S>(rows), S::threads, 0, stream_of(op), losses, log_sums, x,
                      labels, unsigned(rows), unsigned(columns));
      });
      if (!fits) {
        TANDEM_LAUNCH((cross_entropy_long_rows<T>), unsigned(rows), 256, 0, stream_of(op), losses, log_sums, x, labels,
                      columns);
      }
    }
    TANDEM_LAUNCH((mean_of<T>), 1, 256, 0, stream_of(op), data<T>(op.out()), losses, rows);
  });
}

void cross_entropy_grad_kernel(KernelContext& op) {
  visit_floating(op.in(1).dtype, [&]<class T>() {
    const int64_t rows = op.in(1).shape[0], columns = op.in(1).shape[1], count = rows * columns;
    if (count == 0) return;
    TANDEM_LAUNCH((cross_entropy_grad<T>), blocks_for(count), threads_per_block, 0, stream_of(op), data<T>(op.out()),
                  operand<T>(op.in(0)), data<T>(op.in(1)), data<int64_t>(op.in(2)), data<Compute<T>>(op.in(3)), count,
                  rows, columns);
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_loss(Kernels kernels) {
  kernels["cross_entropy"] = gpu::cross_entropy_kernel;
  kernels["cross_entropy_grad"] = gpu::cross_entropy_grad_kernel;
}

}  // namespace tandem
