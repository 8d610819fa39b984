// The taps of average pooling and of interpolation, as PyTorch places them.
#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cpu/resample.h"

namespace tandem {

Taps Taps::transposed(int64_t extent) const {
  Taps result;
  result.begin.assign(static_cast<size_t>(extent) + 1, 0);
  for (int64_t s : source) ++result.begin[static_cast<size_t>(s) + 1];
  for (size_t i = 1; i < result.begin.size(); ++i) result.begin[i] += result.begin[i - 1];
  std::vector<int64_t> next = result.begin;
  result.source.resize(source.size()), result.weight.resize(source.size());
  for (int64_t i = 0; i < size(); ++i)
    for (auto t = static_cast<size_t>(begin[static_cast<size_t>(i)]);
         t < static_cast<size_t>(begin[static_cast<size_t>(i) + 1]); ++t) {
      const auto at = static_cast<size_t>(next[static_cast<size_t>(source[t])]++);
      result.source[at] = i, result.weight[at] = weight[t];
    }
  return result;
}

Taps average_taps(const Attributes& attributes, int dim, int64_t in, int64_t out) {
  const int64_t kernel = attributes.integers("kernel")[dim], stride = attributes.integers("stride")[dim],
                padding = attributes.integers("padding")[dim];
  const bool counts_padding = attributes.flag("count_include_pad");
  Taps taps;
  for (int64_t i = 0; i < out; ++i) {
    const int64_t first = i * stride - padding, begin = std::max<int64_t>(first, 0), end = std::min(first + kernel, in);
    for (int64_t s = begin; s < end; ++s) taps.add(s, 1.0 / static_cast<double>(counts_padding ? kernel : end - begin));
    taps.finish_element();
  }
  return taps;
}

namespace {

/// Keys 1981, a = -0.75: the weight of an element at this distance.
double cubic(double distance) {
  constexpr double a = -0.75;
  const double d = std::fabs(distance);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return 0;
}

}  // namespace

Taps interpolation_taps(const Attributes& attributes, int dim, int64_t in, int64_t out) {
  const std::string& mode = attributes.text("mode");
  const double step =
      attributes.number(dim == 0 ? "row_step" : "column_step");  // from element to element of the result
  const bool corners = attributes.flag("align_corners");
  Taps taps;
  for (int64_t i = 0; i < out; ++i) {
    if (mode == "area") {
      const int64_t begin = i * in / out, end = ((i + 1) * in + out - 1) / out;
      for (int64_t s = begin; s < end; ++s) taps.add(s, 1.0 / static_cast<double>(end - begin));
    } else if (mode == "nearest") {
      // In integers where that is what is meant: i * (1 / 3.0) may fall short of a whole number.
      const bool even = step == static_cast<double>(in) / static_cast<double>(out);
      taps.add(std::min(even ? i * in / out : static_cast<int64_t>(static_cast<double>(i) * step), in - 1), 1);
    } else {
      double place = corners ? static_cast<double>(i) * step : (static_cast<double>(i) + 0.5) * step - 0.5;
      if (mode == "bilinear") place = std::clamp(place, 0.0, static_cast<double>(in - 1));
      const auto left = static_cast<int64_t>(std::floor(place));
      const double off = place - static_cast<double>(left);
      if (mode == "bilinear") {
        taps.add(left, 1 - off);
        if (off > 0) taps.add(left + 1, off);
      } else {
        for (int64_t k = -1; k <= 2; ++k)
          taps.add(std::clamp<int64_t>(left + k, 0, in - 1), cubic(off - static_cast<double>(k)));
      }
    }
    taps.finish_element();
  }
  return taps;
}

}  // namespace tandem
