// The instructions of kernels/cuda/tensor_core.cuh as collectives of a warp: fragments are taken apart and
// put together as the PTX manual lays them out, so a kernel that mixes them up gives wrong numbers here too.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "tests/emulator/error.h"

namespace tandem::gpu {

inline void copy_async_16(void* to, const void* from, int bytes) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0 || reinterpret_cast<std::uintptr_t>(from) % 16 != 0 || bytes < 0 ||
      bytes > 16) {
    throw tandem_emulator::Error("CUDA emulator: cp.async needs 16-byte alignment and at most 16 bytes");
  }
  if (bytes > 0) std::memcpy(to, from, std::size_t(bytes));
  std::memset(static_cast<char*>(to) + bytes, 0, std::size_t(16 - bytes));
}
inline void copy_async_commit() {}
template <int pending> inline void copy_async_wait() {}

struct MatrixFrame {
  const void* row;
  unsigned* out;
};

template <bool transposed> inline void load_matrices(unsigned (&out)[4], const void* row, TANDEM_EMULATOR_SITE) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
    throw tandem_emulator::Error("CUDA emulator: ldmatrix needs 16-byte alignment");
  MatrixFrame frame{row, out};
  tandem_emulator::context->collective(
      0xffffffffu, &frame,
      [](void** frames, unsigned, unsigned) {
        unsigned short matrix[4][8][8];
        for (int i = 0; i < 32; ++i) std::memcpy(matrix[i / 8][i % 8], static_cast<MatrixFrame*>(frames[i])->row, 16);
        for (int lane = 0; lane < 32; ++lane) {
          for (int m = 0; m < 4; ++m) {
            const int r = lane / 4, c = lane % 4 * 2;
            const unsigned low = transposed ? matrix[m][c][r] : matrix[m][r][c];
            const unsigned high = transposed ? matrix[m][c + 1][r] : matrix[m][r][c + 1];
            static_cast<MatrixFrame*>(frames[lane])->out[m] = low | high << 16;
          }
        }
      },
      {file, line});
}

struct MultiplyFrame {
  float* d;
  const unsigned* a;
  unsigned b[2];
};

template <class T> inline float half_of(unsigned pair, int which) {
  const auto bits = static_cast<unsigned short>(pair >> (16 * which));
  T value;
  std::memcpy(&value, &bits, 2);
  return float(value);
}

template <class T>
inline void multiply_16x8x16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, TANDEM_EMULATOR_SITE) {
  MultiplyFrame frame{d, a, {b0, b1}};
  tandem_emulator::context->collective(0xffffffffu, &frame,
                                       [](void** frames, unsigned, unsigned) {
                                         float left[16][16], right[16][8];
                                         for (int lane = 0; lane < 32; ++lane) {
                                           const auto& f = *static_cast<MultiplyFrame*>(frames[lane]);
                                           const int group = lane / 4, pair = lane % 4 * 2;
                                           for (int h = 0; h < 2; ++h) {
                                             left[group][pair + h] = half_of<T>(f.a[0], h);
                                             left[group + 8][pair + h] = half_of<T>(f.a[1], h);
                                             left[group][pair + 8 + h] = half_of<T>(f.a[2], h);
                                             left[group + 8][pair + 8 + h] = half_of<T>(f.a[3], h);
                                             right[pair + h][group] = half_of<T>(f.b[0], h);
                                             right[pair + 8 + h][group] = half_of<T>(f.b[1], h);
                                           }
                                         }
                                         for (int lane = 0; lane < 32; ++lane) {
                                           float* out = static_cast<MultiplyFrame*>(frames[lane])->d;
                                           for (int i = 0; i < 4; ++i) {
                                             const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
                                             for (int k = 0; k < 16; ++k) out[i] += left[row][k] * right[k][column];
                                           }
                                         }
                                       },
                                       {file, line});
}

inline float exp2_fast(float x) {
  const float result = std::exp2(x);
  return result < std::numeric_limits<float>::min() ? 0.0f : result;  // NaN stays
}

}  // namespace tandem::gpu
