// CUDA's device language for g++ and clang: what a .cu file may use between the braces of a kernel.
//
// Only what our kernels and the generated sources need. What g++ can't be taught is spelled as a macro: shared
// memory here (there is no __shared__), and the launch in kernels/cuda/launch.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/emulator/emulator.h"

#define __host__
#define __device__
#define __global__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __CUDA_EMULATOR__ 1

// __shared__ type name dimensions; as in TANDEM_SHARED(float, tile, [32][33])
#define TANDEM_SHARED(type, name, ...)                                       \
  using tandem_shared_##name = type __VA_ARGS__;                             \
  static ::tandem_emulator::Shared<tandem_shared_##name> tandem_slot_##name; \
  tandem_shared_##name& name = tandem_slot_##name.get()
// extern __shared__ type name[]
#define TANDEM_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::tandem_emulator::context->dynamic_shared)

#define threadIdx (::tandem_emulator::context->thread_index)
#define blockIdx (::tandem_emulator::context->block_index)
#define blockDim (::tandem_emulator::context->block_size)
#define gridDim (::tandem_emulator::context->grid_size)
constexpr int warpSize = 32;

// --- vectors -------------------------------------------------------------------------------------------

struct alignas(2) uchar2 {
  unsigned char x, y;
};
struct alignas(4) uchar4 {
  unsigned char x, y, z, w;
};
struct alignas(4) ushort2 {
  unsigned short x, y;
};
struct alignas(8) ushort4 {
  unsigned short x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct int3 {
  int x, y, z;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct float3 {
  float x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(16) longlong2 {
  long long x, y;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};

inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
};

// --- bits and arithmetic -------------------------------------------------------------------------------

namespace tandem_emulator {

// Memory that the lanes of a block share: NaN when the first lane of a block comes to it.
template <class T> struct Shared {
  alignas(16) unsigned char bytes[sizeof(T)];
  std::uint64_t block = 0;

  T& get() {
    if (block != context->block_serial) {
      std::memset(bytes, 0xFF, sizeof bytes);
      block = context->block_serial;
    }
    return *reinterpret_cast<T*>(bytes);
  }
};

template <class To, class From> inline To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}
}  // namespace tandem_emulator

inline int __float_as_int(float x) { return tandem_emulator::bits_as<int>(x); }
inline unsigned __float_as_uint(float x) { return tandem_emulator::bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return tandem_emulator::bits_as<float>(x); }
inline float __uint_as_float(unsigned x) { return tandem_emulator::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return tandem_emulator::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return tandem_emulator::bits_as<double>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((std::uint64_t(a) * b) >> 32); }
inline int __mulhi(int a, int b) { return int((std::int64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>((Wide(a) * b) >> 64);
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __tanhf(float x) { return std::tanh(x); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return int(std::floor(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }

// --- memory --------------------------------------------------------------------------------------------

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, T value) { *p = value; }
template <class T> inline void __stcg(T* p, T value) { *p = value; }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}
inline void __trap() { tandem_emulator::context->trap(); }

template <class T, class F> inline T tandem_emulator_update(T* address, F f) {
  const T old = *address;
  *address = f(old);
  return old;
}
template <class T> using tandem_emulator_same = std::common_type_t<T>;  // a parameter that isn't deduced
template <class T> inline T atomicAdd(T* p, tandem_emulator_same<T> v) {
  return tandem_emulator_update(p, [&](T old) { return T(old + v); });
}
template <class T> inline T atomicSub(T* p, tandem_emulator_same<T> v) {
  return tandem_emulator_update(p, [&](T old) { return T(old - v); });
}
template <class T> inline T atomicExch(T* p, tandem_emulator_same<T> v) {
  return tandem_emulator_update(p, [&](T) { return v; });
}
template <class T> inline T atomicMax(T* p, tandem_emulator_same<T> v) {
  return tandem_emulator_update(p, [&](T old) { return old > v ? old : v; });
}
template <class T> inline T atomicMin(T* p, tandem_emulator_same<T> v) {
  return tandem_emulator_update(p, [&](T old) { return old < v ? old : v; });
}
template <class T> inline T atomicAnd(T* p, tandem_emulator_same<T> v) {
  return tandem_emulator_update(p, [&](T old) { return T(old & v); });
}
template <class T> inline T atomicOr(T* p, tandem_emulator_same<T> v) {
  return tandem_emulator_update(p, [&](T old) { return T(old | v); });
}
template <class T> inline T atomicXor(T* p, tandem_emulator_same<T> v) {
  return tandem_emulator_update(p, [&](T old) { return T(old ^ v); });
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return tandem_emulator_update(p, [&](unsigned old) { return old >= limit ? 0u : old + 1; });
}
template <class T> inline T atomicCAS(T* p, tandem_emulator_same<T> expected, tandem_emulator_same<T> desired) {
  return tandem_emulator_update(p, [&](T old) { return old == expected ? desired : old; });
}

// --- barriers and warp collectives -----------------------------------------------------------------------
// The defaulted arguments give the place of the call, which all lanes of a collective must share.

#define TANDEM_EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(TANDEM_EMULATOR_SITE) {
  int live;
  tandem_emulator::context->barrier(false, &live, {file, line});
}
inline int __syncthreads_count(int predicate, TANDEM_EMULATOR_SITE) {
  int live;
  return tandem_emulator::context->barrier(predicate != 0, &live, {file, line});
}
inline int __syncthreads_or(int predicate, TANDEM_EMULATOR_SITE) {
  int live;
  return tandem_emulator::context->barrier(predicate != 0, &live, {file, line}) != 0;
}
inline int __syncthreads_and(int predicate, TANDEM_EMULATOR_SITE) {
  int live;
  const int count = tandem_emulator::context->barrier(predicate != 0, &live, {file, line});
  return count == live;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, TANDEM_EMULATOR_SITE) {
  tandem_emulator::context->collective(mask, nullptr, nullptr, {file, line});
}
inline unsigned __activemask() { return tandem_emulator::context->live_lanes(); }

namespace tandem_emulator {

template <class T> struct ShuffleFrame {
  T value, result;
  unsigned source;
};

template <class T> inline T shuffle(unsigned mask, T value, unsigned source, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  ShuffleFrame<T> frame{value, value, source};
  context->collective(
      mask, &frame,
      [](void** frames, unsigned lanes, unsigned) {
        for (unsigned i = 0; i < 32; ++i) {
          if ((lanes >> i & 1u) == 0) continue;
          auto& own = *static_cast<ShuffleFrame<T>*>(frames[i]);
          if (lanes >> own.source & 1u) {
            own.result = static_cast<ShuffleFrame<T>*>(frames[own.source])->value;
          } else {
            std::memset(static_cast<void*>(&own.result), 0xFF, sizeof(T));  // a lane that takes no part: undefined
          }
        }
      },
      site);
  return frame.result;
}

struct VoteFrame {
  bool predicate;
  unsigned ballot;
};

inline unsigned ballot(unsigned mask, bool predicate, Site site) {
  VoteFrame frame{predicate, 0};
  context->collective(
      mask, &frame,
      [](void** frames, unsigned lanes, unsigned) {
        unsigned votes = 0;
        for (unsigned i = 0; i < 32; ++i)
          if (lanes >> i & 1u) votes |= unsigned(static_cast<VoteFrame*>(frames[i])->predicate) << i;
        for (unsigned i = 0; i < 32; ++i)
          if (lanes >> i & 1u) static_cast<VoteFrame*>(frames[i])->ballot = votes;
      },
      site);
  return frame.ballot;
}

// Folds the operands of all lanes, lowest lane first.
template <class T, class F> inline T fold(unsigned mask, T value, Site site, F) {
  ShuffleFrame<T> frame{value, value, 0};
  context->collective(
      mask, &frame,
      [](void** frames, unsigned lanes, unsigned) {
        bool first = true;
        T total{};
        for (unsigned i = 0; i < 32; ++i) {
          if ((lanes >> i & 1u) == 0) continue;
          const T operand = static_cast<ShuffleFrame<T>*>(frames[i])->value;
          total = first ? operand : F{}(total, operand);
          first = false;
        }
        for (unsigned i = 0; i < 32; ++i)
          if (lanes >> i & 1u) static_cast<ShuffleFrame<T>*>(frames[i])->result = total;
      },
      site);
  return frame.result;
}

struct FoldAdd {
  template <class T> T operator()(T a, T b) const { return T(a + b); }
};
struct FoldMax {
  template <class T> T operator()(T a, T b) const { return a > b ? a : b; }
};
struct FoldMin {
  template <class T> T operator()(T a, T b) const { return a < b ? a : b; }
};
struct FoldAnd {
  template <class T> T operator()(T a, T b) const { return T(a & b); }
};
struct FoldOr {
  template <class T> T operator()(T a, T b) const { return T(a | b); }
};
struct FoldXor {
  template <class T> T operator()(T a, T b) const { return T(a ^ b); }
};

}  // namespace tandem_emulator

template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, TANDEM_EMULATOR_SITE) {
  const unsigned lane = tandem_emulator::context->lane, base = lane & ~unsigned(width - 1);
  return tandem_emulator::shuffle(mask, value, base + (unsigned(source) & unsigned(width - 1)), {file, line});
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, TANDEM_EMULATOR_SITE) {
  const unsigned lane = tandem_emulator::context->lane, base = lane & ~unsigned(width - 1);
  return tandem_emulator::shuffle(mask, value, lane - base >= delta ? lane - delta : lane, {file, line});
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, TANDEM_EMULATOR_SITE) {
  const unsigned lane = tandem_emulator::context->lane, base = lane & ~unsigned(width - 1);
  return tandem_emulator::shuffle(mask, value, lane - base + delta < unsigned(width) ? lane + delta : lane,
                                  {file, line});
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, TANDEM_EMULATOR_SITE) {
  // As the instruction does: a partner in a later segment gives the lane's own value back.
  const unsigned lane = tandem_emulator::context->lane, partner = lane ^ unsigned(lane_mask);
  const unsigned end = (lane & ~unsigned(width - 1)) + unsigned(width);
  return tandem_emulator::shuffle(mask, value, partner < end ? partner : lane, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, TANDEM_EMULATOR_SITE) {
  return tandem_emulator::ballot(mask, predicate != 0, {file, line});
}
inline int __any_sync(unsigned mask, int predicate, TANDEM_EMULATOR_SITE) {
  return tandem_emulator::ballot(mask, predicate != 0, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, TANDEM_EMULATOR_SITE) {
  return tandem_emulator::ballot(mask, predicate == 0, {file, line}) == 0;
}
#define TANDEM_EMULATOR_REDUCE(name, Fold)                                                           \
  template <class T> inline T __reduce_##name##_sync(unsigned mask, T value, TANDEM_EMULATOR_SITE) { \
    static_assert(std::is_integral_v<T> && sizeof(T) == 4);                                          \
    return tandem_emulator::fold(mask, value, {file, line}, tandem_emulator::Fold{});                \
  }
TANDEM_EMULATOR_REDUCE(add, FoldAdd)
TANDEM_EMULATOR_REDUCE(max, FoldMax)
TANDEM_EMULATOR_REDUCE(min, FoldMin)
TANDEM_EMULATOR_REDUCE(and, FoldAnd)
TANDEM_EMULATOR_REDUCE(or, FoldOr)
TANDEM_EMULATOR_REDUCE(xor, FoldXor)
#undef TANDEM_EMULATOR_REDUCE

// --- launching ---------------------------------------------------------------------------------------------

namespace tandem_emulator {

// What a launch runs: the kernel with its arguments, converted as the launch converts them.
template <class... Parameters> struct Call {
  void (*kernel)(Parameters...);
  std::tuple<std::decay_t<Parameters>...> arguments;

  static void lane(void* self) {
    auto& call = *static_cast<Call*>(self);
    std::apply([&](auto&... argument) { call.kernel(argument...); }, call.arguments);
  }
};

}  // namespace tandem_emulator
