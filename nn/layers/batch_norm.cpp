// BatchNorm1d and BatchNorm2d: each channel to mean 0 and variance 1 over the batch, then scaled and shifted.
#include "nn/layers/batch_norm.h"

#include "core/ops/ops.h"

namespace tandem::nn {

BatchNorm::BatchNorm(const char* name, int64_t channels, BatchNormOptions options, Where where)
    : epsilon(options.epsilon), momentum(options.momentum) {
  if (channels < 1) throw ValueError(tandem::detail::str(name, ": need at least 1 channel, got ", channels), where);
  if (!(momentum >= 0 && momentum <= 1))
    throw ValueError(tandem::detail::str(name, ": the momentum is ", momentum, ", need 0 to 1"), where);
  TensorOptions tensor_options{.dtype = options.dtype, .device = options.device};
  running_mean = zeros({channels}, tensor_options, where);
  running_var = ones({channels}, tensor_options, where);
  if (!options.affine) return;
  tensor_options.requires_grad = true;
  weight = ones({channels}, tensor_options, where);
  bias = zeros({channels}, tensor_options, where);
}

Tensor BatchNorm::normalise(const Tensor& x, Where where) const {
  return batch_norm(Arg(x, where), running_mean, running_var, weight, bias,
                    {.training = training, .momentum = momentum, .epsilon = epsilon});
}

Tensor BatchNorm1d::operator()(const Tensor& x, Where where) const {
  if (const int rank = Arg(x, where).tensor().rank(); rank != 2 && rank != 3)
    throw ShapeError(
        tandem::detail::str("nn::BatchNorm1d: needs x [batch, channels] or [batch, channels, length], got ", x.shape(),
                            rank == 4 ? ": use nn::BatchNorm2d" : ""),
        where);
  return normalise(x, where);
}

Tensor BatchNorm2d::operator()(const Tensor& x, Where where) const {
  if (const int rank = Arg(x, where).tensor().rank(); rank != 4)
    throw ShapeError(tandem::detail::str("nn::BatchNorm2d: needs x [batch, channels, height, width], got ", x.shape(),
                                         rank == 2 || rank == 3 ? ": use nn::BatchNorm1d" : ""),
                     where);
  return normalise(x, where);
}

}  // namespace tandem::nn
