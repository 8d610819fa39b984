// Normalisation over rows, channels and groups.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

/// (x - mean) / sqrt(variance + epsilon) over the last dim, times weight, plus bias (both optional).
Tensor layer_norm(const Arg& x, const Tensor& weight = {}, const Tensor& bias = {}, double epsilon = 1e-5);
/// x / sqrt(mean(x²) + epsilon) over the last dim, times weight if given (Zhang & Sennrich 2019).
Tensor rms_norm(const Arg& x, const Tensor& weight = {}, double epsilon = 1e-6);

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
