// Optimiser updates, in place: each element of parameter, gradient and moments is read before it is written.
#include "core/op.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

constexpr int64_t kGrain = 16 * 1024;

template <class R = float> R scalar(const TensorImpl& x) {
  if (x.dtype == dtype_of<R>) return *static_cast<const R*>(x.data);
  R value = 0;
  copy_elements(x, Header(&value, dtype_of<R>, {}).impl);
  return value;
}

/// What is made of rates is rounded in their type R, whatever the parameter's is.
template <class R, class T> void set_rates(const KernelContext& c, double decay, AdamArguments<T>& all) {
  const R lr = scalar<R>(c.in(4));
  all.shrink = static_cast<T>(R(1) - lr * static_cast<R>(decay));
  all.step_size = static_cast<T>(lr / scalar<R>(c.in(5)));
  all.correction2 = static_cast<T>(scalar<R>(c.in(6)));
}

/// Parameters are dense, and contiguous but for what a user lays out otherwise; then every operand is copied.
template <class T> void sgd(KernelContext& c) {
  const WideInput<T> param(c.in(0)), grad(c.in(1)), buffer(c.in(2));
  const WideOutput<T> new_param(c.out(0)), new_buffer(c.out(1));
  SgdArguments<T> all{};
  all.lr = static_cast<T>(scalar(c.in(3)));
  all.momentum = static_cast<T>(c.attributes.number("momentum"));
  all.damp = static_cast<T>(1 - c.attributes.number("dampening"));
  all.weight_decay = static_cast<T>(c.attributes.number("weight_decay"));
  all.nesterov = c.attributes.flag("nesterov");
  parallel_for(
      c.out(0).shape.numel(), kGrain,
      [&](int64_t begin, int64_t end) {
        SgdArguments<T> part = all;
        part.param = param.data() + begin, part.grad = grad.data() + begin, part.buffer = buffer.data() + begin;
        part.new_param = new_param.data() + begin, part.new_buffer = new_buffer.data() + begin;
        if constexpr (sizeof(T) == 4) loops().optim->sgd_f32(end - begin, part);
        else loops().optim->sgd_f64(end - begin, part);
      },
      64);
  new_param.finish(), new_buffer.finish();
}

template <class T> void adamw(KernelContext& c) {
  const WideInput<T> param(c.in(0)), grad(c.in(1)), m(c.in(2)), v(c.in(3));
  const WideOutput<T> new_param(c.out(0)), new_m(c.out(1)), new_v(c.out(2));
  const double beta1 = c.attributes.number("beta1"), beta2 = c.attributes.number("beta2"),
               decay = c.attributes.number("weight_decay");
  const bool decoupled = c.attributes.flag("decoupled");
  AdamArguments<T> all{};
  if (c.in(4).dtype == DType::float64) set_rates<double>(c, decay, all);
  else set_rates<float>(c, decay, all);
  all.shrinks = decoupled && decay != 0;
  all.added_decay = static_cast<T>(decoupled ? 0 : decay);
  all.one_minus_beta1 = static_cast<T>(1 - beta1);
  all.beta2 = static_cast<T>(beta2);
  all.one_minus_beta2 = static_cast<T>(1 - beta2);
  all.epsilon = static_cast<T>(c.attributes.number("epsilon"));
  parallel_for(
      c.out(0).shape.numel(), kGrain,
      [&](int64_t begin, int64_t end) {
        AdamArguments<T> part = all;
        part.param = param.data() + begin, part.grad = grad.data() + begin;
        part.m = m.data() + begin, part.v = v.data() + begin;
        part.new_param = new_param.data() + begin, part.new_m = new_m.data() + begin, part.new_v = new_v.data() + begin;
        if constexpr (sizeof(T) == 4) loops().optim->adamw_f32(end - begin, part);
        else loops().optim->adamw_f64(end - begin, part);
      },
      64);
  new_param.finish(), new_m.finish(), new_v.finish();
}

#define TANDEM_OPTIM_KERNEL(kernel)                         \
  [](KernelContext& c) {                                    \
    if (c.out().dtype == DType::float64) kernel<double>(c); \
    else kernel<float>(c);                                  \
  }

}  // namespace

void add_cpu_optim(Kernels kernels) {
  kernels["sgd"] = TANDEM_OPTIM_KERNEL(sgd);
  kernels["adamw"] = TANDEM_OPTIM_KERNEL(adamw);
}

}  // namespace tandem
