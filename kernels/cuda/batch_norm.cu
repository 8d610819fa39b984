// Batch normalisation: the statistics of channels in two stages, then one pass that scales; the gradient the same way. Forward
// reads x twice and writes y, backward reads g and x twice and writes dx.
#include "kernels/cuda/channels.cuh"

namespace tandem {
namespace gpu {
namespace {

/// With n = (x - mean) rstd: dw = sum(g n), db = sum(g), and what dx is made of.
template <class T> struct WriteGradients {
  Numbers dw, db, variance, weight;
  Compute<T>*shift, *slope;
  double epsilon, elements;
  __device__ __forceinline__ void operator()(unsigned channel, Totals sums) const {
    using Wide = Compute<T>;
    const Wide rstd = td_rsqrt(variance.at<T>(channel) + static_cast<Wide>(epsilon));
    const double scale = rstd * weight.at<T>(channel), r = rstd;
    dw.set<T>(channel, static_cast<Wide>(sums.second * r));
    db.set<T>(channel, static_cast<Wide>(sums.first));
    shift[channel] = static_cast<Wide>(sums.first / elements * scale);
    slope[channel] = static_cast<Wide>(sums.second / elements * r * r * scale);
  }
};

void batch_norm_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() {
    using Wide = Compute<T>;
    const cudaStream_t stream = stream_of(op);
    const DType type = op.in(0).dtype;
    const Channels c(op, op.out(0), 0);
    const Laid x(op.in(0), c.strides(op.in(0).shape), type, stream);
    Wide *mean = data<Wide>(op.out(1)), *variance = data<Wide>(op.out(2));
    find_statistics<T>(c, x.as<T>(), mean, variance, op.out().device, stream);
    if (op.out(0).shape.numel() == 0) return;
    const LaidNumbers weight(op.in(1), type, stream), bias(op.in(2), type, stream);
    launch_apply<T>(c, data<T>(op.out(0)), x.as<T>(), Numbers{mean}, Numbers{variance}, weight, bias,
                    op.attributes.number("epsilon"), stream);
  });
}

void batch_norm_statistics_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() {
    const cudaStream_t stream = stream_of(op);
    const Channels c(op, op.in(0), 0);
    const Laid x(op.in(0), c.strides(op.in(0).shape), op.in(0).dtype, stream);
    find_statistics<T>(c, x.as<T>(), data<Compute<T>>(op.out(0)), data<Compute<T>>(op.out(1)), op.out().device, stream);
  });
}

void batch_norm_apply_kernel(KernelContext& op) {
  if (op.out().shape.numel() == 0) return;
  visit_floating(op.in(0).dtype, [&]<class T>() {
    const cudaStream_t stream = stream_of(op);
    const DType type = op.in(0).dtype;
    const Channels c(op, op.out(), 0);
    const Laid x(op.in(0), c.strides(op.in(0).shape), type, stream);
    const LaidNumbers weight(op.in(1), type, stream), bias(op.in(2), type, stream), mean(op.in(3), type, stream),
        variance(op.in(4), type, stream);
    launch_apply<T>(c, data<T>(op.out()), x.as<T>(), mean, variance, weight, bias, op.attributes.number("epsilon"),
                    stream);
  });
}

void batch_norm_grad_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() {
    using Wide = Compute<T>;
    const cudaStream_t stream = stream_of(op);
    const DType type = op.in(1).dtype;
    const Device device = op.out().device;
    const Channels c(op, op.out(0), 0);
    if (c.channels == 0) return;
    if (c.elements() == 0) {
      for (int i = 1; i < 3; ++i)
        check(cudaMemsetAsync(op.out(i).data, 0, size_t(c.channels) * size_of(op.out(i).dtype), stream),
              "cudaMemsetAsync");
      return;
    }
    const Shape strides = c.strides(op.in(1).shape);
    const Laid g(op.in(0), strides, type, stream), x(op.in(1), strides, type, stream);
    const LaidNumbers weight(op.in(2), type, stream), mean(op.in(3), type, stream), variance(op.in(4), type, stream);
    const Cut pieces = cut<T>(c, true, {g.as<T>(), x.as<T>()});
    const Workspace totals(pieces.bytes(), device), numbers(size_t(2 * c.channels) * sizeof(Wide), device);
    Wide *shift = numbers.template as<Wide>(), *slope = shift + c.channels;
    const double epsilon = op.attributes.number("epsilon");
    const bool wide = op.out(1).dtype != type || sizeof(T) == sizeof(Wide);
    launch_sums<T>(pieces, totals.template as<Totals>(), g.as<T>(), x.as<T>(), mean, stream);
    launch_fold<JoinSums>(pieces.pieces, totals.template as<Totals>(),
                          WriteGradients<T>{{op.out(1).data, wide},
                                            {op.out(2).data, wide},
                                            variance,
                                            weight,
                                            shift,
                                            slope,
                                            epsilon,
                                            double(c.elements())},
                          stream);
    launch_channel_grad<T>(c, data<T>(op.out(0)), g.as<T>(), x.as<T>(), mean, variance, weight, shift, slope, epsilon,
                           stream);
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_batch_norm(Kernels kernels) {
  kernels["batch_norm"] = gpu::batch_norm_kernel;
  kernels["batch_norm_apply"] = gpu::batch_norm_apply_kernel;
  kernels["batch_norm_grad"] = gpu::batch_norm_grad_kernel;
  kernels["batch_norm_statistics"] = gpu::batch_norm_statistics_kernel;
}

}  // namespace tandem
