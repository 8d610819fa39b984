// What every kernel uses: element types, 128-bit packs, reductions of warps and blocks, sizes of grids.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "core/scalar/math.h"
#include "kernels/cuda/launch.h"

namespace tandem::gpu {

constexpr unsigned all_lanes = 0xffffffffu;

// --- element types ---------------------------------------------------------------------------------------
// Device code works on CUDA's own 16-bit types, which have the layout of tandem::Float16 and BFloat16, and
// does all of its arithmetic on them in float; on int16 and int8 in int32.

template <class T> struct ComputeOf { using type = T; };
template <> struct ComputeOf<__half> { using type = float; };
template <> struct ComputeOf<__nv_bfloat16> { using type = float; };
template <> struct ComputeOf<int16_t> { using type = int32_t; };
template <> struct ComputeOf<int8_t> { using type = int32_t; };
template <class T> using Compute = typename ComputeOf<T>::type;

template <class T> inline constexpr bool is_half = std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>;

template <class T> __device__ __forceinline__ Compute<T> widen(T x) {
  if constexpr (std::is_same_v<T, __half>) return __half2float(x);
  else if constexpr (std::is_same_v<T, __nv_bfloat16>) return __bfloat162float(x);
  else return x;
}

// Floats to integers, where C++ leaves open what doesn't fit.
template <class To> __host__ __device__ __forceinline__ To whole(float x) {
  if constexpr (std::is_same_v<To, int32_t>) return td_f32_to_i32(x);
  else if constexpr (std::is_same_v<To, int16_t>) return td_f32_to_i16(x);
  else if constexpr (std::is_same_v<To, int8_t>) return td_f32_to_i8(x);
  else if constexpr (std::is_same_v<To, uint8_t>) return td_f32_to_u8(x);
  else return td_f32_to_i64(x);
}
template <class To> __host__ __device__ __forceinline__ To whole(double x) {
  if constexpr (std::is_same_v<To, int32_t>) return td_f64_to_i32(x);
  else if constexpr (std::is_same_v<To, int16_t>) return td_f64_to_i16(x);
  else if constexpr (std::is_same_v<To, int8_t>) return td_f64_to_i8(x);
  else if constexpr (std::is_same_v<To, uint8_t>) return td_f64_to_u8(x);
  else return td_f64_to_i64(x);
}

// Any element type to any other; to bool, whether it differs from zero.
template <class To, class From> __device__ __forceinline__ To convert(From x) {
  if constexpr (is_half<From>) return convert<To>(widen(x));
  else if constexpr (std::is_same_v<To, __half>) return __float2half_rn(static_cast<float>(x));
  else if constexpr (std::is_same_v<To, __nv_bfloat16>) return __float2bfloat16_rn(static_cast<float>(x));
  else if constexpr (std::is_same_v<To, bool>) return x != From(0);
  else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) return whole<To>(x);
  else return static_cast<To>(x);
}

// --- memory ------------------------------------------------------------------------------------------------

// N neighbours that are read and written by one instruction; sizeof is at most 16.
template <class T, int N> struct alignas(sizeof(T) * N) Pack { T at[N]; };
template <class T> inline constexpr int pack_size = 16 / int(sizeof(T));

template <int N, class T> __device__ __forceinline__ Pack<T, N> load_pack(const T* address) {
  return *reinterpret_cast<const Pack<T, N>*>(address);
}
template <class T, int N> __device__ __forceinline__ void store_pack(T* address, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(address) = pack;
}

inline bool is_aligned(const void* address, std::size_t bytes = 16) {
  return reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
}

/// Elements in device memory, or one number for all of them.
template <class T> struct Operand {
  const T* data = nullptr;
  T value;

  __device__ __forceinline__ T at(int64_t offset) const { return data ? data[offset] : value; }
  template <int N> __device__ __forceinline__ Pack<T, N> pack(int64_t offset) const {
    if (data) return load_pack<N>(data + offset);
    Pack<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) result.at[i] = value;
    return result;
  }
};

// --- reductions ----------------------------------------------------------------------------------------------
// Butterflies: every lane ends with the same bits, and the order of operations never varies.

struct Add {
  template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return td_add(a, b); }
};
struct Maximum {  // NaN wins
  template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a != a || a > b ? a : b; }
};

template <class T> __device__ __forceinline__ T shuffle_xor(T value, int lanes) {
  return __shfl_xor_sync(all_lanes, value, lanes);
}

template <int width = 32, class T, class F> __device__ __forceinline__ T reduce_lanes(T value, F f) {
#pragma unroll
  for (int offset = width / 2; offset > 0; offset /= 2) value = f(value, shuffle_xor(value, offset));
  return value;
}

// Over all threads of a one-dimensional block whose size is a multiple of 32; `scratch` is shared, one element
// per warp. All threads must call it, and all get the result.
template <class T, class F> __device__ __forceinline__ T reduce_block(T value, F f, T identity, T* scratch) {
  value = reduce_lanes(value, f);
  const unsigned lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (warps == 1) return value;
  __syncthreads();  // whoever still reads the previous result
  if (lane == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  return reduce_lanes(lane < warps ? scratch[lane] : identity, f);
}

// --- grids -----------------------------------------------------------------------------------------------------

template <class T> constexpr T ceil_divide(T a, T b) { return (a + b - 1) / b; }

constexpr int threads_per_block = 256;

// Blocks for a grid-stride loop over `items`: enough to fill the device several times, no more.
unsigned blocks_for(std::int64_t items, int threads = threads_per_block);
std::int64_t multiprocessors();

__device__ __forceinline__ std::int64_t global_thread() { return std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ std::int64_t global_threads() { return std::int64_t(gridDim.x) * blockDim.x; }

// Division by a number that is only known at run time, as multiplication and shift: exact for all 32-bit
// unsigned operands (Granlund and Montgomery, PLDI 1994, section 4, with the sum carried in 64 bits).
struct Divider {
  unsigned divisor = 1, multiplier = 0, shift = 0;
  Divider() = default;
  explicit Divider(unsigned d) : divisor(d > 0 ? d : 1) {  // an empty dim is never walked
    d = divisor;
    while (shift < 32 && (std::uint64_t(1) << shift) < d) ++shift;
    multiplier = unsigned(((std::uint64_t(1) << 32) * ((std::uint64_t(1) << shift) - d)) / d + 1);
  }
  __device__ __forceinline__ unsigned divide(unsigned n) const {
    return unsigned((std::uint64_t(__umulhi(n, multiplier)) + n) >> shift);
  }
  __device__ __forceinline__ void divide(unsigned n, unsigned& quotient, unsigned& remainder) const {
    quotient = divide(n);
    remainder = n - quotient * divisor;
  }
};

}  // namespace tandem::gpu
