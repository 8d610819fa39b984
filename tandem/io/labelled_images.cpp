// LabelledImages: grey images with a label each, held in memory as bytes.
#include "tandem/io/labelled_images.h"

#include "tandem/core/ops.h"

namespace tandem::io {

using tandem::detail::str;

LabelledImages::LabelledImages(std::vector<uint8_t> pixels, std::vector<uint8_t> labels, int64_t height,
                               int64_t width, int64_t classes, Scaling scaling, Where where)
    : pixels_(std::move(pixels)),
      labels_(std::move(labels)),
      height_(height),
      width_(width),
      classes_(classes) {
  if (static_cast<int64_t>(pixels_.size()) != size() * height * width)
    throw ShapeError(str("io::LabelledImages: ", size(), " labels go with ", size() * height * width,
                         " pixels (", height, " x ", width, " each), got ", pixels_.size()),
                     where);
  for (size_t i = 0; i < labels_.size(); ++i)
    if (labels_[i] >= classes)
      throw ValueError(
          str("io::LabelledImages: label ", i, " is ", int(labels_[i]), ", need 0 to ", classes - 1), where);
  for (size_t byte = 0; byte < scaled_.size(); ++byte)
    scaled_[byte] = (static_cast<float>(byte) / 255.f - scaling.mean) / scaling.deviation;
}

void LabelledImages::check(int64_t index) const {
  if (index < 0 || index >= size())
    throw DimensionError(str("io::LabelledImages: there is no item ", index, ", only 0 to ", size() - 1),
                         Where::current());
}

std::span<const uint8_t> LabelledImages::pixels(int64_t index) const {
  check(index);
  return std::span(pixels_).subspan(static_cast<size_t>(index * height_ * width_),
                                    static_cast<size_t>(height_ * width_));
}

int64_t LabelledImages::label(int64_t index) const {
  check(index);
  return labels_[static_cast<size_t>(index)];
}

std::pair<Tensor, Tensor> LabelledImages::get(int64_t index) const {
  auto [images, labels] = batch(std::span(&index, 1));
  return {images[0], labels[0]};
}

std::pair<Tensor, Tensor> LabelledImages::batch(std::span<const int64_t> indices) const {
  const int64_t count = static_cast<int64_t>(indices.size());
  Tensor images = empty({count, 1, height_, width_});
  Tensor labels = empty({count}, {.dtype = int64});
  float* to = images.mutable_data<float>().data();
  int64_t* label_to = labels.mutable_data<int64_t>().data();
  for (int64_t index : indices) {
    for (uint8_t byte : pixels(index)) *to++ = scaled_[byte];
    *label_to++ = label(index);
  }
  return {images, labels};
}

}  // namespace tandem::io
