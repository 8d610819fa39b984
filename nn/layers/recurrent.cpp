// Rnn, Lstm, Gru: layers that take a sequence step by step. The inputs of all steps are multiplied at once; the op of
// the whole layer (core/ops/rnn.cpp) does the rest.
#include "nn/layers/recurrent.h"

#include <cmath>

#include "core/ops/composed.h"
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

/// Where the sequences of a padded batch end. Undefined tensors where all are of one length.
struct Padding {
  Tensor own;     ///< bool [time, batch, 1]: is the step one of the sequence's own?
  Tensor turned;  ///< int64 [time, batch, 1]: the step that takes this one's place in a sequence that is turned
  Tensor last;    ///< int64 [1, batch, 1]
  Padding() = default;
  Padding(const char* name, const Tensor& lengths, int64_t time, Device device) {
    const Tensor count = reshape(arange(0, time, 1, {.dtype = int64, .device = device}), {time, 1, 1});
    // Checked in every mode, whichever of the three is read.
    const Tensor checked =
        bounded(str("nn::", name).c_str(), lengths.to(device).to(float64), 1, static_cast<double>(time),
                str("a length is not 1 to ", time, ", the steps of x").c_str(), Where::current());
    last = reshape(checked.to(int64), {1, lengths.shape()[0], 1}) - 1;
    own = count <= last;
    turned = where(own, last - count, count);
  }
  /// 0 where a step isn't the sequence's own. x [time, batch, ..].
  Tensor cut(const Tensor& x) const { return own.defined() ? where(own, x, 0) : x; }
  /// Each sequence's own steps from the last to the first.
  Tensor turn(const Tensor& x) const { return own.defined() ? gather(x, 0, expand(turned, x.shape())) : x; }
  /// Of outputs [time, batch, hidden], the one after the last step taken.
  Tensor end(const Tensor& outputs, bool reverse) const {
    const Shape& shape = outputs.shape();
    if (!own.defined()) return select(outputs, 0, reverse ? 0 : shape[0] - 1);
    return select(gather(outputs, 0, expand(last, {1, shape[1], shape[2]})), 0, 0);
  }
};

Tensor joined(const Tensors& parts, int64_t dim) { return parts.size() == 1 ? parts[0] : concat(parts, dim); }

RecurrentOptions as_options(const CellOptions& cell) {
  return {.bias = cell.bias, .dtype = cell.dtype, .device = cell.device};
}

}  // namespace

Lengths::Lengths(const std::vector<int64_t>& steps) : steps_(tandem::tensor(steps)) {}

namespace detail {

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

void Recurrent::check(const Tensor& x, const Tensors& states, const Lengths* lengths, Where where) const {
  const Shape& shape = x.shape(where);
  const char* layout = options_.batch_first ? "[batch, time, " : "[time, batch, ";
  if (shape.size() != 3 || shape[2] != in_)
    throw ShapeError(str("nn::", name_, ": x is ", shape, ", need ", layout, in_, "]",
                         shape.size() == 2 ? "; unsqueeze the missing dim" : ""),
                     where);
  if (shape[options_.batch_first ? 1 : 0] == 0)
    throw ShapeError(str("nn::", name_, ": x ", shape, " has no time steps"), where);
  const Shape need{options_.layers * directions(), shape[options_.batch_first ? 0 : 1], hidden_};
  for (const Tensor& state : states)
    if (state.defined() && state.shape() != need)
      throw ShapeError(str("nn::", name_, ": a state of ", state.shape(),
                           ", need [layers * directions, batch, hidden] = ", need, " for x ", shape),
                       where);
  if (!lengths) return;
  const Tensor& steps = lengths->tensor();
  if (steps.shape(where) != Shape{need[1]} || (steps.dtype() != int64 && steps.dtype() != int32))
    throw ShapeError(str("nn::", name_, ": the lengths are ", steps.dtype(), steps.shape(), ", need int64[", need[1],
                         "], one for each sequence of x ", shape),
                     where);
}

Recurrent::Run Recurrent::run_layers(const Tensor& x, const Tensors& states, const Lengths* lengths, Where where,
                                     const Steps& steps) const {
  check(x, states, lengths, where);
  const WhereScope scope(where);
  Tensor sequence = options_.batch_first ? x.transpose(0, 1) : x;
  const Padding padding = lengths ? Padding(name_, lengths->tensor(), sequence.shape()[0], x.device()) : Padding();
  sequence = padding.cut(sequence);
  std::vector<Tensors> ends(states.size());
  for (int64_t layer = 0; layer < options_.layers; ++layer) {
    if (layer > 0 && options_.dropout > 0 && training) sequence = dropout(sequence, options_.dropout);
    Tensors outputs;
    for (int64_t i = 0; i < directions(); ++i) {
      const bool reverse = i == 1;
      const auto turned = [&](const Tensor& each) { return reverse ? padding.turn(each) : each; };
      const int64_t index = layer * directions() + i;
      const Tensor own = turned(sequence);
      Tensors first;
      for (const Tensor& state : states)
        first.push_back(state.defined()
                            ? select(state, 0, index)
                            : zeros({own.shape()[1], hidden_}, {.dtype = own.dtype(), .device = own.device()}));
      const Tensors made =
          steps(weights_[static_cast<size_t>(index)], own, first, {.reverse = reverse && !padding.own.defined()});
      for (size_t s = 0; s < made.size(); ++s) ends[s].push_back(unsqueeze(padding.end(made[s], reverse), 0));
      outputs.push_back(padding.cut(turned(made[0])));
    }
    sequence = joined(outputs, -1);
  }
  Run run{options_.batch_first ? sequence.transpose(0, 1) : sequence, {}};
  for (const Tensors& each : ends) run.states.push_back(joined(each, 0));
  return run;
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
    : RecurrentLayer("Rnn", 1, in, hidden, options, where) {}

RnnResult Rnn::run(const Tensor& x, const Tensor& hidden, const Lengths* lengths, Where where) const {
  const auto [output, states] =
      run_layers(x, {hidden}, lengths, where,
                 [&](const RecurrentWeights& w, const Tensor& own, const Tensors& first, SequenceOptions sequence) {
                   return Tensors{rnn(x_gates(own, w, where), w.weight_hh, first[0], options().nonlinearity, sequence)};
                 });
  return {output, states[0]};
}

Lstm::Lstm(int64_t in, int64_t hidden, RecurrentOptions options, Where where)
    : RecurrentLayer("Lstm", 4, in, hidden, options, where) {}

LstmResult Lstm::run(const Tensor& x, const LstmState& state, const Lengths* lengths, Where where) const {
  const auto [output, states] =
      run_layers(x, {state.hidden, state.cell}, lengths, where,
                 [&](const RecurrentWeights& w, const Tensor& own, const Tensors& first, SequenceOptions sequence) {
                   const Tensor bias = w.bias_ih.defined() ? w.bias_ih + w.bias_hh : Tensor();
                   const LstmState all =
                       lstm(linear(Arg(own, where), w.weight_ih), w.weight_hh, {first[0], first[1]}, bias, sequence);
                   return Tensors{all.hidden, all.cell};
                 });
  return {output, {states[0], states[1]}};
}

Gru::Gru(int64_t in, int64_t hidden, RecurrentOptions options, Where where)
    : RecurrentLayer("Gru", 3, in, hidden, options, where) {}

RnnResult Gru::run(const Tensor& x, const Tensor& hidden, const Lengths* lengths, Where where) const {
  const auto [output, states] = run_layers(
      x, {hidden}, lengths, where,
      [&](const RecurrentWeights& w, const Tensor& own, const Tensors& first, SequenceOptions sequence) {
        // The bias of the state's product stays apart: the reset gate scales it.
        const Tensor gates = linear(Arg(own, where), w.weight_ih, w.bias_ih);
        return Tensors{gru(gates, w.weight_hh, w.bias_hh.defined() ? w.bias_hh : zero_bias(w), first[0], sequence)};
      });
  return {output, states[0]};
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
