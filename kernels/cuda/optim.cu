// SGD with momentum and AdamW, one element a thread: the updates are bound by memory, each value is read and
// written once. Results may be the inputs themselves: every element is read before it is written. The rate
// and the bias corrections are 0-d tensors on the device (so that a captured step never changes) or numbers.
#include "core/scalar/math.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

// A 0-d operand of any floating dtype, read as W.
template <class W> struct Number {
  const void* data = nullptr;  // on the device
  DType type = DType::float32;
  W value = 0;
  __device__ __forceinline__ W get() const {
    if (data == nullptr) return value;
    switch (type) {
      case DType::float64: return static_cast<W>(*static_cast<const double*>(data));
      case DType::float16: return static_cast<W>(widen(*static_cast<const __half*>(data)));
      case DType::bfloat16: return static_cast<W>(widen(*static_cast<const __nv_bfloat16*>(data)));
      default: return static_cast<W>(*static_cast<const float*>(data));
    }
  }
};
template <class W> Number<W> number(const TensorImpl& tensor) {
  if (!tensor.is_scalar && tensor.device.is_cuda()) return {tensor.data, tensor.dtype, 0};
  switch (tensor.dtype) {
    case DType::float64: return {nullptr, tensor.dtype, static_cast<W>(*static_cast<const double*>(tensor.data))};
    case DType::float16:
      return {nullptr, tensor.dtype, static_cast<W>(static_cast<float>(*static_cast<const Float16*>(tensor.data)))};
    case DType::bfloat16:
      return {nullptr, tensor.dtype, static_cast<W>(static_cast<float>(*static_cast<const BFloat16*>(tensor.data)))};
    default: return {nullptr, tensor.dtype, static_cast<W>(*static_cast<const float*>(tensor.data))};
  }
}

template <class W> struct Sgd {
  Number<W> rate;
  W momentum, decay, damp;
  bool nesterov;
};

template <class T>
__global__ void __launch_bounds__(threads_per_block) sgd(T* new_param, T* new_buffer, const T* param, const T* grad,
                                                         const T* buffer, Sgd<Compute<T>> by, Layout<5> layout) {
  using W = Compute<T>;
  const W rate = by.rate.get();
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t at[5];
    layout.offsets(i, at);
    const W p = widen(param[at[2]]), b = widen(buffer[at[4]]);
    W g = widen(grad[at[3]]);
    if (by.decay != 0) g = g + p * by.decay;
    W next = b, direction = g;
    if (by.momentum != 0) {
      next = b * by.momentum + (by.damp != W(1) ? g * by.damp : g);
      direction = by.nesterov ? g + next * by.momentum : next;
    }
    new_param[at[0]] = convert<T>(p - direction * rate);
    new_buffer[at[1]] = convert<T>(next);
  }
}

// What is made of the rate and the corrections is rounded in their type, whatever the parameter's is.
template <class W> struct AdamW {
  Number<double> rate, correction1, correction2;  // 1 - beta1^t, sqrt(1 - beta2^t)
  bool double_rates;
  double exact_decay;
  W beta2, rest1, rest2, epsilon, decay;  // rest: 1 - beta
  bool decoupled;
};

template <class T>
__global__ void __launch_bounds__(threads_per_block)
    adamw(T* new_param, T* new_m, T* new_v, const T* param, const T* grad, const T* m, const T* v, AdamW<Compute<T>> by,
          Layout<7> layout) {
  using W = Compute<T>;
  const double rate = by.rate.get(), correction1 = by.correction1.get();
  const W correction2 = static_cast<W>(by.correction2.get());
  W kept, step_size;
  if (by.double_rates) {
    kept = static_cast<W>(1 - rate * by.exact_decay);
    step_size = static_cast<W>(rate / correction1);
  } else {
    kept = static_cast<W>(1.0f - static_cast<float>(rate) * static_cast<float>(by.exact_decay));
    step_size = static_cast<W>(static_cast<float>(rate) / static_cast<float>(correction1));
  }
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t at[7];
    layout.offsets(i, at);
    W p = widen(param[at[3]]), g = widen(grad[at[4]]);
    const W m_old = widen(m[at[5]]), v_old = widen(v[at[6]]);
    if (by.decay != 0) {
      if (by.decoupled) p = p * kept;
      else g = g + p * by.decay;
    }
    const W m_next = m_old + (g - m_old) * by.rest1;
    const W v_next = v_old * by.beta2 + g * g * by.rest2;
    const W direction = m_next / (td_sqrt(v_next) / correction2 + by.epsilon);
    new_param[at[0]] = convert<T>(p - direction * step_size);
    new_m[at[1]] = convert<T>(m_next);
    new_v[at[2]] = convert<T>(v_next);
  }
}

std::pair<const Shape*, const Shape*> layout_of(const TensorImpl& tensor) { return {&tensor.shape, &tensor.strides}; }

void sgd_kernel(KernelContext& op) {
  visit_floating(op.out().dtype, [&]<class T>() {
    using W = Compute<T>;
    const Sgd<W> by{number<W>(op.in(3)), static_cast<W>(op.attributes.number("momentum")),
                    static_cast<W>(op.attributes.number("weight_decay")),
                    static_cast<W>(1 - op.attributes.number("dampening")), op.attributes.flag("nesterov")};
    const Iteration iteration(op.out().shape, {layout_of(op.out(0)), layout_of(op.out(1)), layout_of(op.in(0)),
                                               layout_of(op.in(1)), layout_of(op.in(2))});
    in_pieces(iteration, [&](const Iteration& piece, const int64_t* at) {
      TANDEM_LAUNCH((sgd<T>), blocks_for(piece.numel()), threads_per_block, 0, stream_of(op),
                    data<T>(op.out(0)) + at[0], data<T>(op.out(1)) + at[1], data<T>(op.in(0)) + at[2],
                    data<T>(op.in(1)) + at[3], data<T>(op.in(2)) + at[4], by, Layout<5>(piece));
    });
  });
}

void adamw_kernel(KernelContext& op) {
  visit_floating(op.out().dtype, [&]<class T>() {
    using W = Compute<T>;
    const double beta1 = op.attributes.number("beta1"), beta2 = op.attributes.number("beta2");
    const double decay = op.attributes.number("weight_decay");
    const AdamW<W> by{number<double>(op.in(4)),
                      number<double>(op.in(5)),
                      number<double>(op.in(6)),
                      op.in(4).dtype == DType::float64,
                      decay,
                      static_cast<W>(beta2),
                      static_cast<W>(1 - beta1),
                      static_cast<W>(1 - beta2),
                      static_cast<W>(op.attributes.number("epsilon")),
                      static_cast<W>(decay),
                      op.attributes.flag("decoupled")};
    const Iteration iteration(op.out().shape,
                              {layout_of(op.out(0)), layout_of(op.out(1)), layout_of(op.out(2)), layout_of(op.in(0)),
                               layout_of(op.in(1)), layout_of(op.in(2)), layout_of(op.in(3))});
    in_pieces(iteration, [&](const Iteration& piece, const int64_t* at) {
      TANDEM_LAUNCH((adamw<T>), blocks_for(piece.numel()), threads_per_block, 0, stream_of(op),
                    data<T>(op.out(0)) + at[0], data<T>(op.out(1)) + at[1], data<T>(op.out(2)) + at[2],
                    data<T>(op.in(0)) + at[3], data<T>(op.in(1)) + at[4], data<T>(op.in(2)) + at[5],
                    data<T>(op.in(3)) + at[6], by, Layout<7>(piece));
    });
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_optim(Kernels kernels) {
  kernels["sgd"] = gpu::sgd_kernel;
  kernels["adamw"] = gpu::adamw_kernel;
}

}  // namespace tandem
