// Normalisation over rows, channels and groups.
#pragma once

#include <concepts>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

namespace detail {
Tensor layer_norm_over(const Arg& x, const Shape& shape, const Tensor& weight, const Tensor& bias, double epsilon);
Tensor rms_norm_over(const Arg& x, const Shape& shape, const Tensor& weight, double epsilon);
}  // namespace detail

/// (x - mean) / sqrt(variance + epsilon) over the last dim, times weight, plus bias (both optional).
Tensor layer_norm(const Arg& x, const Tensor& weight = {}, const Tensor& bias = {}, double epsilon = 1e-5);
/// The same over the last dims, whose extents are `normalized_shape`, as are weight's and bias's: layer_norm(x, Shape{4, 5}).
template <std::same_as<Shape> S>
Tensor layer_norm(const Arg& x, const S& normalized_shape, const Tensor& weight = {}, const Tensor& bias = {},
                  double epsilon = 1e-5) {
  return detail::layer_norm_over(x, normalized_shape, weight, bias, epsilon);
}
/// x / sqrt(mean(x²) + epsilon) over the last dim, times weight if given (Zhang & Sennrich 2019).
Tensor rms_norm(const Arg& x, const Tensor& weight = {}, double epsilon = 1e-6);
template <std::same_as<Shape> S>
Tensor rms_norm(const Arg& x, const S& normalized_shape, const Tensor& weight = {}, double epsilon = 1e-6) {
  return detail::rms_norm_over(x, normalized_shape, weight, epsilon);
}
struct LocalResponseNormOptions {
  double alpha = 1e-4, beta = 0.75, k = 1;
};
/// x / (k + alpha mean of x² over `size` neighbouring channels)^beta (Krizhevsky et al. 2012).
Tensor local_response_norm(const Arg& x, int64_t size, LocalResponseNormOptions options = {});

// Channels: x [batch, channels, …], weight and bias [channels] (both optional) of x's dtype, or float32.
struct BatchNormOptions {
  bool training = false;  ///< by the batch's own statistics; they are also mixed into the running ones
  double momentum = 0.1;  ///< the share of the batch in running = (1 - momentum) running + momentum batch
  double epsilon = 1e-5;
};
/// (x - mean) / sqrt(variance + epsilon) * weight + bias for each channel, by the running statistics [channels] or, in
/// training, by those of the batch (biased variance); running_var is given the unbiased one. In training, undefined
/// running statistics are left out. ValueError where a channel has a single value to train with.
Tensor batch_norm(const Arg& x, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight = {},
                  const Tensor& bias = {}, const BatchNormOptions& options = {});
/// The same over each of `groups` groups of channels of each image on its own (Wu & He 2018).
Tensor group_norm(const Arg& x, int64_t groups, const Tensor& weight = {}, const Tensor& bias = {},
                  double epsilon = 1e-5);
/// And over each channel of each image (Ulyanov et al. 2016).
Tensor instance_norm(const Arg& x, const Tensor& weight = {}, const Tensor& bias = {}, double epsilon = 1e-5);

}  // namespace tandem
