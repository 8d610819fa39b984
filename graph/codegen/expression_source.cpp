// Eager loops of the user's expressions: C source for the system compiler, kept in the same cache as fused kernels.
#include <memory>
#include <mutex>

#include "core/custom_op.h"
#include "graph/codegen/emitter.h"
#include "graph/native/system_compiler.h"

namespace tandem {

namespace {

using graph::compute_type, graph::memory_type, graph::from_memory, graph::to_memory, graph::prelude;

std::string source_of(const std::string& c_text, size_t inputs, size_t attributes, DType dtype) {
  const std::string type = compute_type(dtype), memory = memory_type(dtype);
  const auto loaded = [&](const std::string& value) { return from_memory(dtype, value); };
  const auto stored = [&](const std::string& value) { return to_memory(dtype, value); };

  std::string text = prelude({"core/scalar/math.h", "core/scalar/gamma.h", "core/scalar/half.h"});
  text += "typedef " + type + " T;\ntypedef " + memory + " M;\nTD_FN T value(";
  for (size_t i = 0; i < inputs + attributes; ++i) text += (i ? ", T " : "T ") + parameter_name(i);
  text += ") { return " + c_text + "; }\n";
  text += "void tandem_pointwise(long n, char* const* p, const long* s, const double* a) {\n  (void)a;\n";
  std::string numbers;
  for (size_t i = 0; i < attributes; ++i) {
    text += detail::str("  const T a", i, " = (T)a[", i, "];\n");
    numbers += detail::str(", a", i);
  }
  // Operands that lie side by side, or are single numbers, in every combination of which a loop has its own form would be
  // many; the first two are most calls.
  std::string dense = "s[0] == sizeof(M)", flat, strided;
  for (size_t k = 0; k < inputs; ++k) {
    dense += detail::str(" && s[", k + 1, "] == sizeof(M)");
    flat += detail::str(k ? ", " : "", loaded(detail::str("((const M*)p[", k + 1, "])[i]")));
    strided += detail::str(k ? ", " : "", loaded(detail::str("*(const M*)(p[", k + 1, "] + i * s[", k + 1, "])")));
  }
  text += "  if (" + dense + ") {\n#pragma omp simd\n    for (long i = 0; i < n; ++i) ((M*)p[0])[i] = " +
          stored("value(" + flat + numbers + ")") + ";\n    return;\n  }\n";
  text += "  for (long i = 0; i < n; ++i) *(M*)(p[0] + i * s[0]) = " + stored("value(" + strided + numbers + ")") +
          ";\n}\n";
  return text;
}

/// The loop, or null where there is no compiler, or none that takes the source.
ExpressionLoop compile_expression(const std::string& c_text, size_t inputs, size_t attributes, DType dtype,
                                  Where where) {
  static std::mutex mutex;
  static auto* const loaded =
      new std::vector<std::shared_ptr<graph::KernelLibrary>>;  // as long as the program, as ops live
  try {
    std::shared_ptr<graph::KernelLibrary> library =
        graph::load_c_source(source_of(c_text, inputs, attributes, dtype), where, nullptr, {"tandem_pointwise"});
    if (!library) return nullptr;
    auto* loop = reinterpret_cast<ExpressionLoop>(library->symbol("tandem_pointwise"));
    const std::lock_guard lock(mutex);
    loaded->push_back(std::move(library));
    return loop;
  } catch (
      const CompileError&) {  // it took too long, or the compiler is not sound: the interpreter gives the same numbers
    return nullptr;
  }
}

}  // namespace

void install_expression_compiler() { expression_compiler().compile = compile_expression; }

}  // namespace tandem
