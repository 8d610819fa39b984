// Pointwise ops of one operand, and the family's table.
#include "kernels/cuda/pointwise.cuh"

#include "kernels/cuda/kernels.h"

namespace tandem {

void add_cuda_pointwise_binary(Kernels kernels);  // pointwise_binary.cu: the two compile side by side

namespace gpu {
namespace {

#define TANDEM_UNARY(name, domain, ...)                                                                       \
  struct name##_functor {                                                                                     \
    TANDEM_POINTWISE_FUNCTOR(name, domain, 1, false, false)                                                   \
    template <class T> __device__ static __forceinline__ T apply(T x) { return static_cast<T>(__VA_ARGS__); } \
  };
#define TANDEM_TEST(name, domain, ...)                                                           \
  struct name##_functor {                                                                        \
    TANDEM_POINTWISE_FUNCTOR(name, domain, 1, true, false)                                       \
    template <class T> __device__ static __forceinline__ bool apply(T x) { return __VA_ARGS__; } \
  };
#define TANDEM_BINARY(...)
#define TANDEM_COMPARE(...)
#define TANDEM_TERNARY(...)
#define TANDEM_SELECT(...)
#include "core/pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_TEST

}  // namespace
}  // namespace gpu

void add_cuda_pointwise(Kernels kernels) {
#define TANDEM_UNARY(name, ...) kernels[#name] = gpu::pointwise_kernel<gpu::name##_functor>;
#define TANDEM_TEST TANDEM_UNARY
#include "core/pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_TEST
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT
  add_cuda_pointwise_binary(kernels);
}

}  // namespace tandem
