// Rnn, Lstm, Gru: layers that take a sequence step by step; and their single steps as layers.
#pragma once

#include <string>
#include <vector>

#include "../../core/ops/ops.h"
#include "../../core/ops/rnn.h"
#include "../training_flag.h"

namespace tandem::nn {

struct RecurrentOptions {
  int64_t layers = 1;
  bool bias = true;
  bool batch_first = false;    ///< x and output are [batch, time, ..] rather than [time, batch, ..]
  double dropout = 0;          ///< while training, on the outputs of each layer but the last
  bool bidirectional = false;  ///< each layer once forwards and once backwards; outputs side by side
  RnnNonlinearity nonlinearity = RnnNonlinearity::tanh;  ///< of Rnn only
  DType dtype = DType::float32;
  Device device = {};
};

/// The weights of one layer in one direction, for `gates` gates in PyTorch's order (LSTM: input, forget, cell, output;
/// GRU: reset, update, new): weight_ih [gates hidden, in], weight_hh [gates hidden, hidden], biases [gates hidden].
struct RecurrentWeights {
  Tensor weight_ih, weight_hh;
  Tensor bias_ih, bias_hh;  ///< undefined without bias
};

namespace detail {

/// What the three layers share: weights, options, the loop over layers and directions.
class Recurrent {
 public:
  int64_t in() const { return in_; }
  int64_t hidden() const { return hidden_; }
  const RecurrentOptions& options() const { return options_; }
  /// Weights of layer 0, 1, … DimensionError if there is no such layer, or it isn't bidirectional.
  const RecurrentWeights& weights(int64_t layer, bool reverse = false, Where where = Where::current()) const;

  /// weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_ih_l0_reverse, … as in PyTorch, so that a state_dict's
  /// tensors fit under their own names.
  template <class V> void visit(V&& v) {
    for (size_t i = 0; i < weights_.size(); ++i) {
      const std::string suffix = suffix_of(i);
      v("weight_ih" + suffix, weights_[i].weight_ih);
      v("weight_hh" + suffix, weights_[i].weight_hh);
      v("bias_ih" + suffix, weights_[i].bias_ih);
      v("bias_hh" + suffix, weights_[i].bias_hh);
    }
    v("training", training);
  }

  TrainingFlag training;

 protected:
  Recurrent(const char* name, int64_t gates, int64_t in, int64_t hidden, const RecurrentOptions& options, Where where);
  int64_t directions() const { return options_.bidirectional ? 2 : 1; }
  /// Throws ShapeError unless x fits, and each given state is [layers * directions, batch, hidden].
  void check(const Tensor& x, std::initializer_list<const Tensor*> states, Where where) const;
  /// Calls run(weights, x [time, batch, ..], index of layer and direction, options) for each; it gives the outputs
  /// [time, batch, hidden]. Returns those of the last layer.
  template <class Run> Tensor for_each_layer(const Tensor& x, Where where, Run&& run) const {
    Tensor sequence = options_.batch_first ? x.transpose(0, 1) : x;
    for (int64_t layer = 0; layer < options_.layers; ++layer) {
      if (layer > 0) sequence = dropped(sequence, where);
      const int64_t first = layer * directions();
      const Tensor forwards = run(weights_[static_cast<size_t>(first)], sequence, first, SequenceOptions{});
      sequence = options_.bidirectional ? concat({forwards, run(weights_[static_cast<size_t>(first) + 1], sequence,
                                                                first + 1, SequenceOptions{.reverse = true})},
                                                 -1)
                                        : forwards;
    }
    return options_.batch_first ? sequence.transpose(0, 1) : sequence;
  }
  /// The state before the first step: that of the index, or zeros.
  Tensor first_state(const Tensor& states, int64_t index, const Tensor& x) const;
  /// Of outputs [time, batch, hidden], the one after the last step taken.
  static Tensor last_state(const Tensor& outputs, const SequenceOptions& options);
  static Tensor stacked(const Tensors& states);

 private:
  std::string suffix_of(size_t i) const;
  Tensor dropped(const Tensor& x, Where where) const;

  const char* name_;
  int64_t in_, hidden_;
  RecurrentOptions options_;
  std::vector<RecurrentWeights> weights_;  ///< layer by layer, forwards then backwards
};

/// Weights of a single step.
class RecurrentCell {
 public:
  template <class V> void visit(V&& v) {
    v("weight_ih", weights.weight_ih);
    v("weight_hh", weights.weight_hh);
    v("bias_ih", weights.bias_ih);
    v("bias_hh", weights.bias_hh);
  }
  RecurrentWeights weights;

 protected:
  RecurrentCell(const char* name, int64_t gates, int64_t in, int64_t hidden, const RecurrentOptions& options,
                Where where);
  Tensor zero_state(const Tensor& x) const;
};

}  // namespace detail

/// output [time, batch, hidden * directions] is the state of the last layer after each step; hidden, and for an LSTM
/// cell, [layers * directions, batch, hidden] what each layer and direction ends with.
struct RnnResult {
  Tensor output, hidden;
};
struct LstmResult {
  Tensor output;
  LstmState state;
};

/// h = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu, over x [time, batch, in]. All weights start in U(-b, b),
/// b = 1 / sqrt(hidden). States that aren't given are zeros. As torch.nn.RNN.
///
///   auto [output, hidden] = layer(x);
class Rnn : public detail::Recurrent {
 public:
  Rnn(int64_t in, int64_t hidden, RecurrentOptions options = {}, Where where = Where::current());
  RnnResult operator()(const Tensor& x, Where where = Where::current()) const { return (*this)(x, Tensor(), where); }
  RnnResult operator()(const Tensor& x, const Tensor& hidden, Where where = Where::current()) const;
};

/// Long short-term memory over x [time, batch, in]; the formulas are at tandem::lstm_cell. As torch.nn.LSTM.
///
///   auto [output, state] = layer(x);             // state.hidden, state.cell
///   auto [more, end] = layer(next, state);       // goes on; for truncated backpropagation, detach both of state
class Lstm : public detail::Recurrent {
 public:
  Lstm(int64_t in, int64_t hidden, RecurrentOptions options = {}, Where where = Where::current());
  LstmResult operator()(const Tensor& x, Where where = Where::current()) const {
    return (*this)(x, LstmState(), where);
  }
  LstmResult operator()(const Tensor& x, const LstmState& state, Where where = Where::current()) const;
};

/// Gated recurrent unit over x [time, batch, in]; the formulas are at tandem::gru_cell. As torch.nn.GRU.
class Gru : public detail::Recurrent {
 public:
  Gru(int64_t in, int64_t hidden, RecurrentOptions options = {}, Where where = Where::current());
  RnnResult operator()(const Tensor& x, Where where = Where::current()) const { return (*this)(x, Tensor(), where); }
  RnnResult operator()(const Tensor& x, const Tensor& hidden, Where where = Where::current()) const;
};

struct CellOptions {
  bool bias = true;
  RnnNonlinearity nonlinearity = RnnNonlinearity::tanh;  ///< of RnnCell only
  DType dtype = DType::float32;
  Device device = {};
};

/// One step: x [batch, in] and state [batch, hidden] to the next state. As torch.nn.RNNCell, LSTMCell and GRUCell.
class RnnCell : public detail::RecurrentCell {
 public:
  RnnCell(int64_t in, int64_t hidden, CellOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, const Tensor& hidden = {}, Where where = Where::current()) const;

 private:
  RnnNonlinearity nonlinearity_;
};
class LstmCell : public detail::RecurrentCell {
 public:
  LstmCell(int64_t in, int64_t hidden, CellOptions options = {}, Where where = Where::current());
  LstmState operator()(const Tensor& x, const LstmState& state = {}, Where where = Where::current()) const;
};
class GruCell : public detail::RecurrentCell {
 public:
  GruCell(int64_t in, int64_t hidden, CellOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, const Tensor& hidden = {}, Where where = Where::current()) const;
};

}  // namespace tandem::nn
