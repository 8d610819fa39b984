// Pointwise loops over bfloat16, computed in float within registers.
#include "kernels/cpu/vector/pointwise.h"

namespace tandem::TANDEM_ISA {
const Loop* pointwise_bf16() { return Table<BF16, Paths::scalar_operands>::loops; }

}  // namespace tandem::TANDEM_ISA
