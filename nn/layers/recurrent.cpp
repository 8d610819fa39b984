// Rnn, Lstm, Gru: layers that take a sequence step by step. The inputs of all steps are multiplied at once; the op of
// the whole layer (core/ops/rnn.cpp) does the rest.
#include "nn/layers/recurrent.h"

#include <cmath>

#include "core/dispatch.h"
#include "nn/init.h"

namespace tandem::nn {

using tandem::detail::str;

namespace {

RecurrentWeights make_weights(const char* name, int64_t gates, int64_t in, int64_t hidden,
                              const RecurrentOptions& options, Where where) {
  const TensorOptions leaf{.dtype = options.dtype, .device = options.device, .requires_grad = true};
  const double bound = 1 / std::sqrt(static_cast<double>(hidden));
  const int64_t rows = checked_mul(gates, hidden, str("nn::", name), where);
  RecurrentWeights w;
  w.weight_ih = init::uniform({rows, in}, -bound, bound, leaf, where);
  w.weight_hh = init::uniform({rows, hidden}, -bound, bound, leaf, where);
  if (options.bias) {
    w.bias_ih = init::uniform({rows}, -bound, bound, leaf, where);
    w.bias_hh = init::uniform({rows}, -bound, bound, leaf, where);
  }
  return w;
}

void check_extents(const char* name, int64_t in, int64_t hidden, Where where) {
  if (in < 1 || hidden < 1)
    throw ValueError(str("nn::", name, ": need at least 1 input and 1 hidden unit, got ", in, " and ", hidden), where);
}

/// The part of the gates that depends on x alone, with both biases.
Tensor x_gates(const Tensor& x, const RecurrentWeights& w, Where where) {
  return linear(Arg(x, where), w.weight_ih, w.bias_ih.defined() ? w.bias_ih + w.bias_hh : Tensor());
}

Tensor zero_bias(const RecurrentWeights& w) {
  return zeros({w.weight_hh.shape()[0]}, {.dtype = w.weight_hh.dtype(), .device = w.weight_hh.device()});
}

RecurrentOptions as_options(const CellOptions& cell) {
  return {.bias = cell.bias, .dtype = cell.dtype, .device = cell.device};
}

}  // namespace

Lengths::Lengths(const std::vector<int64_t>& steps) : steps_(tandem::tensor(steps)) {}

namespace detail {

Padding::Padding(const Tensor& lengths, int64_t time, Device device) {
  const Tensor count = reshape(arange(0, time, 1, {.dtype = int64, .device = device}), {time, 1, 1});
  last = reshape(lengths.to(device).to(int64), {1, lengths.shape()[0], 1}) - 1;
  own = count <= last;
  turned = where(own, last - count, count);
}

Tensor Padding::cut(const Tensor& x) const { return own.defined() ? where(own, x, 0) : x; }

Tensor Padding::turn(const Tensor& x) const { return own.defined() ? gather(x, 0, expand(turned, x.shape())) : x; }

Tensor Direction::end(const Tensor& outputs) const {
  const Shape& shape = outputs.shape();
  if (!padding.own.defined()) return select(outputs, 0, reverse ? 0 : shape[0] - 1);
  return select(gather(outputs, 0, expand(padding.last, {1, shape[1], shape[2]})), 0, 0);
}

Recurrent::Recurrent(const char* name, int64_t gates, int64_t in, int64_t hidden, const RecurrentOptions& options,
                     Where where)
    : name_(name), in_(in), hidden_(hidden), options_(options) {
  check_extents(name, in, hidden, where);
  constexpr int64_t kMostLayers = 1 << 16;
  if (options.layers < 1 || options.layers > kMostLayers)
    throw ValueError(str("nn::", name, ": layers is ", options.layers, ", need 1 to ", kMostLayers), where);
  if (!(options.dropout >= 0 && options.dropout < 1))
    throw ValueError(str("nn::", name, ": dropout is ", options.dropout, ", need at least 0 and below 1"), where);
  for (int64_t layer = 0; layer < options.layers; ++layer)
    for (int64_t direction = 0; direction < directions(); ++direction)
      weights_.push_back(make_weights(name, gates,
                                      layer == 0 ? in : checked_mul(hidden, directions(), str("nn::", name), where),
                                      hidden, options, where));
}

const RecurrentWeights& Recurrent::weights(int64_t layer, bool reverse, Where where) const {
  if (layer < 0 || layer >= options_.layers)
    throw DimensionError(str("nn::", name_, ": there is no layer ", layer, ", only 0 to ", options_.layers - 1), where);
  if (reverse && !options_.bidirectional)
    throw DimensionError(str("nn::", name_, ": has no weights in reverse: it isn't bidirectional"), where);
  return weights_[static_cast<size_t>(layer * directions() + (reverse ? 1 : 0))];
}

std::string Recurrent::suffix_of(size_t i) const {
  const size_t count = static_cast<size_t>(directions());
  return str("_l", i / count, i % count ? "_reverse" : "");
}

Tensor Recurrent::dropped(const Tensor& x, Where where) const {
  return options_.dropout > 0 && training ? dropout(Arg(x, where), options_.dropout) : x;
}

void Recurrent::check(const Tensor& x, std::initializer_list<const Tensor*> states, const Lengths* lengths,
                      Where where) const {
  const Shape& shape = x.shape(where);
  const char* layout = options_.batch_first ? "[batch, time, " : "[time, batch, ";
  if (shape.size() != 3 || shape[2] != in_)
    throw ShapeError(str("nn::", name_, ": x is ", shape, ", need ", layout, in_, "]",
                         shape.size() == 2 ? "; unsqueeze the missing dim" : ""),
                     where);
  if (shape[options_.batch_first ? 1 : 0] == 0)
    throw ShapeError(str("nn::", name_, ": x ", shape, " has no time steps"), where);
  const Shape need{options_.layers * directions(), shape[options_.batch_first ? 0 : 1], hidden_};
  for (const Tensor* state : states)
    if (state->defined() && state->shape() != need)
      throw ShapeError(str("nn::", name_, ": a state of ", state->shape(),
                           ", need [layers * directions, batch, hidden] = ", need, " for x ", shape),
                       where);
  if (!lengths) return;
  const Tensor& steps = lengths->tensor();
  if (steps.shape(where) != Shape{need[1]} || (steps.dtype() != int64 && steps.dtype() != int32))
    throw ShapeError(str("nn::", name_, ": the lengths are ", steps.dtype(), steps.shape(), ", need int64[", need[1],
                         "], one for each sequence of x ", shape),
                     where);
  if (interceptor()) return;  // traced: not known
  const int64_t time = shape[options_.batch_first ? 1 : 0];
  for (const int64_t length : steps.to(int64).to_vector<int64_t>(where))
    if (length < 1 || length > time)
      throw ValueError(str("nn::", name_, ": a length is ", length, ", need 1 to ", time, " for x ", shape), where);
}

Tensor Recurrent::first_state(const Tensor& states, int64_t index, const Tensor& x) const {
  if (states.defined()) return select(states, 0, index);
  return zeros({x.shape()[1], hidden_}, {.dtype = x.dtype(), .device = x.device()});
}

Tensor Recurrent::stacked(const Tensors& states) {
  if (states.size() == 1) return unsqueeze(states[0], 0);
  Tensors rows;
  for (const Tensor& state : states) rows.push_back(unsqueeze(state, 0));
  return concat(rows, 0);
}

RecurrentCell::RecurrentCell(const char* name, int64_t gates, int64_t in, int64_t hidden,
                             const RecurrentOptions& options, Where where) {
  check_extents(name, in, hidden, where);
  weights = make_weights(name, gates, in, hidden, options, where);
}

Tensor RecurrentCell::zero_state(const Tensor& x) const {
  Shape shape = x.shape();
  if (!shape.empty()) shape[shape.size() - 1] = weights.weight_hh.shape()[1];
  return zeros(shape, {.dtype = x.dtype(), .device = x.device()});
}

}  // namespace detail

Rnn::Rnn(int64_t in, int64_t hidden, RecurrentOptions options, Where where)
    : Recurrent("Rnn", 1, in, hidden, options, where) {}

RnnResult Rnn::run(const Tensor& x, const Tensor& hidden, const Lengths* lengths, Where where) const {
  check(x, {&hidden}, lengths, where);
  WhereScope scope(where);
  Tensors ends;
  Tensor output = for_each_layer(
      x, lengths, where,
      [&](const RecurrentWeights& w, const Tensor& sequence, int64_t index, const detail::Direction& direction) {
        const Tensor states = rnn(x_gates(sequence, w, where), w.weight_hh, first_state(hidden, index, sequence),
                                  options().nonlinearity, direction.options());
        ends.push_back(direction.end(states));
        return states;
      });
  return {output, stacked(ends)};
}

Lstm::Lstm(int64_t in, int64_t hidden, RecurrentOptions options, Where where)
    : Recurrent("Lstm", 4, in, hidden, options, where) {}

LstmResult Lstm::run(const Tensor& x, const LstmState& state, const Lengths* lengths, Where where) const {
  check(x, {&state.hidden, &state.cell}, lengths, where);
  WhereScope scope(where);
  Tensors hidden_ends, cell_ends;
  Tensor output = for_each_layer(
      x, lengths, where,
      [&](const RecurrentWeights& w, const Tensor& sequence, int64_t index, const detail::Direction& direction) {
        const LstmState first{first_state(state.hidden, index, sequence), first_state(state.cell, index, sequence)};
        const Tensor bias = w.bias_ih.defined() ? w.bias_ih + w.bias_hh : Tensor();
        const LstmState all =
            lstm(linear(Arg(sequence, where), w.weight_ih), w.weight_hh, first, bias, direction.options());
        hidden_ends.push_back(direction.end(all.hidden));
        cell_ends.push_back(direction.end(all.cell));
        return all.hidden;
      });
  return {output, {stacked(hidden_ends), stacked(cell_ends)}};
}

Gru::Gru(int64_t in, int64_t hidden, RecurrentOptions options, Where where)
    : Recurrent("Gru", 3, in, hidden, options, where) {}

RnnResult Gru::run(const Tensor& x, const Tensor& hidden, const Lengths* lengths, Where where) const {
  check(x, {&hidden}, lengths, where);
  WhereScope scope(where);
  Tensors ends;
  Tensor output = for_each_layer(
      x, lengths, where,
      [&](const RecurrentWeights& w, const Tensor& sequence, int64_t index, const detail::Direction& direction) {
        // The bias of the state's product stays apart: the reset gate scales it.
        const Tensor gates = linear(Arg(sequence, where), w.weight_ih, w.bias_ih);
        const Tensor states = gru(gates, w.weight_hh, w.bias_hh.defined() ? w.bias_hh : zero_bias(w),
                                  first_state(hidden, index, sequence), direction.options());
        ends.push_back(direction.end(states));
        return states;
      });
  return {output, stacked(ends)};
}

RnnCell::RnnCell(int64_t in, int64_t hidden, CellOptions options, Where where)
    : RecurrentCell("RnnCell", 1, in, hidden, as_options(options), where), nonlinearity_(options.nonlinearity) {}

Tensor RnnCell::operator()(const Tensor& x, const Tensor& hidden, Where where) const {
  WhereScope scope(where);
  const Tensor sum = x_gates(x, weights, where) + linear(hidden.defined() ? hidden : zero_state(x), weights.weight_hh);
  return nonlinearity_ == RnnNonlinearity::relu ? relu(sum) : tanh(sum);
}

LstmCell::LstmCell(int64_t in, int64_t hidden, CellOptions options, Where where)
    : RecurrentCell("LstmCell", 4, in, hidden, as_options(options), where) {}

LstmState LstmCell::operator()(const Tensor& x, const LstmState& state, Where where) const {
  WhereScope scope(where);
  const Tensor hidden = state.hidden.defined() ? state.hidden : zero_state(x),
               cell = state.cell.defined() ? state.cell : zero_state(x);
  return lstm_cell(x_gates(x, weights, where) + linear(hidden, weights.weight_hh), cell);
}

GruCell::GruCell(int64_t in, int64_t hidden, CellOptions options, Where where)
    : RecurrentCell("GruCell", 3, in, hidden, as_options(options), where) {}

Tensor GruCell::operator()(const Tensor& x, const Tensor& hidden, Where where) const {
  WhereScope scope(where);
  const Tensor before = hidden.defined() ? hidden : zero_state(x);
  return gru_cell(linear(Arg(x, where), weights.weight_ih, weights.bias_ih),
                  linear(before, weights.weight_hh, weights.bias_hh), before);
}

}  // namespace tandem::nn
