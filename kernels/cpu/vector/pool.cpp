// Weighted sums of lines; and max pooling of a row of windows: lanes are channels that lie together, or windows that lie `lane` elements apart.
#include "kernels/cpu/vector/prelude.h"

TANDEM_BEGIN_VECTOR

// One lane: the first tap that is greatest wins, and a NaN wins over numbers (the last one, as in PyTorch).
template <class T, int kTaps>
TANDEM_INLINE void max_lane(const T* const* from, const int32_t* position, int64_t at, int32_t shift, T* value,
                            int32_t* index) {
  T best = from[0][at];
  int32_t place = position[0];
#pragma GCC unroll 9
  for (int t = 1; t < kTaps; ++t) {
    const T v = from[t][at];
    const bool take = (v > best) | (v != v);
    best = take ? v : best;
    place = take ? position[t] : place;
  }
  *value = best;
  *index = place + shift;
}

template <class T, int kTaps> void max_fixed(const PoolWindow& w, const T* x, T* values, int32_t* indices) {
  const T* from[kTaps];
  int32_t position[kTaps];
  for (int t = 0; t < kTaps; ++t) from[t] = x + w.offset[t], position[t] = w.position[t];
  if (w.lane != 1 || w.lane_position != 0) {  // windows
    const int64_t step = w.lane;
    TANDEM_SIMD
    for (int64_t j = 0; j < w.lanes; ++j)
      max_lane<T, kTaps>(from, position, j * step, (int32_t)j * w.lane_position, values + j, indices + j);
    return;
  }
  for (int64_t p = 0; p < w.pixels; ++p, values += w.lanes, indices += w.lanes) {
    const int64_t at = p * w.pixel;
    const int32_t shift = (int32_t)p * w.pixel_position;
    int64_t j = 0;
    for (; j + 16 <= w.lanes; j += 16) {
      TANDEM_SIMD
      for (int64_t k = 0; k < 16; ++k)
        max_lane<T, kTaps>(from, position, at + j + k, shift, values + j + k, indices + j + k);
    }
    for (; j + 8 <= w.lanes; j += 8) {
      TANDEM_SIMD
      for (int64_t k = 0; k < 8; ++k)
        max_lane<T, kTaps>(from, position, at + j + k, shift, values + j + k, indices + j + k);
    }
    for (; j < w.lanes; ++j) max_lane<T, kTaps>(from, position, at + j, shift, values + j, indices + j);
  }
}

template <class T> void max_any(const PoolWindow& w, const T* x, T* values, int32_t* indices) {
  for (int64_t p = 0; p < w.pixels; ++p, values += w.lanes, indices += w.lanes) {
    const T* pixel = x + p * w.pixel;
    const int32_t shift = (int32_t)p * w.pixel_position;
    for (int64_t j = 0; j < w.lanes; ++j) {
      values[j] = pixel[w.offset[0] + j * w.lane];
      indices[j] = w.position[0] + shift + (int32_t)j * w.lane_position;
    }
    for (int t = 1; t < w.taps; ++t) {
      const T* from = pixel + w.offset[t];
      const int32_t position = w.position[t] + shift;
      TANDEM_SIMD
      for (int64_t j = 0; j < w.lanes; ++j) {
        const T v = from[j * w.lane];
        const bool take = (v > values[j]) | (v != v);
        values[j] = take ? v : values[j];
        indices[j] = take ? position + (int32_t)j * w.lane_position : indices[j];
      }
    }
  }
}

template <class T> void max_pool(const PoolWindow& w, const T* x, T* values, int32_t* indices) {
  if (w.taps == 4) max_fixed<T, 4>(w, x, values, indices);
  else if (w.taps == 9) max_fixed<T, 9>(w, x, values, indices);
  else max_any<T>(w, x, values, indices);
}

// Windows that don't overlap: every input element is written once, with g where it was the greatest, else 0.
template <class T> void max_unpool(const PoolWindow& w, const T* g, const int32_t* indices, T* out) {
  for (int64_t p = 0; p < w.pixels; ++p, g += w.lanes, indices += w.lanes) {
    for (int t = 0; t < w.taps; ++t) {
      T* to = out + p * w.pixel + w.offset[t];
      const int32_t position = w.position[t] + (int32_t)p * w.pixel_position;
      if (w.lane != 1 || w.lane_position != 0) {
        for (int64_t j = 0; j < w.lanes; ++j)
          to[j * w.lane] = indices[j] == position + (int32_t)j * w.lane_position ? g[j] : (T)0;
        continue;
      }
      int64_t j = 0;
      for (; j + 8 <= w.lanes; j += 8) {
        TANDEM_SIMD
        for (int64_t k = j; k < j + 8; ++k) to[k] = indices[k] == position ? g[k] : (T)0;
      }
      for (; j < w.lanes; ++j) to[j] = indices[j] == position ? g[j] : (T)0;
    }
  }
}

template <class T> void combine(int64_t count, int64_t n, const T* const* lines, const T* weight, T* out) {
  if (count == 0) {
    for (int64_t j = 0; j < n; ++j) out[j] = (T)0;
    return;
  }
  const T* const a = lines[0];
  const T wa = weight[0];
  int64_t t = 1;
  if (count == 1) {
    TANDEM_SIMD
    for (int64_t j = 0; j < n; ++j) out[j] = wa * a[j];
  } else {
    const T* const b = lines[1];
    const T wb = weight[1];
    TANDEM_SIMD
    for (int64_t j = 0; j < n; ++j) out[j] = wa * a[j] + wb * b[j];
    t = 2;
  }
  for (; t + 2 <= count; t += 2) {
    const T *const c = lines[t], *const d = lines[t + 1];
    const T wc = weight[t], wd = weight[t + 1];
    TANDEM_SIMD
    for (int64_t j = 0; j < n; ++j) out[j] += wc * c[j] + wd * d[j];
  }
  for (; t < count; ++t) {
    const T* const c = lines[t];
    const T wc = weight[t];
    TANDEM_SIMD
    for (int64_t j = 0; j < n; ++j) out[j] += wc * c[j];
  }
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
extern const PoolLoops pool_loops;
const PoolLoops pool_loops = {max_pool<float>,    max_pool<double>, max_unpool<float>,
                              max_unpool<double>, combine<float>,   combine<double>};
}  // namespace tandem::TANDEM_ISA
