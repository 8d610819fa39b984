// Anomaly mode: says which op made a gradient that is not finite.
#pragma once

#include "../core/thread_state.h"

namespace tandem {

class Tensor;
struct TapeNode;

/// While alive, every backward() and grad() on this thread looks at each gradient that it computes, and throws AnomalyError
/// at the first with a NaN or an infinity: with the op, the line where the op was called, and whose gradient it is.
/// It reads every number back, so backward is slower by a multiple: a means to find a fault, not to train with. A graph knows
/// no values, so compiled functions run eagerly meanwhile.
class AnomalyMode : ThreadScope<&ThreadState::finds_anomalies> {
 public:
  AnomalyMode() : ThreadScope(true) {}
  static bool active() { return thread_state.finds_anomalies; }
};

/// Throws AnomalyError if `gradient`, of operand i of the node, is not finite; `received` is what the node got.
void check_finite(const TapeNode& node, uint32_t i, const Tensor& gradient, const Tensor& received, Where where);

}  // namespace tandem
