// Attention of 16-bit floats on the tensor cores, forward: FlashAttention-2 (T. Dao, 2023), which docs/cuda.md explains.
#include "kernels/cuda/attention_cores.cuh"

namespace tandem::gpu {
namespace {

// Sizes of a block: four warps, each with 16 `blocks` queries, which pass tiles of `columns` sources.
template <int depth, bool extras> struct ForwardTile {
  static constexpr int blocks = depth <= 32 || (depth <= 64 && !extras) ? 2 : 1, columns = 64;
  static constexpr int at_once = depth == 32 && !extras ? 3 : 2;  // on a multiprocessor
  static constexpr int rows = 16 * blocks * core_warps;
  static constexpr int shared_bytes = (rows + 2 * columns) * depth * 2;
};

struct Largest {  // NaN loses, and shows in the sum instead
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// q is read once, k and v once for each block of queries (from the L2 cache: a head's blocks run together), by asynchronous
// copies: v's while scores are multiplied, the next k's while weights are.
template <class T, int depth, bool extras>
__global__ void __launch_bounds__(core_threads, ForwardTile<depth, extras>::at_once)
    core_forward(CoreCall call, HeadRows<const T> q, HeadRows<const T> k, HeadRows<const T> v, HeadRows<T> out,
                 float* log_sum_exp, Layout<5> heads, int64_t first, int64_t blocks) {
  using S = ForwardTile<depth, extras>;
  using Tile = CoreTile<T, depth>;
  TANDEM_DYNAMIC_SHARED(T, queries);
  T* const keys = queries + S::rows * depth;
  T* const values = keys + S::columns * depth;
  const RowBlock block(first, blocks, call.causal);
  int64_t offset[5];
  heads.offsets(block.head, offset);
  q = q.moved(offset[0]), k = k.moved(offset[1]), v = v.moved(offset[2]), out = out.moved(offset[4]);
  const MaskRows mask = call.mask.moved<float>(offset[3]);
  const int i0 = int(block.index) * S::rows;
  const int end = call.causal && i0 + S::rows < call.source ? i0 + S::rows : call.source;
  const int lane = int(threadIdx.x) % 32, warp_row = int(threadIdx.x) / 32 * 16 * S::blocks;

  Tile::template fetch<S::rows>(queries, q, i0, call.time, call.depth);
  Tile::template fetch<S::columns>(keys, k, 0, end, call.depth);
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();

  constexpr float nothing = -INFINITY;
  const float scale = extras ? 1.0f : call.scale;  // of what `s` holds below
  float sum[S::blocks][depth / 8][4] = {}, highest[S::blocks][2], total[S::blocks][2] = {};
#pragma unroll
  for (int m = 0; m < S::blocks; ++m) highest[m][0] = highest[m][1] = nothing;
  for (int j0 = 0; j0 < end; j0 += S::columns) {
    Tile::template fetch<S::columns>(values, v, j0, call.source, call.width);
    copy_async_commit();
    float s[S::blocks][S::columns / 8][4];
    multiply_tiles<T, depth, S::blocks, S::columns>(s, queries, warp_row, keys);
    copy_async_wait<0>();
    __syncthreads();  // the values are there, and the keys have been read
    if (j0 + S::columns < end) Tile::template fetch<S::columns>(keys, k, j0 + S::columns, call.source, call.depth);
    copy_async_commit();

    const bool partial = call.is_partial(i0 + warp_row, j0, S::columns);
#pragma unroll
    for (int m = 0; m < S::blocks; ++m) {
      const int row = i0 + warp_row + m * 16 + lane / 4, column = j0 + lane % 4 * 2;
      if constexpr (extras) {
#pragma unroll
        for (int n = 0; n < S::columns / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i)
            s[m][n][i] = call.masked(s[m][n][i], mask, row + i / 2 * 8, column + n * 8 + i % 2);
        }
      }
      if (partial) {
#pragma unroll
        for (int n = 0; n < S::columns / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (!call.sees(row + i / 2 * 8, column + n * 8 + i % 2)) s[m][n][i] = nothing;
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float best = highest[m][half];
#pragma unroll
        for (int n = 0; n < S::columns / 8; ++n)
          best = Largest()(best, Largest()(s[m][n][half * 2], s[m][n][half * 2 + 1]));
        best = reduce_lanes<4>(best, Largest());
        const float base = best == nothing ? 0.0f : best * scale;  // 0: this row has seen nothing yet
        const float factor = exp2_fast(__fmaf_rn(highest[m][half], scale, -base));
        highest[m][half] = best;
        float part = 0;
#pragma unroll
        for (int n = 0; n < S::columns / 8; ++n) {
#pragma unroll
          for (int i = half * 2; i < half * 2 + 2; ++i) {
            s[m][n][i] = exp2_fast(__fmaf_rn(s[m][n][i], scale, -base));
            part += s[m][n][i];
          }
        }
        total[m][half] = __fmaf_rn(total[m][half], factor, part);  // of this lane's columns
#pragma unroll
        for (int n = 0; n < depth / 8; ++n) {
          sum[m][n][half * 2] *= factor;
          sum[m][n][half * 2 + 1] *= factor;
        }
      }
      if (extras && call.kept.probability > 0) {
        const CoreDraw draw(call);
        const td_u64 element = td_u64((int64_t(block.head) * call.time + row) * call.source + column);
#pragma unroll
        for (int n = 0; n < S::columns / 8; ++n) {
          const unsigned kept = draw.of_queries(element + td_u64(n * 8), call.source);
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if ((kept >> i & 1u) == 0) s[m][n][i] = 0;
        }
      }
    }
    add_weighted<T, depth, S::blocks, S::columns>(sum, s, values);
    copy_async_wait<0>();
    __syncthreads();  // the next keys are there, and the values have been read
  }

  float factor[S::blocks][2];
#pragma unroll
  for (int m = 0; m < S::blocks; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float all = reduce_lanes<4>(total[m][half], Add());
      const int row = i0 + warp_row + m * 16 + half * 8 + lane / 4;
      factor[m][half] = all == 0 ? 0.0f : static_cast<float>(call.kept.scale) / all;
      if (lane % 4 == 0 && row < call.time)
        log_sum_exp[int64_t(block.head) * call.time + row] =
            all == 0 ? nothing : __fmaf_rn(highest[m][half] * scale, log_of_2, td_log(all));
    }
  }
  Tile::template store<S::blocks>(queries, warp_row, sum, factor, out, i0, call.time, call.width);
}

}  // namespace

void core_attention(const AttentionProblem& p) {
  visit_cores(p, [&]<class T, int depth, bool extras>() {
    using S = ForwardTile<depth, extras>;
    constexpr auto* kernel = core_forward<T, depth, extras>;
    allow_shared(kernel, S::shared_bytes);
    const Layout<5> heads = heads_of<5>(p, {&p.q, &p.k, &p.v, &mask_or(p, p.q), &p.out});
    in_row_blocks(p.heads, p.time, S::rows, [&](int64_t first, unsigned count) {
      TANDEM_LAUNCH(kernel, count, core_threads, S::shared_bytes, p.stream, core_call(p), rows_to_read<T>(p.q),
                    rows_to_read<T>(p.k), rows_to_read<T>(p.v), rows_to_write<T>(p.out),
                    static_cast<float*>(p.log_sum_exp), heads, first, ceil_divide(p.time, int64_t(S::rows)));
    });
  });
}

}  // namespace tandem::gpu
