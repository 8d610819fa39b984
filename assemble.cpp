// The one place that knows all layers: it puts the op table together. Everything else includes only what lies below it.
#include "core/op.h"

namespace tandem {

// Each family is a file of that name in core/ops and kernels/cpu.
#define TANDEM_FAMILY(family)           \
  void define_##family(OpTable& table); \
  void add_cpu_##family(Kernels kernels);
#include "core/families.def"
#undef TANDEM_FAMILY

void install_cuda_kernels(OpTable& table);  // kernels/cuda, or kernels/no_cuda.cpp
void define_control_flow(OpTable& table);   // graph/trace, with its kernels
void install_tape();                        // autograd
void install_expression_compiler();         // graph/codegen

void assemble(OpTable& table) {
#define TANDEM_FAMILY(family) define_##family(table);
#include "core/families.def"
#undef TANDEM_FAMILY
#define TANDEM_FAMILY(family) add_cpu_##family({table, DeviceKind::cpu});
#include "core/families.def"
#undef TANDEM_FAMILY
  define_control_flow(table);
  install_cuda_kernels(table);
  install_tape();
  install_expression_compiler();
}

}  // namespace tandem
