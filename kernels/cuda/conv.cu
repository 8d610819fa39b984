// Convolution as a matrix product whose operands are computed from their coordinates (implicit GEMM): no copy of
// the image is ever made. With taps = kernel height x kernel width, per group:
//
//   forward       y [pixels of y, filters]        = x at (pixel, tap, channel)  x  w (tap, channel; filter)
//   input grad    x [pixels of x, channels]       = y at (pixel, tap, filter)   x  w (tap, filter; channel)
//   weight grad   w [filters, taps x channels]    = y (filter; pixel)           x  x at (pixel; tap, channel)
//
// The inner index runs through channels first, so with channels-last images neighbouring threads read neighbours.
#include "kernels/cuda/conv.h"

#include <vector>

#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/matmul.h"

namespace tandem {
namespace gpu {
namespace {

struct Geometry {
  int stride[2], padding[2], dilation[2];
  int x_size[2], y_size[2];
  Divider kernel_width, x_width, x_pixels, y_width, y_pixels;  // pixels: of one plane
  Divider channels, filters;                                   // of one group
};

template <class T> struct Image {  // one tensor of four dims; `select` moves to a group's channels
  T* data;
  int64_t stride[4];
  int64_t group_channels;
  __device__ __forceinline__ void select(unsigned group) { data += group * group_channels * stride[1]; }
  __device__ __forceinline__ T* at(unsigned n, unsigned c, int row, int column) const {
    return data + n * stride[0] + c * stride[1] + row * stride[2] + column * stride[3];
  }
};

struct Tap {
  unsigned channel;
  int row, column;
};
// (tap, channel) of an index that runs through channels first.
__device__ __forceinline__ Tap tap_of(const Geometry& g, const Divider& channels, unsigned index) {
  unsigned tap, channel, row, column;
  channels.divide(index, tap, channel);
  g.kernel_width.divide(tap, row, column);
  return {channel, int(row), int(column)};
}
struct Place {
  unsigned batch;
  int row, column;
};
__device__ __forceinline__ Place place_of(const Divider& pixels, const Divider& width, unsigned index) {
  unsigned batch, rest, row, column;
  pixels.divide(index, batch, rest);
  width.divide(rest, row, column);
  return {batch, int(row), int(column)};
}

// The pixel of x that y's pixel sees through a tap; zero in the padding.
template <class T>
__device__ __forceinline__ Compute<T> seen(const Geometry& g, const Image<const T>& x, Place y, Tap tap) {
  const int row = y.row * g.stride[0] - g.padding[0] + tap.row * g.dilation[0];
  const int column = y.column * g.stride[1] - g.padding[1] + tap.column * g.dilation[1];
  if (row < 0 || row >= g.x_size[0] || column < 0 || column >= g.x_size[1]) return 0;
  return widen(*x.at(y.batch, tap.channel, row, column));
}

// Forward: line is a pixel of y, k a (tap, channel).
template <class T> struct ForwardImage : Image<const T> {
  Geometry g;
  unsigned lines;
  bool along_k;
  __device__ __forceinline__ Compute<T> load(unsigned line, unsigned k) const {
    if (line >= lines) return 0;
    return seen<T>(g, *this, place_of(g.y_pixels, g.y_width, line), tap_of(g, g.channels, k));
  }
};

// Input gradient: line is a pixel of x, k a (tap, filter): the pixel of y that sees it through that tap, if any.
template <class T> struct BackwardImage : Image<const T> {
  Geometry g;
  unsigned lines;
  bool along_k;
  __device__ __forceinline__ Compute<T> load(unsigned line, unsigned k) const {
    if (line >= lines) return 0;
    const Place x = place_of(g.x_pixels, g.x_width, line);
    const Tap tap = tap_of(g, g.filters, k);
    const int row = x.row + g.padding[0] - tap.row * g.dilation[0],
              column = x.column + g.padding[1] - tap.column * g.dilation[1];
    if (row < 0 || column < 0 || row % g.stride[0] != 0 || column % g.stride[1] != 0) return 0;
    const int y_row = row / g.stride[0], y_column = column / g.stride[1];
    if (y_row >= g.y_size[0] || y_column >= g.y_size[1]) return 0;
    return widen(*this->at(x.batch, tap.channel, y_row, y_column));
  }
};

// w: `select` moves to a group's filters. Line is a filter and k a (tap, channel), or the other way round.
template <class T, bool filters_in_k> struct Filters {
  const T* data;
  int64_t stride[4];
  int64_t group_filters;
  Geometry g;
  unsigned lines;
  bool along_k;
  __device__ __forceinline__ void select(unsigned group) { data += group * group_filters * stride[0]; }
  __device__ __forceinline__ Compute<T> load(unsigned line, unsigned k) const {
    if (line >= lines) return 0;
    const Tap tap = tap_of(g, filters_in_k ? g.filters : g.channels, k);
    const unsigned filter = filters_in_k ? tap.channel : line, channel = filters_in_k ? line : tap.channel;
    return widen(data[filter * stride[0] + channel * stride[1] + tap.row * stride[2] + tap.column * stride[3]]);
  }
};

// Weight gradient: k is a pixel of y; lines are filters, or (tap, channel)s.
template <class T> struct GradLines : Image<const T> {
  Geometry g;
  unsigned lines;
  bool along_k;
  __device__ __forceinline__ Compute<T> load(unsigned line, unsigned k) const {
    if (line >= lines) return 0;
    const Place y = place_of(g.y_pixels, g.y_width, k);
    return widen(*this->at(y.batch, line, y.row, y.column));
  }
};
template <class T> struct TapLines : Image<const T> {
  Geometry g;
  unsigned lines;
  bool along_k;
  __device__ __forceinline__ Compute<T> load(unsigned line, unsigned k) const {
    if (line >= lines) return 0;
    return seen<T>(g, *this, place_of(g.y_pixels, g.y_width, k), tap_of(g, g.channels, line));
  }
};

// Where results go: pixels by channels, or filters by (tap, channel).
template <class T> struct PixelResult : Image<T> {
  Divider pixels, width;
  const T* bias;
  int64_t bias_stride;
  __device__ __forceinline__ void select(unsigned group) {
    Image<T>::select(group);
    if (bias) bias += group * this->group_channels * bias_stride;
  }
  __device__ __forceinline__ void store(unsigned row, unsigned column, Compute<T> value) const {
    const Place p = place_of(pixels, width, row);
    if (bias) value += widen(bias[column * bias_stride]);
    *this->at(p.batch, column, p.row, p.column) = convert<T>(value);
  }
};
template <class T> struct FilterResult {
  T* data;
  int64_t stride[4];
  int64_t group_filters;
  Geometry g;
  __device__ __forceinline__ void select(unsigned group) { data += group * group_filters * stride[0]; }
  __device__ __forceinline__ void store(unsigned row, unsigned column, Compute<T> value) const {
    const Tap tap = tap_of(g, g.channels, column);
    data[row * stride[0] + tap.channel * stride[1] + tap.row * stride[2] + tap.column * stride[3]] = convert<T>(value);
  }
};

template <class T> Image<T> image(void* data, const Shape& shape, const Shape& strides, int64_t groups) {
  return {static_cast<T*>(data), {strides[0], strides[1], strides[2], strides[3]}, shape[1] / groups};
}

/// Calls f for as many images at once as have pixels that a launch can count, at least one; once for none.
template <class F> void in_images(const ConvProblem& p, F f) {
  const int64_t images = p.x_shape[0], pixels = std::max(p.x_shape[2] * p.x_shape[3], p.y_shape[2] * p.y_shape[3]),
                at_once = std::max(items_at_once() / std::max(pixels, int64_t(1)), int64_t(1));
  if (images <= at_once) return f(p);
  const auto moved = [&](void* data, int64_t elements) {
    return static_cast<char*>(data) + elements * size_of(p.type);
  };
  for (int64_t first = 0; first < images; first += at_once) {
    ConvProblem part = p;
    part.x_shape[0] = part.y_shape[0] = std::min(at_once, images - first);
    part.x = moved(p.x, first * p.x_strides[0]), part.y = moved(p.y, first * p.y_strides[0]);
    f(part);
  }
}

template <class Tile, class T> void launch_conv(const ConvProblem& p) {
  using W = Compute<T>;
  const int64_t filters = p.y_shape[1] / p.groups, channels = p.x_shape[1] / p.groups;
  const int64_t taps = p.w_shape[2] * p.w_shape[3];
  const int64_t y_pixels = p.y_shape[0] * p.y_shape[2] * p.y_shape[3],
                x_pixels = p.x_shape[0] * p.x_shape[2] * p.x_shape[3];
  Geometry g;
  for (int d = 0; d < 2; ++d) {
    g.stride[d] = int(p.stride[d]), g.padding[d] = int(p.padding[d]), g.dilation[d] = int(p.dilation[d]);
    g.x_size[d] = int(p.x_shape[2 + d]), g.y_size[d] = int(p.y_shape[2 + d]);
  }
  g.kernel_width = Divider(unsigned(p.w_shape[3]));
  g.x_width = Divider(unsigned(p.x_shape[3])), g.x_pixels = Divider(unsigned(p.x_shape[2] * p.x_shape[3]));
  g.y_width = Divider(unsigned(p.y_shape[3])), g.y_pixels = Divider(unsigned(p.y_shape[2] * p.y_shape[3]));
  g.channels = Divider(unsigned(channels)), g.filters = Divider(unsigned(filters));
  const bool x_channels = p.x_strides[1] == 1, y_channels = p.y_strides[1] == 1;  // channels lie side by side

  if (p.pass == ConvPass::forward) {
    const ForwardImage<T> a{image<const T>(p.x, p.x_shape, p.x_strides, p.groups), g, unsigned(y_pixels), x_channels};
    const Filters<T, false> b{static_cast<const T*>(p.w),
                              {p.w_strides[0], p.w_strides[1], p.w_strides[2], p.w_strides[3]},
                              filters,
                              g,
                              unsigned(filters),
                              true};
    const PixelResult<T> result{image<T>(p.y, p.y_shape, p.y_strides, p.groups), g.y_pixels, g.y_width,
                                static_cast<const T*>(p.bias), p.bias_stride};
    launch_multiply<Tile, W>(a, b, result, p.groups, y_pixels, filters, taps * channels, p.device, p.stream);
  } else if (p.pass == ConvPass::input_grad) {
    const BackwardImage<T> a{image<const T>(p.y, p.y_shape, p.y_strides, p.groups), g, unsigned(x_pixels), y_channels};
    const Filters<T, true> b{static_cast<const T*>(p.w),
                             {p.w_strides[0], p.w_strides[1], p.w_strides[2], p.w_strides[3]},
                             filters,
                             g,
                             unsigned(channels),
                             false};
    const PixelResult<T> result{image<T>(p.x, p.x_shape, p.x_strides, p.groups), g.x_pixels, g.x_width, nullptr, 0};
    launch_multiply<Tile, W>(a, b, result, p.groups, x_pixels, channels, taps * filters, p.device, p.stream);
  } else {
    std::vector<Terms<GradLines<T>, TapLines<T>>> terms;
    in_images(p, [&](const ConvProblem& part) {
      terms.push_back(
          {{image<const T>(part.y, p.y_shape, p.y_strides, p.groups), g, unsigned(filters), !y_channels},
           {image<const T>(part.x, p.x_shape, p.x_strides, p.groups), g, unsigned(taps * channels), !x_channels},
           part.y_shape[0] * p.y_shape[2] * p.y_shape[3]});
    });
    const FilterResult<T> result{
        static_cast<T*>(p.w), {p.w_strides[0], p.w_strides[1], p.w_strides[2], p.w_strides[3]}, filters, g};
    launch_multiply<Tile, W, GradLines<T>, TapLines<T>>(terms, result, p.groups, filters, taps * channels, p.device,
                                                        p.stream);
  }
}

void conv_kernel(KernelContext& op, ConvPass pass, const TensorImpl& x, const TensorImpl& w, const TensorImpl& y) {
  if (op.out().shape.numel() == 0) return;
  ConvProblem p{};
  p.pass = pass;
  p.type = op.out().dtype;
  p.x_shape = x.shape, p.x_strides = x.strides, p.x = x.data;
  p.w_shape = w.shape, p.w_strides = w.strides, p.w = w.data;
  p.y_shape = y.shape, p.y_strides = y.strides, p.y = y.data;
  if (pass == ConvPass::forward && op.inputs.size() > 2) p.bias = op.in(2).data, p.bias_stride = op.in(2).strides[0];
  for (int d = 0; d < 2; ++d) {
    p.stride[d] = op.attributes.integers("stride")[d];
    p.padding[d] = op.attributes.integers("padding")[d];
    p.dilation[d] = op.attributes.integers("dilation")[d];
  }
  p.groups = op.attributes.integer("groups");
  p.device = op.out().device;
  p.stream = stream_of(op);
  // Pixels of an image, with its padding, and the terms of a filter.
  for (const TensorImpl* image : {&x, &y})
    check_most(op, image->shape[2] * image->shape[3], most_of_int / 2, "pixels in an image");
  for (int d = 0; d < 2; ++d)
    check_most(op, x.shape[2 + d] + 2 * p.padding[d], most_of_int / 2, "pixels in a padded line");
  check_most(op, w.shape[0], most_of_int, "filters");
  check_most(op, std::max(w.shape[0], w.shape[1]) * w.shape[2] * w.shape[3], most_of_int, "terms of a filter");
  const bool empty = x.shape.numel() == 0 || w.shape.numel() == 0 || y.shape.numel() == 0;
  if (!empty && library() == Library::vendor && library_conv(p)) return;
  own_conv(p);
}

}  // namespace

void own_conv(const ConvProblem& problem) {
  visit_floating(problem.type, [&]<class T>() {
    const int64_t rows = problem.pass == ConvPass::weight_grad ? problem.y_shape[1] / problem.groups : 64;
    const int64_t columns = problem.pass == ConvPass::input_grad ? problem.x_shape[1] / problem.groups
                            : problem.pass == ConvPass::forward  ? problem.y_shape[1] / problem.groups
                                                                 : 64;
    const auto launch = [&](const ConvProblem& p) {
      if (std::is_same_v<T, float> && rows > 32 && columns > 32) return launch_conv<Tile64, T>(p);
      launch_conv<Tile32, T>(p);
    };
    if (problem.pass == ConvPass::weight_grad) launch(problem);  // adds up the images itself
    else in_images(problem, launch);
  });
}

}  // namespace gpu

void add_cuda_conv(Kernels kernels) {
  kernels["conv2d"] = [](KernelContext& op) {
    gpu::conv_kernel(op, gpu::ConvPass::forward, op.in(0), op.in(1), op.out());
  };
  kernels["conv2d_input_grad"] = [](KernelContext& op) {
    gpu::conv_kernel(op, gpu::ConvPass::input_grad, op.out(), op.in(1), op.in(0));
  };
  kernels["conv2d_weight_grad"] = [](KernelContext& op) {
    gpu::conv_kernel(op, gpu::ConvPass::weight_grad, op.in(1), op.out(), op.in(0));
  };
}

}  // namespace tandem
