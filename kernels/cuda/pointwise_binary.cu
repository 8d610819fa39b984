// Pointwise ops of two and three operands.
#include "kernels/cuda/pointwise.cuh"

#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

#define TANDEM_UNARY(...)
#define TANDEM_TEST(...)
#define TANDEM_BINARY(name, domain, ...)                                                                           \
  struct name##_functor {                                                                                          \
    TANDEM_POINTWISE_FUNCTOR(name, domain, 2, false, false)                                                        \
    template <class T> __device__ static __forceinline__ T apply(T x, T y) { return static_cast<T>(__VA_ARGS__); } \
  };
#define TANDEM_COMPARE(name, domain, ...)                                                             \
  struct name##_functor {                                                                             \
    TANDEM_POINTWISE_FUNCTOR(name, domain, 2, true, false)                                            \
    template <class T> __device__ static __forceinline__ bool apply(T x, T y) { return __VA_ARGS__; } \
  };
#define TANDEM_TERNARY(name, domain, ...)                                         \
  struct name##_functor {                                                         \
    TANDEM_POINTWISE_FUNCTOR(name, domain, 3, false, false)                       \
    template <class T> __device__ static __forceinline__ T apply(T x, T y, T z) { \
      return static_cast<T>(__VA_ARGS__);                                         \
    }                                                                             \
  };
#define TANDEM_SELECT(name, domain, ...)                                             \
  struct name##_functor {                                                            \
    TANDEM_POINTWISE_FUNCTOR(name, domain, 3, false, true)                           \
    template <class T> __device__ static __forceinline__ T apply(bool x, T y, T z) { \
      return static_cast<T>(__VA_ARGS__);                                            \
    }                                                                                \
  };
#include "core/pointwise.def"
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT

}  // namespace
}  // namespace gpu

void add_cuda_pointwise_binary(Kernels kernels) {
#define TANDEM_BINARY(name, ...) kernels[#name] = gpu::pointwise_kernel<gpu::name##_functor>;
#define TANDEM_COMPARE TANDEM_BINARY
#define TANDEM_TERNARY TANDEM_BINARY
#define TANDEM_SELECT TANDEM_BINARY
#include "core/pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_TEST
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT
}

}  // namespace tandem
