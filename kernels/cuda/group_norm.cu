// Group normalisation: the statistics of each group of each image in two stages, then one pass that scales. The gradient sums up
// g and g (x - mean) of each channel of each image; from those few numbers come the weights' gradients, over images, and what dx is
// made of, over the channels of a group.
#include "kernels/cuda/channels.cuh"

namespace tandem {
namespace gpu {
namespace {

struct WriteTotals {
  Totals* out;
  __device__ __forceinline__ void operator()(unsigned slot, Totals totals) const { out[slot] = totals; }
};

template <int lanes> __device__ __forceinline__ double sum_of(double value, double* scratch) {
  if constexpr (lanes == 32) return reduce_lanes(value, Add());
  else return reduce_block(value, Add(), 0.0, scratch);
}

// With n = (x - mean) rstd and h = g w: dx = rstd (h - mean(h) - n mean(h n)). `lanes` threads add up the channels of a group.
template <class T, int lanes>
__global__ void __launch_bounds__(threads_per_block)
    group_means(Compute<T>* shift, Compute<T>* slope, const Totals* totals, Numbers variance, Numbers weight,
                unsigned count, unsigned groups, unsigned members, double elements, double epsilon) {
  using Wide = Compute<T>;
  TANDEM_SHARED(double, scratch, [threads_per_block / 32]);
  const unsigned group = blockIdx.x * (threads_per_block / lanes) + threadIdx.x / lanes, lane = threadIdx.x % lanes;
  const bool live = group < count;
  double h = 0, hx = 0;
  if (live) {
    const unsigned first = group % groups * members;
    for (unsigned j = lane; j < members; j += lanes) {
      const Totals of = totals[int64_t(group) * members + j];
      const double w = weight.at<T>(first + j);
      h += of.first * w;
      hx += of.second * w;
    }
  }
  h = sum_of<lanes>(h, scratch);
  hx = sum_of<lanes>(hx, scratch);
  if (!live || lane != 0) return;
  const double rstd = td_rsqrt(variance.at<T>(group) + static_cast<Wide>(epsilon));
  shift[group] = static_cast<Wide>(h / elements * rstd);
  slope[group] = static_cast<Wide>(hx / elements * rstd * rstd * rstd);
}

// dw = sum(g n), db = sum(g): `lanes` threads add up the images of a channel.
template <class T, int lanes>
__global__ void __launch_bounds__(threads_per_block)
    channel_gradients(Numbers dw, Numbers db, const Totals* totals, Numbers variance, unsigned images,
                      unsigned channels, unsigned groups, unsigned members, double epsilon) {
  using Wide = Compute<T>;
  TANDEM_SHARED(double, scratch, [threads_per_block / 32]);
  const unsigned channel = blockIdx.x * (threads_per_block / lanes) + threadIdx.x / lanes, lane = threadIdx.x % lanes;
  const bool live = channel < channels;
  double g = 0, gn = 0;
  if (live) {
    const unsigned group = channel / members;
    for (unsigned n = lane; n < images; n += lanes) {
      const Totals of = totals[int64_t(n) * channels + channel];
      g += of.first;
      gn += of.second * td_rsqrt(variance.at<T>(int64_t(n) * groups + group) + static_cast<Wide>(epsilon));
    }
  }
  g = sum_of<lanes>(g, scratch);
  gn = sum_of<lanes>(gn, scratch);
  if (!live || lane != 0) return;
  dw.set<T>(channel, static_cast<Wide>(gn));
  db.set<T>(channel, static_cast<Wide>(g));
}

/// Calls f.template operator()<lanes>(blocks) for sums of `length` elements: a warp's, or a block's where they are long.
template <class F> void visit_lanes(int64_t count, int64_t length, F&& f) {
  if (length <= 1024) f.template operator()<32>(unsigned(ceil_divide(count, int64_t(threads_per_block / 32))));
  else f.template operator()<threads_per_block>(unsigned(count));
}

void group_norm_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() {
    using Wide = Compute<T>;
    const cudaStream_t stream = stream_of(op);
    const DType type = op.in(0).dtype;
    const Channels c(op, op.out(0), op.attributes.integer("groups"));
    const Laid x(op.in(0), c.strides(op.in(0).shape), type, stream);
    Wide *mean = data<Wide>(op.out(1)), *variance = data<Wide>(op.out(2));
    find_statistics<T>(c, x.as<T>(), mean, variance, op.out().device, stream);
    if (op.out(0).shape.numel() == 0) return;
    const LaidNumbers weight(op.in(1), type, stream), bias(op.in(2), type, stream);
    launch_apply<T>(c, data<T>(op.out(0)), x.as<T>(), Numbers{mean}, Numbers{variance}, weight, bias,
                    op.attributes.number("epsilon"), stream);
  });
}

/// The sums of each channel of each image, joined where the first stage cut them.
template <class T>
void find_sums(const Cut& pieces, Totals* totals, Totals* partial, const T* g, const T* x, Numbers mean,
               cudaStream_t stream) {
  if (pieces.splits == 1) return launch_sums<T>(pieces, totals, g, x, mean, stream);
  launch_sums<T>(pieces, partial, g, x, mean, stream);
  launch_fold<JoinSums>(pieces.pieces, partial, WriteTotals{totals}, stream);
}

void group_norm_grad_kernel(KernelContext& op) {
  visit_floating(op.in(0).dtype, [&]<class T>() {
    using Wide = Compute<T>;
    const cudaStream_t stream = stream_of(op);
    const DType type = op.in(1).dtype;
    const Device device = op.out().device;
    const Channels c(op, op.out(0), op.attributes.integer("groups"));
    if (c.channels == 0) return;
    if (op.out(0).shape.numel() == 0) {
      for (int i = 1; i < 3; ++i)
        check(cudaMemsetAsync(op.out(i).data, 0, size_t(c.channels) * size_of(op.out(i).dtype), stream),
              "cudaMemsetAsync");
      return;
    }
    const double epsilon = op.attributes.number("epsilon");
    const Shape strides = c.strides(op.in(1).shape);
    const Laid g(op.in(0), strides, type, stream), x(op.in(1), strides, type, stream);
    const LaidNumbers weight(op.in(2), type, stream), mean(op.in(3), type, stream), variance(op.in(4), type, stream);
    const Cut pieces = cut<T>(c, true, {g.as<T>(), x.as<T>()});
    const Workspace totals(size_t(c.batch * c.channels) * sizeof(Totals), device),
        partial(pieces.splits > 1 ? pieces.bytes() : 0, device), numbers(size_t(2 * c.slots()) * sizeof(Wide), device);
    find_sums<T>(pieces, totals.template as<Totals>(), partial.template as<Totals>(), g.as<T>(), x.as<T>(), mean,
                 stream);

    Wide *shift = numbers.template as<Wide>(), *slope = shift + c.slots();
    const unsigned images = unsigned(c.batch), channels = unsigned(c.channels), groups = unsigned(c.groups),
                   members = unsigned(c.members());
    visit_lanes(c.slots(), members, [&]<int lanes>(unsigned blocks) {
      TANDEM_LAUNCH((group_means<T, lanes>), blocks, threads_per_block, 0, stream, shift, slope,
                    totals.template as<Totals>(), variance, weight, unsigned(c.slots()), groups, members,
                    double(c.elements()), epsilon);
    });
    const bool wide = op.out(1).dtype != type || sizeof(T) == sizeof(Wide);
    const Numbers dw{op.out(1).data, wide}, db{op.out(2).data, wide};
    visit_lanes(c.channels, images, [&]<int lanes>(unsigned blocks) {
      TANDEM_LAUNCH((channel_gradients<T, lanes>), blocks, threads_per_block, 0, stream, dw, db,
                    totals.template as<Totals>(), variance, images, channels, groups, members, epsilon);
    });
    launch_channel_grad<T>(c, data<T>(op.out(0)), g.as<T>(), x.as<T>(), mean, variance, weight, shift, slope, epsilon,
                           stream);
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_group_norm(Kernels kernels) {
  kernels["group_norm"] = gpu::group_norm_kernel;
  kernels["group_norm_grad"] = gpu::group_norm_grad_kernel;
}

}  // namespace tandem
