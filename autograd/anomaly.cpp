// Looking for gradients that are not finite.
#include "autograd/anomaly.h"

#include <cmath>

#include "autograd/tape.h"
#include "core/dispatch.h"

namespace tandem {

namespace {

struct Count {
  int64_t nan = 0, infinite = 0, all = 0;
};

Count count(const Tensor& tensor, Where where) {
  Count result;
  const std::vector<double> values = tensor.to_vector<double>(where);
  result.all = static_cast<int64_t>(values.size());
  for (const double value : values) {
    result.nan += std::isnan(value);
    result.infinite += std::isinf(value);
  }
  return result;
}

}  // namespace

void check_finite(const TapeNode& node, uint32_t i, const Tensor& gradient, const Tensor& received, Where where) {
  if (gradient.is_symbolic()) return;  // values that only a graph will have
  const Count bad = count(gradient, where);
  if (bad.nan + bad.infinite == 0) return;
  std::string origin = "the gradient that it received is finite";
  if (received.defined() && !received.is_symbolic())
    if (const Count before = count(received, where); before.nan + before.infinite > 0)
      origin = detail::str("the gradient that it received is not finite either (", before.nan, " NaN and ",
                           before.infinite, " infinite of ", before.all, ")");
  throw AnomalyError(
      detail::str("backward at ", to_string(where), ": the gradient of operand ", i, ", ", gradient.dtype(),
                  gradient.shape(), ", of ", node.op->name, " called at ", to_string(node.where), " has ", bad.nan,
                  " NaN and ", bad.infinite, " infinite of ", bad.all, " elements; ", origin,
                  ". Look at the values that this line computes with (log or sqrt of 0, a division by 0, exp of a "
                  "large number)"),
      node.where);
}

}  // namespace tandem
