// Running sums and products along one dim: a lane for each row, which is enough where there are many. Lanes that are
// neighbours read neighbours where dim is not the last.
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

enum class Step { add, multiply };

template <class A, class Out, class In, Step step>
__global__ void running(Out* out, const In* in, int64_t rows, int64_t n, int64_t inner, bool reverse) {
  const int64_t row = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const int64_t first = row / inner * n * inner + row % inner;
  A total = step == Step::add ? 0 : 1;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = first + (reverse ? n - 1 - i : i) * inner;
    const A x = static_cast<A>(widen(in[at]));
    out[at] = convert<Out>(total = step == Step::add ? total + x : total * x);
  }
}

template <class T>
__global__ void linear_recurrence(T* out, const T* a, const T* b, int64_t rows, int64_t n, int64_t inner,
                                  bool reverse) {
  const int64_t row = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const int64_t first = row / inner * n * inner + row % inner;
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = first + (reverse ? n - 1 - i : i) * inner;
    total = total * static_cast<double>(widen(a[at])) + static_cast<double>(widen(b[at]));
    out[at] = convert<T>(static_cast<Compute<T>>(total));
  }
}

/// [outer, n, inner], walked along n.
struct Rows {
  int64_t outer = 1, n = 1, inner = 1;
  bool reverse;
  explicit Rows(const KernelContext& op) : reverse(op.attributes.flag("reverse")) {
    const Shape& shape = op.in(0).shape;
    const int dim = static_cast<int>(op.attributes.integer("dim"));
    for (int d = 0; d < shape.size(); ++d) (d < dim ? outer : d == dim ? n : inner) *= shape[d];
  }
  int64_t count() const { return n == 0 ? 0 : outer * inner; }
};

template <Step step> void running_kernel(KernelContext& op) {
  const Rows rows(op);
  if (rows.count() == 0) return;
  const unsigned blocks = unsigned(ceil_divide(rows.count(), int64_t(128)));
  visit_any(op.in(0).dtype, [&]<class T>() {
    if constexpr (std::is_integral_v<T>) {
      TANDEM_LAUNCH((running<uint64_t, int64_t, T, step>), blocks, 128, 0, stream_of(op), data<int64_t>(op.out()),
                    data<T>(op.in(0)), rows.count(), rows.n, rows.inner, rows.reverse);
    } else {
      TANDEM_LAUNCH((running<Compute<T>, T, T, step>), blocks, 128, 0, stream_of(op), data<T>(op.out()),
                    data<T>(op.in(0)), rows.count(), rows.n, rows.inner, rows.reverse);
    }
  });
}

void linear_recurrence_kernel(KernelContext& op) {
  const Rows rows(op);
  if (rows.count() == 0) return;
  visit_floating(op.out().dtype, [&]<class T>() {
    TANDEM_LAUNCH((linear_recurrence<T>), unsigned(ceil_divide(rows.count(), int64_t(128))), 128, 0, stream_of(op),
                  data<T>(op.out()), data<T>(op.in(0)), data<T>(op.in(1)), rows.count(), rows.n, rows.inner,
                  rows.reverse);
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_scan(Kernels kernels) {
  kernels["cumsum"] = gpu::running_kernel<gpu::Step::add>;
  kernels["cumprod"] = gpu::running_kernel<gpu::Step::multiply>;
  kernels["linear_recurrence"] = gpu::linear_recurrence_kernel;
}

}  // namespace tandem
