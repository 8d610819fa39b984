// Netpbm's P5 (grey) and P6 (colour): a line of text, then the bytes (https://netpbm.sourceforge.net/doc/pgm.html).
#include "formats/image_grid.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/ops/ops.h"
#include "formats/files.h"

namespace tandem::io {

void write_image_grid(const std::string& path, const Tensor& images, ImageGridOptions options, Where where) {
  const Shape& shape = images.shape();
  if (shape.size() != 4 || (shape[1] != 1 && shape[1] != 3) || shape.numel() == 0)
    throw ShapeError(detail::str("io::write_image_grid: needs images [count, 1 or 3, height, width], got ", shape),
                     where);
  if (!is_floating(images.dtype()))
    throw DTypeError(detail::str("io::write_image_grid: needs floating values of 0 to 1, got ", images.dtype(),
                                 "; convert with to(float32) / 255"),
                     where);
  constexpr int64_t kMostPadding = 1024;
  if (options.columns < 1 || options.padding < 0 || options.padding > kMostPadding)
    throw ValueError(detail::str("io::write_image_grid: columns ", options.columns, " must be at least 1, padding ",
                                 options.padding, " 0 to ", kMostPadding),
                     where);

  const int64_t count = shape[0], channels = shape[1], height = shape[2], width = shape[3], pad = options.padding;
  const int64_t columns = std::min(options.columns, count), rows = (count + columns - 1) / columns;
  const int64_t full_width = columns * (width + pad) + pad, full_height = rows * (height + pad) + pad;
  const std::vector<float> values = images.detach().cpu().to(float32).contiguous().to_vector<float>();
  std::vector<char> bytes(static_cast<size_t>(full_width * full_height * channels), 0);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; ++x) {
          const float value = values[static_cast<size_t>(((i * channels + c) * height + y) * width + x)];
          const int64_t row = pad + i / columns * (height + pad) + y, column = pad + i % columns * (width + pad) + x;
          const float shade = value > 0 ? std::min(value, 1.0f) : 0;  // NaN is black
          bytes[static_cast<size_t>((row * full_width + column) * channels + c)] =
              static_cast<char>(static_cast<uint8_t>(std::lround(shade * 255)));
        }
  AtomicFile file("io::write_image_grid", path, where);
  const std::string header = detail::str(channels == 1 ? "P5\n" : "P6\n", full_width, " ", full_height, "\n255\n");
  file.write(header.data(), header.size());
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace tandem::io
