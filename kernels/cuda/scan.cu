// Running sums and products along one dim, and linear recurrences (scan.cuh). Totals of floats are double, of integers uint64, as on
// the CPU.
#include "kernels/cuda/scan.cuh"

namespace tandem {
namespace gpu {
namespace {

template <class T> __device__ __forceinline__ T lanes_up(T x, int lanes, int width) {
  return __shfl_up_sync(all_lanes, x, unsigned(lanes), width);
}
template <class T> __device__ __forceinline__ T last_lane(T x, int width) {
  return __shfl_sync(all_lanes, x, width - 1, width);
}

template <class T, class A> struct Sum {
  using State = A;
  T* out;
  const T* in;
  static __device__ __forceinline__ A identity() { return 0; }
  static __device__ __forceinline__ A combine(A earlier, A later) { return earlier + later; }
  static __device__ __forceinline__ A up(A x, int lanes, int width) { return lanes_up(x, lanes, width); }
  static __device__ __forceinline__ A last(A x, int width) { return last_lane(x, width); }
  __device__ __forceinline__ A load(int64_t at, int64_t) const { return static_cast<A>(widen(in[at])); }
  __device__ __forceinline__ void store(int64_t at, A total) const {
    out[at] = convert<T>(static_cast<Compute<T>>(total));
  }
};

struct Whole : Sum<int64_t, unsigned long long> {};
struct WholeProduct : Whole {
  static __device__ __forceinline__ State identity() { return 1; }
  static __device__ __forceinline__ State combine(State earlier, State later) { return earlier * later; }
};

/// A number with an exponent of its own: the product of a piece of a line may leave double's range where those of all its beginnings,
/// from the first element on, don't.
struct Scaled {
  double digits;  // 0.5 to 1, or 0, infinite, NaN
  int exponent;

  static __device__ __forceinline__ Scaled of(double x) {
    Scaled result{x, 0};
    if (x != 0 && x - x == 0) result.digits = frexp(x, &result.exponent);
    return result;
  }
  /// y times this.
  __device__ __forceinline__ double times(double y) const { return ldexp(y * digits, exponent); }
  friend __device__ __forceinline__ Scaled operator*(Scaled a, Scaled b) {
    Scaled result = of(a.digits * b.digits);
    const int exponent = result.exponent + a.exponent + b.exponent, most = 1 << 28;
    result.exponent = exponent > most ? most : exponent < -most ? -most : exponent;
    return result;
  }
};

template <class T> struct Product {
  using State = Scaled;
  T* out;
  const T* in;
  static __device__ __forceinline__ State identity() { return {0.5, 1}; }
  static __device__ __forceinline__ State combine(State earlier, State later) { return earlier * later; }
  static __device__ __forceinline__ State up(State x, int lanes, int width) {
    return {lanes_up(x.digits, lanes, width), lanes_up(x.exponent, lanes, width)};
  }
  static __device__ __forceinline__ State last(State x, int width) {
    return {last_lane(x.digits, width), last_lane(x.exponent, width)};
  }
  __device__ __forceinline__ State load(int64_t at, int64_t) const {
    return Scaled::of(static_cast<double>(widen(in[at])));
  }
  __device__ __forceinline__ void store(int64_t at, State total) const {
    out[at] = convert<T>(static_cast<Compute<T>>(total.times(1)));
  }
};

/// y = factor y + term, of one element or of several in a row.
struct Affine {
  Scaled factor;
  double term;
};
template <class T> struct Recurrence {
  using State = Affine;
  T* out;
  const T *a, *b;
  static __device__ __forceinline__ State identity() { return {{0.5, 1}, 0}; }
  static __device__ __forceinline__ State combine(State earlier, State later) {
    return {earlier.factor * later.factor, later.factor.times(earlier.term) + later.term};
  }
  static __device__ __forceinline__ State up(State x, int lanes, int width) {
    return {Product<T>::up(x.factor, lanes, width), lanes_up(x.term, lanes, width)};
  }
  static __device__ __forceinline__ State last(State x, int width) {
    return {Product<T>::last(x.factor, width), last_lane(x.term, width)};
  }
  __device__ __forceinline__ State load(int64_t at, int64_t) const {
    return {Scaled::of(static_cast<double>(widen(a[at]))), static_cast<double>(widen(b[at]))};
  }
  __device__ __forceinline__ void store(int64_t at, State total) const {
    out[at] = convert<T>(static_cast<Compute<T>>(total.term));
  }
};

ScanShape shape_of(const KernelContext& op) {
  return {op.in(0).shape, int(op.attributes.integer("dim")), op.attributes.flag("reverse")};
}

/// Integers of any width become int64 in the result's memory, over which the scan writes.
template <template <class> class Floats, class Integers> void running_kernel(KernelContext& op) {
  const TensorImpl& x = op.in(0);
  TensorImpl& out = op.out();
  if (out.shape.numel() == 0) return;
  if (is_floating(out.dtype)) {
    return visit_floating(out.dtype, [&]<class T>() {
      launch_scan(Floats<T>{data<T>(out), data<T>(x)}, shape_of(op), out.device);
    });
  }
  const bool wide = x.dtype == DType::int64;
  if (!wide) copy_strided(x, out.shape, out.data, out.dtype, out.strides, stream_of(op));
  Integers integers;
  integers.out = data<int64_t>(out);
  integers.in = wide ? data<int64_t>(x) : data<int64_t>(out);
  launch_scan(integers, shape_of(op), out.device);
}
template <class T> using FloatSum = Sum<T, double>;

void linear_recurrence_kernel(KernelContext& op) {
  TensorImpl& out = op.out();
  if (out.shape.numel() == 0) return;
  visit_floating(out.dtype, [&]<class T>() {
    launch_scan(Recurrence<T>{data<T>(out), data<T>(op.in(0)), data<T>(op.in(1))}, shape_of(op), out.device);
  });
}

}  // namespace

void cummax_kernel(KernelContext& op);  // scan_extreme.cu
void cummin_kernel(KernelContext& op);

}  // namespace gpu

void add_cuda_scan(Kernels kernels) {
  kernels["cumsum"] = gpu::running_kernel<gpu::FloatSum, gpu::Whole>;
  kernels["cumprod"] = gpu::running_kernel<gpu::Product, gpu::WholeProduct>;
  kernels["cummax"] = gpu::cummax_kernel;
  kernels["cummin"] = gpu::cummin_kernel;
  kernels["linear_recurrence"] = gpu::linear_recurrence_kernel;
}

}  // namespace tandem
