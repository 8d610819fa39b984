// layer_norm, rms_norm and their gradients. The gradients of weight and bias are summed over blocks of rows, and the blocks
// in order, so that they don't depend on the number of threads.
#include "kernels/cpu/support/rows.h"

namespace tandem {

namespace {

template <class T> void layer_norm(KernelContext& c) {
  const int64_t n = c.out().shape.numel(), width = c.out().shape.back();
  if (n == 0) return;
  const WideInput<T> x(c.in(0)), weight(c.in(1)), bias(c.in(2));
  const WideOutput<T> y(c.out(0)), mean(c.out(1)), rstd(c.out(2));
  const double epsilon = c.attributes.number("epsilon");
  const auto row = row_loops<T>().layer_norm;
  for_rows(n / width, width, [&](int64_t r) {
    row(width, x.data() + r * width, weight.data(), bias.data(), epsilon, y.data() + r * width, mean.data() + r,
        rstd.data() + r);
  });
  y.finish(), mean.finish(), rstd.finish();
}

template <class T> void layer_norm_grad(KernelContext& c) {
  const WideOutput<T> dx(c.out(0)), dw(c.out(1)), db(c.out(2));
  const int64_t n = c.out(0).shape.numel(), width = c.out(0).shape.back();
  std::fill_n(dw.data(), width, T(0));
  std::fill_n(db.data(), width, T(0));
  if (n > 0) {
    const WideInput<T> g(c.in(0)), x(c.in(1)), weight(c.in(2)), mean(c.in(3)), rstd(c.in(4));
    const int64_t rows = n / width;
    const int64_t block = std::max<int64_t>(16, (rows + 63) / 64), blocks = (rows + block - 1) / block;
    const Scratch scratch(blocks * 2 * width * static_cast<int64_t>(sizeof(T)));
    T* partial = scratch.as<T>();
    const auto several = row_loops<T>().layer_norm_grad;
    for_rows(blocks, block * width, [&](int64_t b) {
      T *dw_block = partial + b * 2 * width, *db_block = dw_block + width;
      std::fill_n(dw_block, 2 * width, T(0));
      const int64_t r = b * block;
      several(std::min(block, rows - r), width, g.data() + r * width, x.data() + r * width, weight.data(),
              mean.data() + r, rstd.data() + r, dx.data() + r * width, dw_block, db_block);
    });
    for (int64_t b = 0; b < blocks; ++b) {
      const T *dw_block = partial + b * 2 * width, *db_block = dw_block + width;
      for (int64_t j = 0; j < width; ++j) {
        dw.data()[j] += dw_block[j];
        db.data()[j] += db_block[j];
      }
    }
  }
  dx.finish(), dw.finish(), db.finish();
}

template <class T> void rms_norm(KernelContext& c) {
  const int64_t n = c.out().shape.numel(), width = c.out().shape.back();
  if (n == 0) return;
  const WideInput<T> x(c.in(0)), weight(c.in(1));
  const WideOutput<T> y(c.out(0)), rstd(c.out(1));
  const double epsilon = c.attributes.number("epsilon");
  const auto row = row_loops<T>().rms_norm;
  for_rows(n / width, width, [&](int64_t r) {
    row(width, x.data() + r * width, weight.data(), epsilon, y.data() + r * width, rstd.data() + r);
  });
  y.finish(), rstd.finish();
}

template <class T> void rms_norm_grad(KernelContext& c) {
  const WideOutput<T> dx(c.out(0)), dw(c.out(1));
  const int64_t n = c.out(0).shape.numel(), width = c.out(0).shape.back();
  std::fill_n(dw.data(), width, T(0));
  if (n > 0) {
    const WideInput<T> g(c.in(0)), x(c.in(1)), weight(c.in(2)), rstd(c.in(3));
    const int64_t rows = n / width;
    const int64_t block = std::max<int64_t>(16, (rows + 63) / 64), blocks = (rows + block - 1) / block;
    const Scratch scratch(blocks * width * static_cast<int64_t>(sizeof(T)));
    T* partial = scratch.as<T>();
    const auto row = row_loops<T>().rms_norm_grad;
    for_rows(blocks, block * width, [&](int64_t b) {
      T* const dw_block = partial + b * width;
      std::fill_n(dw_block, width, T(0));
      for (int64_t r = b * block; r < std::min(rows, (b + 1) * block); ++r)
        row(width, g.data() + r * width, x.data() + r * width, weight.data(), rstd.data()[r], dx.data() + r * width,
            dw_block);
    });
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t j = 0; j < width; ++j) dw.data()[j] += partial[b * width + j];
  }
  dx.finish(), dw.finish();
}

}  // namespace

void add_cpu_batch_norm(Kernels kernels);
void add_cpu_group_norm(Kernels kernels);

void add_cpu_norm(Kernels kernels) {
  add_cpu_batch_norm(kernels);
  add_cpu_group_norm(kernels);
  kernels["rms_norm"] = TANDEM_WIDE_KERNEL(rms_norm);
  kernels["rms_norm_grad"] = TANDEM_WIDE_KERNEL(rms_norm_grad);
  kernels["layer_norm"] = TANDEM_WIDE_KERNEL(layer_norm);
  kernels["layer_norm_grad"] = TANDEM_WIDE_KERNEL(layer_norm_grad);
}

}  // namespace tandem
