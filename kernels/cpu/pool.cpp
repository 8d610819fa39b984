// max_pool2d, its gradient and the gradient of that, in planes (NCHW) or channels-last as the output lies.
#include <algorithm>
#include <vector>

#include "core/op.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/layout.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

struct Geometry {
  int64_t batch, channels, in_height, in_width, out_height, out_width;
  int64_t kernel[2], stride[2], padding[2];

  Geometry(const Attributes& attributes, const Shape& in, const Shape& out)
      : batch(in[0]), channels(in[1]), in_height(in[2]), in_width(in[3]), out_height(out[2]), out_width(out[3]) {
    for (int i = 0; i < 2; ++i) {
      kernel[i] = attributes.integers("kernel")[i];
      stride[i] = attributes.integers("stride")[i];
      padding[i] = attributes.integers("padding")[i];
    }
  }
  /// Windows that neither overlap nor reach over the edge.
  bool tiles() const { return padding[0] == 0 && padding[1] == 0 && stride[0] >= kernel[0] && stride[1] >= kernel[1]; }
};

/// The places of one window after another, clipped at the edges.
class Taps {
 public:
  Taps(const Geometry& g, int64_t row_step, int64_t column_step)
      : g_(g), row_step_(row_step), column_step_(column_step) {
    const int64_t most = std::min(g.kernel[0], g.in_height) * std::min(g.kernel[1], g.in_width);
    offset_.resize(static_cast<size_t>(most));
    position_.resize(offset_.size());
  }
  PoolWindow at(int64_t out_row, int64_t out_column) {
    const int64_t top = out_row * g_.stride[0] - g_.padding[0], left = out_column * g_.stride[1] - g_.padding[1];
    const int64_t first_row = std::max<int64_t>(top, 0), last_row = std::min(top + g_.kernel[0], g_.in_height);
    const int64_t first = std::max<int64_t>(left, 0), last = std::min(left + g_.kernel[1], g_.in_width);
    size_t taps = 0;
    for (int64_t r = first_row; r < last_row; ++r)
      for (int64_t column = first; column < last; ++column, ++taps) {
        offset_[taps] = r * row_step_ + column * column_step_;
        position_[taps] = static_cast<int32_t>(r * g_.in_width + column);
      }
    return {static_cast<int>(taps), 1, 0, 0, 1, 1, 0, offset_.data(), position_.data()};
  }

 private:
  const Geometry& g_;
  int64_t row_step_, column_step_;
  std::vector<int64_t> offset_;
  std::vector<int32_t> position_;
};

/// Calls f(windows, in offset, out offset) for all windows, a row's inner ones at once.
template <class F> void for_windows(const Geometry& g, bool channels_last, F&& f) {
  const int64_t out_plane = g.out_height * g.out_width, in_plane = g.in_height * g.in_width;
  // Windows of a row that lie wholly inside it.
  const int64_t inside_begin = std::min(g.out_width, (g.padding[1] + g.stride[1] - 1) / g.stride[1]);
  const int64_t room = g.in_width + g.padding[1] - g.kernel[1];
  const int64_t inside_end = room < 0 ? 0 : std::min(g.out_width, room / g.stride[1] + 1);
  const auto for_row = [&](Taps& taps, int64_t row, auto&& each) {
    for (int64_t column = 0; column < g.out_width;) {
      const bool inside = column >= inside_begin && column < inside_end;
      const int64_t count = inside ? inside_end - column : 1;
      each(taps.at(row, column), column, count);
      column += count;
    }
  };
  const int32_t stride = static_cast<int32_t>(g.stride[1]);
  if (channels_last) {  // lanes are channels
    parallel_for(g.batch * g.out_height, std::max<int64_t>(1, 4096 / (g.out_width * g.channels)),
                 [&](int64_t begin, int64_t end) {
                   Taps taps(g, g.in_width * g.channels, g.channels);
                   for (int64_t i = begin; i < end; ++i) {
                     const int64_t n = i / g.out_height, row = i % g.out_height;
                     for_row(taps, row, [&](PoolWindow w, int64_t column, int64_t count) {
                       w.pixels = count, w.pixel = g.stride[1] * g.channels, w.pixel_position = stride;
                       w.lanes = g.channels;
                       f(w, n * in_plane * g.channels, (n * out_plane + row * g.out_width + column) * g.channels);
                     });
                   }
                 });
    return;
  }
  parallel_for(g.batch * g.channels, std::max<int64_t>(1, 4096 / out_plane), [&](int64_t begin, int64_t end) {
    Taps taps(g, g.in_width, 1);
    for (int64_t plane = begin; plane < end; ++plane)
      for (int64_t row = 0; row < g.out_height; ++row)
        for_row(taps, row, [&](PoolWindow w, int64_t column, int64_t count) {
          w.lanes = count, w.lane = g.stride[1], w.lane_position = stride;
          f(w, plane * in_plane, plane * out_plane + row * g.out_width + column);
        });
  });
}

template <class T> const auto& max_loop() {
  if constexpr (sizeof(T) == 4) return loops().pool->max_f32;
  else return loops().pool->max_f64;
}
template <class T> const auto& unpool_loop() {
  if constexpr (sizeof(T) == 4) return loops().pool->unpool_f32;
  else return loops().pool->unpool_f64;
}

template <class T> void max_pool2d(KernelContext& c) {
  const TensorImpl &x = c.in(0), &out = c.out(0);
  if (out.shape.numel() == 0) return;
  const bool channels_last = is_channels_last(out);
  const Geometry g(c.attributes, x.shape, out.shape);
  const LaidInput<T> in(x, channels_last);
  const LaidOutput<T> values(out, channels_last);
  const LaidOutput<int32_t> indices(c.out(1), channels_last);
  const auto loop = max_loop<T>();
  for_windows(g, channels_last, [&](const PoolWindow& w, int64_t from, int64_t to) {
    loop(w, in.data() + from, values.data() + to, indices.data() + to);
  });
  values.write_back(out), indices.write_back(c.out(1));
}

template <class T> void max_unpool2d(KernelContext& c) {
  const TensorImpl &g_in = c.in(0), &out = c.out();
  if (out.shape.numel() == 0) return;
  const bool channels_last = is_channels_last(out);
  const LaidOutput<T> result(out, channels_last);
  const Geometry g(c.attributes, out.shape, g_in.shape);
  const int64_t in_plane = g.in_height * g.in_width, out_plane = g.out_height * g.out_width;
  const bool covers = g.tiles() && g.stride[0] == g.kernel[0] && g.stride[1] == g.kernel[1] &&
                      g.out_height * g.stride[0] == g.in_height && g.out_width * g.stride[1] == g.in_width;
  if (!covers) fill_elements(result.data(), out.shape.numel(), dtype_of<T>, 0);
  if (g_in.shape.numel() > 0) {
    const LaidInput<T> grad(g_in, channels_last);
    const LaidInput<int32_t> indices(c.in(1), channels_last);
    if (g.tiles()) {
      const auto loop = unpool_loop<T>();
      for_windows(g, channels_last, [&](const PoolWindow& w, int64_t from, int64_t to) {
        loop(w, grad.data() + to, indices.data() + to, result.data() + from);
      });
    } else {  // windows may share an element: the images go to the threads
      parallel_for(g.batch, std::max<int64_t>(1, 4096 / (out_plane * g.channels)), [&](int64_t begin, int64_t end) {
        if (channels_last) {
          for (int64_t i = begin * out_plane; i < end * out_plane; ++i) {
            T* const image = result.data() + i / out_plane * in_plane * g.channels;
            const T* const from = grad.data() + i * g.channels;
            const int32_t* const place = indices.data() + i * g.channels;
            for (int64_t j = 0; j < g.channels; ++j) image[place[j] * g.channels + j] += from[j];
          }
          return;
        }
        for (int64_t plane = begin * g.channels; plane < end * g.channels; ++plane) {
          T* const to = result.data() + plane * in_plane;
          for (int64_t i = plane * out_plane; i < (plane + 1) * out_plane; ++i) to[indices.data()[i]] += grad.data()[i];
        }
      });
    }
  }
  result.write_back(out);
}

template <class T> void max_pool2d_select(KernelContext& c) {
  const TensorImpl &x = c.in(0), &out = c.out();
  if (out.shape.numel() == 0) return;
  const bool channels_last = is_channels_last(out);
  const LaidInput<T> in(x, channels_last);
  const LaidInput<int32_t> indices(c.in(1), channels_last);
  const LaidOutput<T> result(out, channels_last);
  const int64_t channels = x.shape[1], in_plane = x.shape[2] * x.shape[3], out_plane = out.shape[2] * out.shape[3];
  parallel_for(out.shape.numel(), kPointwiseGrain, [&](int64_t begin, int64_t end) {
    const int64_t lane = channels_last ? channels : 1;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / (channels * out_plane), rest = i % (channels * out_plane);
      const int64_t base = n * channels * in_plane + (channels_last ? rest % channels : rest / out_plane * in_plane);
      result.data()[i] = in.data()[base + indices.data()[i] * lane];
    }
  });
  result.write_back(out);
}

#define TANDEM_POOL_KERNEL(kernel)                          \
  [](KernelContext& c) {                                    \
    if (c.out().dtype == DType::float64) kernel<double>(c); \
    else kernel<float>(c);                                  \
  }

}  // namespace

void add_cpu_resample(Kernels kernels);

void add_cpu_pool(Kernels kernels) {
  add_cpu_resample(kernels);
  kernels["max_pool2d"] = TANDEM_POOL_KERNEL(max_pool2d);
  kernels["max_unpool2d"] = TANDEM_POOL_KERNEL(max_unpool2d);
  kernels["max_pool2d_select"] = TANDEM_POOL_KERNEL(max_pool2d_select);
}

}  // namespace tandem
