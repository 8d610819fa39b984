// Average pooling, interpolation and their gradients: for each row of the result the rows it is made of are added up, and
// then the columns of that sum. Channels-last images (pixels of all channels) and planes (pixels of one element) alike.
#include "kernels/cpu/resample.h"

#include <algorithm>

#include "core/op.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/layout.h"
#include "kernels/cpu/support/parallel.h"
#include "kernels/cpu/support/rows.h"

namespace tandem {

namespace {

template <class T> const auto& combine_loop() {
  if constexpr (sizeof(T) == 4) return loops().pool->combine_f32;
  else return loops().pool->combine_f64;
}

/// One direction's taps in the type computed in, and room for the lines that an element is made of.
template <class T> struct Lines {
  const Taps taps;
  std::vector<T> weight;
  size_t most = 1;
  explicit Lines(Taps made) : taps(std::move(made)), weight(taps.weight.begin(), taps.weight.end()) {
    for (int64_t i = 0; i < taps.size(); ++i) most = std::max(most, static_cast<size_t>(count(i)));
  }
  int64_t first(int64_t i) const { return taps.begin[static_cast<size_t>(i)]; }
  int64_t count(int64_t i) const { return first(i + 1) - first(i); }
  /// The element that its result i is a plain copy of; -1 if there is no such.
  int64_t copied(int64_t i) const {
    return count(i) == 1 && weight[static_cast<size_t>(first(i))] == T(1) ? taps.source[static_cast<size_t>(first(i))]
                                                                          : -1;
  }
  void combine(int64_t i, int64_t width, const T* from, int64_t step, std::vector<const T*>& lines, T* out) const {
    for (int64_t t = 0; t < count(i); ++t)
      lines[static_cast<size_t>(t)] = from + taps.source[static_cast<size_t>(first(i) + t)] * step;
    combine_loop<T>()(count(i), width, lines.data(), weight.data() + first(i), out);
  }
};

using MakeTaps = Taps (*)(const Attributes&, int, int64_t, int64_t);

template <class T, MakeTaps make, bool backward> void resample(KernelContext& c) {
  const TensorImpl &x = c.in(0), &out = c.out();
  if (out.shape.numel() == 0) return;
  if (x.shape.numel() == 0) return fill_elements(out.data, out.shape.numel(), out.dtype, 0);
  const bool channels_last = is_channels_last(out);
  const LaidInput<T> in(x, channels_last);
  const LaidOutput<T> result(out, channels_last);
  const auto taps_along = [&](int dim) {
    const int64_t from = x.shape[dim + 2], to = out.shape[dim + 2];
    return Lines<T>(backward ? make(c.attributes, dim, to, from).transposed(to) : make(c.attributes, dim, from, to));
  };
  const Lines<T> rows = taps_along(0), columns = taps_along(1);
  const int64_t lanes = channels_last ? out.shape[1] : 1, images = out.shape[0] * out.shape[1] / lanes;
  const int64_t height = out.shape[2], width = out.shape[3], in_line = x.shape[3] * lanes, out_line = width * lanes;
  const int64_t work = in_line * static_cast<int64_t>(rows.most) + out_line * static_cast<int64_t>(columns.most);
  parallel_for(images * height, std::max<int64_t>(1, kPointwiseGrain / work), [&](int64_t begin, int64_t end) {
    std::vector<const T*> lines(std::max(rows.most, columns.most));
    std::vector<T> sum(static_cast<size_t>(in_line));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i % height, copied = rows.copied(row);
      const T* const image = in.data() + i / height * x.shape[2] * in_line;
      const T* line = sum.data();
      if (copied >= 0) line = image + copied * in_line;
      else rows.combine(row, in_line, image, in_line, lines, sum.data());
      T* to = result.data() + i * out_line;
      if (lanes == 1) {
        for (int64_t j = 0; j < width; ++j) {
          T total = 0;
          for (auto t = static_cast<size_t>(columns.first(j)); t < static_cast<size_t>(columns.first(j + 1)); ++t)
            total += columns.weight[t] * line[columns.taps.source[t]];
          to[j] = total;
        }
      } else {
        for (int64_t j = 0; j < width; ++j) columns.combine(j, lanes, line, lanes, lines, to + j * lanes);
      }
    }
  });
  result.write_back(out);
}

template <MakeTaps make, bool backward> void resample_kernel(KernelContext& c) {
  if (c.out().dtype == DType::float64) resample<double, make, backward>(c);
  else resample<float, make, backward>(c);
}

}  // namespace

void add_cpu_resample(Kernels kernels) {
  kernels["avg_pool2d"] = resample_kernel<average_taps, false>;
  kernels["avg_pool2d_grad"] = resample_kernel<average_taps, true>;
  kernels["interpolate2d"] = resample_kernel<interpolation_taps, false>;
  kernels["interpolate2d_grad"] = resample_kernel<interpolation_taps, true>;
}

}  // namespace tandem
