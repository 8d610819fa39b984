// Pointwise loops over int64.
#include "kernels/cpu/vector/pointwise.h"

namespace tandem::TANDEM_ISA {
const Loop* pointwise_i64() { return Table<int64_t, Paths::few>::loops; }

}  // namespace tandem::TANDEM_ISA
