// Attention on the ordinary cores: any dtype, any layout, vectors of any length. Tiles of `side` queries by `side` sources;
// scores and sums are registers, what one product hands to the next goes through shared memory, and no matrix of all
// scores exists. The algorithm is FlashAttention-2 (T. Dao, 2023), which docs/cuda.md explains.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/gemm.cuh"

namespace tandem::gpu {
namespace {

// A block's threads stand in a grid 16 wide: thread (y, x) owns scores of 4 rows and side / 16 columns, and of a result
// [side, chunk] the same rows and chunk / 16 columns. Longer vectors have as many blocks as they have chunks.
template <class Acc_, int chunk_> struct PlainTile {
  using Acc = Acc_;
  static constexpr int side = sizeof(Acc) == 8 ? 32 : 64, chunk = chunk_, depth = 16;
  static constexpr int across = 16, rows = 4, columns = side / across, chunk_columns = chunk / across;
  static constexpr int threads = across * (side / rows), widest = chunk > side ? chunk : side;
  static constexpr int blocks = sizeof(Acc) == 8 ? 2 : chunk > 64 ? 1 : 2;           // at once on a multiprocessor
  static constexpr int source_blocks = chunk > 32 && sizeof(Acc) == 4 ? 1 : blocks;  // with sums of dk and of dv
};

// Where the j-th of a thread's columns lies in `columns` x 16: groups of four that neighbouring threads interleave.
template <int columns> __device__ __forceinline__ int column_of(int j) {
  constexpr int group = columns < 4 ? columns : 4;
  return j / group * (group * 16) + int(threadIdx.x) % 16 * group + j % group;
}
__device__ __forceinline__ int row_of(int i) { return int(threadIdx.x) / 16 * 4 + i; }

// One head's rows as an operand of a product whose lines they are, or whose steps.
template <class T> struct PlainOperand {
  const T* data;
  int64_t line, step;  // strides
  unsigned lines;
  bool along_k;  // neighbours in memory are neighbours in k
  bool packed;   // and are read in packs, where there are so many
};
template <class T>
__device__ __forceinline__ PlainOperand<T> rows_as_lines(const HeadRows<const T>& x, int64_t at, int64_t rows,
                                                         bool packed) {
  return {x.data + at, x.row, x.column, unsigned(rows), x.column == 1, packed};
}
template <class T>
__device__ __forceinline__ PlainOperand<T> rows_as_steps(const HeadRows<const T>& x, int64_t at, int64_t columns,
                                                         bool packed) {
  return {x.data + at, x.column, x.row, unsigned(columns), x.column != 1, packed};
}

// A thread's part of a slice of `length` lines by 16 steps, on its way from device to shared memory: `count` neighbours.
template <class Acc, int length, int threads> struct PlainLoader {
  static constexpr int depth = 16, count = length * depth / threads, pitch = length + 4;
  static_assert(length * depth % threads == 0 && depth % count == 0);
  Acc held[count];

  static __device__ __forceinline__ void place(bool along_k, unsigned& line, unsigned& step) {
    constexpr unsigned across = length / count, along = depth / count;
    line = along_k ? threadIdx.x / along : threadIdx.x % across * count;
    step = along_k ? threadIdx.x % along * count : threadIdx.x / across;
  }
  template <class T>
  __device__ __forceinline__ void fetch(const PlainOperand<T>& x, unsigned first_line, unsigned first_k,
                                        unsigned end_k) {
    constexpr int N = count < pack_size<T> ? count : pack_size<T>;
    unsigned line, k;
    place(x.along_k, line, k);
    line += first_line;
    k += first_k;
    const unsigned left = line < x.lines && k < end_k ? (x.along_k ? end_k - k : x.lines - line) : 0;
    const T* const from = x.data + line * x.line + k * x.step;
    if (x.packed && left >= count) {
#pragma unroll
      for (int i = 0; i < count; i += N) {
        const auto pack = load_pack<N>(from + i);
#pragma unroll
        for (int n = 0; n < N; ++n) held[i + n] = widen(pack.at[n]);
      }
      return;
    }
    const int64_t inner = x.along_k ? x.step : x.line;
#pragma unroll
    for (int i = 0; i < count; ++i) held[i] = unsigned(i) < left ? widen(from[i * inner]) : Acc(0);
  }
  __device__ __forceinline__ void put(Acc (*tile)[pitch], bool along_k) const {
    unsigned line, step;
    place(along_k, line, step);
#pragma unroll
    for (int i = 0; i < count; ++i) tile[along_k ? step + i : step][along_k ? line : line + i] = held[i];
  }
};

template <class S> struct PlainShared {
  using Acc = typename S::Acc;
  Acc left[2][S::depth][S::side + 4];
  Acc right[2][S::depth][S::widest + 4];
  Acc weights[S::side][S::side + 4];
};

template <class Acc, int columns>
__device__ __forceinline__ void multiply_step(Acc (&sum)[4][columns], const Acc* left, const Acc* right) {
  Acc a[4], b[columns];
  read_groups<4>(a, left, [](int i) { return row_of(i); });
  read_groups < columns<4 ? columns : 4>(
                    b, right, [](int j) { return column_of<columns>(j); });
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < columns; ++j) sum[i][j] = multiply_add(a[i], b[j], sum[i][j]);
  }
}

// sum = a b over k: both are read in slices of 16 steps, each while the one before is multiplied.
template <class S, class A, class B>
__device__ __forceinline__ void multiply_rows(typename S::Acc (&sum)[4][S::columns], PlainShared<S>& shared, const A& a,
                                              unsigned first_row, const B& b, unsigned first_column, unsigned end_k) {
  using Acc = typename S::Acc;
  PlainLoader<Acc, S::side, S::threads> next_a, next_b;
  auto* const right = reinterpret_cast<Acc(*)[S::depth][S::side + 4]>(&shared.right);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < S::columns; ++j) sum[i][j] = 0;
  }
  __syncthreads();  // the slices of the product before have been read
  next_a.fetch(a, first_row, 0, end_k);
  next_b.fetch(b, first_column, 0, end_k);
  int now = 0;
  for (unsigned k = 0; k < end_k; k += S::depth, now ^= 1) {
    next_a.put(shared.left[now], a.along_k);
    next_b.put(right[now], b.along_k);
    __syncthreads();
    if (k + S::depth < end_k) {
      next_a.fetch(a, first_row, k + S::depth, end_k);
      next_b.fetch(b, first_column, k + S::depth, end_k);
    }
#pragma unroll 4
    for (int step = 0; step < S::depth; ++step) multiply_step(sum, shared.left[now][step], right[now][step]);
  }
}

// sum += weights b, where weights [k, lines] lie in shared memory already.
template <class S, class B>
__device__ __forceinline__ void multiply_weights(typename S::Acc (&sum)[4][S::chunk_columns], PlainShared<S>& shared,
                                                 const B& b, unsigned first_column, unsigned first_k, unsigned end_k) {
  using Acc = typename S::Acc;
  PlainLoader<Acc, S::chunk, S::threads> next;
  auto* const right = reinterpret_cast<Acc(*)[S::depth][S::chunk + 4]>(&shared.right);
  next.fetch(b, first_column, first_k, end_k);
  __syncthreads();  // the slices before have been read
  int now = 0;
#pragma unroll 1
  for (int k = 0; k < S::side && first_k + unsigned(k) < end_k; k += S::depth, now ^= 1) {
    next.put(right[now], b.along_k);
    __syncthreads();  // also for the weights
    if (k + S::depth < S::side) next.fetch(b, first_column, first_k + unsigned(k + S::depth), end_k);
#pragma unroll 4
    for (int step = 0; step < S::depth; ++step) multiply_step(sum, shared.weights[k + step], right[now][step]);
  }
}

// What all three kernels know of a call.
template <class T> struct PlainCall {
  using Acc = Compute<T>;
  HeadRows<const T> q, k, v;
  MaskRows mask;
  KeptWeights kept;
  int64_t time, source, depth, width;
  Acc scale;
  bool causal;
  bool packed;  // all operands can be read in packs of 16 bytes

  __device__ __forceinline__ bool sees(int64_t i, int64_t j) const {
    return i < time && j < source && (!causal || j <= i);
  }
  // scale s + mask; -inf where a query may not look.
  __device__ __forceinline__ Acc score(Acc s, const MaskRows& of_head, int64_t i, int64_t j) const {
    if (!sees(i, j)) return -static_cast<Acc>(INFINITY);
    s = s * scale;
    return of_head.data ? s + of_head.at<Acc>(i, j) : s;
  }
  // Bit i columns + j: whether dropout keeps this thread's weight (i, j) of the tile. A block of Philox serves the
  // neighbours that it covers.
  template <int columns> __device__ __forceinline__ unsigned keeps(unsigned head, int64_t i0, int64_t j0) const {
    if (kept.probability <= 0) return ~0u;
    const td_u64 seed = kept.key.get_seed(), draw = kept.key.get_draw();
    td_philox_block block{};
    unsigned result = 0;
#pragma unroll 1
    for (int at = 0; at < 4 * columns; ++at) {
      const int64_t row = int64_t(head) * time + i0 + row_of(at / columns);
      const td_u64 element = td_u64(row * source + j0 + column_of<columns>(at % columns));
      if (at % columns == 0 || (element & 3) == 0) block = td_philox_words(seed, draw, element >> 2);
      const float u = td_uniform_from_word(td_philox_pick(block, td_u32(element) & 3u));
      result |= unsigned(u >= kept.probability) << at;
    }
    return result;
  }
};

template <class T> PlainCall<T> plain_call(const AttentionProblem& p) {
  const bool packed = is_packed(p.q) && is_packed(p.k) && is_packed(p.v) && (!p.g.data || is_packed(p.g));
  return {rows_to_read<T>(p.q),
          rows_to_read<T>(p.k),
          rows_to_read<T>(p.v),
          mask_rows(p),
          kept_weights(p),
          p.time,
          p.source,
          p.depth,
          p.width,
          static_cast<Compute<T>>(p.scale),
          p.causal,
          packed};
}

// --- forward --------------------------------------------------------------------------------------------------------
// Reads q once, and k and v once for each block of queries (of a head whose blocks run together: from the L2 cache).

template <class T, class S>
__global__ void __launch_bounds__(S::threads, S::blocks)
    plain_forward(PlainCall<T> call, HeadRows<T> out, Compute<T>* log_sum_exp, Layout<5> heads, int64_t first,
                  int64_t blocks) {
  using Acc = Compute<T>;
  TANDEM_SHARED(PlainShared<S>, shared, );
  const RowBlock block(first, blocks, call.causal);
  int64_t offset[5];
  heads.offsets(block.head, offset);
  const MaskRows mask = call.mask.template moved<Acc>(offset[3]);
  out.data += offset[4];
  const unsigned i0 = unsigned(block.index * S::side), chunk = blockIdx.y * S::chunk;
  const int64_t end = call.causal && i0 + S::side < call.source ? i0 + S::side : call.source;
  const PlainOperand<T> q = rows_as_lines(call.q, offset[0], call.time, call.packed),
                        k = rows_as_lines(call.k, offset[1], call.source, call.packed);
  const PlainOperand<T> v = rows_as_steps(call.v, offset[2], call.width, call.packed);

  Acc sum[4][S::chunk_columns] = {}, highest[4], total[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) highest[i] = -static_cast<Acc>(INFINITY);
  for (unsigned j0 = 0; j0 < end; j0 += S::side) {
    Acc s[4][S::columns];
    multiply_rows<S>(s, shared, q, i0, k, j0, unsigned(call.depth));
    const unsigned keeps = call.template keeps<S::columns>(block.head, i0, j0);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = i0 + row_of(i);
      Acc best = highest[i];
#pragma unroll
      for (int j = 0; j < S::columns; ++j) {
        s[i][j] = call.score(s[i][j], mask, row, j0 + column_of<S::columns>(j));
        best = Maximum()(s[i][j], best);
      }
      best = reduce_lanes<16>(best, Maximum());
      const Acc base = best == -static_cast<Acc>(INFINITY) ? Acc(0) : best;  // a row that has seen nothing yet
      const Acc factor = td_exp(highest[i] - base);
      highest[i] = best;
      Acc part = 0;
#pragma unroll
      for (int j = 0; j < S::columns; ++j) {
        s[i][j] = td_exp(s[i][j] - base);
        part += s[i][j];
      }
      total[i] = total[i] * factor + reduce_lanes<16>(part, Add());
#pragma unroll
      for (int j = 0; j < S::chunk_columns; ++j) sum[i][j] *= factor;
#pragma unroll
      for (int j = 0; j < S::columns; ++j)
        shared.weights[column_of<S::columns>(j)][row_of(i)] = keeps >> (i * S::columns + j) & 1u ? s[i][j] : Acc(0);
    }
    multiply_weights<S>(sum, shared, v, chunk, j0, unsigned(end));
    __syncthreads();  // the weights have been read
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = i0 + row_of(i);
    if (row >= call.time) continue;
    const Acc scale = total[i] == 0 ? Acc(0) : static_cast<Acc>(call.kept.scale) / total[i];
#pragma unroll
    for (int j = 0; j < S::chunk_columns; ++j) {
      const int64_t column = chunk + column_of<S::chunk_columns>(j);
      if (column < call.width) out.at(row, column) = convert<T>(sum[i][j] * scale);
    }
    if (chunk == 0 && threadIdx.x % 16 == 0)
      log_sum_exp[block.head * call.time + row] =
          total[i] == 0 ? -static_cast<Acc>(INFINITY) : highest[i] + td_log(total[i]);
  }
}

// --- backward -------------------------------------------------------------------------------------------------------
// With P from the log-sum-exp and D, the row sums of g out:  dS = P (dP - D) scale, dP = dropout(g vᵀ).

// P of a tile, and dS in the place of dP. `kept` P: what dropout makes of it.
template <class S, class T>
__device__ __forceinline__ void tile_gradients(const PlainCall<T>& call, unsigned head, int64_t i0, int64_t j0,
                                               const MaskRows& mask, const Compute<T>* log_sum_exp,
                                               const Compute<T>* row_sums, Compute<T> (&s)[4][S::columns],
                                               Compute<T> (&grad)[4][S::columns]) {
  using Acc = Compute<T>;
  const unsigned keeps = call.template keeps<S::columns>(head, i0, j0);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = i0 + row_of(i), at = int64_t(head) * call.time + row;
    const bool live = row < call.time;
    const Acc level = live ? log_sum_exp[at] : -static_cast<Acc>(INFINITY), row_sum = live ? row_sums[at] : Acc(0);
#pragma unroll
    for (int j = 0; j < S::columns; ++j) {
      const int64_t column = j0 + column_of<S::columns>(j);
      const Acc score = call.score(s[i][j], mask, row, column);
      const Acc weight = level == -static_cast<Acc>(INFINITY) ? Acc(0) : td_exp(score - level);
      const bool keep = keeps >> (i * S::columns + j) & 1u;
      const Acc scale = static_cast<Acc>(call.kept.scale), through = keep ? grad[i][j] * scale : Acc(0);
      s[i][j] = keep ? weight * scale : Acc(0);
      grad[i][j] = call.sees(row, column) ? weight * (through - row_sum) * call.scale : Acc(0);
    }
  }
}

template <class T> struct PlainGradCall {
  PlainCall<T> call;
  HeadRows<const T> g;
  const Compute<T>*log_sum_exp, *row_sums;
};

template <class T, class S>
__global__ void __launch_bounds__(S::threads, S::blocks)
    plain_grad_queries(PlainGradCall<T> all, HeadRows<T> dq, Layout<6> heads, int64_t first, int64_t blocks) {
  using Acc = Compute<T>;
  TANDEM_SHARED(PlainShared<S>, shared, );
  const PlainCall<T>& call = all.call;
  const RowBlock block(first, blocks, call.causal);
  int64_t offset[6];
  heads.offsets(block.head, offset);
  const MaskRows mask = call.mask.template moved<Acc>(offset[3]);
  dq.data += offset[5];
  const unsigned i0 = unsigned(block.index * S::side), chunk = blockIdx.y * S::chunk;
  const int64_t end = call.causal && i0 + S::side < call.source ? i0 + S::side : call.source;
  const PlainOperand<T> q = rows_as_lines(call.q, offset[0], call.time, call.packed),
                        k = rows_as_lines(call.k, offset[1], call.source, call.packed);
  const PlainOperand<T> g = rows_as_lines(all.g, offset[4], call.time, call.packed),
                        v = rows_as_lines(call.v, offset[2], call.source, call.packed);
  const PlainOperand<T> keys = rows_as_steps(call.k, offset[1], call.depth, call.packed);

  Acc sum[4][S::chunk_columns] = {};
  for (unsigned j0 = 0; j0 < end; j0 += S::side) {
    Acc s[4][S::columns], grad[4][S::columns];
    multiply_rows<S>(s, shared, q, i0, k, j0, unsigned(call.depth));
    multiply_rows<S>(grad, shared, g, i0, v, j0, unsigned(call.width));
    tile_gradients<S>(call, block.head, i0, j0, mask, all.log_sum_exp, all.row_sums, s, grad);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < S::columns; ++j) shared.weights[column_of<S::columns>(j)][row_of(i)] = grad[i][j];
    }
    multiply_weights<S>(sum, shared, keys, chunk, j0, unsigned(end));
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < S::chunk_columns; ++j) {
      const int64_t row = i0 + row_of(i), column = chunk + column_of<S::chunk_columns>(j);
      if (row < call.time && column < call.depth) dq.at(row, column) = convert<T>(sum[i][j]);
    }
  }
}

// A block of sources, over all queries that see any of them. Its first reads are those of the kernel above; dk and dv are
// written once.
template <class T, class S>
__global__ void __launch_bounds__(S::threads, S::source_blocks)
    plain_grad_sources(PlainGradCall<T> all, HeadRows<T> dk, HeadRows<T> dv, Layout<7> heads, int64_t first,
                       int64_t blocks) {
  using Acc = Compute<T>;
  TANDEM_SHARED(PlainShared<S>, shared, );
  const PlainCall<T>& call = all.call;
  const RowBlock block(first, blocks, false);
  int64_t offset[7];
  heads.offsets(block.head, offset);
  const MaskRows mask = call.mask.template moved<Acc>(offset[3]);
  dk.data += offset[5], dv.data += offset[6];
  const unsigned j0 = unsigned(block.index * S::side), chunk = blockIdx.y * S::chunk;
  const PlainOperand<T> q = rows_as_lines(call.q, offset[0], call.time, call.packed),
                        k = rows_as_lines(call.k, offset[1], call.source, call.packed);
  const PlainOperand<T> g = rows_as_lines(all.g, offset[4], call.time, call.packed),
                        v = rows_as_lines(call.v, offset[2], call.source, call.packed);
  const PlainOperand<T> queries = rows_as_steps(call.q, offset[0], call.depth, call.packed),
                        grads = rows_as_steps(all.g, offset[4], call.width, call.packed);

  Acc key_sum[4][S::chunk_columns] = {}, value_sum[4][S::chunk_columns] = {};
  for (unsigned i0 = call.causal ? j0 : 0; i0 < call.time; i0 += S::side) {
    Acc s[4][S::columns], grad[4][S::columns];
    multiply_rows<S>(s, shared, q, i0, k, j0, unsigned(call.depth));
    multiply_rows<S>(grad, shared, g, i0, v, j0, unsigned(call.width));
    tile_gradients<S>(call, block.head, i0, j0, mask, all.log_sum_exp, all.row_sums, s, grad);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < S::columns; ++j) shared.weights[row_of(i)][column_of<S::columns>(j)] = s[i][j];
    }
    multiply_weights<S>(value_sum, shared, grads, chunk, i0, unsigned(call.time));
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < S::columns; ++j) shared.weights[row_of(i)][column_of<S::columns>(j)] = grad[i][j];
    }
    multiply_weights<S>(key_sum, shared, queries, chunk, i0, unsigned(call.time));
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < S::chunk_columns; ++j) {
      const int64_t row = j0 + row_of(i), column = chunk + column_of<S::chunk_columns>(j);
      if (row < call.source && column < call.depth) dk.at(row, column) = convert<T>(key_sum[i][j]);
      if (row < call.source && column < call.width) dv.at(row, column) = convert<T>(value_sum[i][j]);
    }
  }
}

// --- launching ------------------------------------------------------------------------------------------------------

// f.template operator()<T, PlainTile>() with chunks that cover `columns` in few blocks.
template <class F> void visit_plain(DType type, int64_t columns, F&& f) {
  visit_floating(type, [&]<class T>() {
    using Acc = Compute<T>;
    if (columns <= 32) return f.template operator()<T, PlainTile<Acc, 32>>();
    if constexpr (sizeof(Acc) == 4) {
      if (columns > 64) return f.template operator()<T, PlainTile<Acc, 128>>();
    }
    f.template operator()<T, PlainTile<Acc, 64>>();
  });
}

unsigned chunks_of(int64_t columns, int chunk) {
  const int64_t chunks = std::max<int64_t>(1, ceil_divide(columns, int64_t(chunk)));
  TANDEM_ASSERT(chunks <= most_across, "attention of vectors of ", columns, " numbers");
  return unsigned(chunks);
}

template <class T> PlainGradCall<T> plain_grad_call(const AttentionProblem& p) {
  return {plain_call<T>(p), rows_to_read<T>(p.g), static_cast<const Compute<T>*>(p.log_sum_exp),
          static_cast<const Compute<T>*>(p.row_sums)};
}

}  // namespace

void plain_attention(const AttentionProblem& p) {
  visit_plain(p.type, p.width, [&]<class T, class S>() {
    const Layout<5> heads = heads_of<5>(p, {&p.q, &p.k, &p.v, &mask_or(p, p.q), &p.out});
    in_row_blocks(p.heads, p.time, S::side, [&](int64_t first, unsigned count) {
      TANDEM_LAUNCH((plain_forward<T, S>), dim3(count, chunks_of(p.width, S::chunk)), S::threads, 0, p.stream,
                    plain_call<T>(p), rows_to_write<T>(p.out), static_cast<Compute<T>*>(p.log_sum_exp), heads, first,
                    ceil_divide(p.time, int64_t(S::side)));
    });
  });
}

void plain_attention_grad(const AttentionProblem& p) {
  visit_plain(p.type, p.depth, [&]<class T, class S>() {
    const Layout<6> heads = heads_of<6>(p, {&p.q, &p.k, &p.v, &mask_or(p, p.q), &p.g, &p.dq});
    in_row_blocks(p.heads, p.time, S::side, [&](int64_t first, unsigned count) {
      TANDEM_LAUNCH((plain_grad_queries<T, S>), dim3(count, chunks_of(p.depth, S::chunk)), S::threads, 0, p.stream,
                    plain_grad_call<T>(p), rows_to_write<T>(p.dq), heads, first, ceil_divide(p.time, int64_t(S::side)));
    });
  });
  visit_plain(p.type, std::max(p.depth, p.width), [&]<class T, class S>() {
    const Layout<7> heads = heads_of<7>(p, {&p.q, &p.k, &p.v, &mask_or(p, p.q), &p.g, &p.dk, &p.dv});
    in_row_blocks(p.heads, p.source, S::side, [&](int64_t first, unsigned count) {
      TANDEM_LAUNCH((plain_grad_sources<T, S>), dim3(count, chunks_of(std::max(p.depth, p.width), S::chunk)),
                    S::threads, 0, p.stream, plain_grad_call<T>(p), rows_to_write<T>(p.dk), rows_to_write<T>(p.dv),
                    heads, first, ceil_divide(p.source, int64_t(S::side)));
    });
  });
}

}  // namespace tandem::gpu
