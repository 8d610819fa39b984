// The kernels of pointwise ops: the expression of core/pointwise.def over operands that are contiguous
// (128-bit accesses), strided or broadcast (one division per dim and element), or C++ numbers (in registers).
#pragma once

#include "core/scalar/gamma.h"
#include "core/scalar/math.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/layout.h"

namespace tandem::gpu {

// The type that the expression is computed in: `T` there.
template <class T> struct ExpressionType { using type = Compute<T>; };
template <> struct ExpressionType<bool> { using type = td_u8; };

// F: `arity`, `selects` (the first operand is bool) and `apply(x[, y[, z]])` on ExpressionType<T>.
template <class F, class T> struct PointwiseTypes {
  using First = std::conditional_t<F::selects, bool, T>;
  using Result = std::conditional_t<F::compares, bool, T>;
  using Expression = typename ExpressionType<T>::type;
};

template <class F, class T>
__device__ __forceinline__ typename PointwiseTypes<F, T>::Result evaluate(typename PointwiseTypes<F, T>::First x, T y,
                                                                          T z) {
  using Types = PointwiseTypes<F, T>;
  using E = typename Types::Expression;
  const auto wide = [](T value) { return static_cast<E>(widen(value)); };
  if constexpr (F::selects) return convert<T>(F::template apply<E>(x, wide(y), wide(z)));
  else if constexpr (F::compares && F::arity == 1) return F::template apply<E>(wide(x));
  else if constexpr (F::compares) return F::template apply<E>(wide(x), wide(y));
  else if constexpr (F::arity == 1) return convert<T>(F::template apply<E>(wide(x)));
  else if constexpr (F::arity == 2) return convert<T>(F::template apply<E>(wide(x), wide(y)));
  else return convert<T>(F::template apply<E>(wide(x), wide(y), wide(z)));
}

template <class F, class T>
__global__ void __launch_bounds__(threads_per_block)
    pointwise_contiguous(typename PointwiseTypes<F, T>::Result* out, Operand<typename PointwiseTypes<F, T>::First> x,
                         Operand<T> y, Operand<T> z, int64_t count) {
  constexpr int N = pack_size<T>;
  const int64_t step = global_threads() * N;
  for (int64_t i = global_thread() * N; i + N <= count; i += step) {
    const auto xs = x.template pack<N>(i);
    Pack<T, N> ys{}, zs{};
    if constexpr (F::arity > 1) ys = y.template pack<N>(i);
    if constexpr (F::arity > 2) zs = z.template pack<N>(i);
    Pack<typename PointwiseTypes<F, T>::Result, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) result.at[k] = evaluate<F, T>(xs.at[k], ys.at[k], zs.at[k]);
    store_pack(out + i, result);
  }
  const int64_t tail = count / N * N + global_thread();
  if (tail < count) {
    T second{}, third{};
    if constexpr (F::arity > 1) second = y.at(tail);
    if constexpr (F::arity > 2) third = z.at(tail);
    out[tail] = evaluate<F, T>(x.at(tail), second, third);
  }
}

template <class F, class T>
__global__ void __launch_bounds__(threads_per_block)
    pointwise_strided(typename PointwiseTypes<F, T>::Result* out, Operand<typename PointwiseTypes<F, T>::First> x,
                      Operand<T> y, Operand<T> z, Layout<F::arity + 1> layout) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t offset[F::arity + 1];
    layout.offsets(i, offset);
    T second{}, third{};
    if constexpr (F::arity > 1) second = y.at(offset[2]);
    if constexpr (F::arity > 2) third = z.at(offset[3]);
    out[offset[0]] = evaluate<F, T>(x.at(offset[1]), second, third);
  }
}

template <class F, class T> void launch_pointwise(KernelContext& op) {
  using Types = PointwiseTypes<F, T>;
  const TensorImpl& out = op.out();
  const int64_t count = out.shape.numel();
  if (count == 0) return;
  const cudaStream_t stream = stream_of(op);
  auto* result = static_cast<typename Types::Result*>(out.data);
  const Operand<typename Types::First> x = operand<typename Types::First>(op.in(0));
  Operand<T> y{}, z{};
  if constexpr (F::arity > 1) y = operand<T>(op.in(1));
  if constexpr (F::arity > 2) z = operand<T>(op.in(2));

  // 128-bit accesses pay where the floats are. Doubles fill their transactions without, and two at once would spill
  // registers across the calls that their functions are.
  if constexpr (sizeof(T) > 1 && sizeof(T) < 8 && !std::is_integral_v<T>) {
    bool contiguous = is_dense(out.shape, out.strides) && is_aligned(out.data);
    for (int i = 0; contiguous && i < F::arity; ++i) {
      const TensorImpl& in = op.in(i);
      contiguous = in.is_scalar || (in.shape == out.shape && is_aligned(in.data) &&
                                    (in.strides == out.strides || (in.contiguous && out.contiguous)));
    }
    if (contiguous) {
      const unsigned blocks = blocks_for(ceil_divide(count, int64_t(pack_size<T>)));
      TANDEM_LAUNCH((pointwise_contiguous<F, T>), blocks, threads_per_block, 0, stream, result, x, y, z, count);
      return;
    }
  }
  static const Shape none{};
  const auto layout_of = [&](int i) {
    const TensorImpl& in = op.in(i);
    return in.is_scalar ? std::pair(&none, &none) : std::pair(&in.shape, &in.strides);
  };
  const std::pair<const Shape*, const Shape*> own(&out.shape, &out.strides);
  Iteration iteration;
  if constexpr (F::arity == 1) iteration = Iteration(out.shape, {own, layout_of(0)});
  else if constexpr (F::arity == 2) iteration = Iteration(out.shape, {own, layout_of(0), layout_of(1)});
  else iteration = Iteration(out.shape, {own, layout_of(0), layout_of(1), layout_of(2)});
  in_pieces(iteration, [&](const Iteration& piece, const int64_t* offset) {
    const auto moved = [](auto each, int64_t by) {
      if (each.data) each.data += by;
      return each;
    };
    TANDEM_LAUNCH((pointwise_strided<F, T>), blocks_for(piece.numel()), threads_per_block, 0, stream,
                  result + offset[0], moved(x, offset[1]), moved(y, F::arity > 1 ? offset[2] : 0),
                  moved(z, F::arity > 2 ? offset[3] : 0), Layout<F::arity + 1>(piece));
  });
}

template <class F> void pointwise_kernel(KernelContext& op) {
  const DType type = op.inputs.back().dtype();
  const auto launch = [&]<class T>() { launch_pointwise<F, T>(op); };
  if constexpr (F::domain == Domain::floating) {
    visit_floating(type, launch);
  } else {
    switch (type) {
      case DType::int32: return launch.template operator()<int32_t>();
      case DType::int64: return launch.template operator()<int64_t>();
      case DType::int16: return launch.template operator()<int16_t>();
      case DType::int8: return launch.template operator()<int8_t>();
      case DType::uint8: return launch.template operator()<uint8_t>();
      case DType::bool_:
        if constexpr (F::domain != Domain::numeric && F::domain != Domain::whole)
          return launch.template operator()<bool>();
        break;
      default:
        if constexpr (F::domain != Domain::integral && F::domain != Domain::whole) return visit_floating(type, launch);
    }
    TANDEM_ASSERT(false, op.op.name, " of ", name_of(type));
  }
}

#define TANDEM_POINTWISE_FUNCTOR(name, domain_, arity_, compares_, selects_) \
  static constexpr Domain domain = Domain::domain_;                          \
  static constexpr int arity = arity_;                                       \
  static constexpr bool compares = compares_, selects = selects_;

}  // namespace tandem::gpu
