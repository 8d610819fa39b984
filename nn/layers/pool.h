// Layers without parameters that change an image's size or shape: for nn::Sequential, where functions take more than x.
#pragma once

#include "../../core/ops/ops.h"

namespace tandem::nn {

/// max_pool2d with this window.
class MaxPool2d {
 public:
  explicit MaxPool2d(Pair kernel, Pool2dOptions options = {}) : kernel(kernel), options(options) {}
  Tensor operator()(const Tensor& x, Where where = Where::current()) const {
    return max_pool2d(Arg(x, where), kernel, options);
  }
  template <class V> void visit(V&&) {}

  Pair kernel;
  Pool2dOptions options;
};

/// avg_pool2d with this window.
class AvgPool2d {
 public:
  explicit AvgPool2d(Pair kernel, AvgPool2dOptions options = {}) : kernel(kernel), options(options) {}
  Tensor operator()(const Tensor& x, Where where = Where::current()) const {
    return avg_pool2d(Arg(x, where), kernel, options);
  }
  template <class V> void visit(V&&) {}

  Pair kernel;
  AvgPool2dOptions options;
};

/// adaptive_avg_pool2d: [batch, channels, height, width] to [batch, channels, size.height, size.width].
class AdaptiveAvgPool2d {
 public:
  explicit AdaptiveAvgPool2d(Pair size) : size(size) {}
  Tensor operator()(const Tensor& x, Where where = Where::current()) const {
    return adaptive_avg_pool2d(Arg(x, where), size);
  }
  template <class V> void visit(V&&) {}

  Pair size;
};

/// max_pool3d with this window.
class MaxPool3d {
 public:
  explicit MaxPool3d(Triple kernel, Pool3dOptions options = {}) : kernel(kernel), options(options) {}
  Tensor operator()(const Tensor& x, Where where = Where::current()) const {
    return max_pool3d(Arg(x, where), kernel, options);
  }
  template <class V> void visit(V&&) {}

  Triple kernel;
  Pool3dOptions options;
};

/// avg_pool3d with this window.
class AvgPool3d {
 public:
  explicit AvgPool3d(Triple kernel, AvgPool3dOptions options = {}) : kernel(kernel), options(options) {}
  Tensor operator()(const Tensor& x, Where where = Where::current()) const {
    return avg_pool3d(Arg(x, where), kernel, options);
  }
  template <class V> void visit(V&&) {}

  Triple kernel;
  AvgPool3dOptions options;
};

/// interpolate: nn::Upsample({.scale_factor = 2}), nn::Upsample({.size = {64, 64}, .mode = Interpolation::bilinear}).
class Upsample {
 public:
  explicit Upsample(InterpolateOptions options) : options(options) {}
  Tensor operator()(const Tensor& x, Where where = Where::current()) const {
    return interpolate(Arg(x, where), options);
  }
  template <class V> void visit(V&&) {}

  InterpolateOptions options;
};

/// All dims from the second on as one: [batch, channels, height, width] to [batch, channels height width].
struct Flatten {
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return flatten(Arg(x, where), 1); }
};

}  // namespace tandem::nn
