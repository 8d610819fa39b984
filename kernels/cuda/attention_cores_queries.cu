// Attention of 16-bit floats on the tensor cores, backward to the queries: with P from the log-sum-exp of each row and D, the
// row sums of g out, dS = P (dP - D), where dP = dropout(g vᵀ), and dq = scale dS k.
#include "kernels/cuda/attention_cores.cuh"

namespace tandem::gpu {
namespace {

template <int depth, bool extras> struct QueriesTile {
  static constexpr int blocks = depth <= 64 && !extras ? 2 : 1, columns = blocks == 2 || depth > 64 ? 32 : 64;
  static constexpr int rows = 16 * blocks * core_warps, stage = 2 * columns * depth;  // keys, then values
  static constexpr int shared_bytes = 2 * (rows * depth + stage) * 2;
};

// A block's queries stay while its sources pass, two tiles of these in shared memory: one is copied while the other is
// multiplied. q and g are read once, k and v once for each block; dq is written once.
template <class T, int depth, bool extras>
__global__ void __launch_bounds__(core_threads, 2)
    core_grad_queries(CoreCall call, HeadRows<const T> q, HeadRows<const T> k, HeadRows<const T> v, HeadRows<const T> g,
                      HeadRows<T> dq, const float* log_sum_exp, const float* row_sums, Layout<6> heads, int64_t first,
                      int64_t count) {
  using S = QueriesTile<depth, extras>;
  using Tile = CoreTile<T, depth>;
  TANDEM_DYNAMIC_SHARED(T, queries);
  T* const grads = queries + S::rows * depth;
  T* const stages = grads + S::rows * depth;
  const RowBlock block(first, count, call.causal);
  int64_t offset[6];
  heads.offsets(block.head, offset);
  q = q.moved(offset[0]), k = k.moved(offset[1]), v = v.moved(offset[2]), g = g.moved(offset[4]);
  dq = dq.moved(offset[5]);
  const MaskRows mask = call.mask.moved<float>(offset[3]);
  const int i0 = int(block.index) * S::rows;
  const int end = call.causal && i0 + S::rows < call.source ? i0 + S::rows : call.source;
  const int lane = int(threadIdx.x) % 32, warp_row = int(threadIdx.x) / 32 * 16 * S::blocks;

  const auto fetch = [&](int j0, int stage) {
    if (j0 < end) {
      T* const to = stages + stage * S::stage;
      Tile::template fetch<S::columns>(to, k, j0, call.source, call.depth);
      Tile::template fetch<S::columns>(to + S::columns * depth, v, j0, call.source, call.width);
    }
    copy_async_commit();
  };
  Tile::template fetch<S::rows>(queries, q, i0, call.time, call.depth);
  Tile::template fetch<S::rows>(grads, g, i0, call.time, call.width);
  fetch(0, 0);

  float level[S::blocks][2], row_sum[S::blocks][2];
#pragma unroll
  for (int m = 0; m < S::blocks; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = i0 + warp_row + m * 16 + half * 8 + lane / 4;
      const int64_t at = int64_t(block.head) * call.time + row;
      level[m][half] = core_level(row < call.time ? log_sum_exp[at] : -INFINITY);
      row_sum[m][half] = row < call.time ? row_sums[at] : 0.0f;
    }
  }
  float sum[S::blocks][depth / 8][4] = {};
  int stage = 0;
  for (int j0 = 0; j0 < end; j0 += S::columns, stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is there, and the one before has been read
    fetch(j0 + S::columns, stage ^ 1);
    T* const keys = stages + stage * S::stage;
    T* const values = keys + S::columns * depth;
    float s[S::blocks][S::columns / 8][4], grad[S::blocks][S::columns / 8][4];
    multiply_tiles<T, depth, S::blocks, S::columns>(s, queries, warp_row, keys);
    multiply_tiles<T, depth, S::blocks, S::columns>(grad, grads, warp_row, values);
    const bool partial = call.is_partial(i0 + warp_row, j0, S::columns);
#pragma unroll
    for (int m = 0; m < S::blocks; ++m) {
      const int row = i0 + warp_row + m * 16 + lane / 4, column = j0 + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < S::columns / 8; ++n) {
        unsigned kept = 15u;
        if (extras && call.kept.probability > 0)
          kept = CoreDraw(call).of_queries(
              td_u64((int64_t(block.head) * call.time + row) * call.source + column + n * 8), call.source);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int r = row + i / 2 * 8, c = column + n * 8 + i % 2;
          const float weight = extras ? exp2_fast(call.masked(s[m][n][i], mask, r, c) - level[m][i / 2])
                                      : exp2_fast(__fmaf_rn(s[m][n][i], call.scale, -level[m][i / 2]));
          float through = grad[m][n][i];
          if constexpr (extras) through = kept >> i & 1u ? through * static_cast<float>(call.kept.scale) : 0.0f;
          grad[m][n][i] = partial && !call.sees(r, c) ? 0.0f : weight * (through - row_sum[m][i / 2]);
        }
      }
    }
    add_weighted<T, depth, S::blocks, S::columns>(sum, grad, keys);
  }
  copy_async_wait<0>();
  __syncthreads();  // copies into what is written below have ended, where there was no tile
  float factor[S::blocks][2];
#pragma unroll
  for (int m = 0; m < S::blocks; ++m) factor[m][0] = factor[m][1] = call.plain_scale;
  Tile::template store<S::blocks>(queries, warp_row, sum, factor, dq, i0, call.time, call.depth);
}

}  // namespace

void core_grad_of_queries(const AttentionProblem& p) {
  visit_cores(p, [&]<class T, int depth, bool extras>() {
    using S = QueriesTile<depth, extras>;
    constexpr auto* kernel = core_grad_queries<T, depth, extras>;
    allow_shared(kernel, S::shared_bytes);
    const Layout<6> heads = heads_of<6>(p, {&p.q, &p.k, &p.v, &mask_or(p, p.q), &p.g, &p.dq});
    in_row_blocks(p.heads, p.time, S::rows, [&](int64_t first, unsigned count) {
      TANDEM_LAUNCH(kernel, count, core_threads, S::shared_bytes, p.stream, core_call(p), rows_to_read<T>(p.q),
                    rows_to_read<T>(p.k), rows_to_read<T>(p.v), rows_to_read<T>(p.g), rows_to_write<T>(p.dq),
                    static_cast<const float*>(p.log_sum_exp), static_cast<const float*>(p.row_sums), heads, first,
                    ceil_divide(p.time, int64_t(S::rows)));
    });
  });
}

}  // namespace tandem::gpu
