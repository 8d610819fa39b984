// Random draws, dropout, and the check of numbers that draws are made of. Element i depends on (seed, draw, i) alone, so any grid draws the same numbers as the
// CPU; a block of Philox serves the four elements (two of float64) that a thread writes.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/random_key.cuh"

namespace tandem {
namespace gpu {
namespace {

struct Uniform {
  static __device__ __forceinline__ float of(td_philox_block block, td_u32 i, float) {
    return td_uniform_from_word(td_philox_pick(block, i));
  }
  static __device__ __forceinline__ double of(td_u64 seed, td_u64 draw, td_u64 index) {
    return td_uniform_f64(seed, draw, index);
  }
};
struct Normal {
  static __device__ __forceinline__ float of(td_philox_block block, td_u32 i, float) {
    return td_normal_from_block(block, i);
  }
  static __device__ __forceinline__ double of(td_u64 seed, td_u64 draw, td_u64 index) {
    return td_normal_f64(seed, draw, index);
  }
};

template <class T, class Distribution>
__global__ void __launch_bounds__(threads_per_block) draw(T* out, RandomWords key, int64_t count) {
  const td_u64 seed = key.get_seed(), number = key.get_draw();
  for (int64_t i = global_thread() * 4; i < count; i += global_threads() * 4) {
    if constexpr (std::is_same_v<T, double>) {
      for (int64_t k = i; k < i + 4 && k < count; ++k) out[k] = Distribution::of(seed, number, td_u64(k));
    } else {
      const td_philox_block block = td_philox_words(seed, number, td_u64(i) >> 2);
      for (int k = 0; k < 4 && i + k < count; ++k) out[i + k] = convert<T>(Distribution::of(block, td_u32(k), 0.0f));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(threads_per_block)
    draw_integers(T* out, RandomWords key, int64_t low, td_u64 range, int64_t count) {
  const td_u64 seed = key.get_seed(), number = key.get_draw();
  for (int64_t i = global_thread(); i < count; i += global_threads()) {
    // The upper half of word * range, for ranges beyond 2^32 too: td_random_below, but for its width.
    const td_u64 word = td_philox_u32(seed, number, td_u64(i));
    const td_u64 value = word * (range >> 32) + ((word * (range & 0xffffffffu)) >> 32);
    out[i] = static_cast<T>(low + int64_t(value));
  }
}

template <class T>
__global__ void __launch_bounds__(threads_per_block)
    dropout_dense(T* out, const T* in, RandomWords key, float probability, double exact_scale, int64_t count) {
  const Compute<T> scale = widen(convert<T>(exact_scale));  // a number of x's type, as the pointwise ops have it
  const td_u64 seed = key.get_seed(), number = key.get_draw();
  for (int64_t i = global_thread() * 4; i < count; i += global_threads() * 4) {
    const td_philox_block block = td_philox_words(seed, number, td_u64(i) >> 2);
    for (int k = 0; k < 4 && i + k < count; ++k) {
      const bool kept = td_uniform_from_word(td_philox_pick(block, td_u32(k))) >= probability;
      out[i + k] = kept ? convert<T>(widen(in[i + k]) * scale) : convert<T>(0.0f);
    }
  }
}

// Operands: out, in, and the element's row-major index.
template <class T>
__global__ void __launch_bounds__(threads_per_block)
    dropout_strided(T* out, const T* in, RandomWords key, float probability, double exact_scale, int64_t first,
                    Layout<3> layout) {
  const Compute<T> scale = widen(convert<T>(exact_scale));
  const td_u64 seed = key.get_seed(), number = key.get_draw();
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t offset[3];
    layout.offsets(i, offset);
    const bool kept = td_uniform_f32(seed, number, td_u64(first + offset[2])) >= probability;
    out[offset[0]] = kept ? convert<T>(widen(in[offset[1]]) * scale) : convert<T>(0.0f);
  }
}

// The four words of block `turn` are the key of a turn.
__global__ void turn_key(td_u64* out, RandomWords key, Operand<int64_t> turn) {
  const td_philox_block block = td_philox_words(key.get_seed(), key.get_draw(), td_u64(turn.at(0)));
  const unsigned half = threadIdx.x * 2;
  out[threadIdx.x] = td_philox_pick(block, half) | td_u64(td_philox_pick(block, half + 1)) << 32;
}

// A copy, which notes where a number isn't in [low, high].
template <class T>
__global__ void __launch_bounds__(threads_per_block)
    bounded(T* out, Operand<T> in, double low, double high, Layout<2> layout, td_range_note note) {
  const unsigned step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < layout.numel; i += step) {
    int64_t offset[2];
    layout.offsets(i, offset);
    const T x = in.at(offset[1]);
    const double value = double(widen(x));
    if (!(value >= low && value <= high)) td_note_range(note, 0, -1, 0);
    out[offset[0]] = x;
  }
}

template <class Distribution> void draw_kernel(KernelContext& op) {
  const int64_t count = op.out().shape.numel();
  if (count == 0) return;
  visit_floating(op.out().dtype, [&]<class T>() {
    TANDEM_LAUNCH((draw<T, Distribution>), blocks_for(ceil_divide(count, int64_t(4))), threads_per_block, 0,
                  stream_of(op), data<T>(op.out()), random_key(op.in(0), op.attributes), count);
  });
}

void draw_integers_kernel(KernelContext& op) {
  const int64_t count = op.out().shape.numel(), low = op.attributes.integer("low"),
                high = op.attributes.integer("high");
  if (count == 0) return;
  visit_any(op.out().dtype, [&]<class T>() {
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      TANDEM_LAUNCH((draw_integers<T>), blocks_for(count), threads_per_block, 0, stream_of(op), data<T>(op.out()),
                    random_key(op.in(0), op.attributes), low, td_u64(high) - td_u64(low), count);
    }
  });
}

/// On the device where the key lies there; else it is the host's, as keys are.
void turn_key_kernel(KernelContext& op) {
  const TensorImpl& turn = op.in(1);
  Operand<int64_t> at{};
  if (turn.device.is_cuda()) at.data = data<int64_t>(turn);
  else at.value = *data<int64_t>(turn);
  TANDEM_LAUNCH(turn_key, 1, 2, 0, stream_of(op), data<td_u64>(op.out()), random_key(op.in(0), op.attributes), at);
}

void dropout_kernel(KernelContext& op) {
  const TensorImpl& x = op.in(0);
  TensorImpl& out = op.out();
  const int64_t count = out.shape.numel();
  if (count == 0) return;
  const double p = op.attributes.number("p"), scale = p < 1 ? 1 / (1 - p) : 0;
  const RandomWords key = random_key(op.in(1), op.attributes);
  visit_floating(out.dtype, [&]<class T>() {
    if (x.contiguous && out.contiguous) {
      TANDEM_LAUNCH((dropout_dense<T>), blocks_for(ceil_divide(count, int64_t(4))), threads_per_block, 0, stream_of(op),
                    data<T>(out), data<T>(x), key, static_cast<float>(p), scale, count);
      return;
    }
    const Shape index = contiguous_strides(out.shape);
    const Iteration iteration(out.shape, {{&out.shape, &out.strides}, {&x.shape, &x.strides}, {&out.shape, &index}});
    in_pieces(iteration, [&](const Iteration& piece, const int64_t* offset) {
      TANDEM_LAUNCH((dropout_strided<T>), blocks_for(piece.numel()), threads_per_block, 0, stream_of(op),
                    data<T>(out) + offset[0], data<T>(x) + offset[1], key, static_cast<float>(p), scale, offset[2],
                    Layout<3>(piece));
    });
  });
}

void bounded_kernel(KernelContext& op) {
  const TensorImpl& x = op.in(0);
  TensorImpl& out = op.out();
  const double low = op.attributes.number("low"), high = op.attributes.number("high");
  if (out.shape.numel() == 0) return;
  const td_range_note note = range_note(op, {.what = op.attributes.text("message"), .interval = Interval{low, high}},
                                        x.shape, op.attributes.text("op"));
  const Iteration iteration(out.shape, {{&out.shape, &out.strides}, {&x.shape, &x.strides}});
  visit_floating(out.dtype, [&]<class T>() {
    in_pieces(iteration, [&](const Iteration& piece, const int64_t* offset) {
      Operand<T> in = operand<T>(x);
      if (in.data) in.data += offset[1];
      TANDEM_LAUNCH((bounded<T>), blocks_for(piece.numel()), threads_per_block, 0, stream_of(op),
                    data<T>(out) + offset[0], in, low, high, Layout<2>(piece), note);
    });
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_random(Kernels kernels) {
  kernels["random_uniform"] = gpu::draw_kernel<gpu::Uniform>;
  kernels["random_normal"] = gpu::draw_kernel<gpu::Normal>;
  kernels["random_int"] = gpu::draw_integers_kernel;
  kernels["turn_key"] = gpu::turn_key_kernel;
  kernels["bounded"] = gpu::bounded_kernel;
  kernels["dropout"] = gpu::dropout_kernel;
}

}  // namespace tandem
