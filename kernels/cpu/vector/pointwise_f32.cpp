// Pointwise loops over float32.
#include "kernels/cpu/vector/pointwise.h"

namespace tandem::TANDEM_ISA {
const Loop* pointwise_f32() { return Table<float, Paths::scalar_operands>::loops; }

}  // namespace tandem::TANDEM_ISA
