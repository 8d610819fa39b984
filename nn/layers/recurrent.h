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

/// How many steps of each sequence of a padded batch are its own: [batch] of 1 to time, in any order. What stands behind
/// them is neither read nor counted: outputs there are 0, a final state is that after a sequence's last own step, and a
/// layer in reverse begins there. As PyTorch's pack_padded_sequence, but that outputs keep all of x's steps.
///
///   auto [output, state] = layer(x, nn::Lengths({5, 3, 4}));
class Lengths {
 public:
  explicit Lengths(const std::vector<int64_t>& steps);
  /// int64 or int32. In a trace it can be an argument; numbers out of range are then found as the graph runs (DimensionError).
  explicit Lengths(const Tensor& steps) : steps_(steps) {}
  const Tensor& tensor() const { return steps_; }

 private:
  Tensor steps_;
};

namespace detail {

/// Where the sequences of a padded batch end. Undefined tensors where all are of one length.
struct Padding {
  Tensor own;     ///< bool [time, batch, 1]: is the step one of the sequence's own?
  Tensor turned;  ///< int64 [time, batch, 1]: the step that takes this one's place in a sequence that is turned
  Tensor last;    ///< int64 [1, batch, 1]
  Padding() = default;
  Padding(const Tensor& lengths, int64_t time, Device device);
  /// 0 where a step isn't the sequence's own. x [time, batch, ..].
  Tensor cut(const Tensor& x) const;
  /// Each sequence's own steps from the last to the first.
  Tensor turn(const Tensor& x) const;
};

/// A direction through a sequence.
struct Direction {
  const Padding& padding;
  bool reverse;
  SequenceOptions options() const { return {.reverse = reverse && !padding.own.defined()}; }
  /// Of outputs [time, batch, hidden], the one after the last step taken.
  Tensor end(const Tensor& outputs) const;
};

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
  /// Throws ShapeError unless x fits, and each given state is [layers * directions, batch, hidden]; ValueError where a
  /// length isn't 1 to time, if they are known.
  void check(const Tensor& x, std::initializer_list<const Tensor*> states, const Lengths* lengths, Where where) const;
  /// Calls run(weights, x [time, batch, ..], index of layer and direction, direction) for each; it gives the outputs
  /// [time, batch, hidden]. Returns those of the last layer.
  template <class Run> Tensor for_each_layer(const Tensor& x, const Lengths* lengths, Where where, Run&& run) const {
    Tensor sequence = options_.batch_first ? x.transpose(0, 1) : x;
    const Padding padding = lengths ? Padding(lengths->tensor(), sequence.shape()[0], x.device()) : Padding();
    sequence = padding.cut(sequence);
    for (int64_t layer = 0; layer < options_.layers; ++layer) {
      if (layer > 0) sequence = dropped(sequence, where);
      Tensors outputs;
      for (int64_t i = 0; i < directions(); ++i) {
        const Direction direction{padding, i == 1};
        const auto turned = [&](const Tensor& steps) { return direction.reverse ? padding.turn(steps) : steps; };
        const int64_t index = layer * directions() + i;
        outputs.push_back(
            padding.cut(turned(run(weights_[static_cast<size_t>(index)], turned(sequence), index, direction))));
      }
      sequence = outputs.size() == 1 ? outputs[0] : concat(outputs, -1);
    }
    return options_.batch_first ? sequence.transpose(0, 1) : sequence;
  }
  /// The state before the first step: that of the index, or zeros.
  Tensor first_state(const Tensor& states, int64_t index, const Tensor& x) const;
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
  RnnResult operator()(const Tensor& x, const Tensor& hidden, Where where = Where::current()) const {
    return run(x, hidden, nullptr, where);
  }
  RnnResult operator()(const Tensor& x, const Lengths& lengths, Where where = Where::current()) const {
    return run(x, Tensor(), &lengths, where);
  }
  RnnResult operator()(const Tensor& x, const Tensor& hidden, const Lengths& lengths,
                       Where where = Where::current()) const {
    return run(x, hidden, &lengths, where);
  }

 private:
  RnnResult run(const Tensor& x, const Tensor& hidden, const Lengths* lengths, Where where) const;
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
  LstmResult operator()(const Tensor& x, const LstmState& state, Where where = Where::current()) const {
    return run(x, state, nullptr, where);
  }
  LstmResult operator()(const Tensor& x, const Lengths& lengths, Where where = Where::current()) const {
    return run(x, LstmState(), &lengths, where);
  }
  LstmResult operator()(const Tensor& x, const LstmState& state, const Lengths& lengths,
                        Where where = Where::current()) const {
    return run(x, state, &lengths, where);
  }

 private:
  LstmResult run(const Tensor& x, const LstmState& state, const Lengths* lengths, Where where) const;
};

/// Gated recurrent unit over x [time, batch, in]; the formulas are at tandem::gru_cell. As torch.nn.GRU.
class Gru : public detail::Recurrent {
 public:
  Gru(int64_t in, int64_t hidden, RecurrentOptions options = {}, Where where = Where::current());
  RnnResult operator()(const Tensor& x, Where where = Where::current()) const { return (*this)(x, Tensor(), where); }
  RnnResult operator()(const Tensor& x, const Tensor& hidden, Where where = Where::current()) const {
    return run(x, hidden, nullptr, where);
  }
  RnnResult operator()(const Tensor& x, const Lengths& lengths, Where where = Where::current()) const {
    return run(x, Tensor(), &lengths, where);
  }
  RnnResult operator()(const Tensor& x, const Tensor& hidden, const Lengths& lengths,
                       Where where = Where::current()) const {
    return run(x, hidden, &lengths, where);
  }

 private:
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
