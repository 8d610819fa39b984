// Linear: y = x Wᵀ + b.
#include "nn/layers/linear.h"

#include <cmath>

#include "core/ops/ops.h"
#include "nn/init.h"

namespace tandem::nn {

Linear::Linear(int64_t in, int64_t out, LinearOptions options, Where where) {
  if (in < 1 || out < 1)
    throw ValueError(tandem::detail::str("nn::Linear: need at least 1 input and 1 output, got ", in, " and ", out),
                     where);
  const TensorOptions tensor_options{.dtype = options.dtype, .device = options.device, .requires_grad = true};
  // kaiming_uniform with a slope of sqrt(5), as torch.nn.Linear: the bound is sqrt(2 / 6) sqrt(3 / in) = 1 /
  // sqrt(in).
  weight = init::kaiming_uniform({out, in}, {.negative_slope = std::sqrt(5.0)}, tensor_options, where);
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  if (options.bias) bias = init::uniform({out}, -bound, bound, tensor_options, where);
}

Tensor Linear::operator()(const Tensor& x, Where where) const { return linear(Arg(x, where), weight, bias); }

}  // namespace tandem::nn
