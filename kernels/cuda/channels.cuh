// What batch and group normalisation share: means, sums and scaling over the channels of x [batch, channels, …], which lies in
// rows of all channels (channels-last) or in planes of one.
//
// Whatever is summed is summed in two stages without atomics: blocks write the totals of the pieces that they read, and
// `fold_totals` joins the pieces of each slot, in order. A slot is what has a total of its own: a channel over all images, a group of
// channels of one image, or a channel of one image.
#pragma once

#include "kernels/cuda/laid.h"

namespace tandem::gpu {

/// How x lies. Its elements share a mean by channels (`groups` 0), or by groups of channels of each image.
struct Channels {
  int64_t batch, channels, plane, groups;
  bool in_rows;

  /// Of a tensor as it lies, of which nothing but channels-last is in rows. KernelError for more channels than are counted.
  Channels(const KernelContext& op, const TensorImpl& x, int64_t groups);
  int64_t members() const { return groups ? channels / groups : 1; }  ///< channels that share a mean
  int64_t slots() const { return groups ? batch * groups : channels; }
  int64_t elements() const { return groups ? members() * plane : batch * plane; }  ///< of a slot
  Shape strides(const Shape& shape) const;  ///< in which operands are read and written
};

/// A pair of totals: sums of two things, or mean and squared deviations from it.
struct Totals {
  double first, second;
};

/// Numbers of channels or slots in x's dtype, or in the wider one that it is computed in.
struct Numbers {
  const void* data = nullptr;
  bool wide = true;

  template <class T> __device__ __forceinline__ Compute<T> at(int64_t i) const {
    if constexpr (is_half<T>) {
      if (!wide) return widen(static_cast<const T*>(data)[i]);
    }
    return static_cast<const Compute<T>*>(data)[i];
  }
  template <class T> __device__ __forceinline__ void set(int64_t i, Compute<T> value) const {
    if constexpr (is_half<T>) {
      if (!wide) {
        static_cast<T*>(const_cast<void*>(data))[i] = convert<T>(value);
        return;
      }
    }
    static_cast<Compute<T>*>(const_cast<void*>(data))[i] = value;
  }
};
class LaidNumbers {
 public:
  LaidNumbers(const TensorImpl& x, DType of, cudaStream_t stream);
  operator Numbers() const { return {laid_.as<void>(), wide_}; }

 private:
  const bool wide_;
  const Laid laid_;
};

/// Where the pieces of a slot are among the totals of all: piece k of `outer`, and in it `inner` neighbours, each the total of
/// the same number of elements.
struct Pieces {
  unsigned slots = 0, per_segment = 1;
  int64_t segment_stride = 0;  ///< from the slots of one segment to the next
  Divider inner;
  unsigned outer = 1;
  int64_t outer_stride = 0;
  int64_t chunk = 0, total = 0;  ///< elements of all pieces but the last, and of all together

  int64_t count() const { return int64_t(inner.divisor) * outer; }
  __device__ __forceinline__ int64_t base(unsigned slot) const {
    return slot / per_segment * segment_stride + slot % per_segment * inner.divisor;
  }
  /// The place of the slot's i-th total, and how many elements it is of.
  __device__ __forceinline__ int64_t at(unsigned i, double& elements) const {
    unsigned k, j;
    inner.divide(i, k, j);
    const int64_t rest = total - k * chunk;
    elements = double(rest < chunk ? rest : chunk);
    return k * outer_stride + j;
  }
};

/// How the first stage cuts x, and so where its totals lie.
struct Cut {
  bool in_rows;
  int pack;  ///< elements that are read at once
  int64_t segments, lines,
      length;     ///< rows: [segments, lines rows, length channels]; planes: [lines runs, segments slots, length]
  int64_t chunk;  ///< of rows, or of packs of a slot
  unsigned splits, tiles, wide;  ///< wide: threads across; tiles: of columns
  unsigned members, per_segment;
  Pieces pieces;

  size_t bytes() const;  ///< of the totals
};
/// For the means of `c` (`by_channels` false) or for sums of each channel, of each image where there are groups.
template <class T> Cut cut(const Channels& c, bool by_channels, std::initializer_list<const void*> operands);

/// The first stage: means and squared deviations of pieces; sums of g and of g (x - mean).
template <class T> void launch_moments(const Cut& cut, Totals* out, const T* x, cudaStream_t stream);
template <class T>
void launch_sums(const Cut& cut, Totals* out, const T* g, const T* x, Numbers mean, cudaStream_t stream);

/// y = (x - mean) rsqrt(variance + epsilon) weight + bias; mean and variance are the slots'.
template <class T>
void launch_apply(const Channels& c, T* y, const T* x, Numbers mean, Numbers variance, Numbers weight, Numbers bias,
                  double epsilon, cudaStream_t stream);
/// dx = g rsqrt(variance + epsilon) weight - shift - (x - mean) slope; shift and slope are the slots'.
template <class T>
void launch_channel_grad(const Channels& c, T* dx, const T* g, const T* x, Numbers mean, Numbers variance,
                         Numbers weight, const Compute<T>* shift, const Compute<T>* slope, double epsilon,
                         cudaStream_t stream);

/// A slot's mean and squared deviations from it, of those of its pieces. Two passes: the second reads from the cache.
struct JoinMoments {
  template <class Sum>
  static __device__ __forceinline__ Totals join(const Pieces& p, const Totals* in, unsigned begin, unsigned end,
                                                unsigned step, Sum sum) {
    double mean = 0, squares = 0, elements;
    for (unsigned i = begin; i < end; i += step) {
      const Totals piece = in[p.at(i, elements)];
      mean += elements * piece.first;
    }
    mean = sum(mean) / (double(p.total) * p.inner.divisor);
    for (unsigned i = begin; i < end; i += step) {
      const Totals piece = in[p.at(i, elements)];
      const double off = piece.first - mean;
      squares += piece.second + elements * off * off;
    }
    return {mean, sum(squares)};
  }
};
struct JoinSums {
  template <class Sum>
  static __device__ __forceinline__ Totals join(const Pieces& p, const Totals* in, unsigned begin, unsigned end,
                                                unsigned step, Sum sum) {
    double first = 0, second = 0, elements;
    for (unsigned i = begin; i < end; i += step) {
      const Totals piece = in[p.at(i, elements)];
      first += piece.first;
      second += piece.second;
    }
    first = sum(first);
    return {first, sum(second)};
  }
};

/// The second stage: `lanes` threads join the pieces of a slot, and one of them calls finish(slot, totals).
template <class Join, int lanes, class Finish>
__global__ void __launch_bounds__(threads_per_block) fold_totals(const Totals* in, Pieces pieces, Finish finish) {
  TANDEM_SHARED(double, scratch, [threads_per_block / 32]);
  const unsigned slot = blockIdx.x * (threads_per_block / lanes) + threadIdx.x / lanes, lane = threadIdx.x % lanes;
  const bool live = slot < pieces.slots;
  const auto sum = [&](double value) {
    if constexpr (lanes == 32) return reduce_lanes(value, Add());
    else return reduce_block(value, Add(), 0.0, scratch);
  };
  const Totals totals = Join::join(pieces, in + (live ? pieces.base(slot) : 0), lane,
                                   live ? pieces.inner.divisor * pieces.outer : 0, lanes, sum);
  if (live && lane == 0) finish(slot, totals);
}
template <class Join, class Finish>
void launch_fold(const Pieces& pieces, const Totals* in, Finish finish, cudaStream_t stream) {
  if (pieces.count() <= 1024) {
    TANDEM_LAUNCH((fold_totals<Join, 32, Finish>), ceil_divide(pieces.slots, unsigned(threads_per_block / 32)),
                  threads_per_block, 0, stream, in, pieces, finish);
  } else {
    TANDEM_LAUNCH((fold_totals<Join, threads_per_block, Finish>), pieces.slots, threads_per_block, 0, stream, in,
                  pieces, finish);
  }
}

/// Writes a slot's mean and biased variance.
template <class T> struct WriteStatistics {
  Compute<T>*mean, *variance;
  double elements;
  __device__ __forceinline__ void operator()(unsigned slot, Totals totals) const {
    mean[slot] = static_cast<Compute<T>>(totals.first);
    variance[slot] = static_cast<Compute<T>>(totals.second / elements);
  }
};
/// Both stages: the statistics of all slots; of none elements they are 0.
template <class T>
void find_statistics(const Channels& c, const T* x, Compute<T>* mean, Compute<T>* variance, Device device,
                     cudaStream_t stream) {
  if (c.slots() == 0) return;
  if (c.elements() == 0) {
    check(cudaMemsetAsync(mean, 0, size_t(c.slots()) * sizeof(Compute<T>), stream), "cudaMemsetAsync");
    check(cudaMemsetAsync(variance, 0, size_t(c.slots()) * sizeof(Compute<T>), stream), "cudaMemsetAsync");
    return;
  }
  const Cut pieces = cut<T>(c, false, {x});
  const Workspace workspace(pieces.bytes(), device);
  launch_moments<T>(pieces, workspace.template as<Totals>(), x, stream);
  launch_fold<JoinMoments>(pieces.pieces, workspace.template as<Totals>(),
                           WriteStatistics<T>{mean, variance, double(c.elements())}, stream);
}

}  // namespace tandem::gpu
