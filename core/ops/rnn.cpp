// Recurrent layers: a step of an LSTM or GRU as one op, and a whole layer over all time steps as one op (lstm, gru,
// rnn), for which the caller multiplies all steps' inputs at once. The backward of a layer is an op as well, which
// gives the gradients of all gates; that of the recurrent weight is then one product over all steps.
//
// The kernels of the backward ops are not differentiable. Where the backward pass is itself recorded, or reads what
// only that makes, it is composed of simpler ops instead, step by step.
#include <algorithm>

#include "core/dispatch.h"
#include "core/ops/fit.h"
#include "core/ops/ops.h"
#include "core/ops/rnn.h"

namespace tandem {

namespace {

// ---- What the ops check.

void check_like(const Infer& op, int i, const char* name, const Shape& shape) {
  op.check<ShapeError>(op.input(i).shape() == shape, name, " is ", op.input(i).shape(), ", need ", shape,
                       " for x gates ", op.input(0).shape());
  op.check<DTypeError>(op.input(i).dtype() == op.input(0).dtype(), name, " is ", op.input(i).dtype(),
                       ", the gates are ", op.input(0).dtype(), "; cast one with to()");
}

/// The width of a layer whose x gates [.., gates width] are input 0.
int64_t width_of(const Infer& op, int64_t gates, int least_rank, const char* layout) {
  op.check_floating(0);
  const Shape& shape = op.input(0).shape();
  op.check<ShapeError>(shape.size() >= least_rank && (least_rank == 1 || shape.size() == least_rank), "x gates are ",
                       shape, ", need ", layout);
  op.check<ShapeError>(shape.back() % gates == 0, "x gates ", shape, " don't split into ", gates, " of one width");
  return shape.back() / gates;
}
Shape with_width(Shape shape, int64_t width) {
  shape[shape.size() - 1] = width;
  return shape;
}
/// [time, batch, width] of a layer's outputs; checks weight and state.
Shape sequence_of(const Infer& op, int64_t gates, const char* layout) {
  const int64_t width = width_of(op, gates, 3, layout);
  const Shape& x = op.input(0).shape();
  op.check<ShapeError>(x[0] > 0, "needs at least one time step, got x gates ", x);
  check_like(op, 1, "weight", {gates * width, width});
  return {x[0], x[1], width};
}

void infer_lstm_cell(Infer& op) {
  const Shape state = with_width(op.input(0).shape(), width_of(op, 4, 1, "[.., 4 width]"));
  check_like(op, 1, "cell", state);
  for (int i = 0; i < 2; ++i) op.output(state, op.input(0).dtype());
}
void infer_gru_cell(Infer& op) {
  const Shape state = with_width(op.input(0).shape(), width_of(op, 3, 1, "[.., 3 width]"));
  check_like(op, 1, "h gates", op.input(0).shape());
  check_like(op, 2, "hidden", state);
  op.output(state, op.input(0).dtype());
}
void infer_lstm(Infer& op) {
  const Shape steps = sequence_of(op, 4, "[time, batch, 4 width]");
  for (int i = 2; i < 4; ++i) check_like(op, i, i == 2 ? "hidden" : "cell", {steps[1], steps[2]});
  if (op.inputs.size() > 4) check_like(op, 4, "bias", {4 * steps[2]});
  op.output(steps, op.input(0).dtype());
  op.output(steps, op.input(0).dtype());
  op.output(op.input(0).shape(), op.input(0).dtype());
}
void infer_gru(Infer& op) {
  const Shape steps = sequence_of(op, 3, "[time, batch, 3 width]");
  check_like(op, 2, "bias", {3 * steps[2]});
  check_like(op, 3, "hidden", {steps[1], steps[2]});
  op.output(steps, op.input(0).dtype());
  op.output({steps[0], steps[1], 4 * steps[2]}, op.input(0).dtype());
}
void infer_rnn(Infer& op) {
  const Shape steps = sequence_of(op, 1, "[time, batch, width]");
  check_like(op, 2, "hidden", {steps[1], steps[2]});
  op.output(steps, op.input(0).dtype());
}

/// Outputs of the backward ops are like these inputs.
template <int... inputs> void output_like(Infer& op) {
  ((void)op.output(op.input(inputs).shape(), op.input(inputs).dtype()), ...);
}

// ---- Parts of the formulas.

Tensor widened(const Tensor& x) { return size_of(x.dtype()) == 2 ? to(x, float32) : x; }

/// Part `i` of the last dim, of equal parts of that width.
Tensor part(const Tensor& x, int64_t i, int64_t width) { return slice(x, -1, i * width, (i + 1) * width); }
int64_t width_of(const Tensor& state) { return state.shape().back(); }
/// Rows [time * batch, width] of steps [begin, end) of a sequence.
Tensor rows(const Tensor& x, int64_t begin, int64_t end) {
  const Shape& shape = x.shape();
  return reshape(slice(x, 0, begin, end), {(end - begin) * shape[1], shape[2]});
}
Tensor transposed(const Tensor& x) { return transpose(x, 0, 1); }

/// The gradient of the recurrent weight: each step's gates' gradient times the state that the step read, which is that
/// of the step before, all steps at once; the first step read `first`.
Tensor weight_gradient(const Tensor& gates, const Tensor& states, const Tensor& first, bool reverse) {
  const int64_t time = gates.shape()[0], one = reverse ? time - 1 : 0;
  const Tensor of_first = matmul(transposed(select(gates, 0, one)), first);
  if (time == 1) return of_first;
  const Tensor later = reverse ? rows(gates, 0, time - 1) : rows(gates, 1, time);
  const Tensor read = reverse ? rows(states, 1, time) : rows(states, 0, time - 1);
  return matmul(transposed(later), read) + of_first;
}

/// Steps of a sequence in the order in which the layer takes them.
struct Order {
  int64_t time;
  bool reverse;
  Order(const OpContext& op, const Tensor& steps) : time(steps.shape()[0]), reverse(op.integer("reverse") != 0) {}
  int64_t place(int64_t step) const { return reverse ? time - 1 - step : step; }
  Tensor at(const Tensor& x, int64_t step) const { return select(x, 0, place(step)); }
  /// What the step read: the state after the step before it, or the first.
  Tensor before(const Tensor& states, const Tensor& first, int64_t step) const {
    return step > 0 ? at(states, step - 1) : first;
  }
  /// A tensor for each step, made last step first, as one.
  Tensor join(Tensors made_backwards) const {
    for (Tensor& each : made_backwards) each = unsqueeze(each, 0);
    if (!reverse) std::reverse(made_backwards.begin(), made_backwards.end());
    return concat(made_backwards, 0);
  }
};

Tensors call(const char* name, const Tensors& inputs, const Attributes& attributes = {}) {
  return dispatch_all(find_op(name), inputs, attributes, Where::current());
}
Attributes direction(const OpContext& op) { return {{"reverse", op.integer("reverse")}}; }

// ---- LSTM.

struct LstmGates {
  Tensor i, f, g, o;
};
LstmGates split_lstm(const Tensor& gates, int64_t width) {
  return {part(gates, 0, width), part(gates, 1, width), part(gates, 2, width), part(gates, 3, width)};
}
LstmGates activated(const Tensor& gates, int64_t width) {
  const LstmGates g = split_lstm(gates, width);
  return {sigmoid(g.i), sigmoid(g.f), tanh(g.g), sigmoid(g.o)};
}

/// From the gradients of h' and c' to those of the gates and of c: gates a are after their nonlinearities. `extra`, if
/// defined, is added to the gradients of a.
std::pair<Tensor, Tensor> lstm_step_backward(const Tensor& dh, const Tensor& dc_next, const LstmGates& a,
                                             const Tensor& cell, const Tensor& next_cell, const Tensor& extra = {}) {
  const Tensor bent = tanh(next_cell);
  const Tensor dc = dc_next.defined() ? dc_next + tanh_grad(dh * a.o, bent) : tanh_grad(dh * a.o, bent);
  LstmGates d{dc * a.g, dc * cell, dc * a.i, dh * bent};
  if (extra.defined()) {
    const LstmGates e = split_lstm(extra, width_of(cell));
    d = {d.i + e.i, d.f + e.f, d.g + e.g, d.o + e.o};
  }
  return {concat({sigmoid_grad(d.i, a.i), sigmoid_grad(d.f, a.f), tanh_grad(d.g, a.g), sigmoid_grad(d.o, a.o)}, -1),
          dc * a.f};
}

Tensors decompose_lstm_cell(std::span<const Tensor> inputs, const Attributes&) {
  const LstmGates a = activated(widened(inputs[0]), width_of(inputs[1]));
  const Tensor c = a.f * widened(inputs[1]) + a.i * a.g;
  return {to(a.o * tanh(c), inputs[0].dtype()), to(c, inputs[0].dtype())};
}

Tensors lstm_cell_gradient(const OpContext& op) {
  if (!grad_enabled())
    return call("lstm_cell_grad", {op.grad_output(0), op.grad_output(1), op.input(0), op.input(1), op.output(1)});
  const Tensor cell = op.input(1);
  const auto [gates, before] = lstm_step_backward(op.grad_output(0), op.grad_output(1),
                                                  activated(op.input(0), width_of(cell)), cell, op.output(1));
  return {gates, before};
}

Tensors lstm_gradient(const OpContext& op) {
  const Tensor states = op.output(0), cells = op.output(1), gates = op.output(2), weight = op.input(1),
               first_cell = op.input(3);
  const Order order(op, states);
  Tensors result(static_cast<size_t>(op.input_count()));
  Tensor& d_gates = result[0];
  if (!grad_enabled() && !op.has_grad_output(2)) {
    Tensors inputs{op.grad_output(0), cells, gates, weight, first_cell};
    if (op.has_grad_output(1)) inputs.push_back(op.grad_output(1));
    const Tensors made = call("lstm_grad", inputs, direction(op));
    d_gates = made[0], result[2] = made[1], result[3] = made[2];
  } else {
    const Tensor dh = op.grad_output(0), dc = op.grad_output(1),
                 extra = op.has_grad_output(2) ? op.grad_output(2) : Tensor();
    Tensors made;
    Tensor carried_h, carried_c;
    for (int64_t step = order.time - 1; step >= 0; --step) {
      const Tensor h = carried_h.defined() ? order.at(dh, step) + carried_h : order.at(dh, step);
      const Tensor c = carried_c.defined() ? order.at(dc, step) + carried_c : order.at(dc, step);
      const auto [d, before] = lstm_step_backward(h, c, split_lstm(order.at(gates, step), width_of(states)),
                                                  order.before(cells, first_cell, step), order.at(cells, step),
                                                  extra.defined() ? order.at(extra, step) : Tensor());
      made.push_back(d);
      carried_h = matmul(d, weight), carried_c = before;
    }
    d_gates = order.join(made), result[2] = carried_h, result[3] = carried_c;
  }
  if (op.needs_grad(1)) result[1] = weight_gradient(d_gates, states, op.input(2), order.reverse);
  if (op.input_count() > 4 && op.needs_grad(4)) result[4] = sum(d_gates, {0, 1});
  return result;
}

/// The states of all steps from cells and gates.
Tensor lstm_states(std::span<const Tensor> results, const Attributes&) {
  const Tensor &cells = results[1], &gates = results[2];
  return part(gates, 3, width_of(cells)) * tanh(cells);
}

// ---- GRU. The op keeps r, z, n and the new gate's product h_n: [time, batch, 4 width].

/// From the gradient of h' to those of the x gates, the h gates and h (but for what flows through the h gates). `extra`,
/// if defined, is added to the gradients of r, z, n and h_n.
struct GruStep {
  Tensor x_gates, h_gates, hidden;
};
GruStep gru_step_backward(const Tensor& dh, const Tensor& r, const Tensor& z, const Tensor& n, const Tensor& product,
                          const Tensor& hidden, const Tensor& extra = {}) {
  const int64_t width = width_of(hidden);
  const auto with_extra = [&](const Tensor& d, int64_t i) { return extra.defined() ? d + part(extra, i, width) : d; };
  const Tensor new_gate = tanh_grad(with_extra(dh - dh * z, 2), n);
  const Tensor reset = sigmoid_grad(with_extra(new_gate * product, 0), r);
  const Tensor update = sigmoid_grad(with_extra(dh * (hidden - n), 1), z);
  return {concat({reset, update, new_gate}, -1), concat({reset, update, with_extra(new_gate * r, 3)}, -1), dh * z};
}

struct GruGates {
  Tensor r, z, n, product;
};
GruGates gru_gates(const Tensor& x, const Tensor& h, int64_t width) {
  const Tensor r = sigmoid(part(x, 0, width) + part(h, 0, width)), z = sigmoid(part(x, 1, width) + part(h, 1, width)),
               product = part(h, 2, width);
  return {r, z, tanh(part(x, 2, width) + r * product), product};
}

Tensors decompose_gru_cell(std::span<const Tensor> inputs, const Attributes&) {
  const Tensor h = widened(inputs[2]);
  const GruGates g = gru_gates(widened(inputs[0]), widened(inputs[1]), width_of(h));
  return {to(g.n + g.z * (h - g.n), inputs[0].dtype())};
}

Tensors gru_cell_gradient(const OpContext& op) {
  if (!grad_enabled()) return call("gru_cell_grad", {op.grad_output(), op.input(0), op.input(1), op.input(2)});
  const GruGates g = gru_gates(op.input(0), op.input(1), width_of(op.input(2)));
  const GruStep d = gru_step_backward(op.grad_output(), g.r, g.z, g.n, g.product, op.input(2));
  return {d.x_gates, d.h_gates, d.hidden};
}

Tensors gru_gradient(const OpContext& op) {
  const Tensor states = op.output(0), gates = op.output(1), weight = op.input(1), first = op.input(3);
  const Order order(op, states);
  Tensors result(4);
  Tensor h_gates;
  if (!grad_enabled() && !op.has_grad_output(1)) {
    const Tensors made = call("gru_grad", {op.grad_output(0), states, gates, weight, first}, direction(op));
    result[0] = made[0], h_gates = made[1], result[3] = made[2];
  } else {
    const Tensor dh = op.grad_output(0), extra = op.has_grad_output(1) ? op.grad_output(1) : Tensor();
    const int64_t width = width_of(states);
    Tensors of_x, of_h;
    Tensor carried;
    for (int64_t step = order.time - 1; step >= 0; --step) {
      const Tensor all = order.at(gates, step);
      const GruStep d =
          gru_step_backward(carried.defined() ? order.at(dh, step) + carried : order.at(dh, step), part(all, 0, width),
                            part(all, 1, width), part(all, 2, width), part(all, 3, width),
                            order.before(states, first, step), extra.defined() ? order.at(extra, step) : Tensor());
      of_x.push_back(d.x_gates), of_h.push_back(d.h_gates);
      carried = d.hidden + matmul(d.h_gates, weight);
    }
    result[0] = order.join(of_x), h_gates = order.join(of_h), result[3] = carried;
  }
  if (op.needs_grad(1)) result[1] = weight_gradient(h_gates, states, first, order.reverse);
  if (op.needs_grad(2)) result[2] = sum(h_gates, {0, 1});
  return result;
}

// ---- Rnn.

Tensors rnn_gradient(const OpContext& op) {
  const Tensor states = op.output(0), weight = op.input(1), first = op.input(2);
  const Order order(op, states);
  const bool relu = op.integer("relu") != 0;
  Tensors result(3);
  if (!grad_enabled()) {
    const Tensors made =
        call("rnn_grad", {op.grad_output(0), states, weight, first}, {{"reverse", order.reverse}, {"relu", relu}});
    result[0] = made[0], result[2] = made[1];
  } else {
    const Tensor dh = op.grad_output(0);
    Tensors made;
    Tensor carried;
    for (int64_t step = order.time - 1; step >= 0; --step) {
      const Tensor d = carried.defined() ? order.at(dh, step) + carried : order.at(dh, step);
      made.push_back(relu ? relu_grad(d, order.at(states, step)) : tanh_grad(d, order.at(states, step)));
      carried = matmul(made.back(), weight);
    }
    result[0] = order.join(made), result[2] = carried;
  }
  if (op.needs_grad(1)) result[1] = weight_gradient(result[0], states, first, order.reverse);
  return result;
}

}  // namespace

void define_rnn(OpTable& table) {
  using enum AttributeType;
  const AttributeSchema direction = {{"reverse", flag, false}};
  const AttributeSchema direction_and_relu = {{"reverse", flag, false}, {"relu", flag, false}};
  table.add({.name = "lstm_cell",
             .kind = OpKind::opaque,
             .inputs = 2,
             .outputs = 2,
             .infer = infer_lstm_cell,
             .grad = lstm_cell_gradient,
             .saved = in(0) | in(1) | out(1),
             .contiguous_inputs = true,
             .decompose = decompose_lstm_cell});
  table.add({.name = "lstm_cell_grad",
             .kind = OpKind::opaque,
             .inputs = 5,
             .outputs = 2,
             .infer =
                 [](Infer& op) {
                   check_fit(op, ".. h, .. h, .. 4h, .. h, .. h");
                   output_like<2, 3>(op);
                 },
             .contiguous_inputs = true,
             .decompose =
                 [](std::span<const Tensor> in, const Attributes&) {
                   const LstmGates a = activated(widened(in[2]), width_of(in[3]));
                   const auto [gates, cell] =
                       lstm_step_backward(widened(in[0]), widened(in[1]), a, widened(in[3]), widened(in[4]));
                   return Tensors{to(gates, in[2].dtype()), to(cell, in[2].dtype())};
                 }});
  table.add({.name = "gru_cell",
             .kind = OpKind::opaque,
             .inputs = 3,
             .infer = infer_gru_cell,
             .grad = gru_cell_gradient,
             .saved = in(0) | in(1) | in(2),
             .contiguous_inputs = true,
             .decompose = decompose_gru_cell});
  table.add(
      {.name = "gru_cell_grad",
       .kind = OpKind::opaque,
       .inputs = 4,
       .outputs = 3,
       .infer =
           [](Infer& op) {
             check_fit(op, ".. h, .. 3h, .. 3h, .. h");
             output_like<1, 2, 3>(op);
           },
       .contiguous_inputs = true,
       .decompose =
           [](std::span<const Tensor> in, const Attributes&) {
             const Tensor h = widened(in[3]);
             const GruGates g = gru_gates(widened(in[1]), widened(in[2]), width_of(h));
             const GruStep d = gru_step_backward(widened(in[0]), g.r, g.z, g.n, g.product, h);
             return Tensors{to(d.x_gates, in[1].dtype()), to(d.h_gates, in[1].dtype()), to(d.hidden, in[1].dtype())};
           }});
  table.add({.name = "lstm",
             .kind = OpKind::opaque,
             .inputs = kVariadic,
             .outputs = 3,
             .attributes = direction,
             .infer = infer_lstm,
             .grad = lstm_gradient,
             .saved = in(1) | in(2) | in(3) | out(0) | out(1) | out(2),
             .contiguous_inputs = true});
  // The gradient of the cells is read if it is given; without it, nothing but the hidden states was used.
  table.add({.name = "lstm_grad",
             .kind = OpKind::opaque,
             .inputs = kVariadic,
             .outputs = 3,
             .attributes = direction,
             .infer =
                 [](Infer& op) {
                   check_fit(op, op.inputs.size() < 6 ? "t b h, t b h, t b 4h, 4h h, b h"
                                                      : "t b h, t b h, t b 4h, 4h h, b h, t b h");
                   output_like<2, 4, 4>(op);
                 },
             .contiguous_inputs = true});
  table.add({.name = "gru",
             .kind = OpKind::opaque,
             .inputs = 4,
             .outputs = 2,
             .attributes = direction,
             .infer = infer_gru,
             .grad = gru_gradient,
             .saved = in(1) | in(3) | out(0) | out(1),
             .contiguous_inputs = true});
  table.add({.name = "gru_grad",
             .kind = OpKind::opaque,
             .inputs = 5,
             .outputs = 3,
             .attributes = direction,
             .infer =
                 [](Infer& op) {
                   check_fit(op, "t b h, t b h, t b 4h, 3h h, b h");
                   const Shape shape = with_width(op.input(1).shape(), 3 * op.input(1).shape().back());
                   for (int i = 0; i < 2; ++i) op.output(shape, op.input(1).dtype());
                   op.output(op.input(4).shape(), op.input(4).dtype());
                 },
             .contiguous_inputs = true});
  table.add({.name = "rnn",
             .kind = OpKind::opaque,
             .inputs = 3,
             .attributes = direction_and_relu,
             .infer = infer_rnn,
             .grad = rnn_gradient,
             .saved = in(1) | in(2) | out(0),
             .contiguous_inputs = true});
  table.add({.name = "rnn_grad",
             .kind = OpKind::opaque,
             .inputs = 4,
             .outputs = 2,
             .attributes = direction_and_relu,
             .infer =
                 [](Infer& op) {
                   check_fit(op, "t b h, t b h, h h, b h");
                   output_like<1, 3>(op);
                 },
             .contiguous_inputs = true});
  // Operands of one type, whatever the layers before them give; the state is carried through many steps.
  for (const char* name : {"lstm_cell", "gru_cell", "lstm", "gru", "rnn"})
    table.at(name).autocast = AutocastRule::widen;
  // Gates are read before what is made of them is written, time step by time step.
  table.at("lstm").over = {-1, -1, 0, -1};
  table.at("lstm").again = lstm_states;
  table.at("lstm_grad").over = {2, -1, -1, -1};
}

LstmState lstm_cell(const Arg& gates, const Tensor& cell) {
  static const Op& op = find_op("lstm_cell");
  const Tensor inputs[] = {gates.tensor(), cell};
  Tensor outputs[2];
  dispatch(op, inputs, {}, outputs, gates.where());
  return {outputs[0], outputs[1]};
}

Tensor gru_cell(const Arg& x_gates, const Tensor& h_gates, const Tensor& hidden) {
  static const Op& op = find_op("gru_cell");
  return dispatch(op, {x_gates.tensor(), h_gates, hidden}, {}, x_gates.where());
}

LstmState lstm(const Arg& x_gates, const Tensor& weight, const LstmState& state, const Tensor& bias,
               SequenceOptions options) {
  static const Op& op = find_op("lstm");
  const Tensor inputs[] = {x_gates.tensor(), weight, state.hidden, state.cell, bias};
  Tensor outputs[3];
  dispatch(op, {inputs, bias.defined() ? 5u : 4u}, {{"reverse", options.reverse}}, outputs, x_gates.where());
  return {outputs[0], outputs[1]};
}

Tensor gru(const Arg& x_gates, const Tensor& weight, const Tensor& bias, const Tensor& hidden,
           SequenceOptions options) {
  static const Op& op = find_op("gru");
  const Tensor inputs[] = {x_gates.tensor(), weight, bias, hidden};
  Tensor outputs[2];
  dispatch(op, inputs, {{"reverse", options.reverse}}, outputs, x_gates.where());
  return outputs[0];
}

Tensor rnn(const Arg& x_gates, const Tensor& weight, const Tensor& hidden, RnnNonlinearity nonlinearity,
           SequenceOptions options) {
  static const Op& op = find_op("rnn");
  return dispatch(op, {x_gates.tensor(), weight, hidden},
                  {{"reverse", options.reverse}, {"relu", nonlinearity == RnnNonlinearity::relu}}, x_gates.where());
}

}  // namespace tandem
