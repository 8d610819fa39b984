// Recurrent layers and cells, and their gradients. Rows of the batch don't depend on each other: each thread takes some
// of them through all time steps, and nobody waits for another. The recurrent weight is packed once.
#include <algorithm>
#include <optional>

#include "core/op.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/parallel.h"
#include "kernels/cpu/support/rows.h"
#include "kernels/cpu/vector/recurrent.h"

namespace tandem {

namespace {

/// Of the instruction set in use.
template <class T> const RecurrentLoops<T>& recurrent() {
#define TANDEM_CHOOSE(isa)                                           \
  if constexpr (std::is_same_v<T, float>) return isa::recurrent_f32; \
  else return isa::recurrent_f64
#ifdef TANDEM_WITH_AVX512
  if (current_isa() == Isa::avx512) { TANDEM_CHOOSE(avx512); }
#endif
#ifdef TANDEM_WITH_AVX2
  if (current_isa() == Isa::avx2) { TANDEM_CHOOSE(avx2); }
#endif
  TANDEM_CHOOSE(portable);
#undef TANDEM_CHOOSE
}

/// A weight b [k, n], strides in elements, packed for many products.
template <class T> class Packed {
 public:
  Packed(int64_t n, int64_t k, const T* b, int64_t b_row, int64_t b_column)
      : n_(n), k_(k), scratch_((n + kRecurrentStrip<T> - 1) / kRecurrentStrip<T> * kRecurrentStrip<T> * k *
                               static_cast<int64_t>(sizeof(T))) {
    T* to = scratch_.template as<T>();
    const int64_t strips = (n + kRecurrentStrip<T> - 1) / kRecurrentStrip<T>;
    parallel_for(strips, std::max<int64_t>(1, 16 * 1024 / std::max<int64_t>(k * kRecurrentStrip<T>, 1)),
                 [&](int64_t begin, int64_t end) { recurrent<T>().pack(begin, end, n, k, b, b_row, b_column, to); });
  }
  /// to [m, n] = from + bias + a b; bias [n] may be null.
  void multiply(int64_t m, const T* a, const T* from, int64_t from_row, T* to, const T* bias = nullptr) const {
    recurrent<T>().product(m, n_, k_, a, k_, scratch_.template as<T>(), from, from_row, bias, to, n_);
  }

 private:
  int64_t n_, k_;
  Scratch scratch_;
};

/// The extents of a layer of `gates` products per unit, and the order of its steps.
struct Layer {
  int64_t time, batch, width;
  bool reverse;
  Layer(const KernelContext& c, const Shape& steps)
      : time(steps[0]), batch(steps[1]), width(steps[2]), reverse(c.attributes.flag("reverse")) {}
  int64_t place(int64_t step) const { return reverse ? time - 1 - step : step; }
  /// Calls f(begin, end) for rows of the batch, in parallel where the products of all steps are worth it.
  template <class F> void for_rows(int64_t gates, F&& f) const {
    parallel_for(batch, std::max<int64_t>(1, 300000 / std::max<int64_t>(time * gates * width * width, 1)), f);
  }
};

template <class T> void lstm_cell(KernelContext& c) {
  const WideInput<T> gates(c.in(0)), cell(c.in(1));
  const WideOutput<T> hidden(c.out(0)), next(c.out(1));
  const int64_t n = c.out().shape.numel(), width = c.out().shape.back();
  if (n == 0) return;
  const Scratch scratch(4 * n * static_cast<int64_t>(sizeof(T)));
  T* activated = scratch.as<T>();
  for_rows(n / width, 8 * width, [&](int64_t r) {
    std::copy_n(gates.data() + r * 4 * width, 4 * width, activated + r * 4 * width);
    recurrent<T>().lstm(width, activated + r * 4 * width, cell.data() + r * width, hidden.data() + r * width,
                        next.data() + r * width);
  });
  hidden.finish(), next.finish();
}

template <class T> void lstm_cell_grad(KernelContext& c) {
  const WideInput<T> d_hidden(c.in(0)), d_next(c.in(1)), gates(c.in(2)), cell(c.in(3)), next(c.in(4));
  const WideOutput<T> d_gates(c.out(0)), d_cell(c.out(1));
  const int64_t n = c.out(1).shape.numel(), width = c.out(1).shape.back();
  if (n == 0) return;
  const Scratch scratch(6 * n * static_cast<int64_t>(sizeof(T)));
  for_rows(n / width, 16 * width, [&](int64_t r) {
    T *activated = scratch.as<T>() + r * 6 * width, *made_cell = activated + 4 * width,
      *made_hidden = activated + 5 * width;
    std::copy_n(gates.data() + r * 4 * width, 4 * width, activated);
    std::copy_n(d_next.data() + r * width, width, d_cell.data() + r * width);
    recurrent<T>().lstm(width, activated, cell.data() + r * width, made_hidden, made_cell);
    recurrent<T>().lstm_grad(width, activated, cell.data() + r * width, next.data() + r * width,
                             d_hidden.data() + r * width, d_cell.data() + r * width, d_gates.data() + r * 4 * width);
  });
  d_gates.finish(), d_cell.finish();
}

template <class T> void gru_cell(KernelContext& c) {
  const WideInput<T> x(c.in(0)), h(c.in(1)), hidden(c.in(2));
  const WideOutput<T> next(c.out());
  const int64_t n = c.out().shape.numel(), width = c.out().shape.back();
  if (n == 0) return;
  for_rows(n / width, 8 * width, [&](int64_t r) {
    recurrent<T>().gru(width, x.data() + r * 3 * width, h.data() + r * 3 * width, hidden.data() + r * width,
                       next.data() + r * width, nullptr);
  });
  next.finish();
}

template <class T> void gru_cell_grad(KernelContext& c) {
  const WideInput<T> d_next(c.in(0)), x(c.in(1)), h(c.in(2)), hidden(c.in(3));
  const WideOutput<T> d_x(c.out(0)), d_h(c.out(1)), d_hidden(c.out(2));
  const int64_t n = c.out(2).shape.numel(), width = c.out(2).shape.back();
  if (n == 0) return;
  const Scratch scratch(5 * n * static_cast<int64_t>(sizeof(T)));
  for_rows(n / width, 16 * width, [&](int64_t r) {
    T *kept = scratch.as<T>() + r * 5 * width, *made = kept + 4 * width;
    std::copy_n(d_next.data() + r * width, width, d_hidden.data() + r * width);
    recurrent<T>().gru(width, x.data() + r * 3 * width, h.data() + r * 3 * width, hidden.data() + r * width, made,
                       kept);
    recurrent<T>().gru_grad(width, kept, hidden.data() + r * width, d_hidden.data() + r * width,
                            d_x.data() + r * 3 * width, d_h.data() + r * 3 * width);
  });
  d_x.finish(), d_h.finish(), d_hidden.finish();
}

template <class T> void lstm(KernelContext& c) {
  const Layer layer(c, c.out(0).shape);
  const int64_t n = layer.width, state = layer.batch * n;
  if (state == 0) return;
  const WideInput<T> x(c.in(0)), weight(c.in(1)), first(c.in(2)), first_cell(c.in(3));
  std::optional<WideInput<T>> bias;
  if (c.inputs.size() > 4) bias.emplace(c.in(4));
  const WideOutput<T> hiddens(c.out(0)), cells(c.out(1)), gates(c.out(2));
  const Packed<T> packed(4 * n, n, weight.data(), 1, n);
  layer.for_rows(4, [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    const T *h = first.data() + begin * n, *cell = first_cell.data() + begin * n;
    for (int64_t step = 0; step < layer.time; ++step) {
      const int64_t at = (layer.place(step) * layer.batch + begin) * n;
      T *all = gates.data() + at * 4, *next = hiddens.data() + at, *next_cell = cells.data() + at;
      packed.multiply(rows, h, x.data() + at * 4, 4 * n, all, bias ? bias->data() : nullptr);
      for (int64_t r = 0; r < rows; ++r)
        recurrent<T>().lstm(n, all + r * 4 * n, cell + r * n, next + r * n, next_cell + r * n);
      h = next, cell = next_cell;
    }
  });
  hiddens.finish(), cells.finish(), gates.finish();
}

template <class T> void lstm_grad(KernelContext& c) {
  const Layer layer(c, c.in(0).shape);
  const int64_t n = layer.width, state = layer.batch * n;
  if (state == 0) return;
  const WideInput<T> d_hiddens(c.in(0)), cells(c.in(1)), gates(c.in(2)), weight(c.in(3)), first_cell(c.in(4));
  std::optional<WideInput<T>> d_cells;
  if (c.inputs.size() > 5) d_cells.emplace(c.in(5));
  const WideOutput<T> d_gates(c.out(0)), d_hidden(c.out(1)), d_cell(c.out(2));
  const Packed<T> packed(n, 4 * n, weight.data(), n, 1);
  const Scratch scratch(state * static_cast<int64_t>(sizeof(T)));
  layer.for_rows(4, [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    T *dh = scratch.as<T>() + begin * n, *dc = d_cell.data() + begin * n;
    std::fill_n(dc, rows * n, T(0));
    for (int64_t step = layer.time - 1; step >= 0; --step) {
      const int64_t t = layer.place(step), at = (t * layer.batch + begin) * n;
      const T* given = d_hiddens.data() + at;
      if (step < layer.time - 1)
        packed.multiply(rows, d_gates.data() + (layer.place(step + 1) * layer.batch + begin) * 4 * n, given, n, dh);
      else std::copy_n(given, rows * n, dh);
      if (d_cells)
        for (int64_t i = 0; i < rows * n; ++i) dc[i] += d_cells->data()[at + i];
      const T* before =
          step > 0 ? cells.data() + (layer.place(step - 1) * layer.batch + begin) * n : first_cell.data() + begin * n;
      for (int64_t r = 0; r < rows; ++r)
        recurrent<T>().lstm_grad(n, gates.data() + (at + r * n) * 4, before + r * n, cells.data() + at + r * n,
                                 dh + r * n, dc + r * n, d_gates.data() + (at + r * n) * 4);
    }
    T* first = d_hidden.data() + begin * n;
    std::fill_n(first, rows * n, T(0));
    packed.multiply(rows, d_gates.data() + (layer.place(0) * layer.batch + begin) * 4 * n, first, n, first);
  });
  d_gates.finish(), d_hidden.finish(), d_cell.finish();
}

template <class T> void gru(KernelContext& c) {
  const Layer layer(c, c.out(0).shape);
  const int64_t n = layer.width, state = layer.batch * n;
  if (state == 0) return;
  const WideInput<T> x(c.in(0)), weight(c.in(1)), bias(c.in(2)), first(c.in(3));
  const WideOutput<T> hiddens(c.out(0)), kept(c.out(1));
  const Packed<T> packed(3 * n, n, weight.data(), 1, n);
  const Scratch scratch(3 * state * static_cast<int64_t>(sizeof(T)));
  layer.for_rows(3, [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    T* products = scratch.as<T>() + begin * 3 * n;
    const T* h = first.data() + begin * n;
    for (int64_t step = 0; step < layer.time; ++step) {
      const int64_t at = (layer.place(step) * layer.batch + begin) * n;
      packed.multiply(rows, h, bias.data(), 0, products);
      for (int64_t r = 0; r < rows; ++r)
        recurrent<T>().gru(n, x.data() + (at + r * n) * 3, products + r * 3 * n, h + r * n, hiddens.data() + at + r * n,
                           kept.data() + (at + r * n) * 4);
      h = hiddens.data() + at;
    }
  });
  hiddens.finish(), kept.finish();
}

template <class T> void gru_grad(KernelContext& c) {
  const Layer layer(c, c.in(0).shape);
  const int64_t n = layer.width, state = layer.batch * n;
  if (state == 0) return;
  const WideInput<T> d_hiddens(c.in(0)), hiddens(c.in(1)), kept(c.in(2)), weight(c.in(3)), first(c.in(4));
  const WideOutput<T> d_x(c.out(0)), d_h(c.out(1)), d_first(c.out(2));
  const Packed<T> packed(n, 3 * n, weight.data(), n, 1);
  layer.for_rows(3, [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    T* dh = d_first.data() + begin * n;
    std::fill_n(dh, rows * n, T(0));
    for (int64_t step = layer.time - 1; step >= 0; --step) {
      const int64_t at = (layer.place(step) * layer.batch + begin) * n;
      for (int64_t i = 0; i < rows * n; ++i) dh[i] += d_hiddens.data()[at + i];
      const T* before =
          step > 0 ? hiddens.data() + (layer.place(step - 1) * layer.batch + begin) * n : first.data() + begin * n;
      for (int64_t r = 0; r < rows; ++r)
        recurrent<T>().gru_grad(n, kept.data() + (at + r * n) * 4, before + r * n, dh + r * n,
                                d_x.data() + (at + r * n) * 3, d_h.data() + (at + r * n) * 3);
      packed.multiply(rows, d_h.data() + at * 3, dh, n, dh);
    }
  });
  d_x.finish(), d_h.finish(), d_first.finish();
}

template <class T> void rnn(KernelContext& c) {
  const Layer layer(c, c.out(0).shape);
  const int64_t n = layer.width, state = layer.batch * n;
  if (state == 0) return;
  const WideInput<T> x(c.in(0)), weight(c.in(1)), first(c.in(2));
  const WideOutput<T> hiddens(c.out(0));
  const Packed<T> packed(n, n, weight.data(), 1, n);
  const auto bend = c.attributes.flag("relu") ? recurrent<T>().relu : recurrent<T>().tanh;
  layer.for_rows(1, [&](int64_t begin, int64_t end) {
    const T* h = first.data() + begin * n;
    for (int64_t step = 0; step < layer.time; ++step) {
      const int64_t at = (layer.place(step) * layer.batch + begin) * n;
      packed.multiply(end - begin, h, x.data() + at, n, hiddens.data() + at);
      bend((end - begin) * n, hiddens.data() + at);
      h = hiddens.data() + at;
    }
  });
  hiddens.finish();
}

template <class T> void rnn_grad(KernelContext& c) {
  const Layer layer(c, c.in(0).shape);
  const int64_t n = layer.width, state = layer.batch * n;
  if (state == 0) return;
  const WideInput<T> d_hiddens(c.in(0)), hiddens(c.in(1)), weight(c.in(2));
  const WideOutput<T> d_x(c.out(0)), d_first(c.out(1));
  const Packed<T> packed(n, n, weight.data(), n, 1);
  const auto unbend = c.attributes.flag("relu") ? recurrent<T>().relu_grad : recurrent<T>().tanh_grad;
  layer.for_rows(1, [&](int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    const T* next = nullptr;
    for (int64_t step = layer.time - 1; step >= 0; --step) {
      const int64_t at = (layer.place(step) * layer.batch + begin) * n;
      T* d = d_x.data() + at;
      if (next) packed.multiply(rows, next, d_hiddens.data() + at, n, d);
      else std::copy_n(d_hiddens.data() + at, rows * n, d);
      unbend(rows * n, hiddens.data() + at, d);
      next = d;
    }
    T* to = d_first.data() + begin * n;
    std::fill_n(to, rows * n, T(0));
    packed.multiply(rows, next, to, n, to);
  });
  d_x.finish(), d_first.finish();
}

}  // namespace

void add_cpu_rnn(Kernels kernels) {
  kernels["lstm_cell"] = TANDEM_WIDE_KERNEL(lstm_cell);
  kernels["lstm_cell_grad"] = TANDEM_WIDE_KERNEL(lstm_cell_grad);
  kernels["gru_cell"] = TANDEM_WIDE_KERNEL(gru_cell);
  kernels["gru_cell_grad"] = TANDEM_WIDE_KERNEL(gru_cell_grad);
  kernels["lstm"] = TANDEM_WIDE_KERNEL(lstm);
  kernels["lstm_grad"] = TANDEM_WIDE_KERNEL(lstm_grad);
  kernels["gru"] = TANDEM_WIDE_KERNEL(gru);
  kernels["gru_grad"] = TANDEM_WIDE_KERNEL(gru_grad);
  kernels["rnn"] = TANDEM_WIDE_KERNEL(rnn);
  kernels["rnn_grad"] = TANDEM_WIDE_KERNEL(rnn_grad);
}

}  // namespace tandem
