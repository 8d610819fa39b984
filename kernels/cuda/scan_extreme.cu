// cummax and cummin (scan.cuh): the last of equals, and from the first NaN on the last NaN.
#include <optional>

#include "kernels/cuda/scan.cuh"

namespace tandem {
namespace gpu {
namespace {

template <class T> struct Best {
  Compute<T> value;
  int64_t place;  // -1: of nothing
};

template <class T, bool greatest> struct Extreme {
  using State = Best<T>;
  T* out;
  int64_t* places;
  const T* in;
  static __device__ __forceinline__ State identity() { return {0, -1}; }
  static __device__ __forceinline__ State combine(State earlier, State later) {
    if (later.place < 0) return earlier;
    const bool better = greatest ? later.value >= earlier.value : later.value <= earlier.value;
    const bool later_wins =
        earlier.place < 0 || later.value != later.value || (earlier.value == earlier.value && better);
    return later_wins ? later : earlier;
  }
  static __device__ __forceinline__ State up(State x, int lanes, int width) {
    return {__shfl_up_sync(all_lanes, x.value, unsigned(lanes), width),
            __shfl_up_sync(all_lanes, x.place, unsigned(lanes), width)};
  }
  static __device__ __forceinline__ State last(State x, int width) {
    return {__shfl_sync(all_lanes, x.value, width - 1, width), __shfl_sync(all_lanes, x.place, width - 1, width)};
  }
  __device__ __forceinline__ State load(int64_t at, int64_t i) const { return {widen(in[at]), i}; }
  __device__ __forceinline__ void store(int64_t at, State best) const {
    out[at] = convert<T>(best.value);
    places[at] = best.place;
  }
};

template <bool greatest> void running_extreme(KernelContext& op) {
  const TensorImpl& x = op.in(0);
  TensorImpl &out = op.out(0), &places = op.out(1);
  if (x.shape.numel() == 0) return;
  const ScanShape shape(x.shape, int(op.attributes.integer("dim")), false);
  const auto run = [&]<class T>(T* to, const T* from) {
    launch_scan(Extreme<T, greatest>{to, data<int64_t>(places), from}, shape, out.device);
  };
  if (is_floating(x.dtype)) return visit_floating(x.dtype, [&]<class T>() { run(data<T>(out), data<T>(x)); });
  if (x.dtype == DType::int64) return run(data<int64_t>(out), data<int64_t>(x));
  if (x.dtype == DType::int32) return run(data<int32_t>(out), data<int32_t>(x));
  // Smaller integers as int32, over which the scan writes.
  const Workspace wide(size_t(x.shape.numel()) * sizeof(int32_t), out.device);
  TensorImpl held;
  held.dtype = DType::int32;
  held.data = wide.as<void>();
  held.set_contiguous_layout(x.shape);
  copy_strided(x, x.shape, held.data, held.dtype, held.strides, stream_of(op));
  run(wide.as<int32_t>(), wide.as<const int32_t>());
  copy_strided(held, out.shape, out.data, out.dtype, out.strides, stream_of(op));
}

}  // namespace

void cummax_kernel(KernelContext& op) { running_extreme<true>(op); }
void cummin_kernel(KernelContext& op) { running_extreme<false>(op); }

}  // namespace gpu
}  // namespace tandem
