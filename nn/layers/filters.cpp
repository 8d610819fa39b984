// The filters of convolution layers.
#include "nn/layers/filters.h"

#include <algorithm>
#include <cmath>

#include "nn/init.h"

namespace tandem::nn {

Filters::Filters(const char* layer, int64_t in, int64_t out, const Shape& kernel, int64_t groups, bool with_bias,
                 TensorOptions options, Where where, bool transposed) {
  const auto product = [](const Shape& extents) {
    std::string text;
    for (const int64_t extent : extents) text += (text.empty() ? "" : " x ") + std::to_string(extent);
    return text;
  };
  if (in < 1 || out < 1 || *std::min_element(kernel.begin(), kernel.end()) < 1)
    throw ValueError(tandem::detail::str("nn::", layer, ": need at least 1 input, 1 output and a kernel of ",
                                         product(Shape::filled(kernel.size(), 1)), ", got ", in, ", ", out, " and ",
                                         product(kernel)),
                     where);
  if (groups < 1 || in % groups != 0 || out % groups != 0)
    throw ValueError(tandem::detail::str("nn::", layer, ": ", in, " inputs and ", out, " outputs don't split into ",
                                         groups, " groups: both must be multiples of it"),
                     where);
  Shape shape{transposed ? in : out, (transposed ? out : in) / groups};
  for (const int64_t extent : kernel) shape.push_back(extent);
  weight = init::kaiming_uniform(shape, {.negative_slope = std::sqrt(5.0)}, options, where);
  const double bound = 1 / std::sqrt(static_cast<double>(init::fans(shape).in));
  if (with_bias) bias = init::uniform({out}, -bound, bound, options, where);
}

}  // namespace tandem::nn
