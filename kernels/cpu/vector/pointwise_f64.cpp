// Pointwise loops over float64.
#include "kernels/cpu/vector/pointwise.h"

namespace tandem::TANDEM_ISA {
const Loop* pointwise_f64() { return Table<double, Paths::few>::loops; }

}  // namespace tandem::TANDEM_ISA
