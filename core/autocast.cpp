// The one place where operands are cast by rule.
#include "core/autocast.h"

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {
bool is_half(DType type) { return type == DType::float16 || type == DType::bfloat16; }
}  // namespace

Autocast::Autocast(DType dtype, Where where) : AutocastScope({true, dtype}) {
  if (!is_half(dtype))
    throw ValueError(detail::str("Autocast: casts to bfloat16 or float16, not ", dtype), user_line(where));
}

Tensors autocast_operands(const Op& op, std::span<const Tensor> inputs, Where where) {
  const DType wanted = op.autocast == AutocastRule::lower ? thread_state.autocast.dtype : DType::float32;
  const auto changes = [&](const Tensor& input) {
    return input.dtype() != wanted && (input.dtype() == DType::float32 || is_half(input.dtype()));
  };
  bool any = false;
  for (const Tensor& input : inputs) {
    if (!input.defined() || input.dtype() == DType::float64) return {};
    any = any || changes(input);
  }
  if (!any) return {};
  Tensors cast(inputs.begin(), inputs.end());
  for (Tensor& operand : cast)
    if (changes(operand)) operand = to({operand, where}, wanted);
  return cast;
}

}  // namespace tandem
