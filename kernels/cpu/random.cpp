// Draws and dropout. Element i of a draw depends on (seed, draw, i) alone, so threads just share the range.
#include <algorithm>
#include <atomic>

#include "core/op.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

constexpr int64_t kGrain = 8 * 1024, kPiece = 1024;

RandomKey key_of(const KernelContext& c, int input) {
  const int64_t* words = static_cast<const int64_t*>(c.in(input).data);
  return {static_cast<uint64_t>(words[0]),
          static_cast<uint64_t>(words[1]) + static_cast<uint64_t>(c.attributes.integer("site"))};
}

/// Pieces of the draw as T in a buffer, and from there in the output's type.
template <class T, class Draw> void in_pieces(const TensorImpl& out, Draw&& draw) {
  const int64_t size = size_of(out.dtype);
  const Loop cast = loops().cast[static_cast<int>(dtype_of<T>)][static_cast<int>(out.dtype)];
  parallel_for(
      out.shape.numel(), kGrain,
      [&](int64_t begin, int64_t end) {
        T buffer[kPiece];
        for (int64_t i = begin; i < end; i += kPiece) {
          const int64_t count = std::min(kPiece, end - i);
          draw(i, count, buffer);
          char* pointers[] = {static_cast<char*>(out.data) + i * size, reinterpret_cast<char*>(buffer)};
          const int64_t strides[] = {size, sizeof(T)};
          cast(count, pointers, strides);
        }
      },
      kPiece);
}

using Float32Draw = void (*RandomLoops::*)(RandomKey, int64_t, int64_t, float*);
using Float64Draw = void (*RandomLoops::*)(RandomKey, int64_t, int64_t, double*);

void draw(KernelContext& c, Float32Draw draw_f32, Float64Draw draw_f64) {
  const TensorImpl& out = c.out();
  const RandomKey key = key_of(c, 0);
  const auto f32 = loops().random->*draw_f32;
  const auto f64 = loops().random->*draw_f64;
  if (out.dtype == DType::float32) {
    parallel_for(
        out.shape.numel(), kGrain,
        [&](int64_t begin, int64_t end) { f32(key, begin, end - begin, static_cast<float*>(out.data) + begin); }, 64);
  } else if (out.dtype == DType::float64) {
    in_pieces<double>(out, [&](int64_t i, int64_t count, double* buffer) { f64(key, i, count, buffer); });
  } else {
    in_pieces<float>(out, [&](int64_t i, int64_t count, float* buffer) { f32(key, i, count, buffer); });
  }
}

/// low + the upper half of word * (high - low): td_random_below, for ranges beyond 2^32 too.
void random_int_kernel(KernelContext& c) {
  const RandomKey key = key_of(c, 0);
  const int64_t low = c.attributes.integer("low");
  const uint64_t range = static_cast<uint64_t>(c.attributes.integer("high")) - static_cast<uint64_t>(low);
  in_pieces<int64_t>(c.out(), [&](int64_t i, int64_t count, int64_t* buffer) {
    uint32_t words[kPiece];
    loops().random->words(key, i, count, words);
    for (int64_t j = 0; j < count; ++j) {
      const uint64_t upper = words[j] * (range >> 32), lower = words[j] * (range & 0xffffffffu);
      buffer[j] = static_cast<int64_t>(static_cast<uint64_t>(low) + upper + (lower >> 32));
    }
  });
}

/// The four words of block `turn`.
void turn_key_kernel(KernelContext& c) {
  uint32_t words[4];
  loops().random->words(key_of(c, 0), 4 * *static_cast<const int64_t*>(c.in(1).data), 4, words);
  auto* key = static_cast<uint64_t*>(c.out().data);
  key[0] = words[0] | static_cast<uint64_t>(words[1]) << 32;
  key[1] = words[2] | static_cast<uint64_t>(words[3]) << 32;
}

/// x, if all of it lies in [low, high].
template <class T> void bounded(KernelContext& c) {
  const TensorImpl &in = c.in(0), &out = c.out();
  const WideInput<T> x(in);
  const double low = c.attributes.number("low"), high = c.attributes.number("high");
  std::atomic<bool> outside = false;
  parallel_for(in.shape.numel(), kPointwiseGrain, [&](int64_t begin, int64_t end) {
    int bad = 0;
    for (int64_t i = begin; i < end; ++i) {
      const double value = static_cast<double>(x.data()[i]);
      bad |= !(value >= low && value <= high);
    }
    if (bad) outside = true;
  });
  if (outside) throw ValueError(detail::str(c.attributes.text("op"), ": ", c.attributes.text("message")), c.where);
  if (out.data != in.data) copy_elements(in, out);
}

template <class T> void dropout(KernelContext& c) {
  const TensorImpl& out = c.out();
  const RandomKey key = key_of(c, 1);
  const double p = c.attributes.number("p");
  // The scale as a number of x's type, as the op written out in pointwise ops has it.
  T scale = 0;
  double exact = p < 1 ? 1 / (1 - p) : 0;
  const Header rounded(&scale, dtype_of<T>, {});
  if (out.dtype == dtype_of<T>) {
    scale = static_cast<T>(exact);
  } else {
    uint16_t half;
    const Header as_double(&exact, DType::float64, {}), as_half(&half, out.dtype, {});
    copy_elements(as_double.impl, as_half.impl);
    copy_elements(as_half.impl, rounded.impl);
  }
  const WideInput<T> x(c.in(0));
  const WideOutput<T> result(out);
  parallel_for(
      out.shape.numel(), kGrain,
      [&](int64_t begin, int64_t end) {
        const RandomLoops& random = *loops().random;
        const T* from = x.data() + begin;
        T* to = result.data() + begin;
        if constexpr (sizeof(T) == 4)
          random.dropout_f32(key, begin, end - begin, from, static_cast<float>(p), scale, to);
        else random.dropout_f64(key, begin, end - begin, from, static_cast<float>(p), scale, to);
      },
      512);
  result.finish();
}

}  // namespace

void add_cpu_random(Kernels kernels) {
  kernels["random_uniform"] = [](KernelContext& c) { draw(c, &RandomLoops::uniform_f32, &RandomLoops::uniform_f64); };
  kernels["random_normal"] = [](KernelContext& c) { draw(c, &RandomLoops::normal_f32, &RandomLoops::normal_f64); };
  kernels["random_int"] = random_int_kernel;
  kernels["turn_key"] = turn_key_kernel;
  kernels["bounded"] = [](KernelContext& c) {
    if (c.out().dtype == DType::float64) bounded<double>(c);
    else bounded<float>(c);
  };
  kernels["dropout"] = [](KernelContext& c) {
    if (c.out().dtype == DType::float64) dropout<double>(c);
    else dropout<float>(c);
  };
}

}  // namespace tandem
