// The loops of recurrent layers, a table of their own beside loops.h: one for each instruction set.
#pragma once

#include <stdint.h>

namespace tandem {

/// Columns in a strip of a packed recurrent weight.
template <class T> inline constexpr int64_t kRecurrentStrip = 256 / static_cast<int64_t>(sizeof(T));

/// A product with a weight that is packed once for all time steps, and the cells' formulas for a row of `width` units.
/// Gates lie in PyTorch's order.
template <class T> struct RecurrentLoops {
  /// Strips [begin, end) of b [k, n]: packed[strip][p][column], columns beyond the last as zeros.
  void (*pack)(int64_t begin, int64_t end, int64_t n, int64_t k, const T* b, int64_t b_row, int64_t b_column,
               T* packed);
  /// to = from + bias + a b, row by row [m, n], b packed. `from` may be `to`, or have rows 0 apart; bias [n] may be null.
  void (*product)(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, const T* packed, const T* from,
                  int64_t from_row, const T* bias, T* to, int64_t to_row);
  /// Gates become what their nonlinearities make of them.
  void (*lstm)(int64_t width, T* gates, const T* cell, T* hidden, T* next_cell);
  /// From activated gates; d_cell is the gradient of the next cell, and becomes that of the cell.
  void (*lstm_grad)(int64_t width, const T* gates, const T* cell, const T* next_cell, const T* d_hidden, T* d_cell,
                    T* d_gates);
  /// kept [4 width] may be null: r, z, n and the new gate's product.
  void (*gru)(int64_t width, const T* x, const T* h, const T* hidden, T* next, T* kept);
  /// d_hidden, the gradient of the next state, becomes that of the state but for what flows through the h gates.
  void (*gru_grad)(int64_t width, const T* kept, const T* hidden, T* d_hidden, T* d_x, T* d_h);
  void (*tanh)(int64_t n, T* x);
  void (*relu)(int64_t n, T* x);
  void (*tanh_grad)(int64_t n, const T* y, T* d);
  void (*relu_grad)(int64_t n, const T* y, T* d);
};

#define TANDEM_RECURRENT_LOOPS(isa)                  \
  namespace isa {                                    \
  extern const RecurrentLoops<float> recurrent_f32;  \
  extern const RecurrentLoops<double> recurrent_f64; \
  }
TANDEM_RECURRENT_LOOPS(portable)
TANDEM_RECURRENT_LOOPS(avx2)
TANDEM_RECURRENT_LOOPS(avx512)
#undef TANDEM_RECURRENT_LOOPS

}  // namespace tandem
