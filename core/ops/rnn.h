// The public functions of recurrent layers: one step, or a layer over all its steps, from gates before their
// nonlinearities. The order of gates is PyTorch's: input, forget, cell, output for an LSTM; reset, update, new for a
// GRU. The x gates hold the biases, but for those that are given apart.
#pragma once

#include "../tensor.h"

namespace tandem {

/// What an LSTM carries from step to step.
struct LstmState {
  Tensor hidden, cell;
};
struct SequenceOptions {
  bool reverse = false;  ///< from the last step to the first
};
enum class RnnNonlinearity { tanh, relu };
/// c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c') (Hochreiter & Schmidhuber 1997, with the forget gate
/// of Gers et al. 2000). gates [.., 4 width], cell [.., width]; gives h' and c'.
LstmState lstm_cell(const Arg& gates, const Tensor& cell);
/// h' = (1 - z) n + z h, r = sigmoid(x_r + h_r), z = sigmoid(x_z + h_z), n = tanh(x_n + r h_n) (Cho et al. 2014, in the
/// form where r scales the product). x_gates and h_gates [.., 3 width], hidden [.., width]; gives h'.
Tensor gru_cell(const Arg& x_gates, const Tensor& h_gates, const Tensor& hidden);
/// Step after step, lstm_cell(x_gates[t] + bias + h weightᵀ, c). x_gates [time, batch, 4 width], weight [4 width, width],
/// state [batch, width] each, bias [4 width] or undefined: adding it here costs no pass over the x gates. Gives hidden and
/// cell [time, batch, width] after each step.
LstmState lstm(const Arg& x_gates, const Tensor& weight, const LstmState& state, const Tensor& bias = {},
               SequenceOptions options = {});
/// Step after step, gru_cell(x_gates[t], h weightᵀ + bias, h). x_gates [time, batch, 3 width], weight [3 width, width],
/// bias [3 width], hidden [batch, width]. Gives [time, batch, width].
Tensor gru(const Arg& x_gates, const Tensor& weight, const Tensor& bias, const Tensor& hidden,
           SequenceOptions options = {});
/// Step after step, h = tanh or relu of x_gates[t] + h weightᵀ. x_gates [time, batch, width], weight [width, width],
/// hidden [batch, width]. Gives [time, batch, width].
Tensor rnn(const Arg& x_gates, const Tensor& weight, const Tensor& hidden,
           RnnNonlinearity nonlinearity = RnnNonlinearity::tanh, SequenceOptions options = {});

}  // namespace tandem
