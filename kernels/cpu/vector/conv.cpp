// Direct convolution, channels last: tiles of pixels by two registers of channels, as in a matrix product, whose left
// operand is the image itself. The taps of a kernel row lie together in an image row, so nothing is gathered into patches.
#include "kernels/cpu/vector/registers.h"

TANDEM_BEGIN_VECTOR

using R = Registers<float>;
using V = R::V;
constexpr int64_t kWidth = 2 * R::lanes;

TANDEM_INLINE V load(const float* from) {
  V x;
  memcpy(&x, from, sizeof x);
  return x;
}

/// `height` pixels of one block of channels, of which `columns` exist. Without a bias they are added to y.
template <int64_t height>
void pixels(const ConvStrip& s, const float* x, const float* w, const float* bias, int64_t columns, float* y) {
  V sums[height][2];
  for (int64_t i = 0; i < height; ++i) {
    float before[kWidth];
    const float* from = bias ? bias : columns == kWidth ? y + i * s.y_pixel : before;
    if (from == before)
      for (int64_t j = 0; j < kWidth; ++j) before[j] = j < columns ? y[i * s.y_pixel + j] : 0.0f;
    sums[i][0] = load(from);
    sums[i][1] = load(from + R::lanes);
  }
  for (int64_t row = 0; row < s.kernel_rows; ++row) {
    const float* at = x + row * s.x_kernel_row;
    for (int64_t p = 0; p < s.segment; ++p, ++at, w += kWidth) {
      const V left = load(w), right = load(w + R::lanes);
#pragma GCC unroll 12
      for (int64_t i = 0; i < height; ++i) {
        const V each = R::spread(at[i * s.x_pixel]);
        sums[i][0] = R::multiply_add(each, left, sums[i][0]);
        sums[i][1] = R::multiply_add(each, right, sums[i][1]);
      }
    }
  }
  if (columns == kWidth) {
#pragma GCC unroll 12
    for (int64_t i = 0; i < height; ++i) {
      memcpy(y + i * s.y_pixel, &sums[i][0], sizeof(V));
      memcpy(y + i * s.y_pixel + R::lanes, &sums[i][1], sizeof(V));
    }
    return;
  }
  float values[height][kWidth];
  memcpy(values, sums, sizeof values);
  for (int64_t i = 0; i < height; ++i)
    for (int64_t j = 0; j < columns; ++j) y[i * s.y_pixel + j] = values[i][j];
}

using Pixels = void (*)(const ConvStrip&, const float*, const float*, const float*, int64_t, float*);
template <int64_t height> TANDEM_INLINE Pixels pixels_of(int64_t count) {
  if constexpr (height == 1) return pixels<1>;
  else return count == height ? pixels<height> : pixels_of<height - 1>(count);
}

constexpr int64_t kDepth = 512;  // taps whose weights fill the first-level cache

/// All pixels of the strip, in tiles of nearly the same height: a low one is slow.
void all_pixels(const ConvStrip& s, const float* x, const float* w, const float* bias, int64_t columns, float* y) {
  const int64_t tiles = (s.pixels + R::height - 1) / R::height;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t begin = t * s.pixels / tiles, count = (t + 1) * s.pixels / tiles - begin;
    const Pixels run = pixels_of<R::height>(count);
    for (int64_t line = 0; line < s.lines; ++line)
      run(s, x + line * s.x_line + begin * s.x_pixel, w, bias, columns, y + line * s.y_line + begin * s.y_pixel);
  }
}

void forward(const ConvStrip& s, const float* x, const float* w, const float* bias, int64_t columns, float* y) {
  if (s.kernel_rows * s.segment <= kDepth) return all_pixels(s, x, w, bias, columns, y);
  ConvStrip part = s;
  part.kernel_rows = 1;
  for (int64_t row = 0; row < s.kernel_rows; ++row)
    for (int64_t begin = 0; begin < s.segment; begin += kDepth) {
      part.segment = least(kDepth, s.segment - begin);
      all_pixels(part, x + row * s.x_kernel_row + begin, w + (row * s.segment + begin) * kWidth,
                 row + begin ? nullptr : bias, columns, y);
    }
}

/// `height` taps of one kernel row by a block of channels: dw += x' g over all pixels of the strip.
template <int64_t height> void taps(const ConvStrip& s, const float* x, const float* g, float* dw) {
  V sums[height][2];
  for (int64_t i = 0; i < height; ++i) sums[i][0] = sums[i][1] = R::spread(0.0f);
  for (int64_t line = 0; line < s.lines; ++line) {
    const float *at = x + line * s.x_line, *from = g + line * s.y_line;
    for (int64_t p = 0; p < s.pixels; ++p, at += s.x_pixel, from += s.y_pixel) {
      const V left = load(from), right = load(from + R::lanes);
#pragma GCC unroll 12
      for (int64_t i = 0; i < height; ++i) {
        const V each = R::spread(at[i]);
        sums[i][0] = R::multiply_add(each, left, sums[i][0]);
        sums[i][1] = R::multiply_add(each, right, sums[i][1]);
      }
    }
  }
  for (int64_t i = 0; i < height; ++i)
    for (int64_t half = 0; half < 2; ++half) {
      float* to = dw + i * kWidth + half * R::lanes;
      const V total = sums[i][half] + load(to);
      memcpy(to, &total, sizeof total);
    }
}

using Taps = void (*)(const ConvStrip&, const float*, const float*, float*);
template <int64_t height> TANDEM_INLINE Taps taps_of(int64_t count) {
  if constexpr (height == 1) return taps<1>;
  else return count == height ? taps<height> : taps_of<height - 1>(count);
}

void weight_grad(const ConvStrip& s, const float* x, const float* g, float* dw) {
  const int64_t tiles = (s.segment + R::height - 1) / R::height;
  for (int64_t row = 0; row < s.kernel_rows; ++row)
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t begin = t * s.segment / tiles, count = (t + 1) * s.segment / tiles - begin;
      taps_of<R::height>(count)(s, x + row * s.x_kernel_row + begin, g, dw + (row * s.segment + begin) * kWidth);
    }
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
extern const ConvLoops conv_loops;
const ConvLoops conv_loops = {kWidth, forward, weight_grad};
}  // namespace tandem::TANDEM_ISA
