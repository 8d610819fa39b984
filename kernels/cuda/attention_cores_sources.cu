// Attention of 16-bit floats on the tensor cores, backward to the sources: dv = Aᵀ g and dk = scale dSᵀ q, with A what dropout
// makes of P, and dS as for the queries. All is computed transposed, sources as rows: then the weights are at once what
// the second products take as their left operands, and no two blocks add to the same sum.
#include "kernels/cuda/attention_cores.cuh"

namespace tandem::gpu {
namespace {

template <int depth, bool extras> struct SourcesTile {
  static constexpr int blocks = depth <= 32 && !extras ? 2 : 1, columns = depth <= 64 && blocks == 1 ? 64 : 32;
  static constexpr int rows = 16 * blocks * core_warps, stage = 2 * columns * depth;  // queries, then gradients
  static constexpr int shared_bytes = 2 * (rows * depth + stage) * 2;
};

// A block's sources stay while the queries that see any of them pass, two tiles of these in shared memory: one is copied
// while the other is multiplied. k and v are read once, q and g once for each block; dk and dv are written once.
template <class T, int depth, bool extras>
__global__ void __launch_bounds__(core_threads, 2)
    core_grad_sources(CoreCall call, HeadRows<const T> q, HeadRows<const T> k, HeadRows<const T> v, HeadRows<const T> g,
                      HeadRows<T> dk, HeadRows<T> dv, const float* log_sum_exp, const float* row_sums, Layout<7> heads,
                      int64_t first, int64_t count) {
  using S = SourcesTile<depth, extras>;
  using Tile = CoreTile<T, depth>;
  TANDEM_DYNAMIC_SHARED(T, keys);
  TANDEM_SHARED(float, levels, [2][S::columns]);
  TANDEM_SHARED(float, sums, [2][S::columns]);
  T* const values = keys + S::rows * depth;
  T* const stages = values + S::rows * depth;
  const RowBlock block(first, count, false);  // causal: the first sources are seen by most
  int64_t offset[7];
  heads.offsets(block.head, offset);
  q = q.moved(offset[0]), k = k.moved(offset[1]), v = v.moved(offset[2]), g = g.moved(offset[4]);
  dk = dk.moved(offset[5]), dv = dv.moved(offset[6]);
  const MaskRows mask = call.mask.moved<float>(offset[3]);
  log_sum_exp += int64_t(block.head) * call.time;
  row_sums += int64_t(block.head) * call.time;
  const int j0 = int(block.index) * S::rows, begin = call.causal ? j0 : 0;
  const int lane = int(threadIdx.x) % 32, warp_row = int(threadIdx.x) / 32 * 16 * S::blocks;

  const auto fetch = [&](int i0, int stage) {
    if (i0 < call.time) {
      T* const to = stages + stage * S::stage;
      Tile::template fetch<S::columns>(to, q, i0, call.time, call.depth);
      Tile::template fetch<S::columns>(to + S::columns * depth, g, i0, call.time, call.width);
      if (threadIdx.x < S::columns) {
        const int i = i0 + int(threadIdx.x);
        levels[stage][threadIdx.x] = core_level(i < call.time ? log_sum_exp[i] : -INFINITY);
        sums[stage][threadIdx.x] = i < call.time ? row_sums[i] : 0.0f;
      }
    }
    copy_async_commit();
  };
  Tile::template fetch<S::rows>(keys, k, j0, call.source, call.depth);
  Tile::template fetch<S::rows>(values, v, j0, call.source, call.width);
  fetch(begin, 0);

  float key_sum[S::blocks][depth / 8][4] = {}, value_sum[S::blocks][depth / 8][4] = {};
  int stage = 0;
  for (int i0 = begin; i0 < call.time; i0 += S::columns, stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();  // this tile is there, and the one before has been read
    fetch(i0 + S::columns, stage ^ 1);
    T* const queries = stages + stage * S::stage;
    T* const grads = queries + S::columns * depth;
    float s[S::blocks][S::columns / 8][4], grad[S::blocks][S::columns / 8][4];
    multiply_tiles<T, depth, S::blocks, S::columns>(s, keys, warp_row, queries);
    multiply_tiles<T, depth, S::blocks, S::columns>(grad, values, warp_row, grads);
    const bool partial = call.causal && j0 + warp_row + 16 * S::blocks - 1 > i0;
#pragma unroll
    for (int n = 0; n < S::columns / 8; ++n) {
      const int column = n * 8 + lane % 4 * 2;
      const auto level = load_pack<2>(&levels[stage][column]), row_sum = load_pack<2>(&sums[stage][column]);
#pragma unroll
      for (int m = 0; m < S::blocks; ++m) {
        const int source = j0 + warp_row + m * 16 + lane / 4, query = i0 + column;
        unsigned kept = 15u;
        if (extras && call.kept.probability > 0)
          kept = CoreDraw(call).of_sources(td_u64((int64_t(block.head) * call.time + query) * call.source + source),
                                           call.source);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int r = source + i / 2 * 8, c = query + i % 2;
          float weight = extras ? exp2_fast(call.masked(s[m][n][i], mask, c, r) - level.at[i % 2])
                                : exp2_fast(__fmaf_rn(s[m][n][i], call.scale, -level.at[i % 2]));
          if (partial && r > c) weight = 0;
          float through = grad[m][n][i];
          s[m][n][i] = weight;
          if constexpr (extras) {
            const bool keep = kept >> i & 1u;
            through = keep ? through * static_cast<float>(call.kept.scale) : 0.0f;
            if (!keep) s[m][n][i] = 0;
          }
          grad[m][n][i] = partial && r > c ? 0.0f : weight * (through - row_sum.at[i % 2]);
        }
      }
    }
    add_weighted<T, depth, S::blocks, S::columns>(value_sum, s, grads);
    add_weighted<T, depth, S::blocks, S::columns>(key_sum, grad, queries);
  }
  copy_async_wait<0>();
  __syncthreads();  // copies into what is written below have ended, where there was no tile
  float of_keys[S::blocks][2], of_values[S::blocks][2];
#pragma unroll
  for (int m = 0; m < S::blocks; ++m) {
    of_keys[m][0] = of_keys[m][1] = call.plain_scale;
    of_values[m][0] = of_values[m][1] = static_cast<float>(call.kept.scale);
  }
  Tile::template store<S::blocks>(keys, warp_row, key_sum, of_keys, dk, j0, call.source, call.depth);
  Tile::template store<S::blocks>(values, warp_row, value_sum, of_values, dv, j0, call.source, call.width);
}

}  // namespace

void core_grad_of_sources(const AttentionProblem& p) {
  visit_cores(p, [&]<class T, int depth, bool extras>() {
    using S = SourcesTile<depth, extras>;
    constexpr auto* kernel = core_grad_sources<T, depth, extras>;
    allow_shared(kernel, S::shared_bytes);
    const Layout<7> heads = heads_of<7>(p, {&p.q, &p.k, &p.v, &mask_or(p, p.q), &p.g, &p.dk, &p.dv});
    in_row_blocks(p.heads, p.source, S::rows, [&](int64_t first, unsigned count) {
      TANDEM_LAUNCH(kernel, count, core_threads, S::shared_bytes, p.stream, core_call(p), rows_to_read<T>(p.q),
                    rows_to_read<T>(p.k), rows_to_read<T>(p.v), rows_to_read<T>(p.g), rows_to_write<T>(p.dk),
                    rows_to_write<T>(p.dv), static_cast<const float*>(p.log_sum_exp),
                    static_cast<const float*>(p.row_sums), heads, first, ceil_divide(p.source, int64_t(S::rows)));
    });
  });
}

}  // namespace tandem::gpu
