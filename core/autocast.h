// Autocast: matrix products in a 16-bit type, everything that needs the precision in float32.
#pragma once

#include "op.h"
#include "thread_state.h"

namespace tandem {

inline AutocastState autocast_state() { return thread_state.autocast; }

/// While alive, matmul, linear, convolutions and attention on this thread cast their float32 operands to `dtype` (bfloat16
/// or float16) and give results of that type; softmax, norms, losses, sums and the like cast 16-bit operands to float32.
/// Which op does which is written in its definition (Op::autocast). All other ops compute in what they are given. float64 is
/// left alone. The casts are ops too, so gradients arrive in the parameters' own dtype; backward() itself casts nothing:
/// each gradient has the type that its value had. Parameters are cast where they are used: in a graph once a step.
///
///   {
///     td::Autocast guard(td::bfloat16);
///     loss = cross_entropy(model(x), labels);
///   }
///   loss.backward();
///
/// For float16 use nn::GradScaler too. ValueError for any other dtype.
class Autocast : AutocastScope {
 public:
  explicit Autocast(DType dtype, Where where = Where::current());
};

/// No op in its scope casts by itself.
class AutocastOff : AutocastScope {
 public:
  AutocastOff() : AutocastScope({}) {}
};

/// The operands as the op's rule has them under the state of this thread; empty if all are so already.
Tensors autocast_operands(const Op& op, std::span<const Tensor> inputs, Where where);

}  // namespace tandem
