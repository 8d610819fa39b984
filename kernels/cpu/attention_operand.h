// How attention sees its operands: a matrix for each head, with strides of its own, in any floating type.
#pragma once

#include <algorithm>
#include <type_traits>

#include "core/tensor.h"
#include "kernels/cpu/support/isa.h"

namespace tandem {

template <class T> const AttentionLoops<T>& attention_loops() {
  if constexpr (std::is_same_v<T, float>) return *loops().attention_f32;
  else return *loops().attention_f64;
}

inline constexpr int64_t kPad = kAttentionPad;
inline int64_t padded(int64_t columns) { return (columns + kPad - 1) / kPad * kPad; }

/// A tensor [batch.., heads, rows, columns]. Strides in elements.
struct Operand {
  char* data;
  DType dtype;
  Shape batch, strides;  ///< of the dims before the last two
  int64_t rows, columns, row, column;

  explicit Operand(const TensorImpl& x) : Operand(x, x.shape, x.strides) {}
  /// Part `index` of a packed tensor [3, batch.., heads, rows, columns].
  Operand(const TensorImpl& x, int64_t index) : Operand(x, without_first(x.shape), without_first(x.strides)) {
    data += index * x.strides[0] * size();
  }
  /// Broadcast to [batch.., rows, columns].
  Operand(const TensorImpl& x, const Shape& to_batch, int64_t to_rows, int64_t to_columns)
      : data(static_cast<char*>(x.data)), dtype(x.dtype), batch(to_batch), strides(Shape::filled(to_batch.size(), 0)),
        rows(to_rows), columns(to_columns) {
    const int rank = x.shape.size();
    const auto stride = [&](int from_end) {
      const int d = rank - from_end;
      return d >= 0 && x.shape[d] != 1 ? x.strides[d] : 0;
    };
    row = stride(2), column = stride(1);
    for (int d = 0; d < batch.size(); ++d) strides[d] = stride(batch.size() - d + 2);
  }

  int64_t size() const { return size_of(dtype); }
  int64_t heads() const { return batch.numel(); }
  char* head(int64_t index) const {
    int64_t offset = 0;
    for (int d = batch.size() - 1; d >= 0; --d) {
      offset += index % batch[d] * strides[d];
      index /= batch[d];
    }
    return data + offset * size();
  }
  /// `count` elements as T, from `from` on.
  template <class T> void load(const char* from, int64_t count, T* to) const {
    char* const pointers[] = {reinterpret_cast<char*>(to), const_cast<char*>(from)};
    const int64_t steps[] = {sizeof(T), column * size()};
    loops().cast[static_cast<int>(dtype)][static_cast<int>(dtype_of<T>)](count, pointers, steps);
  }
  /// A row from T.
  template <class T> void store(const T* from, int64_t head_index, int64_t at) const {
    char* const pointers[] = {head(head_index) + at * row * size(),
                              const_cast<char*>(reinterpret_cast<const char*>(from))};
    const int64_t steps[] = {column * size(), sizeof(T)};
    loops().cast[static_cast<int>(dtype_of<T>)][static_cast<int>(dtype)](columns, pointers, steps);
  }

 private:
  Operand(const TensorImpl& x, const Shape& shape, const Shape& all)
      : data(static_cast<char*>(x.data)), dtype(x.dtype), batch(shape), strides(all) {
    const int rank = shape.size();
    rows = shape[rank - 2], columns = shape[rank - 1], row = all[rank - 2], column = all[rank - 1];
    batch.resize(rank - 2), strides.resize(rank - 2);
  }
  static Shape without_first(Shape x) {
    x.erase(0);
    return x;
  }
};

/// Whether rows of T lie together, in a number that needs no padding.
template <class T> bool lies_as(const Operand& x) {
  return x.dtype == dtype_of<T> && x.column == 1 && x.columns % kPad == 0;
}
/// Elements of memory that a head's rows need to be copied to, if they must be.
template <class T> int64_t rows_memory(const Operand& x) { return lies_as<T>(x) ? 0 : x.rows * padded(x.columns); }

/// The rows of a head as T, `stride` apart, padded with zeros.
template <class T> struct HeadRows {
  const T* data = nullptr;
  int64_t stride = 0;
};

template <class T> HeadRows<T> rows_of(const Operand& x, int64_t head, T* memory) {
  const char* from = x.head(head);
  if (lies_as<T>(x)) return {reinterpret_cast<const T*>(from), x.row};
  const int64_t width = padded(x.columns);
  for (int64_t r = 0; r < x.rows; ++r, from += x.row * x.size()) {
    x.load(from, x.columns, memory + r * width);
    std::fill(memory + r * width + x.columns, memory + (r + 1) * width, T{0});
  }
  return {memory, width};
}

/// Blocks of `side` rows, each turned into [columns, side]; zeros beyond the last row.
template <class T> void turned_blocks(const HeadRows<T>& x, int64_t rows, int64_t columns, int64_t side, T* out) {
  for (int64_t first = 0; first < rows; first += side, out += columns * side) {
    const int64_t count = std::min(side, rows - first);
    loops().transpose[sizeof(T) == 4 ? 2 : 3](count, columns, x.data + first * x.stride, x.stride, out, side);
    if (padded(count) == count) continue;
    for (int64_t c = 0; c < columns; ++c) std::fill(out + c * side + count, out + c * side + padded(count), T{0});
  }
}

}  // namespace tandem
