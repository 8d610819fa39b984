// Average pooling, interpolation and their gradients. Rows and columns of the result are weighted sums of neighbouring rows and
// columns of x: a first launch works out which and by what weights ("taps"), for the H + W lines of the result alone, and the second
// gathers. The gradient gathers too: an element of x is read by neighbours among the result's lines, which the first launch
// looks up, as taps go up with the lines. So there are no atomics.
#include <string>

#include "kernels/cuda/laid.h"

namespace tandem {
namespace gpu {
namespace {

// --- taps ----------------------------------------------------------------------------------------------------------

enum class Mode { average, area, nearest, bilinear, bicubic };

/// One direction of an op, from lines of `in` elements to `out`.
struct Line {
  Mode mode;
  int in, out;
  int64_t kernel, stride, padding;
  bool counts_padding, corners;
  double step;
};

constexpr int most_taps = 4;  // with weights of their own
template <class Wide> struct Taps {
  int begin = 0, count = 0;
  Wide weight[most_taps] = {};  // the first is that of all in average pooling and area interpolation
};
/// The elements of the result that read an element of x.
struct Readers {
  int first, count;
};

__device__ __forceinline__ int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

/// Keys 1981, a = -0.75: the weight of an element at this distance.
__device__ __forceinline__ double cubic(double distance) {
  constexpr double a = -0.75;
  const double d = distance < 0 ? -distance : distance;
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return 0;
}

/// The taps of element i of the result: as the CPU's, those of the border's copies as one.
__device__ Taps<double> taps_of(const Line& line, int i) {
  Taps<double> taps;
  const auto even = [&](int64_t begin, int64_t end) {
    taps.begin = int(begin);
    taps.count = end > begin ? int(end - begin) : 0;
    taps.weight[0] = 1.0 / double(line.counts_padding ? line.kernel : end - begin);
  };
  if (line.mode == Mode::average) {
    const int64_t first = i * line.stride - line.padding, end = first + line.kernel;
    even(first > 0 ? first : 0, end < line.in ? end : line.in);
  } else if (line.mode == Mode::area) {
    even(int64_t(i) * line.in / line.out, (int64_t(i + 1) * line.in + line.out - 1) / line.out);
  } else if (line.mode == Mode::nearest) {
    // In integers where that is what is meant: i * (1 / 3.0) may fall short of a whole number.
    const bool whole = line.step == double(line.in) / double(line.out);
    taps.begin = int(clamp(whole ? int64_t(i) * line.in / line.out : int64_t(double(i) * line.step), 0, line.in - 1));
    taps.count = 1, taps.weight[0] = 1;
  } else {
    double place = line.corners ? double(i) * line.step : (double(i) + 0.5) * line.step - 0.5;
    const bool linear = line.mode == Mode::bilinear;
    if (linear) place = place < 0 ? 0 : place > double(line.in - 1) ? double(line.in - 1) : place;
    const double left = floor(place), off = place - left;
    if (linear) {
      taps.begin = int(left);
      taps.count = off > 0 ? 2 : 1;
      taps.weight[0] = 1 - off, taps.weight[1] = off;
    } else {
      const auto source = [&](int k) { return clamp(int64_t(left) + k, 0, line.in - 1); };
      taps.begin = int(source(-1));
      taps.count = int(source(2)) - taps.begin + 1;
#pragma unroll
      for (int k = -1; k <= 2; ++k) {
        const int at = int(source(k)) - taps.begin;
#pragma unroll
        for (int t = 0; t < most_taps; ++t)
          if (t == at) taps.weight[t] += cubic(off - k);
      }
    }
  }
  return taps;
}

/// Neither the first nor the last tap ever goes back from one element of the result to the next.
__device__ Readers readers_of(const Line& line, int j) {
  const auto search = [&](auto&& holds) {  // how many elements of the result it holds for, which are the first ones
    int low = 0, high = line.out;
    while (low < high) {
      const int middle = low + (high - low) / 2;
      if (holds(taps_of(line, middle))) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const int first = search([&](const Taps<double>& t) { return t.begin + t.count <= j; });
  const int end = search([&](const Taps<double>& t) { return t.begin <= j; });
  return {first, end > first ? end - first : 0};
}

/// Of rows and of columns, one after the other.
template <class Wide>
__global__ void __launch_bounds__(threads_per_block)
    make_taps(Taps<Wide>* taps, Readers* readers, Line rows, Line columns) {
  const int64_t lines = int64_t(rows.out) + columns.out, sources = readers ? int64_t(rows.in) + columns.in : 0;
  for (int64_t i = global_thread(); i < lines + sources; i += global_threads()) {
    if (i < lines) {
      const auto wide = i < rows.out ? taps_of(rows, int(i)) : taps_of(columns, int(i - rows.out));
      Taps<Wide> result;
      result.begin = wide.begin, result.count = wide.count;
#pragma unroll
      for (int t = 0; t < most_taps; ++t) result.weight[t] = static_cast<Wide>(wide.weight[t]);
      taps[i] = result;
    } else {
      const int64_t j = i - lines;
      readers[j] = j < rows.in ? readers_of(rows, int(j)) : readers_of(columns, int(j - rows.in));
    }
  }
}

// --- gathering -----------------------------------------------------------------------------------------------------

/// How the elements read and written lie: pixels of the images written, and packs of channels (channels-last) or planes.
struct View {
  unsigned pixels, wide;  // pixels: channels-last of all images, else of a plane; wide: threads across
  Divider width, height;
  int64_t lanes, in_image, in_row, in_column, out_plane;
  const void *rows, *columns;  // taps, or
  const Readers *row_readers, *column_readers;
  bool even;  // a line's taps have one weight
};

/// Calls f(weight, line of x) for the taps of a line of the result.
template <bool backward, class Wide> struct Walk;
template <class Wide> struct Walk<false, Wide> {
  Taps<Wide> taps;
  bool even;
  __device__ __forceinline__ Walk(const void* all, const Readers*, unsigned line, bool even_)
      : taps(static_cast<const Taps<Wide>*>(all)[line]), even(even_) {}
  template <class F> __device__ __forceinline__ void each(F f) const {
    if (even) {
      for (int t = 0; t < taps.count; ++t) f(taps.weight[0], taps.begin + t);
      return;
    }
#pragma unroll
    for (int t = 0; t < most_taps; ++t)
      if (t < taps.count) f(taps.weight[t], taps.begin + t);
  }
};
/// The lines of the result that read a line of x.
template <class Wide> struct Walk<true, Wide> {
  const Taps<Wide>* taps;
  Readers readers;
  int line;
  bool even;
  __device__ __forceinline__ Walk(const void* all, const Readers* from, unsigned line_, bool even_)
      : taps(static_cast<const Taps<Wide>*>(all)), readers(from[line_]), line(int(line_)), even(even_) {}
  template <class F> __device__ __forceinline__ void each(F f) const {
    for (int i = readers.first; i < readers.first + readers.count; ++i)
      f(taps[i].weight[even ? 0 : line - taps[i].begin], i);
  }
};

// A thread has one pixel's taps in registers, for all the packs of channels, or all the planes, that are its own; neighbouring threads
// have neighbouring packs (channels-last) or pixels (planes), so that writes coalesce, and overlapping reads come from the cache.
template <class T, int N, bool channels_last, bool backward>
__global__ void __launch_bounds__(threads_per_block) resample(T* out, const T* in, View v) {
  using Wide = Compute<T>;
  const unsigned x = threadIdx.x % v.wide, y = threadIdx.x / v.wide, high = threads_per_block / v.wide;
  const unsigned pixel = blockIdx.x * (channels_last ? high : v.wide) + (channels_last ? y : x);
  if (pixel >= v.pixels) return;
  const unsigned across = channels_last ? v.wide : high;
  unsigned image = 0, row, column;
  v.width.divide(pixel, row, column);
  if constexpr (channels_last) v.height.divide(row, image, row);
  const Walk<backward, Wide> rows(v.rows, v.row_readers, row, v.even),
      columns(v.columns, v.column_readers, column, v.even);
  for (int64_t lane = int64_t(blockIdx.y) * across + (channels_last ? x : y); lane < v.lanes;
       lane += int64_t(gridDim.y) * across) {
    const T* const from = in + (channels_last ? image * v.in_image + lane * N : lane * v.in_image);
    Wide sum[N];
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] = 0;
    rows.each([&](Wide row_weight, int r) {
      const T* const line = from + r * v.in_row;
      Wide part[N];
#pragma unroll
      for (int k = 0; k < N; ++k) part[k] = 0;
      columns.each([&](Wide weight, int c) {
        const auto pack = load_pack<N>(line + c * v.in_column);
#pragma unroll
        for (int k = 0; k < N; ++k) part[k] += weight * widen(pack.at[k]);
      });
#pragma unroll
      for (int k = 0; k < N; ++k) sum[k] += row_weight * part[k];
    });
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) result.at[k] = convert<T>(sum[k]);
    store_pack(out + (channels_last ? (pixel * v.lanes + lane) * N : lane * v.out_plane + pixel), result);
  }
}

// --- launching -------------------------------------------------------------------------------------------------------

using MakeLine = Line (*)(const Attributes&, int, int64_t, int64_t);

Line average_line(const Attributes& attributes, int dim, int64_t in, int64_t out) {
  Line line{};
  line.mode = Mode::average, line.in = int(in), line.out = int(out);
  line.kernel = attributes.integers("kernel")[dim], line.stride = attributes.integers("stride")[dim];
  line.padding = attributes.integers("padding")[dim], line.counts_padding = attributes.flag("count_include_pad");
  return line;
}
Line interpolation_line(const Attributes& attributes, int dim, int64_t in, int64_t out) {
  const std::string& mode = attributes.text("mode");
  Line line{};
  line.mode = mode == "area"       ? Mode::area
              : mode == "nearest"  ? Mode::nearest
              : mode == "bilinear" ? Mode::bilinear
                                   : Mode::bicubic;
  line.in = int(in), line.out = int(out), line.corners = attributes.flag("align_corners");
  line.step = attributes.number(dim == 0 ? "row_step" : "column_step");
  return line;
}

unsigned power_of_two_from(int64_t count, unsigned most) {
  unsigned result = 1;
  while (result < most && result < count) result *= 2;
  return result;
}

/// As many blocks in the second dim as fill the device; each takes more lanes where that is fewer than there are tiles of them.
unsigned blocks_across(int64_t tiles, int64_t along) {
  const int64_t enough = ceil_divide(16 * multiprocessors(), along);
  return unsigned(std::clamp(std::min(tiles, enough), int64_t(1), most_across));
}

constexpr int64_t most_pixels = int64_t(1) << 30;

template <class T, int N, bool channels_last, bool backward>
void launch(T* out, const T* in, View v, const TensorImpl& to, const Shape& from, cudaStream_t stream) {
  const int64_t channels = to.shape[1], height = to.shape[2], width = to.shape[3], plane = height * width,
                in_plane = from[2] * from[3];
  v.width = Divider(unsigned(width)), v.height = Divider(unsigned(height));
  v.in_column = channels_last ? channels : 1, v.in_row = from[3] * v.in_column, v.out_plane = plane;
  v.in_image = channels_last ? in_plane * channels : in_plane;
  if constexpr (channels_last) {
    v.lanes = channels / N, v.wide = power_of_two_from(v.lanes, 32);
    const int64_t images = std::max(std::min(items_at_once(), most_pixels) / plane, int64_t(1));
    for (int64_t first = 0; first < to.shape[0]; first += images) {
      v.pixels = unsigned(std::min(images, to.shape[0] - first) * plane);
      const int64_t along = ceil_divide(int64_t(v.pixels), int64_t(threads_per_block / v.wide));
      const dim3 grid(unsigned(along), blocks_across(ceil_divide(v.lanes, int64_t(v.wide)), along));
      TANDEM_LAUNCH((resample<T, N, channels_last, backward>), grid, threads_per_block, 0, stream,
                    out + first * plane * channels, in + first * v.in_image, v);
    }
  } else {
    v.lanes = to.shape[0] * channels, v.pixels = unsigned(plane);
    v.wide = power_of_two_from(plane, threads_per_block);
    const int64_t along = ceil_divide(plane, int64_t(v.wide)), high = threads_per_block / v.wide;
    const dim3 grid(unsigned(along), blocks_across(ceil_divide(v.lanes, high), along));
    TANDEM_LAUNCH((resample<T, N, channels_last, backward>), grid, threads_per_block, 0, stream, out, in, v);
  }
}

template <MakeLine make, bool backward> void resample_kernel(KernelContext& op) {
  const TensorImpl &x = op.in(0), &to = op.out();
  const cudaStream_t stream = stream_of(op);
  if (to.shape.numel() == 0) return;
  if (x.shape.numel() == 0) {
    check(cudaMemsetAsync(to.data, 0, size_t(to.shape.numel()) * size_of(to.dtype), stream), "cudaMemsetAsync");
    return;
  }
  visit_floating(x.dtype, [&]<class T>() {
    using Wide = Compute<T>;
    for (int d = 2; d < 4; ++d) check_most(op, std::max(x.shape[d], to.shape[d]), most_pixels, "pixels in a line");
    check_most(op, to.shape[2] * to.shape[3], most_pixels, "pixels in an image");
    const auto line = [&](int dim) {  // as in the forward op
      const int64_t from = x.shape[dim + 2], into = to.shape[dim + 2];
      return backward ? make(op.attributes, dim, into, from) : make(op.attributes, dim, from, into);
    };
    const Line rows = line(0), columns = line(1);
    const int64_t lines = int64_t(rows.out) + columns.out, sources = backward ? int64_t(rows.in) + columns.in : 0;
    const Workspace taps(size_t(lines) * sizeof(Taps<Wide>), to.device),
        readers(size_t(sources) * sizeof(Readers), to.device);
    TANDEM_LAUNCH((make_taps<Wide>), blocks_for(lines + sources), threads_per_block, 0, stream,
                  taps.template as<Taps<Wide>>(), readers.template as<Readers>(), rows, columns);

    View v{};
    v.rows = taps.template as<Taps<Wide>>(), v.columns = taps.template as<Taps<Wide>>() + rows.out;
    if (backward) v.row_readers = readers.template as<Readers>(), v.column_readers = v.row_readers + rows.in;
    v.even = rows.mode == Mode::average || rows.mode == Mode::area;
    const bool last = is_channels_last(to);
    const Laid from(x, last ? channels_last_strides(x.shape) : contiguous_strides(x.shape), x.dtype, stream);
    const T* const in = from.template as<T>();
    T* const out = data<T>(op.out());
    if (!last) {
      launch<T, 1, false, backward>(out, in, v, to, x.shape, stream);
    } else if (to.shape[1] % pack_size<T> == 0 && is_aligned(in) && is_aligned(out)) {
      launch<T, pack_size<T>, true, backward>(out, in, v, to, x.shape, stream);
    } else {
      launch<T, 1, true, backward>(out, in, v, to, x.shape, stream);
    }
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_resample(Kernels kernels) {
  kernels["avg_pool2d"] = gpu::resample_kernel<gpu::average_line, false>;
  kernels["avg_pool2d_grad"] = gpu::resample_kernel<gpu::average_line, true>;
  kernels["interpolate2d"] = gpu::resample_kernel<gpu::interpolation_line, false>;
  kernels["interpolate2d_grad"] = gpu::resample_kernel<gpu::interpolation_line, true>;
}

}  // namespace tandem
