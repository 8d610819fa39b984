// BatchNorm1d and BatchNorm2d: each channel to mean 0 and variance 1 over the batch, then scaled and shifted.
#pragma once

#include "../../core/tensor.h"
#include "../training_flag.h"

namespace tandem::nn {

struct BatchNormOptions {
  double epsilon = 1e-5;
  double momentum = 0.1;  ///< the share of a batch's statistics in the new running ones
  bool affine = true;     ///< has weight and bias
  DType dtype = DType::float32;
  Device device = {};
};

/// What both share: y = (x - mean) / sqrt(variance + epsilon) * weight + bias for each channel of x [batch, channels, …]
/// (Ioffe & Szegedy 2015, arXiv:1502.03167). While training, mean and variance are those of the batch, and are mixed into
/// running_mean and running_var (the unbiased variance); after nn::eval(model) the running ones are used.
/// Weight starts at 1, bias at 0, running_mean at 0, running_var at 1.
class BatchNorm {
 public:
  template <class V> void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
    v("running_mean", running_mean);
    v("running_var", running_var);
    v("training", training);
  }

  Tensor weight, bias;  ///< [channels]; undefined unless affine
  Tensor running_mean, running_var;
  double epsilon, momentum;
  TrainingFlag training;

 protected:
  BatchNorm(const char* name, int64_t channels, BatchNormOptions options, Where where);
  Tensor normalise(const Tensor& x, Where where) const;
};

/// x [batch, channels] or [batch, channels, length].
class BatchNorm1d : public BatchNorm {
 public:
  explicit BatchNorm1d(int64_t channels, BatchNormOptions options = {}, Where where = Where::current())
      : BatchNorm("nn::BatchNorm1d", channels, options, where) {}
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;
};

/// x [batch, channels, height, width].
class BatchNorm2d : public BatchNorm {
 public:
  explicit BatchNorm2d(int64_t channels, BatchNormOptions options = {}, Where where = Where::current())
      : BatchNorm("nn::BatchNorm2d", channels, options, where) {}
  Tensor operator()(const Tensor& x, Where where = Where::current()) const;
};

}  // namespace tandem::nn
