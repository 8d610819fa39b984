// LabelledImages: images with a label each, held in memory as bytes.
#include "data/labelled_images.h"

#include <algorithm>

#include "core/ops/ops.h"

namespace tandem::io {

using tandem::detail::str;

LabelledImages::LabelledImages(std::vector<uint8_t> pixels, std::vector<uint8_t> labels, ImageFormat format,
                               ImageScaling scaling, ImageAugmentation augmentation, Where where)
    : pixels_(std::move(pixels)), labels_(std::move(labels)), format_(format), augmentation_(augmentation) {
  if (format.channels < 1 || format.channels > static_cast<int64_t>(scaling.mean.size()))
    throw ValueError(str("io::LabelledImages: ", format.channels, " channels, need 1 to ", scaling.mean.size()), where);
  check_extents({size(), format.channels, format.height, format.width}, "io::LabelledImages", where);
  if (static_cast<int64_t>(pixels_.size()) != size() * image_size())
    throw ShapeError(str("io::LabelledImages: ", size(), " labels go with ", size() * image_size(), " pixels (",
                         format.channels, " x ", format.height, " x ", format.width, " each), got ", pixels_.size()),
                     where);
  for (size_t i = 0; i < labels_.size(); ++i)
    if (labels_[i] >= format.classes)
      throw ValueError(
          str("io::LabelledImages: label ", i, " is ", int(labels_[i]), ", need 0 to ", format.classes - 1), where);
  constexpr int64_t kMostPadding = 1 << 20;
  if (augmentation.crop_padding < 0 || augmentation.crop_padding > kMostPadding)
    throw ValueError(
        str("io::LabelledImages: crop_padding is ", augmentation.crop_padding, ", need 0 to ", kMostPadding), where);
  scaled_.resize(static_cast<size_t>(format.channels));
  for (size_t channel = 0; channel < scaled_.size(); ++channel) {
    const float mean = scaling.mean[channel], deviation = scaling.deviation[channel];
    if (!(deviation > 0))
      throw ValueError(
          str("io::LabelledImages: the deviation of channel ", channel, " is ", deviation, ", need more than 0"),
          where);
    for (size_t byte = 0; byte < 256; ++byte)
      scaled_[channel][byte] = (static_cast<float>(byte) / 255.f - mean) / deviation;
  }
}

void LabelledImages::check(int64_t index, Where where) const {
  if (index < 0 || index >= size())
    throw DimensionError(str("io::LabelledImages: there is no item ", index, ", only 0 to ", size() - 1), where);
}

std::span<const uint8_t> LabelledImages::pixels(int64_t index, Where where) const {
  check(index, where);
  return std::span(pixels_).subspan(static_cast<size_t>(index * image_size()), static_cast<size_t>(image_size()));
}

int64_t LabelledImages::label(int64_t index, Where where) const {
  check(index, where);
  return labels_[static_cast<size_t>(index)];
}

std::pair<Tensor, Tensor> LabelledImages::get(int64_t index, Where where) const {
  auto [images, labels] = batch(std::span(&index, 1), where);
  return {images[0], labels[0]};
}

std::pair<Tensor, Tensor> LabelledImages::batch(std::span<const int64_t> indices, Where where) const {
  return assemble(indices, where, [](int64_t) { return Placement{}; });
}

std::pair<Tensor, Tensor> LabelledImages::batch(std::span<const int64_t> indices, EpochRandom random,
                                                Where where) const {
  const int64_t padding = augmentation_.crop_padding;
  const bool flips = augmentation_.horizontal_flip;
  if (padding == 0 && !flips) return batch(indices, where);
  return assemble(indices, where, [&](int64_t index) {
    HostRandom own = random.at(index);
    const uint64_t places = static_cast<uint64_t>(2 * padding + 1);
    Placement placement;
    placement.down = static_cast<int64_t>(own.below(places)) - padding;
    placement.right = static_cast<int64_t>(own.below(places)) - padding;
    placement.mirrored = flips && own.below(2) == 1;
    return placement;
  });
}

template <class Place>
std::pair<Tensor, Tensor> LabelledImages::assemble(std::span<const int64_t> indices, Where where, Place&& place) const {
  const int64_t count = static_cast<int64_t>(indices.size());
  Tensor images = empty({count, channels(), height(), width()});
  Tensor labels = empty({count}, {.dtype = int64});
  float* to = images.mutable_data<float>().data();
  int64_t* label_to = labels.mutable_data<int64_t>().data();
  for (int64_t index : indices) {
    check(index, where);
    write(index, place(index), to);
    to += image_size();
    *label_to++ = labels_[static_cast<size_t>(index)];
  }
  return {images, labels};
}

void LabelledImages::write(int64_t index, Placement placement, float* to) const {
  const int64_t height = format_.height, width = format_.width;
  const uint8_t* from = pixels_.data() + index * image_size();
  // The columns of the output that lie on the image: the others are black.
  const int64_t begin = std::clamp<int64_t>(-placement.right, 0, width),
                end = std::clamp<int64_t>(width - placement.right, begin, width);
  for (const std::array<float, 256>& scaled : scaled_) {
    for (int64_t y = 0; y < height; ++y, to += width) {
      const int64_t row = y + placement.down;
      if (row < 0 || row >= height) {
        std::fill_n(to, width, scaled[0]);
        continue;
      }
      const uint8_t* const line = from + row * width;
      std::fill_n(to, begin, scaled[0]);
      if (placement.mirrored)
        for (int64_t x = begin; x < end; ++x) to[x] = scaled[line[width - 1 - x - placement.right]];
      else
        for (int64_t x = begin; x < end; ++x) to[x] = scaled[line[x + placement.right]];
      std::fill_n(to + end, width - end, scaled[0]);
    }
    from += height * width;
  }
}

}  // namespace tandem::io
