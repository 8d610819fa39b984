// Pointwise loops over int32.
#include "kernels/cpu/vector/pointwise.h"

namespace tandem::TANDEM_ISA {
const Loop* pointwise_i32() { return Table<int32_t, Paths::few>::loops; }

}  // namespace tandem::TANDEM_ISA
