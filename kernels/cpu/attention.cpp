// Attention by blocks. Forward: T. Dao, D. Fu, S. Ermon, A. Rudra, C. Ré, "FlashAttention", 2022, algorithm 1; the running
// maximum and sum are those of M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018. Backward:
// algorithm 4 there, from the log-sum-exp of each row.
//
// A head's keys and values (turned and padded) stay in the cache while blocks of its queries pass. Every element
// is computed the same way however heads and blocks are spread over threads.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>

#include "core/op.h"
#include "kernels/cpu/attention_operand.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

constexpr int64_t kRows = 48;      // queries of a block: whole tiles of every instruction set
constexpr int64_t kColumns = 128;  // sources of a block

/// What a call is, in the type it is computed in.
template <class T> struct Problem {
  Operand q, k, v;
  std::optional<Operand> mask;
  int64_t heads, time, source, depth, width;
  T scale;
  bool causal;
  double dropout;
  RandomKey key{};
  const AttentionLoops<T>& loops;

  Problem(const KernelContext& c, int first, bool packed, int others)
      : q(packed ? Operand(c.in(first), 0) : Operand(c.in(first))),
        k(packed ? Operand(c.in(first), 1) : Operand(c.in(first + 1))),
        v(packed ? Operand(c.in(first), 2) : Operand(c.in(first + 2))), heads(q.heads()), time(q.rows), source(k.rows),
        depth(q.columns), width(v.columns), scale(static_cast<T>(c.attributes.number("scale"))),
        causal(c.attributes.flag("causal")), dropout(c.attributes.number("p")), loops(attention_loops<T>()) {
    if (c.attributes.flag("masked")) mask.emplace(c.in(others++), q.batch, time, source);
    if (dropout > 0) {
      const int64_t* words = static_cast<const int64_t*>(c.in(others).data);
      key = {static_cast<uint64_t>(words[0]),
             static_cast<uint64_t>(words[1]) + static_cast<uint64_t>(c.attributes.integer("site"))};
    }
  }

  int64_t blocks() const { return (time + kRows - 1) / kRows; }
  int64_t source_blocks() const { return (source + kColumns - 1) / kColumns; }
  /// How many of `columns` sources from j0 query i may see.
  int64_t visible(int64_t i, int64_t j0, int64_t columns) const {
    return causal ? std::clamp<int64_t>(i + 1 - j0, 0, columns) : columns;
  }
  T keep_scale() const { return dropout < 1 ? static_cast<T>(1 / (1 - dropout)) : T{0}; }

  /// The mask's block as numbers to add to scores, kColumns apart; null without a mask.
  const T* bias(int64_t head, int64_t i0, int64_t rows, int64_t j0, int64_t columns, T* memory) const {
    if (!mask) return nullptr;
    const char* from = mask->head(head) + (i0 * mask->row + j0 * mask->column) * mask->size();
    for (int64_t r = 0; r < rows; ++r, from += mask->row * mask->size()) {
      T* to = memory + r * kColumns;
      if (r > 0 && mask->row == 0) std::copy(memory, memory + columns, to);
      else if (mask->dtype == DType::bool_)
        for (int64_t j = 0; j < columns; ++j)
          to[j] = from[j * mask->column] ? T{0} : -std::numeric_limits<T>::infinity();
      else mask->load(from, columns, to);
    }
    return memory;
  }

  /// Which weights of a row's sources a draw keeps: numbers for `drop`.
  struct Kept {
    float memory[kColumns + 4];
    const float* numbers;
  };
  void draw(int64_t head, int64_t i, int64_t j0, int64_t count, Kept& kept) const {
    const int64_t first = (head * time + i) * source + j0, aligned = first & ~int64_t{3};
    tandem::loops().random->uniform_f32(key, aligned, count + (first - aligned), kept.memory);
    kept.numbers = kept.memory + (first - aligned);
  }
  /// out = x where the weight is kept, scaled; else 0.
  void drop(const Kept& kept, int64_t count, const T* x, T* out) const {
    loops.drop(count, kept.numbers, static_cast<float>(dropout), keep_scale(), x, out);
  }
};

/// Zeros from column `count` on, up to a multiple of the padding.
template <class T> void pad(T* row, int64_t count, int64_t columns) {
  std::fill(row + count, row + padded(columns), T{0});
}

/// Calls f(begin, end, memory) on ranges of tasks, each with `elements` of T of its own.
template <class T, class F> void with_memory(int64_t tasks, int64_t work, int64_t elements, F&& f) {
  const int64_t grain = std::max<int64_t>(1, 300000 / std::max<int64_t>(work, 1)),
                bytes = (elements * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  const Scratch scratch(threads_for(tasks, grain) * bytes);
  std::atomic<int> next{0};
  parallel_for(tasks, grain, [&](int64_t begin, int64_t end) {
    f(begin, end, reinterpret_cast<T*>(scratch.as<char>() + next++ * bytes));
  });
}

template <class T> class Forward {
 public:
  Forward(const Problem<T>& problem, const Operand& out, T* log_sum_exp)
      : p_(problem), out_(out), log_sum_exp_(log_sum_exp) {}

  int64_t memory() const {
    return kRows * (padded(p_.width) + (p_.mask ? 2 : 1) * kColumns) + p_.source_blocks() * p_.depth * kColumns +
           rows_memory<T>(p_.k) + rows_memory<T>(p_.v) + rows_memory<T>(p_.q);
  }

  void run() const {
    with_memory<T>(p_.heads * p_.blocks(), 2 * kRows * p_.source * (p_.depth + p_.width), memory(),
                   [&](int64_t begin, int64_t end, T* memory) {
                     T* sums = memory;
                     T* scores = sums + kRows * padded(p_.width);
                     T* bias = scores + kRows * kColumns;
                     T* keys = bias + (p_.mask ? kRows * kColumns : 0);
                     T* values = keys + p_.source_blocks() * p_.depth * kColumns;
                     T* queries = values + rows_memory<T>(p_.v);
                     T* spare = queries + rows_memory<T>(p_.q);
                     int64_t current = -1;
                     const char *keys_of = nullptr, *values_of = nullptr;  // which heads of a group of queries share
                     HeadRows<T> q{}, v{};
                     for (int64_t task = begin; task < end; ++task) {
                       const int64_t head = task / p_.blocks(), at = task % p_.blocks();
                       if (head != current) {
                         if (p_.k.head(head) != keys_of)
                           turned_blocks<T>(rows_of<T>(p_.k, head, spare), p_.source, p_.depth, kColumns, keys);
                         if (p_.v.head(head) != values_of) v = rows_of<T>(p_.v, head, values);
                         keys_of = p_.k.head(head), values_of = p_.v.head(head);
                         q = rows_of<T>(p_.q, head, queries);
                         current = head;
                       }
                       // A causal head's last blocks are the longest: taken in turn from both ends, so that threads get equal shares.
                       const int64_t block = !p_.causal ? at : at % 2 ? p_.blocks() - 1 - at / 2 : at / 2;
                       one_block(head, block * kRows, q, keys, v, sums, scores, bias);
                     }
                   });
  }

 private:
  void one_block(int64_t head, int64_t i0, const HeadRows<T>& q, const T* keys, const HeadRows<T>& v, T* sums,
                 T* scores, T* bias_memory) const {
    const int64_t rows = std::min(kRows, p_.time - i0), limit = p_.causal ? std::min(p_.source, i0 + rows) : p_.source;
    const int64_t wide = padded(p_.width);
    T greatest[kRows], total[kRows] = {};
    std::fill(greatest, greatest + kRows, -std::numeric_limits<T>::infinity());
    if (limit == 0) std::fill(sums, sums + rows * wide, T{0});
    for (int64_t j0 = 0; j0 < limit; j0 += kColumns) {
      const int64_t columns = std::min(kColumns, limit - j0);
      p_.loops.product(rows, padded(columns), p_.depth, q.data + i0 * q.stride, q.stride, 1, keys + j0 * p_.depth,
                       kColumns, scores, kColumns, false);
      const T* bias = p_.bias(head, i0, rows, j0, columns, bias_memory);
      for (int64_t r = 0; r < rows; ++r) {
        T* row = scores + r * kColumns;
        const int64_t count = p_.visible(i0 + r, j0, columns);
        pad(row, count, columns);
        if (count == 0) continue;
        const T before = greatest[r];
        T sum;
        greatest[r] = p_.loops.softmax(count, row, p_.scale, bias ? bias + r * kColumns : nullptr, before, &sum);
        if (j0 > 0 && greatest[r] != before) {
          const T factor = std::exp(before - greatest[r]);
          total[r] *= factor;
          p_.loops.multiply(wide, factor, sums + r * wide);
        }
        total[r] += sum;
        if (p_.dropout > 0) {
          typename Problem<T>::Kept kept;
          p_.draw(head, i0 + r, j0, count, kept);
          p_.drop(kept, count, row, row);
        }
      }
      p_.loops.product(rows, wide, columns, scores, kColumns, 1, v.data + j0 * v.stride, v.stride, sums, wide, j0 > 0);
    }
    for (int64_t r = 0; r < rows; ++r) {
      // A row that may look nowhere, or whose scores are all -inf, has a sum of 0.
      p_.loops.multiply(wide, total[r] == 0 ? T{0} : 1 / total[r], sums + r * wide);
      out_.store(sums + r * wide, head, i0 + r);
      log_sum_exp_[head * p_.time + i0 + r] =
          total[r] == 0 ? -std::numeric_limits<T>::infinity() : greatest[r] + std::log(total[r]);
    }
  }

  const Problem<T>& p_;
  const Operand& out_;
  T* log_sum_exp_;
};

/// A head's gradient, summed where it will lie if it can be, else in memory and stored from there.
template <class T> struct GradRows {
  T* data;
  int64_t stride;
  bool direct;
  GradRows(const Operand& out, int64_t head, T* memory) : direct(lies_as<T>(out)) {
    data = direct ? reinterpret_cast<T*>(out.head(head)) : memory;
    stride = direct ? out.row : padded(out.columns);
  }
  T* at(int64_t row) const { return data + row * stride; }
  void finish(const Operand& out, int64_t head) const {
    if (!direct)
      for (int64_t r = 0; r < out.rows; ++r) out.store(at(r), head, r);
  }
};

template <class T> class Backward {
 public:
  Backward(const Problem<T>& problem, const Operand& g, const Operand& out, const T* log_sum_exp, const Operand& dq,
           const Operand& dk, const Operand& dv)
      : p_(problem), g_(g), out_(out), log_sum_exp_(log_sum_exp), dq_(dq), dk_(dk), dv_(dv) {}

  int64_t memory() const {
    return kRows * kColumns * (2 + (p_.mask ? 1 : 0) + (p_.dropout > 0 ? 1 : 0)) +
           p_.source_blocks() * kColumns * (p_.depth + p_.width) + p_.time + kPad + rows_memory<T>(p_.q) +
           rows_memory<T>(p_.k) + rows_memory<T>(p_.v) + rows_memory<T>(g_) + rows_memory<T>(out_) +
           rows_memory<T>(dq_) + rows_memory<T>(dk_) + rows_memory<T>(dv_);
  }

  void run() const {
    with_memory<T>(p_.heads, 5 * p_.time * p_.source * (p_.depth + p_.width), memory(),
                   [&](int64_t begin, int64_t end, T* memory) {
                     for (int64_t head = begin; head < end; ++head) one_head(head, memory);
                   });
  }

 private:
  void one_head(int64_t head, T* memory) const {
    const auto take = [&memory](int64_t elements) {
      T* const taken = memory;
      memory += elements;
      return taken;
    };
    T* const weights = take(kRows * kColumns);
    T* const grads = take(kRows * kColumns);
    T* const bias_memory = take(p_.mask ? kRows * kColumns : 0);
    T* const dropped = p_.dropout > 0 ? take(kRows * kColumns) : weights;
    const HeadRows<T> k = rows_of<T>(p_.k, head, take(rows_memory<T>(p_.k))),
                      v = rows_of<T>(p_.v, head, take(rows_memory<T>(p_.v)));
    const HeadRows<T> q = rows_of<T>(p_.q, head, take(rows_memory<T>(p_.q))),
                      g = rows_of<T>(g_, head, take(rows_memory<T>(g_)));
    const HeadRows<T> out = rows_of<T>(out_, head, take(rows_memory<T>(out_)));
    const GradRows<T> dq(dq_, head, take(rows_memory<T>(dq_))), dk(dk_, head, take(rows_memory<T>(dk_))),
        dv(dv_, head, take(rows_memory<T>(dv_)));
    T* const keys = take(p_.source_blocks() * kColumns * p_.depth);
    T* const values = take(p_.source_blocks() * kColumns * p_.width);
    T* const delta = take(p_.time);
    turned_blocks<T>(k, p_.source, p_.depth, kColumns, keys);
    turned_blocks<T>(v, p_.source, p_.width, kColumns, values);
    for (int64_t i = 0; i < p_.time; ++i)
      delta[i] = p_.loops.dot(p_.width, g.data + i * g.stride, out.data + i * out.stride);

    const int64_t deep = padded(p_.depth), wide = padded(p_.width);
    if (p_.source == 0)
      for (int64_t i = 0; i < p_.time; ++i) std::fill(dq.at(i), dq.at(i) + deep, T{0});
    for (int64_t j0 = 0; j0 < p_.source; j0 += kColumns) {
      const int64_t all = std::min(kColumns, p_.source - j0);
      const int64_t first = p_.causal ? j0 / kRows * kRows : 0;  // the first block of queries that sees any of these
      for (int64_t j = j0; j < j0 + all; ++j) {
        std::fill(dk.at(j), dk.at(j) + deep, T{0});
        std::fill(dv.at(j), dv.at(j) + wide, T{0});
      }
      for (int64_t i0 = first; i0 < p_.time; i0 += kRows) {
        const int64_t rows = std::min(kRows, p_.time - i0), columns = p_.visible(i0 + rows - 1, j0, all);
        if (columns == 0) continue;
        const T *qs = q.data + i0 * q.stride, *gs = g.data + i0 * g.stride;
        p_.loops.product(rows, padded(columns), p_.depth, qs, q.stride, 1, keys + j0 * p_.depth, kColumns, weights,
                         kColumns, false);
        p_.loops.product(rows, padded(columns), p_.width, gs, g.stride, 1, values + j0 * p_.width, kColumns, grads,
                         kColumns, false);
        const T* bias = p_.bias(head, i0, rows, j0, columns, bias_memory);
        for (int64_t r = 0; r < rows; ++r) {
          T *const row = weights + r * kColumns, *const grad = grads + r * kColumns,
                   *const kept = dropped + r * kColumns;
          const int64_t count = p_.visible(i0 + r, j0, columns);
          p_.loops.probabilities(count, row, p_.scale, bias ? bias + r * kColumns : nullptr,
                                 log_sum_exp_[head * p_.time + i0 + r]);
          if (p_.dropout > 0) {
            typename Problem<T>::Kept drawn;
            p_.draw(head, i0 + r, j0, count, drawn);
            p_.drop(drawn, count, row, kept);
            p_.drop(drawn, count, grad, grad);
            pad(kept, count, columns);
          }
          p_.loops.score_grad(count, row, delta[i0 + r], p_.scale, grad);
          pad(row, count, columns);
          pad(grad, count, columns);
        }
        p_.loops.product(columns, wide, rows, dropped, 1, kColumns, gs, g.stride, dv.at(j0), dv.stride, true);
        p_.loops.product(columns, deep, rows, grads, 1, kColumns, qs, q.stride, dk.at(j0), dk.stride, true);
        p_.loops.product(rows, deep, columns, grads, kColumns, 1, k.data + j0 * k.stride, k.stride, dq.at(i0),
                         dq.stride, j0 > 0);
      }
    }
    dq.finish(dq_, head);
    dk.finish(dk_, head);
    dv.finish(dv_, head);
  }

  const Problem<T>& p_;
  const Operand &g_, &out_;
  const T* log_sum_exp_;
  const Operand &dq_, &dk_, &dv_;
};

template <class T, bool packed> void attention(KernelContext& c) {
  if (c.out(1).shape.numel() == 0) return;
  const Problem<T> problem(c, 0, packed, packed ? 1 : 3);
  const Operand out(c.out(0));
  Forward<T>(problem, out, static_cast<T*>(c.out(1).data)).run();
}

template <class T, bool packed> void attention_grad(KernelContext& c) {
  constexpr int inputs = packed ? 1 : 3;
  const Problem<T> problem(c, 1, packed, inputs + 3);
  if (problem.heads == 0) return;
  const Operand g(c.in(0)), out(c.in(inputs + 1));
  const WideInput<T> log_sum_exp(c.in(inputs + 2));
  const Operand dq = packed ? Operand(c.out(0), 0) : Operand(c.out(0)),
                dk = packed ? Operand(c.out(0), 1) : Operand(c.out(1)),
                dv = packed ? Operand(c.out(0), 2) : Operand(c.out(2));
  Backward<T>(problem, g, out, log_sum_exp.data(), dq, dk, dv).run();
}

template <bool packed> void forward(KernelContext& c) {
  c.out(0).dtype == DType::float64 ? attention<double, packed>(c) : attention<float, packed>(c);
}
template <bool packed> void backward(KernelContext& c) {
  c.out(0).dtype == DType::float64 ? attention_grad<double, packed>(c) : attention_grad<float, packed>(c);
}

}  // namespace

void add_cpu_attention(Kernels kernels) {
  kernels["attention"] = forward<false>;
  kernels["attention_qkv"] = forward<true>;
  kernels["attention_grad"] = backward<false>;
  kernels["attention_qkv_grad"] = backward<true>;
}

}  // namespace tandem
