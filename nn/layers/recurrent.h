// Rnn, Lstm, Gru: layers that take a sequence step by step; and their single steps as layers.
#pragma once

#include <functional>
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

/// How many steps of each sequence of a padded batch are its own: [batch] of 1 to time, in any order. What stands behind
/// them is neither read nor counted: outputs there are 0, a final state is that after a sequence's last own step, and a
/// layer in reverse begins there. As PyTorch's pack_padded_sequence, but that outputs keep all of x's steps.
///
///   auto [output, state] = layer(x, nn::Lengths({5, 3, 4}));
class Lengths {
 public:
  explicit Lengths(const std::vector<int64_t>& steps);
  /// int64 or int32; in a trace it can be an argument. Out of range: ValueError, on CUDA only eagerly.
  explicit Lengths(const Tensor& steps) : steps_(steps) {}
  const Tensor& tensor() const { return steps_; }

 private:
  Tensor steps_;
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
  /// What a layer does in one direction: from x [time, batch, ..] and the states [batch, hidden] before the first step to
  /// those after each step, [time, batch, hidden], the output first.
  using Steps = std::function<Tensors(const RecurrentWeights&, const Tensor& x, const Tensors& first, SequenceOptions)>;
  struct Run {
    Tensor output;
    Tensors states;  ///< [layers * directions, batch, hidden] after the last step
  };
  /// All layers and directions. Undefined states are zeros. ShapeError unless x fits, and each given state is
  /// [layers * directions, batch, hidden]; ValueError where a length isn't 1 to time.
  Run run_layers(const Tensor& x, const Tensors& states, const Lengths* lengths, Where where, const Steps& steps) const;

 private:
  std::string suffix_of(size_t i) const;
  void check(const Tensor& x, const Tensors& states, const Lengths* lengths, Where where) const;

  const char* name_;
  int64_t in_, hidden_;
  RecurrentOptions options_;
  std::vector<RecurrentWeights> weights_;  ///< layer by layer, forwards then backwards
};

/// How a layer is called: with or without states to begin with, of sequences of one length or of several.
template <class Layer, class State, class Result> class RecurrentLayer : public Recurrent {
 public:
  Result operator()(const Tensor& x, Where where = Where::current()) const { return (*this)(x, State(), where); }
  Result operator()(const Tensor& x, const State& state, Where where = Where::current()) const {
    return layer().run(x, state, nullptr, where);
  }
  Result operator()(const Tensor& x, const Lengths& lengths, Where where = Where::current()) const {
    return (*this)(x, State(), lengths, where);
  }
  Result operator()(const Tensor& x, const State& state, const Lengths& lengths, Where where = Where::current()) const {
    return layer().run(x, state, &lengths, where);
  }

 protected:
  using Recurrent::Recurrent;

 private:
  const Layer& layer() const { return static_cast<const Layer&>(*this); }
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
class Rnn : public detail::RecurrentLayer<Rnn, Tensor, RnnResult> {
 public:
  Rnn(int64_t in, int64_t hidden, RecurrentOptions options = {}, Where where = Where::current());

 private:
  friend RecurrentLayer;
  RnnResult run(const Tensor& x, const Tensor& hidden, const Lengths* lengths, Where where) const;
};

/// Long short-term memory over x [time, batch, in]; the formulas are at tandem::lstm_cell. As torch.nn.LSTM.
///
///   auto [output, state] = layer(x);             // state.hidden, state.cell
///   auto [more, end] = layer(next, state);       // goes on; for truncated backpropagation, detach both of state
class Lstm : public detail::RecurrentLayer<Lstm, LstmState, LstmResult> {
 public:
  Lstm(int64_t in, int64_t hidden, RecurrentOptions options = {}, Where where = Where::current());

 private:
  friend RecurrentLayer;
  LstmResult run(const Tensor& x, const LstmState& state, const Lengths* lengths, Where where) const;
};

/// Gated recurrent unit over x [time, batch, in]; the formulas are at tandem::gru_cell. As torch.nn.GRU.
class Gru : public detail::RecurrentLayer<Gru, Tensor, RnnResult> {
 public:
  Gru(int64_t in, int64_t hidden, RecurrentOptions options = {}, Where where = Where::current());

 private:
  friend RecurrentLayer;
  RnnResult run(const Tensor& x, const Tensor& hidden, const Lengths* lengths, Where where) const;
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
