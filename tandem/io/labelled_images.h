// LabelledImages: grey images with a label each, held in memory as bytes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "tandem/core/tensor.h"
#include "tandem/io/dataset.h"

namespace tandem::io {

/// A data set of images [1, height, width], float32, scaled to (value / 255 - mean) / deviation, and labels,
/// int64. Safe to read from several threads.
class LabelledImages {
 public:
  struct Scaling {
    float mean = 0, deviation = 1;
  };
  /// `pixels` [count, height, width] and `labels` [count], each below `classes`.
  LabelledImages(std::vector<uint8_t> pixels, std::vector<uint8_t> labels, int64_t height, int64_t width,
                 int64_t classes, Scaling scaling, Where where = Where::current());

  int64_t size() const { return static_cast<int64_t>(labels_.size()); }
  int64_t classes() const { return classes_; }
  int64_t height() const { return height_; }
  int64_t width() const { return width_; }
  /// Image [1, height, width] and label, 0-d.
  std::pair<Tensor, Tensor> get(int64_t index) const;
  /// Images [batch, 1, height, width] and labels [batch].
  std::pair<Tensor, Tensor> batch(std::span<const int64_t> indices) const;
  /// The bytes of an image, row by row.
  std::span<const uint8_t> pixels(int64_t index) const;
  int64_t label(int64_t index) const;

 private:
  void check(int64_t index) const;

  std::vector<uint8_t> pixels_, labels_;
  int64_t height_, width_, classes_;
  std::array<float, 256> scaled_;  ///< of each byte, so that a batch is look-ups
};

/// What the pixels of MNIST average to, as torchvision's examples have it.
inline constexpr LabelledImages::Scaling kMnistScaling{0.1307f, 0.3081f};

}  // namespace tandem::io
