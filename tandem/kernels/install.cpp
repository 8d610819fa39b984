// Gives the ops their CPU kernels, family by family.
#include "tandem/core/op.h"

namespace tandem {

#define TANDEM_FAMILY(family) void add_cpu_##family(OpTable& table);
#include "tandem/core/families.def"
#undef TANDEM_FAMILY

void install_cpu_kernels(OpTable& table) {
#define TANDEM_FAMILY(family) add_cpu_##family(table);
#include "tandem/core/families.def"
#undef TANDEM_FAMILY
}

}  // namespace tandem
