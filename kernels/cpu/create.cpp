// Tensors from constants and from other layouts and types: full, arange, cast, contiguous, copy.
#include <bit>
#include <cstring>

#include "core/op.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/iterate.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

constexpr int64_t kCopyGrain = 64 * 1024;  // bytes

int log2_size(DType type) { return std::countr_zero(static_cast<unsigned>(size_of(type))); }

void copy_bytes(const void* from, void* to, int64_t bytes) {
  parallel_for(
      bytes, kCopyGrain,
      [&](int64_t begin, int64_t end) {
        std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                    static_cast<size_t>(end - begin));
      },
      4096);
}

/// A copy in which the input is dense along one dim and the output along another, such as the transpose of a
/// matrix: in squares, so that both sides are read and written by whole cache lines.
bool copy_transposed(const Iteration& it, DType type) {
  const int64_t size = size_of(type);
  const int last = it.rank - 1;
  if (it.rank < 2 || it.stride[last][0] != size || it.stride[last][1] == size || it.stride[last][1] % size != 0)
    return false;
  int across = last - 1;
  while (across >= 0 && it.stride[across][1] != size) --across;
  if (across < 0 || it.extent[across] < 4 || it.extent[last] < 4) return false;

  int64_t outer = 1;
  for (int d = 0; d < last; ++d)
    if (d != across) outer *= it.extent[d];
  const int64_t rows = it.extent[last], columns = it.extent[across];
  constexpr int64_t kStrip = 64;  // columns in one piece of work
  const int64_t strips = (columns + kStrip - 1) / kStrip;
  const auto transpose = loops().transpose[log2_size(type)];
  parallel_for(outer * strips, std::max<int64_t>(1, kCopyGrain / (rows * kStrip * size)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t piece = begin; piece < end; ++piece) {
                   const int64_t column = piece % strips * kStrip;
                   int64_t rest = piece / strips;
                   char* to = it.base[0] + column * it.stride[across][0];
                   const char* from = it.base[1] + column * size;
                   for (int d = last - 1; d >= 0; --d) {
                     if (d == across) continue;
                     to += rest % it.extent[d] * it.stride[d][0];
                     from += rest % it.extent[d] * it.stride[d][1];
                     rest /= it.extent[d];
                   }
                   transpose(rows, std::min(kStrip, columns - column), from, it.stride[last][1] / size, to,
                             it.stride[across][0] / size);
                 }
               });
  return true;
}

uint64_t pattern_of(DType type, double value) {
  uint64_t pattern = 0;
  char* pointers[] = {reinterpret_cast<char*>(&pattern), reinterpret_cast<char*>(&value)};
  const int64_t strides[] = {size_of(type), 8};
  loops().cast[static_cast<int>(DType::float64)][static_cast<int>(type)](1, pointers, strides);
  return pattern;
}

void full_kernel(KernelContext& c) {
  const TensorImpl& out = c.out();
  fill_elements(out.data, out.shape.numel(), out.dtype, c.attributes.number("value"));
}

void arange_kernel(KernelContext& c) {
  const TensorImpl& out = c.out();
  const double begin = c.attributes.number("begin"), step = c.attributes.number("step");
  const int64_t size = size_of(out.dtype);
  parallel_for(out.shape.numel(), kPointwiseGrain, [&](int64_t first, int64_t end) {
    loops().arange(static_cast<int>(out.dtype), end - first, static_cast<char*>(out.data) + first * size, first, begin,
                   step);
  });
}

void copy_kernel(KernelContext& c) { copy_elements(c.in(0), c.out()); }

}  // namespace

void fill_elements(void* data, int64_t count, DType type, double value) {
  const uint64_t pattern = pattern_of(type, value);
  const int64_t size = size_of(type);
  parallel_for(
      count, kPointwiseGrain,
      [&](int64_t begin, int64_t end) {
        char* to = static_cast<char*>(data) + begin * size;
        if (pattern == 0) std::memset(to, 0, static_cast<size_t>((end - begin) * size));
        else loops().fill[log2_size(type)](end - begin, to, size, pattern);
      },
      64);
}

void copy_elements(const TensorImpl& from, const TensorImpl& to) {
  const int64_t n = to.shape.numel();
  if (n == 0) return;
  const bool same_type = from.dtype == to.dtype;
  if (same_type && from.contiguous && to.contiguous && from.shape == to.shape) {
    copy_bytes(from.data, to.data, n * size_of(to.dtype));
    return;
  }
  const TensorImpl* inputs[] = {&from};
  const Iteration it(to, inputs, 1);
  if (same_type && copy_transposed(it, to.dtype)) return;
  const Loop loop = loops().cast[static_cast<int>(from.dtype)][static_cast<int>(to.dtype)];
  parallel_for(
      n, kPointwiseGrain, [&](int64_t begin, int64_t end) { it.rows(begin, end, loop); }, 64);
}

void add_cpu_create(Kernels kernels) {
  kernels["full"] = full_kernel;
  kernels["arange"] = arange_kernel;
  for (const char* name : {"cast", "contiguous", "copy", "barrier"}) kernels[name] = copy_kernel;
}

}  // namespace tandem
