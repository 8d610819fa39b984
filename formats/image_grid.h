// write_image_grid: a batch of images as one picture, to look at what a model makes.
#pragma once

#include <cstdint>
#include <string>

#include "../core/tensor.h"

namespace tandem::io {

struct ImageGridOptions {
  int64_t columns = 8;  ///< images in a row
  int64_t padding = 2;  ///< black pixels between images
};

/// Writes images [count, 1 or 3, height, width] of values 0 to 1 (clamped) side by side, as a PGM or PPM file (the
/// "plain" picture formats of Netpbm, in their binary form, which most viewers open). ShapeError for other shapes,
/// DTypeError for other than floating, FileError where the file can't be written.
void write_image_grid(const std::string& path, const Tensor& images, ImageGridOptions options = {},
                      Where where = Where::current());

}  // namespace tandem::io
