// Casts between all types, fills, ranges and blocked transposes.
#include "kernels/cpu/vector/prelude.h"

TANDEM_BEGIN_VECTOR

template <class From, class To> void cast_loop(int64_t n, char* const* p, const int64_t* s) {
  if (s[0] == (int64_t)sizeof(To) && s[1] == (int64_t)sizeof(From)) {
    const From* in = (const From*)p[1];
    To* out = (To*)p[0];
    TANDEM_SIMD
    for (int64_t i = 0; i < n; ++i) out[i] = Convert<To>::from(in[i]);
    return;
  }
  const char* in = p[1];
  char* out = p[0];
  for (int64_t i = 0; i < n; ++i, in += s[1], out += s[0]) *(To*)out = Convert<To>::from(*(const From*)in);
}

/// Between float and a 16-bit float the CPU may have an instruction.
template <class H> void widen_loop(int64_t n, char* const* p, const int64_t* s) {
  if (s[0] == (int64_t)sizeof(float) && s[1] == (int64_t)sizeof(H)) widen_block(n, (const H*)p[1], (float*)p[0]);
  else cast_loop<H, float>(n, p, s);
}
template <class H> void narrow_loop(int64_t n, char* const* p, const int64_t* s) {
  if (s[0] == (int64_t)sizeof(H) && s[1] == (int64_t)sizeof(float)) narrow_block(n, (const float*)p[1], (H*)p[0]);
  else cast_loop<float, H>(n, p, s);
}

/// Same type: the bits, by size.
template <class T> void copy_loop(int64_t n, char* const* p, const int64_t* s) {
  constexpr int64_t size = sizeof(T);
  if (s[0] == size && s[1] == size) {
    memcpy(p[0], p[1], (size_t)(n * size));
    return;
  }
  const char* in = p[1];
  if (s[0] == size) {
    T* out = (T*)p[0];
    if (s[1] == 0) {
      const T value = *(const T*)in;
      for (int64_t i = 0; i < n; ++i) out[i] = value;
    } else if (s[1] == -size) {  // flip: reversed in registers
      const T* from = (const T*)in - (n - 1);
      for (int64_t i = 0; i < n; ++i) out[i] = from[n - 1 - i];
    } else {
      for (int64_t i = 0; i < n; ++i) out[i] = *(const T*)(in + i * s[1]);
    }
    return;
  }
  char* out = p[0];
  for (int64_t i = 0; i < n; ++i, in += s[1], out += s[0]) *(T*)out = *(const T*)in;
}

template <class T> void fill_loop(int64_t n, void* out, int64_t stride, uint64_t pattern) {
  const T value = (T)pattern;
  if (stride == (int64_t)sizeof(T)) {
    T* to = (T*)out;
    for (int64_t i = 0; i < n; ++i) to[i] = value;
    return;
  }
  char* to = (char*)out;
  for (int64_t i = 0; i < n; ++i, to += stride) *(T*)to = value;
}

// Squares of 16 (8 for 8-byte elements): a cache line of each row is read, and one of each column written,
// while both are in the first cache.
template <class T>
void transpose_loop(int64_t rows, int64_t columns, const void* from, int64_t in_stride, void* to, int64_t out_stride) {
  constexpr int64_t side = sizeof(T) == 8 ? 8 : 16;
  const T* in = (const T*)from;
  T* out = (T*)to;
  for (int64_t r = 0; r < rows; r += side) {
    for (int64_t c = 0; c < columns; c += side) {
      if (r + side <= rows && c + side <= columns) {
        T square[side][side];
        for (int64_t i = 0; i < side; ++i) memcpy(square[i], in + (r + i) * in_stride + c, sizeof square[i]);
        for (int64_t j = 0; j < side; ++j) {
          T line[side];
          for (int64_t i = 0; i < side; ++i) line[i] = square[i][j];
          memcpy(out + (c + j) * out_stride + r, line, sizeof line);
        }
        continue;
      }
      const int64_t last_row = least(r + side, rows), last_column = least(c + side, columns);
      for (int64_t j = c; j < last_column; ++j)
        for (int64_t i = r; i < last_row; ++i) out[j * out_stride + i] = in[i * in_stride + j];
    }
  }
}

template <class T> void arange_loop(int64_t n, void* out, int64_t first, double begin, double step) {
  T* to = (T*)out;
  for (int64_t i = 0; i < n; ++i) to[i] = Convert<T>::from(begin + (double)(first + i) * step);
}

#define TANDEM_CASTS_TO_WHOLE(From)                                                                      \
  cast_loop<From, int32_t>, cast_loop<From, int64_t>, cast_loop<From, int16_t>, cast_loop<From, int8_t>, \
      cast_loop<From, uint8_t>, cast_loop<From, Bool>
#define TANDEM_CASTS_FROM(From)                                                                 \
  cast_loop<From, float>, cast_loop<From, double>, cast_loop<From, F16>, cast_loop<From, BF16>, \
      TANDEM_CASTS_TO_WHOLE(From)

constexpr Loop kCasts[kTypes][kTypes] = {
    {copy_loop<uint32_t>, cast_loop<float, double>, narrow_loop<F16>, narrow_loop<BF16>, TANDEM_CASTS_TO_WHOLE(float)},
    {cast_loop<double, float>, copy_loop<uint64_t>, cast_loop<double, F16>, cast_loop<double, BF16>,
     TANDEM_CASTS_TO_WHOLE(double)},
    {widen_loop<F16>, cast_loop<F16, double>, copy_loop<uint16_t>, cast_loop<F16, BF16>, TANDEM_CASTS_TO_WHOLE(F16)},
    {widen_loop<BF16>, cast_loop<BF16, double>, cast_loop<BF16, F16>, copy_loop<uint16_t>, TANDEM_CASTS_TO_WHOLE(BF16)},
    {TANDEM_CASTS_FROM(int32_t)},
    {TANDEM_CASTS_FROM(int64_t)},
    {TANDEM_CASTS_FROM(int16_t)},
    {TANDEM_CASTS_FROM(int8_t)},
    {TANDEM_CASTS_FROM(uint8_t)},
    {TANDEM_CASTS_FROM(Bool)},
};

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {

const Loop (*cast_table())[kTypes] { return kCasts; }

void fill8(int64_t n, void* out, int64_t stride, uint64_t pattern) { fill_loop<uint8_t>(n, out, stride, pattern); }
void fill16(int64_t n, void* out, int64_t stride, uint64_t pattern) { fill_loop<uint16_t>(n, out, stride, pattern); }
void fill32(int64_t n, void* out, int64_t stride, uint64_t pattern) { fill_loop<uint32_t>(n, out, stride, pattern); }
void fill64(int64_t n, void* out, int64_t stride, uint64_t pattern) { fill_loop<uint64_t>(n, out, stride, pattern); }

void transpose8(int64_t rows, int64_t columns, const void* in, int64_t in_stride, void* out, int64_t out_stride) {
  transpose_loop<uint8_t>(rows, columns, in, in_stride, out, out_stride);
}
void transpose16(int64_t rows, int64_t columns, const void* in, int64_t in_stride, void* out, int64_t out_stride) {
  transpose_loop<uint16_t>(rows, columns, in, in_stride, out, out_stride);
}
void transpose32(int64_t rows, int64_t columns, const void* in, int64_t in_stride, void* out, int64_t out_stride) {
  transpose_loop<uint32_t>(rows, columns, in, in_stride, out, out_stride);
}
void transpose64(int64_t rows, int64_t columns, const void* in, int64_t in_stride, void* out, int64_t out_stride) {
  transpose_loop<uint64_t>(rows, columns, in, in_stride, out, out_stride);
}

void arange(int type, int64_t n, void* out, int64_t first, double begin, double step) {
  switch (type) {
    case 0: return arange_loop<float>(n, out, first, begin, step);
    case 1: return arange_loop<double>(n, out, first, begin, step);
    case 2: return arange_loop<F16>(n, out, first, begin, step);
    case 3: return arange_loop<BF16>(n, out, first, begin, step);
    case 4: return arange_loop<int32_t>(n, out, first, begin, step);
    case 5: return arange_loop<int64_t>(n, out, first, begin, step);
    case 6: return arange_loop<int16_t>(n, out, first, begin, step);
    case 7: return arange_loop<int8_t>(n, out, first, begin, step);
    case 8: return arange_loop<uint8_t>(n, out, first, begin, step);
    default: return arange_loop<Bool>(n, out, first, begin, step);
  }
}

}  // namespace tandem::TANDEM_ISA
