// Ordering and merging dims for N-dimensional iteration.
#include "kernels/cuda/layout.h"

#include <algorithm>
#include <atomic>
#include <numeric>

namespace tandem::gpu {

namespace {
std::atomic<int64_t> at_once = int64_t(1) << 30;
}  // namespace

int64_t items_at_once() { return at_once.load(std::memory_order_relaxed); }
void set_items_at_once(int64_t items) { at_once = items; }

Iteration::Iteration(const Shape& shape, std::initializer_list<std::pair<const Shape*, const Shape*>> operands) {
  rank = shape.size();
  count = int(operands.size());
  for (int d = 0; d < rank; ++d) extent[d] = shape[d];
  int k = 0;
  for (const auto& [operand_shape, operand_strides] : operands) {
    const int shift = rank - operand_shape->size();
    for (int d = shift; d < rank; ++d) {
      stride[k][d] = (*operand_shape)[d - shift] == 1 ? 0 : (*operand_strides)[d - shift];
    }
    ++k;
  }
  order_by(0);
  merge();
}

void Iteration::order_by(int operand) {
  int order[kMaxRank];
  std::iota(order, order + rank, 0);
  std::stable_sort(order, order + rank, [&](int a, int b) { return stride[operand][a] > stride[operand][b]; });
  const Iteration old = *this;
  for (int d = 0; d < rank; ++d) {
    extent[d] = old.extent[order[d]];
    for (int k = 0; k < count; ++k) stride[k][d] = old.stride[k][order[d]];
  }
}

void Iteration::merge() {
  int kept = 0;
  for (int d = 0; d < rank; ++d) {
    if (extent[d] == 1) continue;
    bool joins = kept > 0;
    for (int k = 0; joins && k < count; ++k) joins = stride[k][kept - 1] == stride[k][d] * extent[d];
    const int to = joins ? kept - 1 : kept++;
    extent[to] = joins ? extent[to] * extent[d] : extent[d];
    for (int k = 0; k < count; ++k) stride[k][to] = stride[k][d];
  }
  rank = kept;
}

}  // namespace tandem::gpu
