// LabelledImages: images with a label each, held in memory as bytes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "../core/tensor.h"
#include "dataset.h"

namespace tandem::io {

struct ImageFormat {
  int64_t channels = 1, height = 0, width = 0, classes = 10;
};
/// For each channel; what stands beyond the image's channels is not read.
struct ImageScaling {
  std::array<float, 4> mean{}, deviation{1, 1, 1, 1};
};
/// How a batch that is drawn for an epoch differs from the images as they are.
struct ImageAugmentation {
  int64_t crop_padding = 0;      ///< cut out at random after adding that many zero pixels (black) on each side
  bool horizontal_flip = false;  ///< every other one mirrored, at random
};

/// A data set of images [channels, height, width], float32, scaled to (value / 255 - mean) / deviation, and labels,
/// int64. Safe to read from several threads.
class LabelledImages {
 public:
  /// `pixels` [count, channels, height, width] and `labels` [count], each below `format.classes`.
  LabelledImages(std::vector<uint8_t> pixels, std::vector<uint8_t> labels, ImageFormat format, ImageScaling scaling,
                 ImageAugmentation augmentation = {}, Where where = Where::current());

  int64_t size() const { return static_cast<int64_t>(labels_.size()); }
  int64_t classes() const { return format_.classes; }
  int64_t channels() const { return format_.channels; }
  int64_t height() const { return format_.height; }
  int64_t width() const { return format_.width; }
  /// Image [channels, height, width] and label, 0-d, as they are.
  std::pair<Tensor, Tensor> get(int64_t index, Where where = Where::current()) const;
  /// Images [batch, channels, height, width] and labels [batch], as they are.
  std::pair<Tensor, Tensor> batch(std::span<const int64_t> indices, Where where = Where::current()) const;
  /// The same, augmented: what a Loader asks for.
  std::pair<Tensor, Tensor> batch(std::span<const int64_t> indices, EpochRandom random,
                                  Where where = Where::current()) const;
  /// The bytes of an image, channel by channel, row by row.
  std::span<const uint8_t> pixels(int64_t index, Where where = Where::current()) const;
  int64_t label(int64_t index, Where where = Where::current()) const;

 private:
  /// Output pixel (y, x) is pixel (y + down, x + right) of the image, or of its mirror image.
  struct Placement {
    int64_t down = 0, right = 0;
    bool mirrored = false;
  };
  template <class Place>
  std::pair<Tensor, Tensor> assemble(std::span<const int64_t> indices, Where where, Place&& place) const;
  void write(int64_t index, Placement placement, float* to) const;
  void check(int64_t index, Where where) const;
  int64_t image_size() const { return format_.channels * format_.height * format_.width; }

  std::vector<uint8_t> pixels_, labels_;
  ImageFormat format_;
  ImageAugmentation augmentation_;
  std::vector<std::array<float, 256>> scaled_;  ///< of each channel and byte, so that a batch is look-ups
};

/// What the pixels of MNIST average to, as torchvision's examples have it.
inline constexpr ImageScaling kMnistScaling{.mean = {0.1307f}, .deviation = {0.3081f}};

}  // namespace tandem::io
