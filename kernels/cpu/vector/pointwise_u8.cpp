// Pointwise loops over uint8 and bool.
#include "kernels/cpu/vector/pointwise.h"

namespace tandem::TANDEM_ISA {
const Loop* pointwise_u8() { return Table<uint8_t, Paths::few>::loops; }
const Loop* pointwise_bool() { return Table<Bool, Paths::few>::loops; }
}  // namespace tandem::TANDEM_ISA
