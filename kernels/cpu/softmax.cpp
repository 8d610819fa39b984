// softmax, log_softmax and their gradients, along the last dim of contiguous tensors.
#include "kernels/cpu/support/rows.h"

namespace tandem {

namespace {

template <class T> using Forward = void (*RowLoops<T>::*)(int64_t, const T*, T*);
template <class T> using Backward = void (*RowLoops<T>::*)(int64_t, const T*, const T*, T*);

template <class T> void forward(KernelContext& c, Forward<T> loop) {
  const int64_t n = c.out().shape.numel(), width = c.out().shape.empty() ? 1 : c.out().shape.back();
  if (n == 0) return;
  const WideInput<T> x(c.in(0));
  const WideOutput<T> out(c.out());
  const auto row = row_loops<T>().*loop;
  for_rows(n / width, width, [&](int64_t r) { row(width, x.data() + r * width, out.data() + r * width); });
  out.finish();
}

template <class T> void backward(KernelContext& c, Backward<T> loop) {
  const int64_t n = c.out().shape.numel(), width = c.out().shape.empty() ? 1 : c.out().shape.back();
  if (n == 0) return;
  const WideInput<T> g(c.in(0)), y(c.in(1));
  const WideOutput<T> out(c.out());
  const auto row = row_loops<T>().*loop;
  for_rows(n / width, width,
           [&](int64_t r) { row(width, g.data() + r * width, y.data() + r * width, out.data() + r * width); });
  out.finish();
}

template <class T> void softmax(KernelContext& c) { forward<T>(c, &RowLoops<T>::softmax); }
template <class T> void log_softmax(KernelContext& c) { forward<T>(c, &RowLoops<T>::log_softmax); }
template <class T> void softmax_grad(KernelContext& c) { backward<T>(c, &RowLoops<T>::softmax_grad); }
template <class T> void log_softmax_grad(KernelContext& c) { backward<T>(c, &RowLoops<T>::log_softmax_grad); }

}  // namespace

void add_cpu_softmax(Kernels kernels) {
  kernels["softmax"] = TANDEM_WIDE_KERNEL(softmax);
  kernels["log_softmax"] = TANDEM_WIDE_KERNEL(log_softmax);
  kernels["softmax_grad"] = TANDEM_WIDE_KERNEL(softmax_grad);
  kernels["log_softmax_grad"] = TANDEM_WIDE_KERNEL(log_softmax_grad);
}

}  // namespace tandem
