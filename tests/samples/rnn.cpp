// Samples of recurrent cells and layers, and of their gradients.
#include <algorithm>

#include "core/ops/rnn.h"
#include "samples/samples.h"

namespace tandem::samples {

namespace {

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

/// A result whose errors are measured against 1 at least: states are sums of numbers of about that size.
Numbers result(const Shape& shape, DType dtype) {
  Numbers out(shape, dtype);
  out.make_scale();
  std::fill(out.scale.begin(), out.scale.end(), 1.0);
  return out;
}
Shape with_width(Shape shape, int64_t width) {
  shape.erase(shape.size() - 1);
  shape.push_back(width);
  return shape;
}

// ---- One row of `w` units, in double.

struct LstmUnit {
  double i, f, g, o, c, h;
  LstmUnit(const double* gates, int64_t w, int64_t j, double cell)
      : i(logistic(gates[j])), f(logistic(gates[w + j])), g(std::tanh(gates[2 * w + j])), o(logistic(gates[3 * w + j])),
        c(f * cell + i * g), h(o * std::tanh(c)) {}
  /// Gradients of the gates to d[j], d[w + j], …; gives that of the cell.
  double backward(double dh, double dc, double cell, double* d, int64_t w, int64_t j) const {
    const double bent = std::tanh(c), all = dc + dh * o * (1 - bent * bent);
    d[j] = all * g * i * (1 - i);
    d[w + j] = all * cell * f * (1 - f);
    d[2 * w + j] = all * i * (1 - g * g);
    d[3 * w + j] = dh * bent * o * (1 - o);
    return all * f;
  }
};

struct GruUnit {
  double r, z, n, product, h;
  GruUnit(const double* x, const double* y, int64_t w, int64_t j, double hidden)
      : r(logistic(x[j] + y[j])), z(logistic(x[w + j] + y[w + j])), n(std::tanh(x[2 * w + j] + r * y[2 * w + j])),
        product(y[2 * w + j]), h((1 - z) * n + z * hidden) {}
  double backward(double dh, double hidden, double* dx, double* dy, int64_t w, int64_t j) const {
    const double dn = dh * (1 - z) * (1 - n * n), dr = dn * product * r * (1 - r), dz = dh * (hidden - n) * z * (1 - z);
    dx[j] = dy[j] = dr, dx[w + j] = dy[w + j] = dz;
    dx[2 * w + j] = dn, dy[2 * w + j] = dn * r;
    return dh * z;
  }
};

/// y [n] += x [k] w, or its transpose, for w [rows, columns].
void add_product(const double* x, const Numbers& w, bool transposed, double* y) {
  const int64_t rows = w.shape[0], columns = w.shape[1];
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) y[transposed ? i : j] += x[transposed ? j : i] * w[i * columns + j];
}
const double* row(const Numbers& x, int64_t i, int64_t width) { return x.values.data() + i * width; }
double* row(Numbers& x, int64_t i, int64_t width) { return x.values.data() + i * width; }

/// [time, batch, width] and the order of steps.
struct Sequence {
  int64_t time, batch, width;
  bool reverse;
  Sequence(const Shape& steps, bool reverse) : time(steps[0]), batch(steps[1]), width(steps[2]), reverse(reverse) {}
  int64_t at(int64_t step) const { return (reverse ? time - 1 - step : step) * batch; }  ///< the row of batch 0
  /// What step reads of the states after each step.
  const double* before(const Numbers& states, const Numbers& first, int64_t step, int64_t b) const {
    return step > 0 ? row(states, at(step - 1) + b, width) : row(first, b, width);
  }
};

NumberLists lstm_forward(const NumberLists& in, bool reverse) {
  const Numbers &x = in[0], &weight = in[1], &h0 = in[2], &c0 = in[3];
  const Sequence s(with_width(x.shape, x.shape.back() / 4), reverse);
  const int64_t w = s.width;
  Numbers h = result({s.time, s.batch, w}, x.dtype), c = h, kept = result(x.shape, x.dtype);
  for (int64_t step = 0; step < s.time; ++step)
    for (int64_t b = 0; b < s.batch; ++b) {
      const int64_t at = s.at(step) + b;
      std::vector<double> gates(row(x, at, 4 * w), row(x, at, 4 * w) + 4 * w);
      add_product(s.before(h, h0, step, b), weight, true, gates.data());
      const double* cell = s.before(c, c0, step, b);
      for (int64_t j = 0; j < w; ++j) {
        const LstmUnit unit(gates.data(), w, j, cell[j]);
        h[at * w + j] = unit.h, c[at * w + j] = unit.c;
        double* keep = row(kept, at, 4 * w);
        keep[j] = unit.i, keep[w + j] = unit.f, keep[2 * w + j] = unit.g, keep[3 * w + j] = unit.o;
      }
    }
  return {h, c, kept};
}

/// From dh, dc, x, weight, h0, c0: the gradients of x, h0, c0.
NumberLists lstm_backward(const NumberLists& in, bool reverse) {
  const Numbers &dh = in[0], &dc = in[1], &x = in[2], &weight = in[3], &h0 = in[4], &c0 = in[5];
  const NumberLists forward = lstm_forward({x, weight, h0, c0}, reverse);
  const Sequence s(dh.shape, reverse);
  const int64_t w = s.width;
  Numbers dx = result(x.shape, x.dtype), dh0 = result(h0.shape, x.dtype), dc0 = result(c0.shape, x.dtype);
  for (int64_t step = s.time - 1; step >= 0; --step)
    for (int64_t b = 0; b < s.batch; ++b) {
      const int64_t at = s.at(step) + b;
      std::vector<double> gates(row(x, at, 4 * w), row(x, at, 4 * w) + 4 * w), carried(static_cast<size_t>(w));
      add_product(s.before(forward[0], h0, step, b), weight, true, gates.data());
      const double* cell = s.before(forward[1], c0, step, b);
      for (int64_t j = 0; j < w; ++j)
        dc0[b * w + j] = LstmUnit(gates.data(), w, j, cell[j])
                             .backward(dh[at * w + j] + dh0[b * w + j], dc[at * w + j] + dc0[b * w + j], cell[j],
                                       row(dx, at, 4 * w), w, j);
      add_product(row(dx, at, 4 * w), weight, false, carried.data());
      std::copy(carried.begin(), carried.end(), row(dh0, b, w));
    }
  return {dx, dh0, dc0};
}

NumberLists gru_forward(const NumberLists& in, bool reverse) {
  const Numbers &x = in[0], &weight = in[1], &bias = in[2], &h0 = in[3];
  const Sequence s(with_width(x.shape, x.shape.back() / 3), reverse);
  const int64_t w = s.width;
  Numbers h = result({s.time, s.batch, w}, x.dtype), kept = result({s.time, s.batch, 4 * w}, x.dtype);
  for (int64_t step = 0; step < s.time; ++step)
    for (int64_t b = 0; b < s.batch; ++b) {
      const int64_t at = s.at(step) + b;
      std::vector<double> products = bias.values;
      const double* hidden = s.before(h, h0, step, b);
      add_product(hidden, weight, true, products.data());
      for (int64_t j = 0; j < w; ++j) {
        const GruUnit unit(row(x, at, 3 * w), products.data(), w, j, hidden[j]);
        h[at * w + j] = unit.h;
        double* keep = row(kept, at, 4 * w);
        keep[j] = unit.r, keep[w + j] = unit.z, keep[2 * w + j] = unit.n, keep[3 * w + j] = unit.product;
      }
    }
  return {h, kept};
}

/// From dh, x, weight, bias, h0: the gradients of the x gates, of the h gates, and of h0.
NumberLists gru_backward(const NumberLists& in, bool reverse) {
  const Numbers &dh = in[0], &x = in[1], &weight = in[2], &bias = in[3], &h0 = in[4];
  const NumberLists forward = gru_forward({x, weight, bias, h0}, reverse);
  const Sequence s(dh.shape, reverse);
  const int64_t w = s.width;
  Numbers dx = result(x.shape, x.dtype), dy = dx, dh0 = result(h0.shape, x.dtype);
  for (int64_t step = s.time - 1; step >= 0; --step)
    for (int64_t b = 0; b < s.batch; ++b) {
      const int64_t at = s.at(step) + b;
      std::vector<double> products = bias.values, carried(static_cast<size_t>(w));
      const double* hidden = s.before(forward[0], h0, step, b);
      add_product(hidden, weight, true, products.data());
      for (int64_t j = 0; j < w; ++j)
        carried[static_cast<size_t>(j)] =
            GruUnit(row(x, at, 3 * w), products.data(), w, j, hidden[j])
                .backward(dh[at * w + j] + dh0[b * w + j], hidden[j], row(dx, at, 3 * w), row(dy, at, 3 * w), w, j);
      add_product(row(dy, at, 3 * w), weight, false, carried.data());
      std::copy(carried.begin(), carried.end(), row(dh0, b, w));
    }
  return {dx, dy, dh0};
}

NumberLists rnn_forward(const NumberLists& in, bool relu, bool reverse) {
  const Numbers &x = in[0], &weight = in[1], &h0 = in[2];
  const Sequence s(x.shape, reverse);
  Numbers h = result(x.shape, x.dtype);
  for (int64_t step = 0; step < s.time; ++step)
    for (int64_t b = 0; b < s.batch; ++b) {
      double* out = row(h, s.at(step) + b, s.width);
      std::copy_n(row(x, s.at(step) + b, s.width), s.width, out);
      add_product(s.before(h, h0, step, b), weight, true, out);
      for (int64_t j = 0; j < s.width; ++j) out[j] = relu ? std::max(out[j], 0.0) : std::tanh(out[j]);
    }
  return {h};
}

/// From dh, x, weight, h0: the gradients of x and h0.
NumberLists rnn_backward(const NumberLists& in, bool relu, bool reverse) {
  const Numbers &dh = in[0], &x = in[1], &weight = in[2], &h0 = in[3];
  const Numbers h = rnn_forward({x, weight, h0}, relu, reverse)[0];
  const Sequence s(dh.shape, reverse);
  Numbers dx = result(x.shape, x.dtype), dh0 = result(h0.shape, x.dtype);
  for (int64_t step = s.time - 1; step >= 0; --step)
    for (int64_t b = 0; b < s.batch; ++b) {
      const int64_t at = (s.at(step) + b) * s.width;
      std::vector<double> carried(static_cast<size_t>(s.width));
      for (int64_t j = 0; j < s.width; ++j)
        dx[at + j] = (dh[at + j] + dh0[b * s.width + j]) * (relu ? (h[at + j] > 0 ? 1 : 0) : 1 - h[at + j] * h[at + j]);
      add_product(dx.values.data() + at, weight, false, carried.data());
      std::copy(carried.begin(), carried.end(), row(dh0, b, s.width));
    }
  return {dx, dh0};
}

void add_cells(Samples& samples) {
  for (const Shape& state : {Shape{1}, {5}, {3, 4}, {2, 2, 3}, {0, 4}, {3, 0}, {33, 70}}) {
    const int64_t w = state.back();
    const Shape four = with_width(state, 4 * w), three = with_width(state, 3 * w);
    const bool large = state.numel() > 1000;
    const Gradients gradients = large ? Gradients::none : Gradients::second;
    const auto rows = w ? state.numel() / w : 0;
    samples.push_back({.op = "lstm_cell",
                       .label = to_string(state),
                       .operands = {{four, spread(-3, 3)}, {state, spread(-1, 1, 1)}},
                       .dtypes = kFloats,
                       .call =
                           [](const Tensors& x) {
                             const LstmState next = lstm_cell(x[0], x[1]);
                             return Tensors{next.hidden, next.cell};
                           },
                       .reference =
                           [w, rows](const NumberLists& in) {
                             Numbers h = result(in[1].shape, in[1].dtype), c = h;
                             for (int64_t r = 0; r < rows; ++r)
                               for (int64_t j = 0; j < w; ++j) {
                                 const LstmUnit unit(row(in[0], r, 4 * w), w, j, in[1][r * w + j]);
                                 h[r * w + j] = unit.h, c[r * w + j] = unit.c;
                               }
                             return NumberLists{h, c};
                           },
                       .gradients = gradients,
                       .agreement = Agreement::close,
                       .large = large});
    samples.push_back({.op = "lstm_cell_grad",
                       .label = to_string(state),
                       .operands = {{state, spread(-1, 1, 2)},
                                    {state, spread(-1, 1, 3)},
                                    {four, spread(-3, 3)},
                                    {state, spread(-1, 1, 1)}},
                       .dtypes = {float32, float64},
                       .call =
                           [](const Tensors& x) {
                             const Tensor cell = lstm_cell(x[2], x[3]).cell;
                             return dispatch_all(find_op("lstm_cell_grad"), Tensors{x[0], x[1], x[2], x[3], cell}, {},
                                                 Where::current());
                           },
                       .reference =
                           [w, rows](const NumberLists& in) {
                             Numbers dx = result(in[2].shape, in[2].dtype), dc = result(in[3].shape, in[2].dtype);
                             for (int64_t r = 0; r < rows; ++r)
                               for (int64_t j = 0; j < w; ++j) {
                                 const int64_t at = r * w + j;
                                 dc[at] = LstmUnit(row(in[2], r, 4 * w), w, j, in[3][at])
                                              .backward(in[0][at], in[1][at], in[3][at], row(dx, r, 4 * w), w, j);
                               }
                             return NumberLists{dx, dc};
                           },
                       .agreement = Agreement::close,
                       .large = large});
    samples.push_back({.op = "gru_cell",
                       .label = to_string(state),
                       .operands = {{three, spread(-2, 2)}, {three, spread(-2, 2, 1)}, {state, spread(-1, 1, 2)}},
                       .dtypes = kFloats,
                       .call = [](const Tensors& x) { return Tensors{gru_cell(x[0], x[1], x[2])}; },
                       .reference =
                           [w, rows](const NumberLists& in) {
                             Numbers h = result(in[2].shape, in[2].dtype);
                             for (int64_t r = 0; r < rows; ++r)
                               for (int64_t j = 0; j < w; ++j)
                                 h[r * w + j] =
                                     GruUnit(row(in[0], r, 3 * w), row(in[1], r, 3 * w), w, j, in[2][r * w + j]).h;
                             return NumberLists{h};
                           },
                       .gradients = gradients,
                       .agreement = Agreement::close,
                       .large = large});
    samples.push_back(
        {.op = "gru_cell_grad",
         .label = to_string(state),
         .operands =
             {{state, spread(-1, 1, 3)}, {three, spread(-2, 2)}, {three, spread(-2, 2, 1)}, {state, spread(-1, 1, 2)}},
         .dtypes = kFloats,
         .call = call_op("gru_cell_grad"),
         .reference =
             [w, rows](const NumberLists& in) {
               Numbers dx = result(in[1].shape, in[1].dtype), dy = dx, dh = result(in[3].shape, in[1].dtype);
               for (int64_t r = 0; r < rows; ++r)
                 for (int64_t j = 0; j < w; ++j) {
                   const int64_t at = r * w + j;
                   dh[at] = GruUnit(row(in[1], r, 3 * w), row(in[2], r, 3 * w), w, j, in[3][at])
                                .backward(in[0][at], in[3][at], row(dx, r, 3 * w), row(dy, r, 3 * w), w, j);
                 }
               return NumberLists{dx, dy, dh};
             },
         .agreement = Agreement::close,
         .large = large});
  }
}

struct Extent {
  Shape steps;
  bool reverse;
};

void add_layers(Samples& samples, const Extent& extent) {
  const Shape& steps = extent.steps;
  const bool reverse = extent.reverse, large = steps.numel() > 1000;
  const int64_t w = steps[2];
  const double size = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(w, 1)));
  const Shape state{steps[1], w}, four = with_width(steps, 4 * w), three = with_width(steps, 3 * w);
  const std::string label = to_string(steps) + (reverse ? " reverse" : "");
  const Gradients gradients = large ? Gradients::none : Gradients::second;
  // Each step adds the rounding of products of w terms.
  const auto add = [&](const char* op, std::vector<Operand> operands, Call call, Reference reference,
                       Gradients orders) {
    samples.push_back({.op = op,
                       .label = label,
                       .operands = std::move(operands),
                       .dtypes = kFloats,
                       .call = std::move(call),
                       .reference = std::move(reference),
                       .ulps = 16 + static_cast<double>(w),
                       .gradients = orders,
                       .agreement = Agreement::close,
                       .large = large});
  };
  const auto add_wide = [&](const char* op, std::vector<Operand> operands, Call call, Reference reference) {
    add(op, std::move(operands), std::move(call), std::move(reference), Gradients::none);
    samples.back().dtypes = {float32, float64};  // they read the rounded results of the op before
  };
  const Operand x4{four, spread(-2, 2)}, x3{three, spread(-2, 2)}, x1{steps, spread(-2, 2)};
  const Operand h{state, spread(-1, 1, 1)}, c{state, spread(-1, 1, 2)}, dh{steps, spread(-1, 1, 3)},
      dc{steps, spread(-1, 1, 4)};
  const Operand w4{{4 * w, w}, spread(-size, size, 5)}, w3{{3 * w, w}, spread(-size, size, 5)},
      w1{{w, w}, spread(-size, size, 5)}, b3{{3 * w}, spread(-1, 1, 6)};
  const Attributes direction{{"reverse", reverse}};

  add(
      "lstm", {x4, w4, h, c},
      [reverse](const Tensors& x) {
        const LstmState all = lstm(x[0], x[1], {x[2], x[3]}, {}, {.reverse = reverse});
        return Tensors{all.hidden, all.cell};
      },
      [reverse](const NumberLists& in) {
        NumberLists out = lstm_forward(in, reverse);
        out.pop_back();
        return out;
      },
      gradients);
  add(
      "lstm", {x4, w4, h, c, {{4 * w}, spread(-1, 1, 6)}},
      [reverse](const Tensors& x) {
        const LstmState all = lstm(x[0], x[1], {x[2], x[3]}, x[4], {.reverse = reverse});
        return Tensors{all.hidden, all.cell};
      },
      [reverse](NumberLists in) {
        for (int64_t i = 0; i < in[0].numel(); ++i) in[0][i] += in[4][i % in[4].numel()];
        NumberLists out = lstm_forward(in, reverse);
        out.pop_back();
        return out;
      },
      gradients);
  add(
      "lstm", {x4, w4, h, c}, call_op("lstm", direction),
      [reverse](const NumberLists& in) { return lstm_forward(in, reverse); }, Gradients::none);
  for (const bool of_cells : {true, false})
    add_wide(
        "lstm_grad", {dh, dc, x4, w4, h, c},
        [direction, of_cells](const Tensors& x) {
          const Tensors made =
              dispatch_all(find_op("lstm"), Tensors{x[2], x[3], x[4], x[5]}, direction, Where::current());
          Tensors inputs{x[0], made[1], made[2], x[3], x[5]};
          if (of_cells) inputs.push_back(x[1]);
          return dispatch_all(find_op("lstm_grad"), inputs, direction, Where::current());
        },
        [reverse, of_cells](NumberLists in) {
          if (!of_cells) std::fill(in[1].values.begin(), in[1].values.end(), 0.0);
          return lstm_backward(in, reverse);
        });
  add(
      "gru", {x3, w3, b3, h},
      [reverse](const Tensors& x) { return Tensors{gru(x[0], x[1], x[2], x[3], {.reverse = reverse})}; },
      [reverse](const NumberLists& in) { return NumberLists{gru_forward(in, reverse)[0]}; }, gradients);
  add(
      "gru", {x3, w3, b3, h}, call_op("gru", direction),
      [reverse](const NumberLists& in) { return gru_forward(in, reverse); }, Gradients::none);
  add_wide(
      "gru_grad", {dh, x3, w3, b3, h},
      [direction](const Tensors& x) {
        const Tensors made = dispatch_all(find_op("gru"), Tensors{x[1], x[2], x[3], x[4]}, direction, Where::current());
        return dispatch_all(find_op("gru_grad"), Tensors{x[0], made[0], made[1], x[2], x[4]}, direction,
                            Where::current());
      },
      [reverse](const NumberLists& in) { return gru_backward(in, reverse); });
  for (const bool relu : {false, true}) {
    const RnnNonlinearity nonlinearity = relu ? RnnNonlinearity::relu : RnnNonlinearity::tanh;
    const Attributes attributes{{"reverse", reverse}, {"relu", relu}};
    add(
        "rnn", {x1, w1, h},
        [=](const Tensors& x) { return Tensors{rnn(x[0], x[1], x[2], nonlinearity, {.reverse = reverse})}; },
        [=](const NumberLists& in) { return rnn_forward(in, relu, reverse); }, gradients);
    samples.back().operands[0].may_repeat = !relu;
    add_wide(
        "rnn_grad", {dh, x1, w1, h},
        [=](const Tensors& x) {
          return dispatch_all(find_op("rnn_grad"),
                              Tensors{x[0], rnn(x[1], x[2], x[3], nonlinearity, {.reverse = reverse}), x[2], x[3]},
                              attributes, Where::current());
        },
        [=](const NumberLists& in) { return rnn_backward(in, relu, reverse); });
    samples.back().operands[1].may_repeat = !relu;
  }
}

}  // namespace

void add_rnn_samples(Samples& samples) {
  add_cells(samples);
  for (const Extent& extent : {Extent{{1, 1, 1}, false},
                               {{3, 2, 2}, false},
                               {{2, 2, 3}, true},
                               {{4, 7, 5}, false},
                               {{2, 0, 3}, false},
                               {{2, 3, 0}, true},
                               {{5, 21, 70}, true}})
    add_layers(samples, extent);
}

}  // namespace tandem::samples
