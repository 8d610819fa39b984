// cross_entropy with integer labels. Forward reads each row of logits once and keeps its log-sum-exp, so that
// backward is one read and one write: (exp(x - lse) - [column = label]) g / batch. A label outside the classes
// is noted, and gives NaN until the note is read.
#include "core/scalar/math.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/rows.cuh"

namespace tandem {
namespace gpu {
namespace {

/// Of each row, on the device. Those that are ignored count for nothing.
struct Labels {
  const int64_t* values;
  bool ignores;
  int64_t ignored;
  td_range_note note;
  int64_t first = 0;  // which row the first of the values is of

  Labels from(int64_t row) const { return {values + row, ignores, ignored, note, row}; }
  __device__ __forceinline__ bool counts(int64_t row) const { return !ignores || values[row] != ignored; }
  __device__ __forceinline__ bool in_range(int64_t row, int64_t columns) const {
    if (values[row] >= 0 && values[row] < columns) return true;
    td_note_range(note, 0, first + row, values[row]);
    return false;
  }
};

template <class T>
__device__ __forceinline__ Compute<T> row_loss(const T* x, Compute<T> log_sum_exp, const Labels& labels, int64_t row,
                                               int64_t columns) {
  if (!labels.counts(row)) return 0;
  return labels.in_range(row, columns) ? log_sum_exp - widen(x[labels.values[row]]) : static_cast<Compute<T>>(NAN);
}

template <class S>
__global__ void __launch_bounds__(S::threads)
    cross_entropy_rows(typename S::Wide* losses, typename S::Wide* log_sums, const typename S::Element* in,
                       Labels labels, unsigned rows, unsigned columns) {
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
    losses[row] = row_loss(in + int64_t(row) * columns, log_sum, labels, row, columns);
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    cross_entropy_long_rows(Compute<T>* losses, Compute<T>* log_sums, const T* in, Labels labels, int64_t columns) {
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
    losses[blockIdx.x] = row_loss(x, log_sum, labels, blockIdx.x, columns);
  }
}

/// How many of the labels count, for all threads of a block of 256.
template <class Wide> __device__ __forceinline__ Wide counted(const Labels& labels, int64_t rows, Wide* scratch) {
  if (!labels.ignores) return Wide(rows);
  Wide count = 0;
  for (int64_t i = threadIdx.x; i < rows; i += 256) count += labels.counts(i) ? Wide(1) : Wide(0);
  return reduce_block(count, Add(), Wide(0), scratch);
}

template <class T>
__global__ void __launch_bounds__(256) mean_of(T* out, const Compute<T>* values, Labels labels, int64_t rows) {
  using Wide = Compute<T>;
  TANDEM_SHARED(Wide, scratch, [8]);
  Wide total = 0;
  for (int64_t i = threadIdx.x; i < rows; i += 256) total += values[i];
  total = reduce_block(total, Add(), Wide(0), scratch);
  const Wide count = counted(labels, rows, scratch);
  if (threadIdx.x == 0) *out = convert<T>(total / count);
}

template <class Wide> __global__ void __launch_bounds__(256) count_labels(Wide* out, Labels labels, int64_t rows) {
  TANDEM_SHARED(Wide, scratch, [8]);
  const Wide count = counted(labels, rows, scratch);
  if (threadIdx.x == 0) *out = count;
}

template <class T>
__global__ void __launch_bounds__(threads_per_block)
    cross_entropy_grad(T* out, Operand<T> grad, const T* in, Labels labels, const Compute<T>* log_sums,
                       const Compute<T>* counted, int64_t count, int64_t rows, int64_t columns) {
  using Wide = Compute<T>;
  const Wide scale = widen(grad.at(0)) / (counted ? *counted : Wide(rows));
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    const int64_t row = i / columns, column = i - row * columns;
    if (!labels.counts(row)) {
      out[i] = convert<T>(Wide(0));
      continue;
    }
    if (column == 0) labels.in_range(row, columns);
    const Wide p = td_exp(widen(in[i]) - log_sums[row]);
    out[i] = convert<T>((column == labels.values[row] ? p - Wide(1) : p) * scale);
  }
}

/// Operand `input`.
Labels labels_of(const KernelContext& op, int input, int64_t classes) {
  const AttributeValue* ignored = op.attributes.find("ignore_index");
  RangeCheck check{.what = "label", .bound = classes, .classes = true};
  if (ignored) check.ignored = std::get<int64_t>(*ignored);
  const int64_t number = check.ignored.value_or(0);
  return {data<int64_t>(op.in(input)), ignored != nullptr, number,
          range_note(op, std::move(check), op.in(input).shape)};
}

void cross_entropy_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() {
    using Wide = Compute<T>;
    const int64_t rows = op.in(0).shape[0], columns = op.in(0).shape[1];
    const T* x = data<T>(op.in(0));
    const Labels labels = labels_of(op, 1, columns);
    auto* log_sums = data<Wide>(op.out(1));
    const Workspace workspace(size_t(rows) * sizeof(Wide), op.out().device);
    Wide* losses = workspace.template as<Wide>();
    in_rows(rows, 1, [&](int64_t first, int64_t part) {
      const T* const at = x + first * columns;
      const bool fits = visit_row_shape<T>(columns, is_aligned(x), [&]<class S>() {
        TANDEM_LAUNCH((cross_entropy_rows<S>), row_blocks<S>(part), S::threads, 0, stream_of(op), losses + first,
                      log_sums + first, at, labels.from(first), unsigned(part), unsigned(columns));
      });
      if (!fits) {
        TANDEM_LAUNCH((cross_entropy_long_rows<T>), unsigned(part), 256, 0, stream_of(op), losses + first,
                      log_sums + first, at, labels.from(first), columns);
      }
    });
    TANDEM_LAUNCH((mean_of<T>), 1, 256, 0, stream_of(op), data<T>(op.out()), losses, labels, rows);
  });
}

void cross_entropy_grad_kernel(KernelContext& op) {
  visit_floating(op.in(1).dtype, [&]<class T>() {
    const int64_t rows = op.in(1).shape[0], columns = op.in(1).shape[1], count = rows * columns;
    if (count == 0) return;
    const Labels labels = labels_of(op, 2, columns);
    const Workspace workspace(labels.ignores ? sizeof(Compute<T>) : 0, op.out().device);
    auto* const counted = workspace.template as<Compute<T>>();
    if (counted) TANDEM_LAUNCH((count_labels<Compute<T>>), 1, 256, 0, stream_of(op), counted, labels, rows);
    TANDEM_LAUNCH((cross_entropy_grad<T>), blocks_for(count), threads_per_block, 0, stream_of(op), data<T>(op.out()),
                  operand<T>(op.in(0)), data<T>(op.in(1)), labels, data<Compute<T>>(op.in(3)), counted, count, rows,
                  columns);
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_ctc(Kernels kernels);  // ctc.cu

void add_cuda_loss(Kernels kernels) {
  add_cuda_ctc(kernels);
  kernels["cross_entropy"] = gpu::cross_entropy_kernel;
  kernels["cross_entropy_grad"] = gpu::cross_entropy_grad_kernel;
}

}  // namespace tandem
