// N-d iteration: operands broadcast against an output of any dense layout, as few and long inner rows as
// possible, any part of the elements at a time.
#pragma once

#include "core/tensor.h"

namespace tandem {

/// The output (operand 0) and up to three inputs over common dims: dims of extent 1 dropped, ordered as the
/// output lies in memory, and merged wherever every operand allows it. Strides are in bytes.
struct Iteration {
  static constexpr int kOperands = 4;

  Iteration(const TensorImpl& out, const TensorImpl* const* inputs, int input_count) {
    operands = input_count + 1;
    base[0] = static_cast<char*>(out.data);
    const int64_t out_size = size_of(out.dtype);
    size[0] = out_size;
    for (int k = 0; k < input_count; ++k) {
      base[k + 1] = static_cast<char*>(inputs[k]->data);
      size[k + 1] = size_of(inputs[k]->dtype);
    }
    numel = out.shape.numel();
    const int out_rank = out.shape.size();
    for (int d = 0; d < out_rank; ++d) {
      if (out.shape[d] == 1) continue;
      const int64_t step = out.strides[d] * out_size;
      int at = rank++;
      for (; at > 0 && stride[at - 1][0] < step; --at) {
        extent[at] = extent[at - 1];
        for (int k = 0; k < operands; ++k) stride[at][k] = stride[at - 1][k];
      }
      extent[at] = out.shape[d];
      stride[at][0] = step;
      for (int k = 0; k < input_count; ++k) {
        const TensorImpl& input = *inputs[k];
        const int own = d - (out_rank - input.shape.size());
        stride[at][k + 1] = own < 0 || input.shape[own] == 1 ? 0 : input.strides[own] * size[k + 1];
      }
    }
    merge();
  }

  /// Calls f(count, pointers, strides) for rows that make up the elements [begin, end), in the output's order.
  template <class F> void rows(int64_t begin, int64_t end, F&& f) const {
    if (begin >= end) return;
    char* pointers[kOperands];
    if (rank <= 1) {
      for (int k = 0; k < operands; ++k) pointers[k] = base[k] + (rank ? begin * stride[0][k] : 0);
      static constexpr int64_t nothing[kOperands] = {};
      f(end - begin, pointers, rank ? stride[0] : nothing);
      return;
    }
    const int inner = rank - 1;
    int64_t index[kMaxRank];
    int64_t rest = begin;
    for (int d = inner; d >= 0; --d) {
      index[d] = rest % extent[d];
      rest /= extent[d];
    }
    for (int k = 0; k < operands; ++k) {
      pointers[k] = base[k];
      for (int d = 0; d < inner; ++d) pointers[k] += index[d] * stride[d][k];
    }
    int64_t first = index[inner], left = end - begin;
    while (true) {
      const int64_t count = extent[inner] - first < left ? extent[inner] - first : left;
      if (first == 0) {
        f(count, pointers, stride[inner]);
      } else {
        char* shifted[kOperands];
        for (int k = 0; k < operands; ++k) shifted[k] = pointers[k] + first * stride[inner][k];
        f(count, shifted, stride[inner]);
        first = 0;
      }
      if ((left -= count) == 0) return;
      for (int d = inner - 1;; --d) {
        for (int k = 0; k < operands; ++k) pointers[k] += stride[d][k];
        if (++index[d] < extent[d]) break;
        for (int k = 0; k < operands; ++k) pointers[k] -= extent[d] * stride[d][k];
        index[d] = 0;
      }
    }
  }

  int operands = 0;
  int rank = 0;
  int64_t numel = 0;
  int64_t extent[kMaxRank];
  int64_t stride[kMaxRank][kOperands];
  char* base[kOperands];
  int64_t size[kOperands];  ///< of an element

 private:
  void merge() {
    if (rank < 2) return;
    int last = 0;  // dims up to here are final but for the last, which may still grow
    for (int d = 1; d < rank; ++d) {
      bool mergeable = true;
      for (int k = 0; k < operands; ++k) mergeable &= stride[last][k] == stride[d][k] * extent[d];
      if (mergeable) {
        extent[last] *= extent[d];
      } else {
        ++last;
        extent[last] = extent[d];
      }
      for (int k = 0; k < operands; ++k) stride[last][k] = stride[d][k];
    }
    rank = last + 1;
  }
};

}  // namespace tandem
